"""What `./run` does: demo, test, lint, bench. Standard library only; everything else lives in an environment that it makes."""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

from environments import ROOT, Environment, SetupError, find_python, requirements, say, scripts_on_path

DEMO = ROOT / "examples" / "chegou_hub"

# Django and RQ that go with a Python when nothing else is asked for; the first is the demo's, all are tested.
MATRIX = {
    "3.11": [("5.2", "3"), ("5.2", "2.12")],
    "3.12": [("5.2", "3")],
    "3.13": [("6.1", "3")],
}
NEWEST = [("6.1", "3")]

# Left out of `./run test`: what needs root, servers that have to be built first, and other projects' own suites.
NEEDS_MORE = "not root and not servers and not suites"
SHORT = f"not slow and not alone and {NEEDS_MORE}"

FAILED = 1
INTERRUPTED = 130
NO_TESTS = 5


def main(argv: Sequence[str]) -> int:
    """Run one of the commands."""
    parser = _parser()
    own, passed_on = _split(argv)
    args = parser.parse_args(own)
    args.passed_on = passed_on
    try:
        return int(args.run(args))
    except SetupError as error:
        print(f"run: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    if "--" not in argv:
        return list(argv), []
    cut = list(argv).index("--")
    return list(argv[:cut]), list(argv[cut + 1 :])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run", description="The front door. Needs Python 3.11 or newer and nothing else.")
    commands = parser.add_subparsers(required=True, metavar="command")

    demo = _command(commands, "demo", run_demo, "start the example, send traffic through it, and show one request's story")
    demo.add_argument("--once", action="store_true", help="end when the story is complete (exit code 0), or say what is missing")
    demo.add_argument("--port", type=int, default=0, help="the example's port (default: a free one)")
    demo.add_argument("--backend-port", type=int, default=0, help="the story page's port (default: a free one)")
    demo.add_argument("--deadline", type=float, default=60, help="seconds that the story may take to be complete (default: 60)")
    demo.add_argument("--keep-data", action="store_true", help="keep the databases and logs of the run")

    test = _command(commands, "test", run_test, "the test suite, as far as it needs no root; pytest's options after `--`")
    test.add_argument("--django", help="Django's line, for example 5.2 (default: what this Python is tested with)")
    test.add_argument("--rq", help="RQ's line: 3 or 2.12")
    test.add_argument("--redis", choices=["valkey", "debian"], default="valkey", help="the server that the tests start")
    test.add_argument("--short", action="store_true", help="leave the slow tests out")
    test.add_argument(
        "--jobs", type=int, default=_jobs(), help="tests at a time (default: %(default)s here); 1 shows their output as it comes"
    )

    _command(commands, "lint", run_lint, "style, types, floors, versions")
    _command(commands, "bench", run_bench, "the benchmarks; their options after `--`")
    for command in (demo, test):
        command.add_argument("--python", help="a Python version, for example 3.13 (default: the one that runs this)")
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run, python=None)
    return parser


def _version(python: str | None) -> str:
    return python or f"{sys.version_info.major}.{sys.version_info.minor}"


def cell(python: str | None, django: str, rq: str, *, label: str, **wanted: Sequence[str]) -> Environment:
    """The environment of one Python, one Django and one RQ."""
    needs = (*requirements(**wanted), f"django=={django}.*", f"rq=={rq}.*")
    name = f"py{_version(python)}-django{django}-rq{rq}{label}"
    return Environment(name, find_python(python), needs)


def run_demo(args: argparse.Namespace) -> int:
    """Become the demo in its environment."""
    django, rq = MATRIX.get(_version(args.python), NEWEST)[0]
    files = [str((DEMO / "requirements.txt").relative_to(ROOT))]
    executable = cell(args.python, django, rq, label="-demo", extras=["django", "rq", "dev"], files=files).make()
    options = [f"--port={args.port}", f"--backend-port={args.backend_port}", f"--deadline={args.deadline}"]
    options += ["--once"] * args.once + ["--keep-data"] * args.keep_data
    command = [str(executable), str(DEMO / "demo.py"), *options, *args.passed_on]
    os.execve(executable, command, {**os.environ, **scripts_on_path(executable)})


def run_test(args: argparse.Namespace) -> int:
    """pytest in every cell that was asked for."""
    cells = MATRIX.get(_version(args.python), NEWEST)
    if args.django or args.rq:
        cells = [(args.django or cells[0][0], args.rq or cells[0][1])]
    if args.redis == "debian" and not shutil.which("redis-server"):
        raise SetupError("--redis debian needs redis-server: `apt install redis-server`")
    variables = {"HUB_REDIS_SERVER": "redis-server"} if args.redis == "debian" else {}
    worst = 0
    for django, rq in cells:
        environment = cell(args.python, django, rq, label="", extras=["django", "rq", "dev", "upstream"], groups=["test"])
        say(f"testing on Python {_version(args.python)}, Django {django}, RQ {rq}, {args.redis}")
        worst = max(worst, _pytest(environment, args, variables))
    return worst


def _jobs() -> int:
    """Most tests wait for processes most of the time."""
    return min(8, 2 * (os.cpu_count() or 1))


def _pytest(environment: Environment, args: argparse.Namespace, variables: dict[str, str]) -> int:
    """Several tests at a time; those that measure time come after the others, one by one."""
    marks, options = _marks(args)
    if args.jobs == 1:
        return _inside(environment, ["pytest", "-m", marks, *options], variables)
    split = "alone" not in marks  # whoever speaks of them has decided
    beside, alone = (["pytest", "-m", f"({marks}) and {which}", *options] for which in ("not alone", "alone"))
    together = beside if split else ["pytest", "-m", marks, *options]
    code = _inside(environment, [*together, "-n", str(args.jobs), "--dist", "loadscope"], variables)
    if code == FAILED:
        code = _again(environment, together, variables)
    codes = {code, _inside(environment, alone, variables)} if split else {code}
    return max(codes) if codes == {NO_TESTS} else max(codes - {NO_TESTS})


def _again(environment: Environment, command: list[str], variables: dict[str, str]) -> int:
    """What failed beside others, by itself: the machine may have been too busy. What fails again fails; what does not is told."""
    say("once more, one by one: what failed beside other tests")
    code = _inside(environment, [*command, "--last-failed", "--last-failed-no-failures=none", "--maxfail=5", "-v"], variables)
    if code == 0:
        say("the tests above failed beside other tests and passed by themselves: told, not failed")
    return FAILED if code == NO_TESTS else code  # a failure that left no name is no pass


def _marks(args: argparse.Namespace) -> tuple[str, list[str]]:
    """The expression of marks, and pytest's other options: one that is given takes the place of ours, as in pytest."""
    options = list(args.passed_on)
    if "-m" not in options[:-1]:
        return SHORT if args.short else NEEDS_MORE, options
    at = options.index("-m")
    return options[at + 1], options[:at] + options[at + 2 :]


def run_lint(_args: argparse.Namespace) -> int:
    """All checks, also after one has failed."""
    environment = Environment(f"py{_version(None)}-lint", find_python(None), tuple(requirements(groups=["lint"])))
    executable = environment.make()
    checks = {
        "ruff check": ["ruff", "check", "--extend-exclude", ".venv-*", "."],
        "ruff format": ["ruff", "format", "--check", "--exclude", ".venv-*", "."],
        "mypy": ["mypy"],
        "floors": [str(ROOT / "scripts" / "floors.py")],
        "versions": [str(ROOT / "scripts" / "versions.py")],
    }
    failed = []
    for name, command in checks.items():
        say(name)
        arguments = command if command[0].endswith(".py") else ["-m", *command]
        if subprocess.run([str(executable), *arguments], cwd=ROOT, check=False).returncode:
            failed.append(name)
    print(f"lint: {len(checks) - len(failed)} of {len(checks)} checks passed" + (f", failed: {', '.join(failed)}" if failed else ""))
    return FAILED if failed else 0


def run_bench(args: argparse.Namespace) -> int:
    """`python -m benchmarks` in an environment that also has what it compares with."""
    django, rq = MATRIX.get(_version(args.python), NEWEST)[0]
    own = ROOT / "benchmarks" / "requirements.txt"
    files = [str(own.relative_to(ROOT))] if own.exists() else []
    environment = cell(args.python, django, rq, label="-bench", extras=["django", "rq", "dev"], groups=["test"], files=files)
    return _inside(environment, ["benchmarks", *args.passed_on], {})


def _inside(environment: Environment, module: list[str], variables: dict[str, str]) -> int:
    executable = environment.make()
    env = {**os.environ, **scripts_on_path(executable), **variables}
    return subprocess.run([str(executable), "-m", *module], cwd=ROOT, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Does every module fit its room? Imports never go upwards, rooms that an application loads never see the others, no module is
too long, and only OpenTelemetry is imported at the top of a module. ARCHITECTURE.md draws the floors."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "chegou_otel"
LONGEST = 350

# Ground up. A room may import from its own floor and from the floors below it.
FLOORS = (
    ("_version",),
    ("_context", "_environment", "_forks", "_guard", "_imports", "_settings", "correlation", "redaction"),
    ("propagation", "events", "signals", "delivery"),
    ("formatters", "integrations", "logfiles"),
    ("_checks", "_runtime", "_providers", "_switch", "_uwsgi", "_setup"),
    ("__init__",),
    ("app", "apps", "local", "cli", "testing", "__main__"),
    ("urls",),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# On one floor, but not to be reached from anywhere else: an instrumented application never loads them.
APART = ("local", "cli", "testing")
TOP_LEVEL_ALLOWED = {"opentelemetry", PACKAGE}
# Rooms that only their own framework loads.
ALSO_ALLOWED = {"testing": {"pytest"}, "app": {"django"}, "apps": {"django"}, "urls": {"django"}}
# Upwards, on purpose: module → room and reason.
EXCEPTIONS = {("chegou_otel.integrations.rq.spawn", "_setup"): "a spawned work-horse begins with setup(), with its parent's arguments"}


@dataclass(frozen=True)
class Import:
    """One import: what, where, whether it runs when the module is imported, and whether it runs at all."""

    target: str
    line: int
    at_top: bool
    runs: bool


def module_name(path: Path) -> str:
    """`chegou_otel.cli.run` for chegou_otel/cli/run.py; packages end in `.__init__`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def room_of(module: str) -> str:
    """The first part below the package."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(tree: ast.Module, module: str) -> Iterator[Import]:
    """All imports of a module; those inside `if TYPE_CHECKING:` never run, so they may look upwards."""
    typing_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    inner = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        runs = node not in typing_only
        at_top = runs and node not in inner
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_top, runs)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module)
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, at_top, runs)


def _absolute(node: ast.ImportFrom, module: str) -> str:
    if not node.level:
        return node.module or ""
    above = module.split(".")[: -node.level]
    return ".".join([*above, *filter(None, [node.module])])


def check(path: Path) -> Iterator[str]:
    """What is wrong with a module."""
    module = module_name(path)
    source = path.read_text(encoding="utf-8")
    length = source.count("\n")
    if length > LONGEST:
        yield f"{path}:1: {length} lines, at most {LONGEST} fit"
    room = room_of(module)
    if room not in FLOOR_OF:
        yield f"{path}:1: the room `{room}` is on no floor: add it to FLOORS in scripts/floors.py and to ARCHITECTURE.md"
        return
    for found in imports(ast.parse(source), module):
        where = f"{path}:{found.line}:"
        top = found.target.partition(".")[0]
        allowed = TOP_LEVEL_ALLOWED | ALSO_ALLOWED.get(room, set())
        if found.at_top and top not in allowed and top not in sys.stdlib_module_names:
            yield f"{where} `{top}` is imported at the top of the module: third-party libraries are imported inside functions"
        if top == PACKAGE and found.runs and (module, room_of(found.target)) not in EXCEPTIONS:
            yield from _upwards(room, found.target, where)


def _upwards(room: str, target: str, where: str) -> Iterator[str]:
    other = room_of(target)
    other = other if other in FLOOR_OF else "__init__"
    if room == other:
        return
    if FLOOR_OF[other] > FLOOR_OF[room]:
        yield f"{where} imports upwards: `{room}` stands below `{other}`"
    elif other in APART and room not in (*APART, "__main__"):
        yield f"{where} `{other}` is not for `{room}`: an instrumented application never loads it"


def circles(graph: dict[str, set[str]]) -> Iterator[str]:
    """Circles among the modules, by imports that run when they are imported."""
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> Iterator[str]:
        if module in trail:
            yield "circle: " + " → ".join([*trail[trail.index(module) :], module])
        elif module not in done:
            for other in sorted(graph.get(module, ())):
                yield from visit(other, (*trail, module))
            done.add(module)

    for module in sorted(graph):
        yield from visit(module, ())


def graph_of(paths: list[Path]) -> dict[str, set[str]]:
    """Which module imports which at its top level."""
    names = {module_name(path): path for path in paths}
    graph: dict[str, set[str]] = {}
    for module, path in names.items():
        targets = (found.target for found in imports(ast.parse(path.read_text(encoding="utf-8")), module) if found.at_top)
        graph[module] = {name for target in targets if (name := _known(target, names)) and name != module}
    return graph


def _known(target: str, names: dict[str, Path]) -> str | None:
    parent = target.rpartition(".")[0]
    return next((name for name in (target, f"{target}.__init__", parent, f"{parent}.__init__") if name in names), None)


def main() -> int:
    """Print every fault; the exit code says whether there was one."""
    paths = sorted((ROOT / PACKAGE).rglob("*.py"))
    modules = [path for path in paths if "bootstrap" not in path.parts]
    faults = [fault for path in modules for fault in check(path)] + list(circles(graph_of(modules)))
    for fault in faults:
        print(fault.replace(f"{ROOT}/", ""))
    print(f"floors: {len(modules)} modules, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

"""What the pages say exists, compiles, and is what the code says."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
import textwrap
from urllib.parse import unquote

import pytest

from chegou_otel import _environment, integrations
from chegou_otel._settings import Settings
from chegou_otel.cli import COMMANDS
from tests.docs.pages import PAGES, ROOT, anchors, blocks, name, prose

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SETTINGS = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page):
    for target in LINK.findall(prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / unquote(path)).resolve() if path else page
        assert file.exists(), f"{name(page)} links to {target}"
        assert not fragment or unquote(fragment) in anchors(file), f"{name(page)}: {target} is no heading"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_in_the_pages_compiles(page):
    for line, code in blocks(page, "python"):
        try:
            ast.parse(textwrap.dedent(code))
        except SyntaxError as error:
            # ARCHITECTURE.md writes signatures, which are contracts and no code.
            if name(page) != "ARCHITECTURE.md":
                raise AssertionError(f"{name(page)}:{line}: {error}") from error


def calls():
    """The calls of ``setup()`` in the pages."""
    for page in PAGES:
        for line, code in blocks(page, "python"):
            if name(page) == "ARCHITECTURE.md":
                continue
            for node in ast.walk(ast.parse(textwrap.dedent(code))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("chegou_otel.setup", "capture"):
                    yield pytest.param(node, id=f"{name(page)}:{line}")


@pytest.mark.parametrize("call", list(calls()))
def test_settings_that_the_pages_give_are_settings(call):
    known = {setting.name for setting in dataclasses.fields(Settings)}
    assert {keyword.arg for keyword in call.keywords} <= known


def variables_in_pages():
    own = re.compile(r"\b(?:CHEGOU_OTEL|OTEL)_[A-Z_]*[A-Z]\b")
    return sorted({(found, name(page)) for page in PAGES if page.parent.name in ("docs", "pt-br") or page.name == "README.md"
                   for found in own.findall(page.read_text(encoding="utf-8"))})  # fmt: skip


@pytest.mark.parametrize(("variable", "page"), variables_in_pages())
def test_variables_that_the_pages_name_are_known(variable, page):
    """One that a page names is in the settings table, or belongs to the tests' and benchmarks' own tooling."""
    tooling = {
        "CHEGOU_OTEL_BIN",
        "CHEGOU_OTEL_SERVERS",
        "CHEGOU_OTEL_PYTHON",
        "CHEGOU_OTEL_SUITES",
        "CHEGOU_OTEL_ENVIRONMENTS",
        "OTEL_EXPORTER_OTLP",
    }
    assert f"`{variable}`" in SETTINGS or variable in _environment.VARIABLES or variable in tooling, page


def commands_in_pages():
    for page in PAGES:
        for _, code in [*blocks(page, "sh"), *blocks(page, "console")]:
            for found in re.finditer(r"(?<![\w'\[/-])chegou-otel ([a-z]+)([^\n#]*)", code):
                yield pytest.param(
                    found[1], re.findall(r"(?<=\s)--[a-z][\w-]*", found[2].partition(" -- ")[0]), id=f"{name(page)}: {found[0].strip()}"
                )


@pytest.mark.parametrize(("command", "options"), list(commands_in_pages()))
def test_commands_in_the_pages_are_commands(command, options):
    assert command in COMMANDS
    if options:
        told = subprocess.run(
            [sys.executable, "-m", "chegou_otel", command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        assert [option for option in options if option not in told] == []


def test_the_settings_page_is_what_the_code_says():
    """python scripts/settings_table.py --write"""
    done = subprocess.run([sys.executable, "scripts/settings_table.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_settings_page_names_everything():
    for setting in dataclasses.fields(Settings):
        assert f"| `{setting.name}` |" in SETTINGS
        assert f"`{setting.metadata['env']}`" in SETTINGS
        assert setting.metadata["help"] in SETTINGS
    for integration in integrations.TABLE:
        assert f"| `{integration}` |" in SETTINGS
    for variable in _environment.VARIABLES:
        general = re.sub(r"OTLP_(TRACES|METRICS|LOGS)_(?!TEMPORALITY|DEFAULT)", "OTLP_", variable)
        assert f"`{general}`" in SETTINGS


def test_a_stale_settings_page_is_told(tmp_path):
    stale = tmp_path / "settings.md"
    stale.write_text(SETTINGS.replace("Record spans.", "Records spans."), encoding="utf-8")
    code = f"import sys, pathlib, settings_table as it; it.PAGE = pathlib.Path({str(stale)!r}); sys.exit(it.main())"
    done = subprocess.run([sys.executable, "-c", code, "--check"], cwd=ROOT / "scripts", capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "--write" in done.stderr


def test_the_readme_says_supported_of_what_ci_runs():
    """Python, Django, RQ: the versions of `.ci/run`, no more and no fewer."""
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    said = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Supported")[2]

    for option, before in (("python", "Python"), ("django", "Django"), ("rq", "RQ")):
        ran = sorted(
            set(re.findall(rf"^test_step .*--{option} ([\d.]+)", ci, re.MULTILINE)),
            key=lambda each: [int(part) for part in each.split(".")],
        )
        told = re.search(rf"{before} ([\d., andto]+\d)", said)[1]
        assert re.findall(r"[\d.]+\d|\d", told) in (ran, [ran[0], ran[-1]]), f"{before}: README says {told!r}, CI runs {ran}"


def test_each_page_is_linked_from_the_readme_or_its_translation():
    linked = {
        (page.parent / target.partition("#")[0]).resolve() for page in PAGES for target in LINK.findall(prose(page)) if "://" not in target
    }
    assert [name(page) for page in PAGES if page.parent.name in ("docs", "pt-br") and page.resolve() not in linked] == []

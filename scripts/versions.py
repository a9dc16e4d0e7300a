"""One version: chegou_otel/_version.py says it, CHANGELOG.md tells of it, and nobody else repeats it."""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def version() -> str:
    """What chegou_otel/_version.py assigns."""
    tree = ast.parse((ROOT / "chegou_otel" / "_version.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            return str(node.value.value)
    return ""


def faults() -> list[str]:
    """What disagrees."""
    found = []
    current = version()
    if not re.fullmatch(r"\d+\.\d+\.\d+\S*", current):
        found.append(f"chegou_otel/_version.py: {current!r} is no version")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if "version" in project["project"] or "version" not in project["project"].get("dynamic", []):
        found.append("pyproject.toml: the version is dynamic, from chegou_otel/_version.py")
    changelog = ROOT / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8") if changelog.exists() else ""
    if not re.search(rf"^##\s+\[?{re.escape(current)}\b", text, re.MULTILINE):
        found.append(f"CHANGELOG.md: no heading for {current}")
    return found


if __name__ == "__main__":
    for fault in faults():
        print(fault)
    print(f"versions: {version()}")
    sys.exit(1 if faults() else 0)

"""The check of the floors finds what it is there to find."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "floors.py"


@pytest.fixture
def floors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, looking at an empty project."""
    spec = importlib.util.spec_from_file_location("floors_under_test", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


def faults(floors: ModuleType, name: str, source: str) -> list[str]:
    path = floors.ROOT / "chegou_otel" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return list(floors.check(path))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("correlation.py", "from opentelemetry import trace"),
        ("signals/spans.py", "from chegou_otel.redaction import Redactor"),
        ("integrations/redis.py", "def install(runtime):\n    import redis"),
        (
            "integrations/redis.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from chegou_otel._runtime import Runtime\n    import redis",
        ),
        ("cli/dev.py", "from chegou_otel.local import receiver"),
        ("__main__.py", "from chegou_otel.cli import main"),
    ],
)
def test_what_is_allowed(floors: ModuleType, name: str, source: str) -> None:
    """Downwards, sideways, inside functions, for types only."""
    assert faults(floors, name, source) == []


@pytest.mark.parametrize(
    ("name", "source", "words"),
    [
        ("correlation.py", "from chegou_otel.signals import spans", "imports upwards"),
        ("delivery/courier.py", "def late():\n    from chegou_otel.integrations import redis", "imports upwards"),
        ("signals/spans.py", "from ..integrations import redis", "imports upwards"),
        ("apps.py", "from chegou_otel.local import store", "never loads it"),
        ("integrations/redis.py", "import redis", "top of the module"),
        ("integrations/redis.py", "try:\n    from redis import Redis\nexcept ImportError: pass", "top of the module"),
        ("attic.py", "", "on no floor"),
        ("correlation.py", "\n" * 351, "lines"),
    ],
)
def test_what_is_not(floors: ModuleType, name: str, source: str, words: str) -> None:
    """Each fault is found, once."""
    (fault,) = faults(floors, name, source)

    assert words in fault


def test_circles_are_found(floors: ModuleType) -> None:
    """Two modules that need each other to be imported."""
    faults(floors, "signals/a.py", "from chegou_otel.signals import b")
    faults(floors, "signals/b.py", "from chegou_otel.signals.a import thing")
    faults(floors, "signals/c.py", "from chegou_otel.signals import a")

    (circle,) = floors.circles(floors.graph_of(sorted(floors.ROOT.rglob("*.py"))))

    assert circle == "circle: chegou_otel.signals.a → chegou_otel.signals.b → chegou_otel.signals.a"

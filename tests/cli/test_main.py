"""The command line as a whole."""

import pytest

from chegou_otel._version import __version__
from chegou_otel.cli import COMMANDS, main


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """--help names all commands with one line each."""
    assert main(["--help"]) == 0

    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert list(COMMANDS) == listed


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The modules of the table exist and have what a command has."""
    assert main([name, "--help"]) == 0
    assert f"chegou-otel {name}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version is the package's version."""
    assert main(["--version"]) == 0
    assert f"chegou-otel {__version__}\n" == capsys.readouterr().out


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command it shows the help and fails."""
    assert main([]) == 2
    assert "usage:" in capsys.readouterr().out


def test_misspelt_command(capsys: pytest.CaptureFixture[str]) -> None:
    """A near miss is suggested."""
    assert main(["fnid"]) == 2
    assert "chegou-otel find" in capsys.readouterr().err


def test_wrong_option_is_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """main() returns, it does not raise SystemExit."""
    assert main(["find", "--no-such-option"]) == 2


@pytest.mark.parametrize(
    ("library", "command"),
    [
        ("grpc", "pip install 'chegou-otel[dev]'"),
        ("google.protobuf", "pip install 'chegou-otel[dev]'"),
        ("numpy.linalg", "pip install numpy"),
    ],
)
def test_missing_library_names_the_command(
    library: str, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing extra is answered with what to type."""

    class Needy:
        HELP = "needs a library"

        def configure(self, parser: object) -> None:
            pass

        def run(self, args: object) -> int:
            raise ModuleNotFoundError(f"No module named {library!r}", name=library)

    monkeypatch.setattr("chegou_otel.cli._load", lambda name: Needy())

    assert main(["dev"]) == 1
    assert command in capsys.readouterr().err

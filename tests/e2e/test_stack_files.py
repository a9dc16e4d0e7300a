"""The files of the stack agree with each other and with their schemas; no server is started."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.e2e.servers import ROOT, need

if TYPE_CHECKING:
    from pathlib import Path

COMPOSE = ROOT / "docker-compose.jaeger.yml"
CONFIGURATIONS = {"collector": ROOT / "collector-config.yaml", "jaeger": ROOT / "deploy" / "jaeger" / "config.yaml"}


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load(COMPOSE.read_text())


def test_compose_file_follows_its_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_images_are_pinned_and_ports_are_loopback(compose: dict) -> None:
    for name, service in compose["services"].items():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert service["restart"] == "unless-stopped", name


def test_everybody_is_health_checked(compose: dict) -> None:
    """The collector's image holds one program, so a neighbour asks for it."""
    checked = {name for name, service in compose["services"].items() if "healthcheck" in service}
    assert {"collector-ready", "jaeger", "prometheus"} == checked


def test_mounted_files_and_volumes_exist(compose: dict) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_file(), source
            else:
                assert source in compose["volumes"], source


@pytest.mark.parametrize("name", sorted(CONFIGURATIONS))
def test_every_variable_has_a_default_and_is_told_in_the_head(name: str, compose: dict) -> None:
    text = CONFIGURATIONS[name].read_text()
    used = set(re.findall(r"\$\{env:(\w+)", text))
    with_default = set(re.findall(r"\$\{env:(\w+):-[^}]+\}", text))
    head = {line.split()[1] for line in text.splitlines() if re.match(r"#   [A-Z]+_[A-Z_]+ ", line)}
    given = {key for key in compose["services"][name]["environment"] if not key.startswith("GO")}

    assert used == with_default == head == given


def test_go_and_image_versions_of_the_collector_and_prometheus_agree(compose: dict) -> None:
    recipe = (ROOT / ".ci" / "servers").read_text()
    for service, variable in (("collector", "COLLECTOR_VERSION"), ("prometheus", "PROMETHEUS_VERSION")):
        built = re.search(rf"^{variable}=(\S+)", recipe, re.MULTILINE)
        assert built is not None
        assert compose["services"][service]["image"].split(":")[1].lstrip("v") == built[1]


@pytest.mark.servers
def test_collector_configuration_is_valid(tmp_path: Path) -> None:
    command = [need("collector"), "validate", "--config", CONFIGURATIONS["collector"]]
    checked = subprocess.run(command, capture_output=True, text=True, env={"COLLECTOR_DATA": str(tmp_path)}, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.servers
def test_prometheus_configuration_is_valid() -> None:
    promtool = need("prometheus").with_name("promtool")
    configuration = ROOT / "deploy" / "prometheus" / "prometheus.yml"
    checked = subprocess.run([promtool, "check", "config", configuration], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr

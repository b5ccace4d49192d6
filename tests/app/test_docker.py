"""The container and service files: linted, parsed, and held to what the code takes. No container engine runs here."""

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import yaml

from monailabel_app.lib.settings import Settings
from monailabel_app.serve import parser

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))
UNIT = (ROOT / "deploy" / "medreasoner.service").read_text(encoding="utf-8")
SETTINGS = {f"MEDREASONER_{f.name.upper()}" for f in fields(Settings)} | {"MEDREASONER_SETTINGS", "MEDREASONER_MODELS"}
OF_THE_CORE = {"MEDREASONER_SERVER_URL", "MEDREASONER_SERVER_MODEL", "MEDREASONER_SERVER_CARD"}


def instructions(name):
    return re.findall(rf"^{name} (.+)$", DOCKERFILE, re.MULTILINE)


def test_the_dockerfile_passes_the_linter():
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([hadolint, ROOT / "docker" / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (found.stdout + found.stderr, found.returncode) == ("", 0)


def test_the_image_takes_what_is_there_and_what_the_ignore_file_lets_through():
    ignored = (ROOT / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    sources = {source for line in instructions("COPY") if "--from" not in line for source in line.split()[:-1]}
    assert sources == {line[1:] for line in ignored if line.startswith("!")}
    assert all((ROOT / source).exists() for source in sources)
    packages = re.search(r"include = \[(.*)\]", (ROOT / "pyproject.toml").read_text())[1]
    assert {name.strip(' "*') for name in packages.split(",")} <= sources


def test_the_image_runs_the_server_without_rights():
    assert instructions("USER") == ["10001"]
    assert yaml.safe_load(instructions("ENTRYPOINT")[0]) == ["medreasoner", "serve"]
    given = parser().parse_args(yaml.safe_load(instructions("CMD")[0]))
    assert (given.studies, given.host) == ("/studies", "0.0.0.0")
    assert f"EXPOSE {given.port}" in DOCKERFILE
    assert re.search(r"^FROM python:3\.\d+\.\d+-", DOCKERFILE, re.MULTILINE)


def test_compose_starts_a_server_that_asks_for_tokens_and_an_archive():
    services = COMPOSE["services"]
    assert set(services) == {"server", "orthanc", "vllm"}
    server = services["server"]
    assert parser().parse_args(server["command"]).studies.startswith("http://orthanc:8042/")
    assert set(server["environment"]) <= SETTINGS | OF_THE_CORE
    assert server["environment"]["MEDREASONER_TOKENS"] == "/run/secrets/tokens"
    assert (ROOT / "docker" / server["build"]["context"] / server["build"]["dockerfile"]).is_file()
    assert services["vllm"]["profiles"] == ["vllm"]  # needs a GPU
    for name, service in services.items():
        assert not service.get("privileged")
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert "build" in service or re.search(r":v?\d+\.\d+", service["image"]), f"{name} has no version"
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"]


def test_compose_starts_vllm_as_the_guide_does():
    """With nothing that leaves the machine: by default vLLM reports its use and looks for models outside."""
    guide = (ROOT / "docs" / "deploy_in_a_hospital.md").read_text(encoding="utf-8")
    call = re.search(r"^(.*vllm serve (?:.*\\\n)*.*)$", guide, re.MULTILINE)[1]
    words = shlex.split(call.replace("\\\n", " "))
    service = COMPOSE["services"]["vllm"]
    assert [f"{name}={value}" for name, value in service["environment"].items()] == [w for w in words if w[0].isupper()]
    options = dict(pairwise(words))
    given = dict(word.split("=", 1) for word in service["command"])
    assert given.pop("--model").startswith("/models/")
    assert given == {
        name: options[name] for name in options if name.startswith("--") and name not in ("--host", "--port")
    }


def test_the_systemd_unit(tmp_path):
    lines = [line for line in UNIT.splitlines() if line and not line.startswith(("#", "["))]
    pairs = [line.partition("=")[::2] for line in lines]
    assert all(key.isalpha() for key, _ in pairs)
    command = shlex.split(dict(pairs)["ExecStart"])
    assert command[0].endswith("/bin/medreasoner")
    assert command[1] == "serve"
    given = parser().parse_args(command[2:])
    assert given.host == "127.0.0.1"
    assert given.studies == dict(pairs)["ReadWritePaths"]
    named = {value.partition("=")[0] for key, value in pairs if key == "Environment"}
    assert named <= SETTINGS | {"HOME"}
    verify = shutil.which("systemd-analyze")  # where systemd is; elsewhere the lines above have to do
    if verify:
        unit = tmp_path / "medreasoner.service"
        unit.write_text(UNIT.replace(command[0], "/bin/true"))  # the real one is not installed here
        found = subprocess.run([verify, "verify", unit], capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stderr

"""docs/deploy_in_a_hospital.md: its settings, variables, paths, commands and links are those of the code."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from medreasoner.cli import app as command_line
from medreasoner.reasoner import server
from monailabel_app.lib.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "deploy_in_a_hospital.md").read_text(encoding="utf-8")
UNIT = (ROOT / "deploy" / "medreasoner.service").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]


def test_the_settings_file_is_one() -> None:
    content = yaml.safe_load(re.search(r"```yaml\n(.*?)```", TEXT, re.DOTALL)[1])
    settings = Settings.load(content, {})
    assert settings.scoring
    assert settings.audit_log.startswith("/var/log/medreasoner/")  # which the unit's LogsDirectory makes
    assert "LogsDirectory=medreasoner" in UNIT


def test_the_variables_are_read() -> None:
    named = set(re.findall(rf"{PREFIX}[A-Z_]+", TEXT))
    known = {PREFIX + field.name.upper() for field in fields(Settings)}
    assert named <= known | {server.URL, server.MODEL, server.KEY, server.CARD}
    assert {server.URL, server.MODEL, server.CARD} <= named


def test_the_paths_are_the_unit_s() -> None:
    for path in ("/opt/medreasoner/venv/bin/medreasoner", "/srv/medreasoner/studies", "/etc/medreasoner/settings.yaml"):
        assert path in UNIT
        assert path in TEXT
    assert "HOME=/var/lib/medreasoner" in UNIT


def test_its_files_are_there() -> None:
    linked = re.findall(r"\]\(([^)]+)\)", TEXT)
    mentioned = re.findall(r"(?<![\w/])((?:docs|scripts|deploy|docker|rl_training)/[\w/]+\.\w+)", TEXT)
    assert len(linked) + len(mentioned) > 8
    missing = [name for name in linked if not (ROOT / "docs" / name).exists()]
    assert missing + [name for name in mentioned if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    "module", sorted({m for line in COMMANDS for m in re.findall(r"-m ([a-z_.]+)", line)} - {"pip", "venv"})
)
def test_its_modules_are_there(module: str) -> None:
    assert find_spec(module) is not None


def test_medreasoner_s_commands_have_the_options_that_are_named() -> None:
    words = [shlex.split(line, comments=True) for line in COMMANDS]
    calls = [
        w[n + 1 :] for w in words for n, word in enumerate(w) if Path(word).name == "medreasoner" and w[n - 1] != "-g"
    ]
    asked = [call for call in calls if call and call[0] in get_command(command_line).commands]
    assert {call[0] for call in asked} >= {"models", "evaluate"}
    for name, *options in asked:
        known = {text for option in get_command(command_line).commands[name].params for text in option.opts}
        assert {option for option in options if option.startswith("--")} <= known

"""`medreasoner models` with checkpoints that were trained here: listed, compared, exchanged."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from medreasoner.cli import app
from medreasoner.console import out
from medreasoner.contract.errors import MedReasonerError
from medreasoner.reasoner.champions import SHIPPED, Champions, Lineage

FIRST = Lineage(
    made_at="2026-11-27T09:30:00+00:00",
    parent="a" * 64,
    parent_number=SHIPPED,
    data_sha256="0123456789abcdef" * 4,
    labels=120,
    champion={"n": 40, "box_iou": 0.512, "false_absent": 0.05},
    challenger={
        "n": 40,
        "box_iou": 0.587,
        "dice": 0.7,
        "false_absent": 0.025,
        "by_modality": {"MR": {"n": 25, "box_iou": 0.61, "failures": 7}, "CT": {"n": 15, "failures": 4}},
    },
    difference={"mean": 0.075, "low": 0.02, "high": 0.13},
    configuration={"rate": 0.0002, "epochs": 4, "note": "[red]night[/]"},
)
SECOND = replace(
    FIRST,
    parent_number=1,
    labels=160,
    champion=FIRST.challenger,
    challenger={
        "n": 44,
        "box_iou": 0.431,
        "false_absent": 0.1,
        "by_modality": {"US": {"n": 44, "box_iou": 0.4, "failures": 30}},
    },
    difference={"mean": -0.15, "low": -0.2, "high": -0.1},
    configuration={"rate": 0.01, "epochs": 4},
)


@pytest.fixture
def champions(tmp_path):
    made = tmp_path / "run"
    made.mkdir()
    (made / "medreasoner.json").write_text('{"name": "local", "base": "embedded"}')
    registry = Champions(tmp_path / "models" / "local")
    registry.propose(made, FIRST)
    registry.propose(made, SECOND)
    return registry


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Run the command where MEDREASONER_MODELS names the folder; rows with single spaces between the cells."""
    environment = {"MEDREASONER_MODELS": str(tmp_path / "models"), "NO_COLOR": "1"}
    monkeypatch.setattr(out, "width", 250)  # it was made, with a width, when its module was imported

    def run(*arguments: str) -> str:
        found = CliRunner(env=environment).invoke(app, ["models", *arguments])
        if found.exception is not None:
            raise found.exception
        return re.sub(r"[ │┃]+", " ", found.output)

    return run


@pytest.mark.usefixtures("champions")
def test_checkpoints_are_listed_with_what_became_of_them(models):
    said = models()
    assert "--reasoner embedded" in said
    assert " 1 champion 2026-11-27 09:30 120 0.512 to 0.587 took over: not worse" in said
    assert " 2 2026-11-27 09:30 160 0.587 to 0.431 did not take over: box IoU may have fallen" in said


def test_nothing_is_said_of_checkpoints_where_there_are_none(models):
    assert "trained here" not in models()


@pytest.mark.usefixtures("champions")
def test_two_side_by_side_with_the_settings_in_which_they_differ(models):
    rows = [line.strip() for line in models("--compare", "1", "2").splitlines()]
    for row in (
        "labels 120 160",
        "data 0123456789ab 0123456789ab",
        "trained from 0 1",
        "hold-out cases 40 44",
        "box iou 0.587 0.431",
        "dice 0.700 -",
        "false absent 0.025 0.100",
        "absent recognised - -",
        "box IoU, CT - -",
        "box IoU, MR 0.610 -",
        "box IoU, US - 0.400",
        "rate 0.0002 0.01",
        "note [red]night[/] -",
    ):
        assert row in rows
    assert not any(row.startswith("epochs") for row in rows)


def test_back_to_the_reasoner_as_shipped_and_forth(champions, models):
    assert "the reasoner as shipped is in service" in models("--rollback")
    assert champions.number() == SHIPPED
    assert "checkpoint 2 is in service" in models("--publish", "2")
    assert champions.number() == 2
    assert "as shipped" in models("--publish", "0")


def test_another_registry(champions, models, tmp_path):
    assert "trained here" not in models("--registry", str(tmp_path / "other"))
    models("--rollback", "--registry", str(champions.folder))
    assert champions.number() == SHIPPED


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--compare", "1", "7"], "no checkpoint 7"),
        (["--compare", "0", "1"], "no checkpoint 0"),  # its figures stand beside those of the checkpoints
        (["--publish", "7"], "no checkpoint 7"),
        (["--rollback", "--publish", "1"], "exclude each other"),
        (["--compare", "1", "2", "--rollback"], "exclude each other"),
    ],
)
def test_what_cannot_be_done(champions, models, arguments, says):
    with pytest.raises(MedReasonerError, match=says):
        models(*arguments)
    assert champions.number() == 1


def test_rolling_back_too_far(models):
    with pytest.raises(MedReasonerError, match="as shipped is in service"):
        models("--rollback")

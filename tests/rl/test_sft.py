"""The supervised stage on the CPU: pack, train two steps, resume, calibrate, and ask the folder that comes out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from medreasoner.contract.errors import CheckpointError, MedReasonerError
from medreasoner.folders import embedded_folder
from medreasoner.picture import Picture
from medreasoner.reasoner.local import LocalReasoner
from medreasoner.reasoner.quantised import load_quantised, rounded, save_quantised
from rl_training import calibrate, card, pack, sft, tiny
from rl_training.config import SftConfig
from rl_training.pack import load_masks, load_pictures
from tests.collection import make_collection


def run(module: object, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    module.main()  # type: ignore[attr-defined]


def test_train_resume_and_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, packed, out = make_collection(tmp_path / "data"), tmp_path / "packed", tmp_path / "run"
    run(pack, monkeypatch, data, packed)
    pictures, rows = load_pictures(packed)
    assert pictures.shape == (6, 336, 336, 3)
    assert sorted(rows) == [f"images/{n}.png" for n in range(6)]
    assert load_masks(packed).reshape(6, -1).mean(1) == pytest.approx(np.full(6, 0.116), abs=0.01)

    config = tmp_path / "short.yaml"
    config.write_text("seconds: 100000\nbatch: 1\nwarmup: 1\nabsent_share: 0.5\n")
    given = [config, "--data", data, "--packed", packed, "--base", embedded_folder(), "--out", out, "--limit", 0.001]
    run(sft, monkeypatch, *given)
    first = torch.load(out / "state.pt", weights_only=True)
    assert first["step"] == 1
    run(sft, monkeypatch, *given)
    second = torch.load(out / "state.pt", weights_only=True)
    assert second["step"] == 2
    assert second["elapsed"] > first["elapsed"]

    weights = out / "weights"
    run(card, monkeypatch, weights, "--data", data)
    capsys.readouterr()
    run(calibrate, monkeypatch, weights, "--data", data, "--packed", packed, "--write")
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads((weights / "medreasoner.json").read_text())["absent_margin"] == found["margin"] >= 0
    reply = LocalReasoner(weights, "cpu").answer("optic disc?", Picture(pictures[0], modality="OP"))
    assert reply.text.startswith("<think>This is a fundus photograph.")


@pytest.mark.parametrize(
    ("count", "margin", "recall"),
    [
        (100, 12.0, 0.88),  # twelve may be missed
        (5, 1.0, 1.0),  # fewer than one may be missed: none is
    ],
)
def test_the_margin_recognises_the_wanted_share_however_few_there_are(count: int, margin: float, recall: float) -> None:
    absent = [float(lead) for lead in range(count, 0, -1)]
    found = calibrate.choose_margin([0.5, 1e6], absent, 0.88)
    assert found == (pytest.approx(margin), 0.5, recall)
    with pytest.raises(MedReasonerError, match="needs present and absent"):
        calibrate.choose_margin([0.5], [], 0.88)


def test_what_cannot_be_used_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "empty.yaml"
    config.write_text("")
    given = [config, "--data", tmp_path, "--packed", tmp_path, "--base", tmp_path, "--out", tmp_path / "run"]
    with pytest.raises(SystemExit, match="2"):
        run(sft, monkeypatch, *given)
    assert "has no samples.jsonl" in capsys.readouterr().err


def test_weights_of_another_model_than_the_configuration_are_refused(tmp_path: Path) -> None:
    tiny.configuration(tiny.tokenizer()).save_pretrained(tmp_path)
    save_quantised({"another.weight": torch.zeros(3)}, tmp_path)
    with pytest.raises(CheckpointError, match=r"do not fit its config\.json"):
        sft.load_model(tmp_path, torch.device("cpu"))


def test_unknown_configuration_keys_are_named(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("batchsize: 3\n")
    with pytest.raises(MedReasonerError, match="batchsize"):
        SftConfig.from_yaml(path)


def test_quantised_weights_come_back_within_half_a_step(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {"a": torch.randn(300, 70, generator=generator), "b": torch.randn(9), "c": torch.randn(90, 3, 14, 14)}
    paths = save_quantised(state, tmp_path, shard_bytes=30_000)
    assert len(paths) > 1
    back = load_quantised(tmp_path)
    assert back.keys() == state.keys()
    assert torch.equal(back["b"], state["b"])
    for name in ("a", "c"):
        rows = state[name].reshape(len(state[name]), -1)
        step = rows.abs().amax(1, keepdim=True) / 127
        assert ((back[name].reshape(rows.shape) - rows).abs() <= 0.5001 * step).all()
        assert torch.equal(back[name], rounded(state)[name])

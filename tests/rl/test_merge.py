"""Merged folders: equal to what was trained, loaded by transformers and by the reasoner, refused when wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from medreasoner.contract.errors import CheckpointError
from medreasoner.folders import embedded_folder
from medreasoner.picture import Picture
from medreasoner.reasoner.card import ReasonerCard
from medreasoner.reasoner.local import LocalReasoner
from medreasoner.reasoner.quantised import load_quantised
from rl_training import merge as command
from rl_training.merge import merge
from rl_training.tiny import make_tiny
from tests.collection import make_collection
from tests.rl.stages import run_finetune, run_grpo, same, weights


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    here = tmp_path_factory.mktemp("merge")
    data = make_collection(here / "data")
    (data / "DATA_CARD.md").write_text("# made by a test\n")
    return data, make_tiny(here / "tiny")


@pytest.fixture(scope="module")
def plain(made: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_finetune(tmp_path_factory.mktemp("plain") / "run", *made)


@pytest.fixture(scope="module")
def adapted(made: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_finetune(tmp_path_factory.mktemp("adapted") / "run", *made, lora={"rank": 4, "alpha": 8})


def some_picture() -> Picture:
    return Picture((torch.arange(60 * 40 * 3) % 251).reshape(40, 60, 3).to(torch.uint8).numpy())


def test_a_plain_checkpoint_keeps_its_weights(plain: Path, tmp_path: Path) -> None:
    assert merge(plain, tmp_path / "out", dtype="float32") == plain / "checkpoint-4"
    assert same(weights(tmp_path / "out"), weights(plain / "checkpoint-4"))
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"model.safetensors", "tokenizer.json", "processor_config.json", "chat_template.jinja"} <= names
    assert {"medreasoner.json", "training.json", "DATA_CARD.md", "config.json"} <= names
    assert not (names & {"optimizer.pt", "trainer_state.json", "training_args.bin"})


def test_an_older_checkpoint_can_be_chosen(plain: Path, tmp_path: Path) -> None:
    merge(plain, tmp_path / "out", checkpoint="checkpoint-2", dtype="float32")
    assert same(weights(tmp_path / "out"), weights(plain / "checkpoint-2"))
    assert json.loads((tmp_path / "out" / "training.json").read_text())["checkpoint"] == "checkpoint-2"


def test_adapters_are_merged_into_their_base(adapted: Path, made: tuple[Path, Path], tmp_path: Path) -> None:
    """The outside oracle: PEFT's own forward pass with the adapters beside the base."""
    merge(adapted, tmp_path / "out", dtype="float32")
    merged = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "out")
    base = Qwen2_5_VLForConditionalGeneration.from_pretrained(made[1])
    ids = torch.tensor([[5, 9, 40, 41, 3]])
    with torch.inference_mode():
        before = base(input_ids=ids).logits
        beside = PeftModel.from_pretrained(base, adapted / "checkpoint-4")(input_ids=ids).logits
        found = merged(input_ids=ids).logits
    assert torch.allclose(found, beside, atol=1e-5)
    assert not torch.allclose(found, before, atol=1e-3)


def test_bfloat16_is_what_large_folders_are_saved_in(plain: Path, tmp_path: Path) -> None:
    merge(plain, tmp_path / "out")
    found = weights(tmp_path / "out")
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    assert AutoProcessor.from_pretrained(tmp_path / "out").tokenizer.decode([1]) != ""


def test_int8_rows_are_read_as_the_embedded_reasoner_is(plain: Path, tmp_path: Path) -> None:
    merge(plain, tmp_path / "out", int8_rows=True)
    assert ReasonerCard.of(tmp_path / "out").quantised == "int8-rows"
    trained, back = weights(plain / "checkpoint-4"), load_quantised(tmp_path / "out")
    for name, tensor in back.items():
        assert (tensor - trained[name]).abs().max() <= trained[name].abs().max() / 127
    assert LocalReasoner(tmp_path / "out", "cpu").answer("optic disc?", some_picture()).text.startswith("<think>")


def test_what_cannot_be_merged_is_refused(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(CheckpointError, match="already there"):
        merge(plain, tmp_path / "there")
    with pytest.raises(CheckpointError, match="not the folder of a run"):
        merge(tmp_path / "there", tmp_path / "out")
    broken = shutil.copytree(plain, tmp_path / "broken")
    for checkpoint in broken.glob("checkpoint-*"):
        (checkpoint / "config.json").unlink()
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        merge(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit) as stopped:
        command.main([str(broken), "--output", str(tmp_path / "out")])
    assert stopped.value.code == 3
    assert "is not whole" in capsys.readouterr().out


def test_the_embedded_reasoner_is_trained_from_the_folder_that_ships(made: tuple[Path, Path], tmp_path: Path) -> None:
    """int8 rows, question first, number tokens: two updates of adapters on the CPU, then stored as it ships."""
    changes = {"max_updates": 2, "max_completion": 24, "rewards": {"format_reward": 1, "box_iou": 1, "absent": 0.5}}
    run = run_grpo(tmp_path / "run", made[0], embedded_folder(), lora={"rank": 2, "alpha": 4}, **changes)
    assert ReasonerCard.of(run / "start").quantised == ""
    history = json.loads((run / "checkpoint-2" / "trainer_state.json").read_text())["log_history"]
    assert history[0]["completions/mean_length"] == 24
    merge(run, tmp_path / "out", int8_rows=True)
    shipped, card = ReasonerCard.of(embedded_folder()), ReasonerCard.of(tmp_path / "out")
    assert (card.quantised, card.question_first, card.verdict) == ("int8-rows", True, shipped.verdict)
    shutil.rmtree(run)
    reply = LocalReasoner(tmp_path / "out", "cpu").answer("Where is the optic disc?", some_picture())
    assert reply.text.startswith("<think>This is")

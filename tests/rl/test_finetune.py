"""The supervised stage on a tiny model: loss on the answer only, lessons learnt, resumed from its own weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoProcessor, Qwen2_5_VLForConditionalGeneration, Trainer

from medreasoner.reasoner.card import ReasonerCard
from rl_training.finetune import IGNORED, Batches, Lessons
from rl_training.rows import Canvas, rows_of
from rl_training.tiny import make_tiny
from tests.collection import make_collection
from tests.rl.stages import run_finetune, same, weights


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    here = tmp_path_factory.mktemp("finetune")
    return make_collection(here / "data"), make_tiny(here / "tiny")


@pytest.fixture(scope="module")
def straight(made: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_finetune(tmp_path_factory.mktemp("straight") / "run", *made)


def test_the_loss_counts_the_answer_and_nothing_else(made: tuple[Path, Path]) -> None:
    data, folder = made
    processor = AutoProcessor.from_pretrained(folder)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    canvas = Canvas(rows_of(data, "train", absent_share=0.5), ReasonerCard.of(folder))
    lessons = [Lessons(canvas)[row] for row in range(len(canvas))]
    batch = Batches(processor, model.config, 2048)(lessons)
    for row in range(len(canvas)):
        taught = batch["labels"][row][batch["labels"][row] != IGNORED]
        assert processor.tokenizer.decode(taught) == canvas.answer(row) + "<|im_end|>"
        kept = batch["input_ids"][row][batch["attention_mask"][row] == 1]
        question = processor.tokenizer.decode(kept[: -len(taught)])
        assert canvas.rows[row].question in question
        assert question.endswith("<|im_start|>assistant\n")
    with torch.inference_mode():  # a batch's rows do not see each other, nor the padding
        together = model(**{**batch, "labels": None}).logits
        for row in (0, 1):
            alone = Batches(processor, model.config, 2048)([lessons[row]])
            length = alone["input_ids"].shape[1]
            single = model(**{**alone, "labels": None}).logits[0]
            assert torch.allclose(together[row, :length], single, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "looks", "untaught"),
    [
        ("", "", ["This is a medical image.", "Here it is"]),
        ("medical image", "It is bright.", ["This is a medical image."]),  # so a prepared collection names it
        ("fundus photograph", "", ["Here it is"]),
        ("fundus photograph", "It is bright.", []),
    ],
)
def test_what_nobody_knows_is_not_taught_to_a_reasoner_with_words_of_its_own(
    made: tuple[Path, Path], kind: str, looks: str, untaught: list[str]
) -> None:
    data, folder = made
    processor, config = AutoProcessor.from_pretrained(folder), AutoConfig.from_pretrained(folder)
    rows = [
        replace(
            row, example=replace(row.example, kind=kind, questions=replace(row.example.questions, appearance=looks))
        )
        for row in rows_of(data, "train", absent_share=0.5)
    ]
    canvas = Canvas(rows, ReasonerCard.of(folder))
    for only_known in (False, True):
        labels = Batches(processor, config, 2048, only_known)([Lessons(canvas)[row] for row in range(len(rows))])[
            "labels"
        ]
        for row in range(len(rows)):
            expected = canvas.answer(row) + "<|im_end|>"
            for words in untaught if only_known else ():
                expected = expected.replace(words, "", 1)
            assert processor.tokenizer.decode(labels[row][labels[row] != IGNORED]) == expected


def test_a_resumed_run_takes_the_same_steps_bit_for_bit(
    straight: Path, made: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(straight / "checkpoint-2", tmp_path / "run" / "checkpoint-2")
    resumed = run_finetune(tmp_path / "run", *made)
    assert same(weights(straight / "checkpoint-4"), weights(resumed / "checkpoint-4"))


def test_transformers_alone_would_go_on_from_the_starting_weights(straight: Path, made: tuple[Path, Path]) -> None:
    """The trap that `SafeCheckpoints` is there for; when this fails, its `_load_from_checkpoint` can go."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(made[1])
    trainer = Trainer.__new__(Trainer)
    trainer.model, trainer.is_fsdp_enabled = model, False
    Trainer._load_from_checkpoint(trainer, str(straight / "checkpoint-4"), model)
    assert not same(model.state_dict(), weights(straight / "checkpoint-4"))


def test_lessons_are_learnt(made: tuple[Path, Path], tmp_path: Path) -> None:
    run = run_finetune(tmp_path / "run", *made, max_updates=30, save_every=30, schedule="constant", warmup=0)
    history = json.loads((run / "checkpoint-30" / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert losses[-1] < 0.6 * losses[0]


def test_adapters_leave_the_vision_tower_and_the_base_alone(made: tuple[Path, Path], tmp_path: Path) -> None:
    run = run_finetune(tmp_path / "run", *made, max_updates=2, lora={"rank": 4, "alpha": 8}, recompute=True)
    config = json.loads((run / "checkpoint-2" / "adapter_config.json").read_text())
    assert "language_model" in config["target_modules"]
    from safetensors.torch import load_file

    names = load_file(run / "checkpoint-2" / "adapter_model.safetensors")
    assert names
    assert not any("visual" in name for name in names)
    assert any(tensor.abs().sum() > 0 for name, tensor in names.items() if "lora_B" in name), "nothing was trained"


def test_an_example_that_is_too_long_is_named(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run_finetune(tmp_path / "run", *made, max_tokens=100)
    said = capsys.readouterr().err
    assert "samples.jsonl line" in said
    assert "max_tokens" in said

"""Tuning of the expert, on the made collection and LiteMedSAM's real weights."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medreasoner.contract.answer import Box, Point
from medreasoner.contract.errors import CheckpointError, ImageError, MedReasonerError
from medreasoner.evaluation.cases import Sample, read_samples
from medreasoner.expert import EXPERTS
from medreasoner.expert.box_decoder import decode_box
from medreasoner.expert.litemedsam import LiteMedSam
from medreasoner.expert.litemedsam_points import LiteMedSamPoints
from medreasoner.geometry import box_iou
from rl_training.expert import __main__ as command
from rl_training.expert.config import ExpertConfig
from rl_training.expert.embeddings import Embeddings, balanced_order, embed
from rl_training.expert.evaluate import evaluate, means, prompts_for
from rl_training.expert.export import export
from rl_training.expert.prompts import carried_along, draw_prompt, loose_box, near_box
from rl_training.expert.targets import Target, drawing_weights, read_mask, read_targets
from rl_training.expert.train import Tuning, mask_losses, rate_at, train
from rl_training.expert.window import Window
from tests.collection import make_collection

CONFIG = ExpertConfig(steps=4, pictures_a_step=1, prompts_a_picture=2, warmup=1, brain_floats=False, whole_pictures=0.0)
WEIGHTS = EXPERTS["litemedsam"].path()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_collection(tmp_path_factory.mktemp("made") / "collection")


@pytest.fixture(scope="module")
def samples(data: Path) -> list[Sample]:
    return read_samples(data)


@pytest.fixture(scope="module")
def encoder() -> LiteMedSam:
    return LiteMedSam(WEIGHTS)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, data: Path, encoder: LiteMedSam) -> Path:
    """Features of one training picture and the validation picture."""
    folder = tmp_path_factory.mktemp("seen")
    told: list[tuple[int, int]] = []
    images = ["images/0.png", "images/4.png"]
    embed(encoder, images, data, Embeddings(folder, encoder.sha256), 1e9, lambda *n: told.append(n))
    assert told == [(1, 2), (2, 2)]
    return folder


@pytest.fixture
def embeddings(seen: Path, encoder: LiteMedSam) -> Embeddings:
    return Embeddings(seen, encoder.sha256)


@pytest.fixture
def targets(samples: list[Sample], data: Path, embeddings: Embeddings) -> list[Target]:
    return read_targets(samples, data, "train", embeddings)


def fresh(config: ExpertConfig = CONFIG) -> Tuning:
    return Tuning(LiteMedSam(WEIGHTS).network, config)


def run(tuning: Tuning, targets: list[Target], embeddings: Embeddings, seconds: float = 1e9) -> list[float]:
    losses: list[float] = []
    train(tuning, targets, embeddings, seconds, 1e9, lambda _step, parts: losses.append(float(parts[0])))
    return losses


def test_loss_falls_and_frozen_parts_stay(targets: list[Target], embeddings: Embeddings) -> None:
    tuning = fresh(replace(CONFIG, steps=10, rate=3e-4, true_boxes=1.0, near_boxes=0.0, point_jitter=0.0, box_only=0.0))
    before = {name: tensor.clone() for name, tensor in tuning.network.state_dict().items()}
    losses = run(tuning, targets, embeddings)
    assert np.mean(losses[-3:]) < 0.6 * np.mean(losses[:3])
    moved = {n for n, tensor in tuning.network.state_dict().items() if not torch.equal(tensor, before[n])}
    assert {name.split(".")[0] for name in moved} == {"prompt_encoder", "mask_decoder"}
    assert moved == {n for n in tuning.names if n in moved}


def test_a_resumed_run_equals_an_uninterrupted_one(
    targets: list[Target], embeddings: Embeddings, tmp_path: Path
) -> None:
    whole = fresh()
    run(whole, targets, embeddings)
    first = fresh()
    run(first, targets, embeddings, seconds=0.0)  # the time is over after one step
    assert first.step == 1
    first.save(tmp_path / "state.pt")
    second = fresh()
    second.resume(tmp_path / "state.pt")
    run(second, targets, embeddings)
    assert second.step == whole.step == 4
    for name, tensor in whole.tuned().items():
        assert torch.equal(second.tuned()[name], tensor), name


def test_a_full_disk_leaves_the_last_state_alone(
    targets: list[Target], embeddings: Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning, state = fresh(replace(CONFIG, steps=1)), tmp_path / "state.pt"
    run(tuning, targets, embeddings)
    tuning.save(state)
    good = state.read_bytes()

    def full(_value: object, path: Path) -> None:
        path.write_bytes(b"half a state")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(MedReasonerError, match="No space left"):
        tuning.save(state)
    assert state.read_bytes() == good
    assert list(tmp_path.iterdir()) == [state]


@pytest.mark.parametrize("content", [b"", b"not a state", None])
def test_another_file_is_no_state(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    if content is None:
        torch.save({"step": 3}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a state"):
        fresh().resume(path)


def test_nothing_to_train_on_is_said(embeddings: Embeddings) -> None:
    with pytest.raises(MedReasonerError, match="nothing to train on"):
        run(fresh(), [], embeddings)


def _remove(path: Path) -> None:
    path.unlink()


def _shrink(path: Path) -> None:
    Image.new("L", (100, 480), 255).save(path)


def _empty(path: Path) -> None:
    Image.new("L", (480, 480), 0).save(path)


def _spoil(path: Path) -> None:
    path.write_bytes(b"\x89PNG and no more")


@pytest.mark.parametrize(
    ("spoil", "what"),
    [(_remove, "cannot be read"), (_spoil, "cannot be read"), (_shrink, "another size"), (_empty, "is empty")],
)
def test_a_bad_mask_names_its_row(spoil: Callable[[Path], None], what: str, data: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(data, tmp_path / "copy"))
    spoil(copy / "masks" / "2.png")
    rows = read_samples(copy)
    with pytest.raises(ImageError, match=f"row 2 of samples.jsonl: the mask .*{what}"):
        read_targets(rows, copy, "train", {s["image"] for s in rows})


def test_a_missing_picture_is_named(data: Path, encoder: LiteMedSam, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"99\.png"):
        embed(encoder, ["images/99.png"], data, Embeddings(tmp_path, "h"), 1e9, lambda *_: None)


def test_features_survive_a_cut_off_run(seen: Path, encoder: LiteMedSam, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(seen, tmp_path / "copy"))
    with (folder / "features.f16").open("ab") as stream:
        stream.write(b"half a record")
    again = Embeddings(folder, encoder.sha256)
    look = again["images/4.png"]
    again.add("new", look)
    for name in ("images/4.png", "new"):
        assert torch.equal(Embeddings(folder, encoder.sha256)[name].features, look.features)
    assert (len(again), look.size, look.inner) == (3, (480, 480), (256, 256))
    with pytest.raises(MedReasonerError, match="another encoder"):
        Embeddings(folder, "another hash")


def test_features_are_the_products_own(embeddings: Embeddings, encoder: LiteMedSam, data: Path) -> None:
    with Image.open(data / "images" / "0.png") as file:
        fresh_look = encoder.look(np.asarray(file.convert("RGB")))
    torch.testing.assert_close(embeddings["images/0.png"].features, fresh_look.features, atol=2e-3, rtol=1e-3)


def test_pictures_of_rare_targets_come_first() -> None:
    def row(image: str, category: str, split: str = "train") -> Sample:
        return {"image": image, "category": category, "split": split}

    rows = [row(f"common{n}", "liver") for n in range(50)]
    rows += [row("rare0", "gland"), row("rare1", "gland"), row("held out", "gland", "val")]
    order = balanced_order(rows, "train", 0)
    assert sorted(order) == sorted({r["image"] for r in rows} - {"held out"})
    assert {"rare0", "rare1"} <= set(order[:4])
    assert order == balanced_order(rows, "train", 0) != balanced_order(rows, "train", 1)


def test_draws_prefer_rare_names_and_compact_targets(targets: list[Target]) -> None:
    many = [replace(targets[0], name="liver")] * 4 + [replace(targets[0], name="vein", dispersed=True)]
    assert drawing_weights(many, balance=1.0, dispersed=1.0) == pytest.approx([1 / 8] * 4 + [1 / 2])
    assert drawing_weights(many, balance=0.0, dispersed=0.5) == pytest.approx([1 / 4.5] * 4 + [0.5 / 4.5])


BOX = np.array([60, 80, 160, 130], np.float32)


def overlap(box: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    return box_iou(Box(*BOX.tolist()), Box(*box.tolist()))


def test_boxes_are_as_bad_as_a_reasoners() -> None:
    rng = np.random.default_rng(0)
    near = [overlap(near_box(BOX, 0.1, rng)) for _ in range(500)]
    loose = [overlap(loose_box(BOX, rng)) for _ in range(2000)]
    assert min(near) > 0.6 and 0.8 < np.mean(near) < 0.95
    assert 0.5 < np.mean(loose) < 0.65  # the embedded reasoner's: 0.59
    assert np.quantile(loose, 0.05) < 0.35  # and now and then quite wrong
    corner = np.array([0, 0, 3, 3], np.float32)
    for box in (loose_box(corner, rng) for _ in range(200)):
        assert 0 <= box[0] < box[2] <= 256 and 0 <= box[1] < box[3] <= 256


def test_points_move_along_with_a_box() -> None:
    points = np.array([[60, 80], [110, 105]], np.float32)
    moved = carried_along(points, BOX, np.array([0, 0, 50, 100], np.float32))
    assert moved.tolist() == [[0, 0], [25, 50]]


def test_true_prompts_are_the_rows_own(targets: list[Target], samples: list[Sample]) -> None:
    config = replace(CONFIG, true_boxes=1.0, point_jitter=0.0)
    box, points = draw_prompt(targets[0], config, np.random.default_rng(0))
    to_canvas = 256 / 480
    assert box == pytest.approx(np.array(samples[0]["bbox"]) * to_canvas)
    assert points in targets[0].pairs
    assert targets[0].pairs[0] == pytest.approx(np.array(samples[0]["points"]) * to_canvas)
    inside = targets[0].on_canvas()[tuple(points.astype(int).T[::-1])]
    assert (inside > 0.5).all()


def test_a_window_holds_its_boxes_and_stays_in_the_picture(embeddings: Embeddings) -> None:
    look = replace(embeddings["images/0.png"], inner=(150, 256))
    whole = Window.of(look)
    assert (whole.top, whole.bottom, whole.left, whole.right) == (0, 64, 0, 64)
    for x_min, y_min, x_max, y_max in [(60, 80, 160, 130), (0, 0, 3, 3), (250, 140, 256, 150), (0, 0, 256, 150)]:
        window = Window.around([np.array([x_min, y_min, x_max, y_max], np.float32)], look)
        rows, columns = window.pixels
        assert rows.start <= y_min and y_max <= rows.stop <= 152
        assert columns.start <= x_min and x_max <= columns.stop <= 256


def test_the_whole_window_decodes_as_the_product_does(embeddings: Embeddings) -> None:
    tuning, look = fresh(), embeddings["images/0.png"]
    boxes = torch.tensor([[60.0, 80, 160, 130]])
    points = torch.tensor([[[70.0, 100], [90, 110]]])
    with torch.inference_mode():
        logits, quality = tuning.decode(tuning.in_short_floats(), look, boxes, points, Window.of(look))
        expected, sure = decode_box(
            tuning.network, look.features, Box(60, 80, 160, 130), (1.0, 1.0), (Point(70, 100), Point(90, 110))
        )
    torch.testing.assert_close(logits, expected[:, 0])
    assert float(quality) == pytest.approx(sure)


def test_losses_of_known_masks() -> None:
    truth = torch.zeros(1, 4, 4)
    truth[0, :2] = 1
    perfect = (truth * 2 - 1) * 100
    total, entropy, dice, error = mask_losses(perfect, torch.tensor([1.0]), truth, CONFIG).tolist()
    assert (total, entropy, dice, error) == pytest.approx((0, 0, 0, 0), abs=1e-6)
    _, entropy, dice, error = mask_losses(-perfect, torch.tensor([0.5]), truth, CONFIG).tolist()
    assert (entropy, dice, error) == pytest.approx((100, 1 - 1 / 17, 0.25))


@pytest.mark.parametrize(
    ("step", "progress", "share"), [(0, 0.0, 0.1), (9, 0.0, 1.0), (500, 1.0, 0.02), (9, 0.5, 0.51)]
)
def test_the_rate_warms_up_and_falls(step: int, progress: float, share: float) -> None:
    assert rate_at(step, progress, warmup=10) == pytest.approx(share)


def test_exported_weights_are_what_the_product_loads(
    targets: list[Target], samples: list[Sample], embeddings: Embeddings, data: Path, tmp_path: Path
) -> None:
    tuning = fresh(replace(CONFIG, steps=2))
    run(tuning, targets, embeddings)
    export(tuning, {"both": 0.5}, tmp_path)
    expert = LiteMedSamPoints(tmp_path, WEIGHTS)
    for name, tensor in tuning.tuned().items():
        torch.testing.assert_close(expert.network.state_dict()[name], tensor, atol=2e-3, rtol=1e-3)
    card = json.loads((tmp_path / "card.json").read_text())
    assert (card["sha256"], card["steps"], card["validation_dice"]) == (expert.sha256, 2, {"both": 0.5})
    scores = evaluate(expert, samples, [4], data, embeddings, ["box", "both"])
    assert set(means(scores)) == {"box", "both"}
    assert all(0.5 < value <= 1 for value in means(scores).values())


def test_evaluation_asks_every_expert_the_same(samples: list[Sample], data: Path) -> None:
    mask = read_mask(5, samples[5], data)
    prompts = prompts_for(5, samples[5], mask)
    assert prompts == prompts_for(5, samples[5], mask)
    assert prompts["box"].box.as_list() == samples[5]["bbox"]
    assert prompts["near_box"].box == prompts["near"].box != prompts["box"].box
    assert box_iou(prompts["near"].box, prompts["box"].box) > 0.6
    assert all(len(prompts[kind].points) == (0 if kind.endswith("box") else 2) for kind in prompts)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("stepps: 3", "unknown keys stepps"),
        ("steps: many", "steps is 'many'"),
        ("rate: -1", "rate is -1"),
        ("steps: 1.5", "steps is 1.5"),
        ("brain_floats: 1", "brain_floats is 1"),
        ("steps: true", "steps is True"),
    ],
)
def test_bad_configurations_are_named(text: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "expert.yaml"
    path.write_text(text)
    with pytest.raises(MedReasonerError, match=what):
        ExpertConfig.from_yaml(path)


def test_the_command_says_what_it_would_do(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = Path(command.__file__).parent.parent / "configs" / "expert.yaml"
    args = ["expert", str(shipped), "--data", str(data), "--work", str(tmp_path / "work"), "--dry-run"]
    monkeypatch.setattr(sys, "argv", args)
    command.main()
    assert "4 pictures, 4 targets" in capsys.readouterr().out
    assert not (tmp_path / "work").exists()

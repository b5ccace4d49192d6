"""The embedded expert that takes points, with its real weights: what points settle, and files that are not right."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from medreasoner.contract.answer import Box, Point
from medreasoner.contract.errors import CheckpointError, MedReasonerError
from medreasoner.expert import EXPERTS, SegmentationExpert, load_expert
from medreasoner.expert.checkpoint import sha256_of
from medreasoner.expert.litemedsam_points import CARD, WEIGHTS
from medreasoner.expert.mask_prompts import box_around, points_on
from medreasoner.metrics import dice
from medreasoner.picture import Picture

Mask = NDArray[np.bool_]
FOLDER = EXPERTS["litemedsam-points"].path()


@pytest.fixture(scope="module")
def expert() -> SegmentationExpert:
    return load_expert("litemedsam-points")


def ellipse(across: float, down: float, width: int = 200, height: int = 160) -> Mask:
    y, x = np.mgrid[:height, :width] + 0.5
    return np.asarray(((x - 110) / across) ** 2 + ((y - 70) / down) ** 2 < 1)


def picture_of(mask: Mask) -> Picture:
    levels = np.where(mask, 170, 60) + np.random.default_rng(0).normal(0, 8, mask.shape)
    return Picture(np.repeat(levels.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize("with_points", [True, False], ids=["box and points", "box"])
def test_an_ellipse_is_found(expert: SegmentationExpert, with_points: bool) -> None:
    truth = ellipse(50, 35)
    expert.set_picture(picture_of(truth))
    found = expert.segment(box_around(truth), points_on(truth) if with_points else ())
    assert found.mask.shape == truth.shape
    assert dice(found.mask, truth) > 0.95
    assert 0.7 < found.quality <= 1.0


def test_points_do_not_spoil_what_a_box_means(expert: SegmentationExpert) -> None:
    """The published weights lose a third of an ellipse's Dice when they get two points beside the box."""
    truth = ellipse(60, 20)
    box, points = box_around(truth), points_on(truth)
    expert.set_picture(picture_of(truth))
    assert dice(expert.segment(box, points).mask, truth) > 0.95


def test_points_alone_are_refused(expert: SegmentationExpert) -> None:
    expert.set_picture(picture_of(ellipse(50, 35)))
    with pytest.raises(MedReasonerError, match="points without a box"):
        expert.segment(None, [Point(110, 70)])


def test_it_is_not_the_published_decoder(expert: SegmentationExpert) -> None:
    published = load_expert("litemedsam")
    assert expert.takes == EXPERTS["litemedsam-points"].takes == {"box", "points"}
    assert expert.name == "litemedsam-points"
    assert expert.sha256 == sha256_of([FOLDER / WEIGHTS]) != published.sha256
    mine, its = (e.network.state_dict() for e in (expert, published))  # type: ignore[attr-defined]
    same = {name.split(".")[0] for name in mine if torch.equal(mine[name], its[name])}
    assert "image_encoder" in same
    assert not torch.equal(mine["mask_decoder.iou_token.weight"], its["mask_decoder.iou_token.weight"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "copy"))


def test_a_copy_is_loaded(folder: Path) -> None:
    assert load_expert("litemedsam-points", folder).sha256 == load_expert("litemedsam-points").sha256


def test_changed_weights_are_refused(folder: Path) -> None:
    raw = bytearray((folder / WEIGHTS).read_bytes())
    raw[-1] ^= 1
    (folder / WEIGHTS).write_bytes(raw)
    with pytest.raises(CheckpointError, match="not what its card describes"):
        load_expert("litemedsam-points", folder)


@pytest.mark.parametrize("card", [None, "", "[]", "{}"])
def test_a_card_without_a_hash_is_refused(folder: Path, card: str | None) -> None:
    (folder / CARD).unlink()
    if card is not None:
        (folder / CARD).write_text(card)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_expert("litemedsam-points", folder)


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=WEIGHTS):
        load_expert("litemedsam-points", folder)


def _certify(folder: Path) -> None:
    (folder / CARD).write_text(json.dumps({"sha256": sha256_of([folder / WEIGHTS])}))


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    kept = {name: tensor for name, tensor in load_file(folder / WEIGHTS).items() if "iou_token" not in name}
    save_file(kept, folder / WEIGHTS)
    _certify(folder)
    with pytest.raises(CheckpointError, match="another network"):
        load_expert("litemedsam-points", folder)


def test_a_damaged_file_is_refused(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"no safetensors")
    _certify(folder)
    with pytest.raises(CheckpointError, match="damaged"):
        load_expert("litemedsam-points", folder)


def test_a_box_outside_the_points_is_no_problem(expert: SegmentationExpert) -> None:
    truth = ellipse(50, 35)
    expert.set_picture(picture_of(truth))
    found = expert.segment(Box(0, 0, 20, 20), points_on(truth))
    assert found.mask.shape == truth.shape

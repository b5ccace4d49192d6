"""SAM and MedSAM with random weights: the masks must be those of the published code for the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.build_sam import _build_sam
from segment_anything.modeling import Sam
from skimage import transform

from medreasoner.contract.answer import Box, Point
from medreasoner.contract.errors import CheckpointError
from medreasoner.expert import EXPERTS, load_expert
from medreasoner.expert.medsam import MedSamExpert, stretched
from medreasoner.expert.sam import SamExpert, read_sam
from medreasoner.picture import Picture

PIXELS = np.random.default_rng(0).integers(0, 200, (90, 140, 3), np.uint8)
BOX = Box(20, 30, 100, 70.5)
POINTS = [Point(40, 50), Point(60.5, 55)]


def small_sam() -> Sam:
    """SAM for 1024 x 1024 squares with a very small encoder."""
    torch.manual_seed(0)
    return _build_sam(encoder_embed_dim=16, encoder_depth=1, encoder_num_heads=1, encoder_global_attn_indexes=[])


@pytest.fixture(scope="module")
def model() -> Sam:
    return small_sam()


def sam_masks(
    model: Sam, box: Box | None, points: list[Point], several: bool
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    predictor = SamPredictor(model)
    predictor.set_image(PIXELS)
    masks, qualities, _ = predictor.predict(
        point_coords=np.array([[p.x, p.y] for p in points]) if points else None,
        point_labels=np.ones(len(points)) if points else None,
        box=np.array(box.as_list()) if box else None,
        multimask_output=several,
    )
    return masks, qualities


@pytest.mark.parametrize("points", [[], POINTS], ids=["box", "box and points"])
def test_mask_of_a_box_is_sams_own(model: Sam, points: list[Point]) -> None:
    expert = SamExpert("sam-vit-b", model, "")
    expert.set_picture(Picture(PIXELS))
    expert.set_picture(Picture(PIXELS[:50]))  # the predictor now holds another picture
    expert.set_picture(Picture(PIXELS))
    found = expert.segment(BOX, points)
    masks, qualities = sam_masks(model, BOX, points, several=False)
    assert 0 < masks[0].mean() < 1, "random weights drew a trivial mask"
    assert np.array_equal(found.mask, masks[0])
    assert found.quality == pytest.approx(np.clip(qualities[0], 0, 1))


def test_points_alone_give_the_best_of_three(model: Sam) -> None:
    expert = SamExpert("sam-vit-b", model, "")
    expert.set_picture(Picture(PIXELS))
    masks, qualities = sam_masks(model, None, POINTS, several=True)
    assert len(masks) == 3
    assert np.array_equal(expert.segment(None, POINTS).mask, masks[qualities.argmax()])


def test_medsam_follows_its_published_steps(model: Sam) -> None:
    """Written after MedSAM_Inference.py, step by step."""
    height, width = PIXELS.shape[:2]
    square = transform.resize(PIXELS, (1024, 1024), order=3, preserve_range=True, anti_aliasing=True).astype(np.uint8)
    stretch = (square - square.min()) / (square.max() - square.min())
    corners = np.array([BOX.as_list()]) / [width, height, width, height] * 1024
    with torch.inference_mode():
        features = model.image_encoder(torch.tensor(stretch).float().permute(2, 0, 1)[None])
        sparse, dense = model.prompt_encoder(None, torch.as_tensor(corners, dtype=torch.float)[:, None, :], None)
        logits, _ = model.mask_decoder(features, model.prompt_encoder.get_dense_pe(), sparse, dense, False)
        likely = torch.nn.functional.interpolate(torch.sigmoid(logits), (height, width), mode="bilinear")
    expected = likely[0, 0].numpy() > 0.5
    expert = MedSamExpert("medsam-vit-b", model, "")
    expert.set_picture(Picture(PIXELS))
    found = expert.segment(BOX)
    assert 0 < expected.mean() < 1, "random weights drew a trivial mask"
    assert np.array_equal(found.mask, expected)


@pytest.mark.parametrize("shape", [(90, 140), (200, 150), (128, 128), (300, 40), (1, 9)], ids=str)
def test_stretching_is_scikit_images(shape: tuple[int, int]) -> None:
    levels = np.random.default_rng(2).integers(0, 256, (*shape, 3), np.uint8)
    expected = transform.resize(levels, (128, 128), order=3, preserve_range=True, anti_aliasing=True).astype(np.uint8)
    off = np.abs(stretched(levels, 128).astype(int) - expected)
    assert off.max() <= 1, "a rounding error before the cut to whole levels"
    assert (off > 0).mean() < 1e-3


def test_published_files_are_found_in_the_models_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = sam_model_registry["vit_b"]().state_dict()
    file = tmp_path / "sam_vit_b_01ec64.pth"
    torch.save(weights, file)
    file.with_name("medsam_vit_b.pth").hardlink_to(file)
    monkeypatch.setenv("MEDREASONER_MODELS", str(tmp_path))
    sam, medsam = load_expert("sam-vit-b"), load_expert("medsam-vit-b")
    assert (sam.name, medsam.name) == ("sam-vit-b", "medsam-vit-b")
    assert sam.takes == EXPERTS["sam-vit-b"].takes == {"box", "points"}
    assert medsam.takes == EXPERTS["medsam-vit-b"].takes == {"box"}
    assert len(sam.sha256) == 64


def test_weights_of_another_network_are_refused(tmp_path: Path, model: Sam) -> None:
    torch.save(model.state_dict(), tmp_path / "small.pth")
    with pytest.raises(CheckpointError, match="another network"):
        read_sam(tmp_path / "small.pth", "vit_b")

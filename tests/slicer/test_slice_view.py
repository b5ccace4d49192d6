"""What the radiologist sees: pixels of a slice view drawn by Slicer's own displayable managers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from MedReasonerLib.scene import SceneAnswer
from MedReasonerLib.segments import COLOUR
from MedReasonerLib.shown_slice import ijk_to_ras, shown_in

from tests.slicer import phantom
from tests.slicer.stand_in.application import Application
from tests.slicer.stand_in.slice_view import SliceView

SIZE = (400, 300)
DEPTH = {"Red": 0, "Yellow": 2, "Green": 1}  # the view's axis in (k, j, i)
INSIDE = (9, 8, 8)


@pytest.fixture
def view(scene: Application, request: pytest.FixtureRequest) -> Iterator[SliceView]:
    found = SliceView(scene, request.param, SIZE)
    yield found
    found.close()


def drawn_answer(scene: Application, name: str) -> SceneAnswer:
    volume = phantom.volume(flipped=True)
    logic = scene.views[name]
    logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
    logic.FitSliceToAll(*SIZE)
    logic.GetSliceNode().JumpSliceByOffsetting(*(ijk_to_ras(volume) @ [*INSIDE[::-1], 1.0])[:3])
    return phantom.answer(shown_in(logic))


def is_tinted(pixels: np.ndarray) -> np.ndarray:
    """Where green stands out, as in the mask's colour and in nothing grey or yellow."""
    red, green, blue = (pixels[..., c].astype(int) for c in range(3))
    assert COLOUR[1] > max(COLOUR[0], COLOUR[2])
    return (green - red > 25) & (green - blue > 10)


@pytest.mark.parametrize("view", ["Red", "Yellow", "Green"], indirect=True)
def test_the_mask_is_coloured_where_it_is_and_nowhere_else(
    scene: Application, view: SliceView, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.params["view"]
    answer = drawn_answer(scene, name)
    answer.show_part("box", False)
    answer.show_part("points", False)
    tinted = is_tinted(view.picture())
    to_ras = ijk_to_ras(answer.volume)
    voxels, wrong, seen = answer.mask.full(phantom.SIZE), 0, 0
    axis = DEPTH[name]
    for k, j, i in np.ndindex(voxels.shape):
        if (k, j, i)[axis] == INSIDE[axis]:
            row, column = view.pixel_of((to_ras @ [i, j, k, 1])[:3])
            if 0 <= row < SIZE[1] and 0 <= column < SIZE[0]:
                seen += 1
                wrong += tinted[row, column] != (voxels[k, j, i] != 0)
    assert seen > 500
    assert wrong == 0
    answer.show_part("segmentation", False)
    assert not is_tinted(view.picture()).any()


@pytest.mark.parametrize("view", ["Red"], indirect=True)
def test_box_and_points_are_drawn_on_the_mask(scene: Application, view: SliceView) -> None:
    answer = drawn_answer(scene, "Red")
    answer.show_part("segmentation", False)
    pixels = view.picture().astype(int)
    yellow = (pixels[..., 0] > 150) & (pixels[..., 1] > 120) & (pixels[..., 2] < 110)
    rows, columns = np.nonzero(yellow)
    corners = np.array([view.pixel_of(c) for c in box_corners_of(answer)])
    low, high = corners.min(axis=0), corners.max(axis=0)
    edge = yellow[low[0] - 2 : low[0] + 3, low[1] : high[1]].any(axis=0)
    assert edge.mean() > 0.6  # the upper edge is a line, with three handles on it
    near = (rows >= low[0] - 25) & (rows <= high[0] + 25) & (columns >= low[1] - 25) & (columns <= high[1] + 25)
    assert near.all()  # glyphs and labels stay near the box
    for part in ("box", "points"):
        answer.show_part(part, False)
    pixels = view.picture().astype(int)
    assert not ((pixels[..., 0] > 150) & (pixels[..., 1] > 120) & (pixels[..., 2] < 110)).any()


def box_corners_of(answer: SceneAnswer) -> np.ndarray:
    from MedReasonerLib.geometry import box_corners
    from MedReasonerLib.markups import to_local

    ijk = answer.shown.plane.ijk_of(box_corners(answer.record.box))
    return to_local(ijk, ijk_to_ras(answer.volume))

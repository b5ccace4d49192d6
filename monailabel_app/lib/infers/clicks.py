"""Clicks and boxes drawn in MONAI Label's plug-in for 3D Slicer (SmartEdit), as a region of one slice.

The plug-in sends whole voxel indices: `foreground` and `background` as [[i, j, k], ...], `roi` as [i0, i1, j0, j1,
k0, k1] in which either end may come first, and `slice`, the k it will update.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from medreasoner.contract.answer import Box, Point
from medreasoner.contract.errors import MedReasonerError
from medreasoner.contract.wire import RegionRequest
from medreasoner.expert.protocol import SegmentationExpert
from medreasoner.imaging import StoredImage
from medreasoner.picture import Picture
from monailabel_app.lib.infers.wishes import Wish, picture_of, question_of

DRAW = "draw an ROI around the target, or click on its outermost edges"


def holds_clicks(wish: Wish) -> bool:
    """Whether this comes from SmartEdit and not from a client that sends picture pixels."""
    return wish.get("box") is None and not wish.get("points") and any(wish.get(k) for k in ("foreground", "roi"))


def clicked_region(wish: Wish, image: StoredImage, expert: SegmentationExpert) -> tuple[RegionRequest, Picture]:
    """Turn clicks into a box, or points where the expert takes them, on the stored slice that they are on.

    An ROI is the box, and clicks beside it are points on the target. Without one, the clicks span the box, as extreme
    points do (Papadopoulos et al., ICCV 2017, https://arxiv.org/abs/1708.02750). A single click is a point.

    Raises:
        MedReasonerError: background clicks, which no expert here takes; clicks that span no box; or bad numbers.
    """
    if wish.get("background"):
        raise MedReasonerError("background clicks cannot be used", f"remove them; {DRAW}")
    place = question_of({"question": "clicked", "slice": wish.get("slice"), "window": wish.get("window")})
    clicks = [_indices(click, 3) for click in _list(wish.get("foreground"))]
    index = place.slice_index if place.slice_index is not None or not clicks else round(clicks[-1][2])
    picture = picture_of(image, replace(place, axis="stored", slice_index=index))
    here = [click for click in clicks if round(click[2]) == picture.slice_index]
    points = [picture.point_at(click) for click in here] if "points" in expert.takes else []
    if wish.get("roi"):
        i0, i1, j0, j1, k0, k1 = _indices(wish["roi"], 6)
        box: Box | None = _around([picture.point_at((i0, j0, k0)), picture.point_at((i1, j1, k1))])
    elif len(points) == 1:
        box = None
    else:
        box, points = _spanned(here, picture), []
    region = RegionRequest(
        box=None if box is None else box.as_list(),
        points=[[p.x, p.y] for p in points] or None,
        axis=picture.axis,
        slice_index=picture.slice_index,
        window=place.window,
    )
    return region, picture


def _spanned(clicks: Sequence[Sequence[float]], picture: Picture) -> Box:
    """The box with all of the clicked voxels inside; clicks in a row span none, whatever the size of a voxel."""
    _around([picture.point_at(click) for click in clicks])
    return _around([picture.point_at((i + half, j + half, k)) for i, j, k in clicks for half in (-0.5, 0.5)])


def _around(points: Sequence[Point]) -> Box:
    xs, ys = [p.x for p in points], [p.y for p in points]
    if not points or min(max(xs) - min(xs), max(ys) - min(ys)) < 1:
        raise MedReasonerError("these clicks span no box", DRAW)
    return Box(min(xs), min(ys), max(xs), max(ys))


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > 1000:
        raise MedReasonerError(f"{str(value)[:40]!r} is not a list of clicks", "send [[i, j, k], ...]")
    return value


def _indices(values: Any, count: int) -> list[float]:
    ok = isinstance(values, list) and len(values) == count
    if not ok or not all(isinstance(v, (int, float)) and -1e6 < v < 1e6 for v in values):
        raise MedReasonerError(f"{str(values)[:40]!r} is not {count} voxel indices", "send whole numbers, as in IJK")
    return [float(v) for v in values]

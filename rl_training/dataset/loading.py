"""From an example to the dictionary that transforms work on, fitted to the reasoner's canvas.

Keys: `image` (3, height, width) float32 in [0, 1] and `mask` (1, height, width) float32 of zeros and ones, both torch
tensors; `outline` (n, 2) and `points` (2, 2) float64 arrays of x, y in picture pixels, corner origin; `box` (4,), the
bounds of the outline; `moved` (3, 3), from the example's own picture to this one; `example`, and of it `id`, `absent`,
`target`, `kind` and `laterality`; later `question`. An absent target has an empty mask, an empty outline and no `box`
and `points`; a target without a mask has the corners of its box for an outline.

The points are the centres of the two pixels while they move; `Numbersd` brings them back to pixels' corners.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms.transform import MapTransform, Transform
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from medreasoner.reasoner.letterbox import Letterbox
from rl_training.dataset.example import DataError, Example
from rl_training.dataset.masks import mask_on
from rl_training.dataset.placing import place_of

Data = dict[str, Any]
Array = NDArray[np.float64]


def outline_of(mask: NDArray[np.bool_]) -> Array:
    """Return the corners of a mask's convex hull, (n, 2) x, y in corner-origin pixels; (0, 2) where it is empty.

    Whatever affine map moves the mask, the bounds of the moved corners are the bounds of the moved mask.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return np.zeros((0, 2))
    left = mask[rows].argmax(axis=1)
    right = mask.shape[1] - mask[rows, ::-1].argmax(axis=1)
    spread = np.concatenate([np.stack([x, rows + edge], axis=1) for x in (left, right) for edge in (0, 1)]).astype(
        float
    )
    return np.asarray(spread[ConvexHull(spread).vertices])


def bounds(outline: Array) -> Array:
    """Return x_min, y_min, x_max, y_max of an outline that is not empty."""
    return np.concatenate([outline.min(axis=0), outline.max(axis=0)])


class LoadExample(Transform):
    """Read an example's picture and mask on a square canvas, with box and points by the one rule or as given."""

    def __init__(self, canvas: int, by_rule: bool = True) -> None:
        """Take the canvas' side in pixels, and whether points are made from the mask even where they are given."""
        self.canvas, self.by_rule = canvas, by_rule

    def __call__(self, example: Example) -> Data:
        """Return the dictionary; raises `DataError` naming a row that cannot be used."""
        picture = example.picture()
        mask = mask_on(example, picture)
        fit = Letterbox.of(picture.width, picture.height, self.canvas)
        data: Data = {
            "image": torch.from_numpy(fit.picture(picture.pixels).transpose(2, 0, 1).copy()).float() / 255,
            "example": example,
            "id": example.id,
            "absent": example.absent,
            "target": example.target,
            "kind": example.kind,
            "laterality": example.laterality,
            "moved": _matrix(fit),
        }
        drawn = None if mask is None else fit.mask(mask)
        if drawn is not None:
            data["mask"] = torch.from_numpy(drawn).float()[None]
        if example.absent:
            return {**data, "outline": np.zeros((0, 2))}
        return {**data, **self._place(example, drawn, fit)}

    def _place(self, example: Example, drawn: NDArray[np.bool_] | None, fit: Letterbox) -> Data:
        place = None if drawn is None else place_of(drawn)
        if drawn is not None and place is None:
            raise DataError(
                f"{example.where}: the target vanishes on a canvas of {fit.canvas} pixels", "choose a larger canvas"
            )
        if example.box is None or example.points is None or (self.by_rule and place is not None):
            if drawn is None or place is None:
                raise DataError(f"{example.where}: has neither a mask nor box and points", "give one of them")
            centres = np.array([[p.x, p.y] for p in place[1]]) + 0.5
        else:
            own = np.array([[p.x, p.y] for p in example.points]) + 0.5
            centres = mapped(_matrix(fit), own)
        if drawn is not None:
            outline = outline_of(drawn)
        else:
            assert example.box is not None
            x_min, y_min, x_max, y_max = fit.box_to_canvas(example.box).as_list()
            outline = np.array([[x_min, y_min], [x_max, y_min], [x_max, y_max], [x_min, y_max]])
        return {"outline": outline, "box": bounds(outline), "points": centres}


class Numbersd(MapTransform):
    """End of a chain: points become whole pixels that lie on the mask, the box whole numbers outwards."""

    def __init__(self) -> None:
        super().__init__(keys=("box", "points"), allow_missing_keys=True)

    def __call__(self, data: Mapping[Any, Any]) -> Data:
        """Return the dictionary with integer `box` and `points`."""
        d = dict(data)
        if d["absent"]:
            return d
        size = d["image"].shape[-1]
        x_min, y_min, x_max, y_max = np.clip(d["box"], 0, size)
        d["box"] = np.array([np.floor(x_min), np.floor(y_min), np.ceil(x_max), np.ceil(y_max)]).astype(int)
        pixels = np.clip(np.floor(d["points"]), 0, size - 1).astype(int)
        if "mask" in d:
            ys, xs = np.nonzero(d["mask"][0].numpy())
            nearest = [((xs - x) ** 2 + (ys - y) ** 2).argmin() for x, y in pixels]
            pixels = np.array([[xs[n], ys[n]] for n in nearest])
        d["points"] = pixels
        return d


def mapped(matrix: Array, positions: Array) -> Array:
    """Send (n, 2) positions through a 3 x 3 affine matrix."""
    return np.asarray(positions @ matrix[:2, :2].T + matrix[:2, 2])


def _matrix(fit: Letterbox) -> Array:
    """Picture pixels to canvas pixels, as 3 x 3."""
    return np.array(
        [[fit.inner_width / fit.width, 0, fit.left], [0, fit.inner_height / fit.height, fit.top], [0, 0, 1.0]]
    )

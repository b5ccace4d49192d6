"""From an example to the dictionary that transforms work on, fitted to the reasoner's canvas.

Keys: `image` (3, height, width) float32 in [0, 1] and `mask` (1, height, width) float32 of zeros and ones;
`outline` (n, 2) and `points` (2, 2), x and y in picture pixels, corner origin; `box` (4,), the bounds of the outline;
`moved` (3, 3), from the example's own picture to this one; of the example `id`, `absent`, `target`, `kind`,
`laterality` and `questions` by style; later `question`. Numbers are torch tensors, places float64, so that a cache on
disk holds nothing that could run. An absent target has an empty mask and outline and no `box` and `points`; a target
without a mask has the corners of its box for an outline.

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
from rl_training.dataset.example import DataError, Example, Points
from rl_training.dataset.masks import mask_on
from rl_training.dataset.placing import place_of

Data = dict[str, Any]


def outline_of(mask: NDArray[np.bool_]) -> torch.Tensor:
    """Return the corners of a mask's convex hull, (n, 2) x, y in corner-origin pixels; (0, 2) where it is empty.

    Whatever affine map moves the mask, the bounds of the moved corners are the bounds of the moved mask.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return torch.zeros((0, 2), dtype=torch.float64)
    left = mask[rows].argmax(axis=1)
    right = mask.shape[1] - mask[rows, ::-1].argmax(axis=1)
    spread = np.concatenate([np.stack([x, rows + edge], axis=1) for x in (left, right) for edge in (0, 1)]).astype(
        float
    )
    return torch.from_numpy(spread[ConvexHull(spread).vertices])


def bounds(outline: torch.Tensor) -> torch.Tensor:
    """Return x_min, y_min, x_max, y_max of an outline that is not empty."""
    return torch.cat([outline.amin(0), outline.amax(0)])


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
            "id": example.id,
            "absent": example.absent,
            "target": example.target,
            "kind": example.kind,
            "laterality": example.laterality,
            "questions": dict(example.questions.by_style),
            "moved": _matrix(fit),
        }
        drawn = None if mask is None else fit.mask(mask)
        if drawn is not None:
            data["mask"] = torch.from_numpy(drawn).float()[None]
        if example.absent:
            return {**data, "outline": torch.zeros((0, 2), dtype=torch.float64)}
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
            points = centres(place[1])
        else:
            points = mapped(_matrix(fit), centres(example.points))
        if drawn is not None:
            outline = outline_of(drawn)
        else:
            assert example.box is not None
            x_min, y_min, x_max, y_max = fit.box_to_canvas(example.box).as_list()
            corners = [[x_min, y_min], [x_max, y_min], [x_max, y_max], [x_min, y_max]]
            outline = torch.tensor(corners, dtype=torch.float64)
        return {"outline": outline, "box": bounds(outline), "points": points}


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
        box, pixels = d["box"].clamp(0, size), d["points"].floor().clamp(0, size - 1).long()
        d["box"] = torch.cat([box[:2].floor(), box[2:].ceil()]).long()
        if "mask" in d:
            on_target = d["mask"][0].nonzero().flip(1)
            apart = (on_target[None] - pixels[:, None]).pow(2).sum(2)
            pixels = on_target[apart.argmin(1)]
        d["points"] = pixels
        return d


def centres(points: Points) -> torch.Tensor:
    """Return the centres of the two pixels, (2, 2) x, y."""
    return torch.tensor([[p.x + 0.5, p.y + 0.5] for p in points], dtype=torch.float64)


def mapped(matrix: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Send (n, 2) positions through a 3 x 3 affine matrix."""
    return positions @ matrix[:2, :2].T + matrix[:2, 2]


def _matrix(fit: Letterbox) -> torch.Tensor:
    """Picture pixels to canvas pixels, as 3 x 3."""
    across, down = fit.inner_width / fit.width, fit.inner_height / fit.height
    return torch.tensor([[across, 0, fit.left], [0, down, fit.top], [0, 0, 1]], dtype=torch.float64)

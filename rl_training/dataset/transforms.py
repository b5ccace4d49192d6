"""MONAI dictionary transforms that move image, mask, outline, box and points together (keys: loading.py).

Every one of them is an affine map of picture pixels (docs/coordinates.md), so one function moves everything. The box
follows the target's outline and not its own corners: it stays tight under rotation.

A horizontal flip would make a left kidney a right one, and put the liver on the wrong side. It is refused unless the
kind of image has no side of its own (`rl_training.feed.FLIPS_ACROSS`) and neither the question, nor the target's name,
nor its laterality names a direction. Words are never swapped: "right" has too many meanings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.transforms.transform import RandomizableTransform
from numpy.typing import NDArray

from rl_training.dataset.loading import Data, bounds, centres, mapped, outline_of
from rl_training.dataset.placing import place_of
from rl_training.feed import DIRECTION, FLIPS_ACROSS, FLIPS_BOTH

MIN_KEPT = 0.65  # a move that pushes more of the target out of the picture is refused, as in rl_training.warp
_SHORT_SIDES = re.compile(r"\b([lr]|[lr][ul]q)\b", re.IGNORECASE)  # "R kidney", "RUQ"


def move(data: Mapping[Any, Any], matrix: torch.Tensor) -> Data:
    """Return the dictionary with everything moved on the same canvas, or as it is where the target would be lost.

    A target that is cut by the border is a new shape: its box and points are read again from what is left of the mask.

    Args:
        data: see loading.py.
        matrix: 3 x 3, picture pixels before to picture pixels after.
    """
    d = dict(data)
    d["moved"] = matrix @ d["moved"]
    d["image"] = _sampled(d["image"], matrix, "bilinear")
    if "mask" in d:
        d["mask"] = _sampled(d["mask"], matrix, "nearest")
    if d["absent"]:
        return d
    if "mask" in d and not d["mask"].any():  # smaller than a pixel, or outside
        return dict(data)
    d["outline"], d["points"] = mapped(matrix, d["outline"]), mapped(matrix, d["points"])
    d["box"] = bounds(d["outline"])
    height, width = d["image"].shape[-2:]
    if (d["box"] >= 0).all() and (d["box"] <= torch.tensor([width, height] * 2)).all():
        return d
    if "mask" not in d:
        return dict(data)
    whole = float(data["mask"].sum()) * abs(float(torch.linalg.det(matrix[:2, :2])))
    left = d["mask"][0].numpy() > 0
    place = place_of(left)
    if place is None or np.count_nonzero(left) < MIN_KEPT * whole:
        return dict(data)
    d["outline"] = outline_of(left)
    d["box"], d["points"] = bounds(d["outline"]), centres(place[1])
    return d


def _sampled(values: torch.Tensor, matrix: torch.Tensor, mode: str) -> torch.Tensor:
    """Resample (channels, height, width); zeros come in from outside. Corner-origin pixels are torch's own frame."""
    height, width = values.shape[-2:]
    to_unit = torch.tensor([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]], dtype=torch.float64)
    back = to_unit @ torch.linalg.inv(matrix) @ torch.linalg.inv(to_unit)
    theta = back[:2].to(values.dtype)[None]
    grid = F.affine_grid(theta, [1, *values.shape], align_corners=False)
    return F.grid_sample(values[None], grid, mode=mode, align_corners=False)[0]


def may_flip(data: Mapping[Any, Any]) -> tuple[bool, bool]:
    """Say whether an example may be flipped across (left for right), and down (top for bottom)."""
    words = " ".join(str(data.get(key, "")) for key in ("question", "target"))
    directed = bool(DIRECTION.search(words) or _SHORT_SIDES.search(words) or data["laterality"])
    return not directed and data["kind"] in FLIPS_ACROSS, not directed and data["kind"] in FLIPS_BOTH


class RandFlipTargetd(RandomizableTransform):
    """Mirror where the kind of image and the question allow it; see the top of this module."""

    def __init__(self, prob: float = 0.5) -> None:
        super().__init__(prob=1.0)
        self.each = prob
        self.drawn = False, False

    def randomize(self, data: Any = None) -> None:  # noqa: ARG002  MONAI's signature
        self.drawn = bool(self.R.random() < self.each), bool(self.R.random() < self.each)

    def __call__(self, data: Mapping[Any, Any]) -> Data:
        """Flip across, down, both or not at all."""
        self.randomize()
        across, down = (drawn and may for drawn, may in zip(self.drawn, may_flip(data), strict=True))
        if not across and not down:
            return dict(data)
        height, width = data["image"].shape[-2:]
        linear = np.diag([-1.0 if across else 1.0, -1.0 if down else 1.0])
        return move(data, _affine(linear, np.array([width if across else 0, height if down else 0])))


class RandAffineTargetd(RandomizableTransform):
    """Rotate, scale, stretch and shift about the middle of the picture."""

    def __init__(
        self,
        prob: float = 0.65,
        degrees: float = 18,
        scale: float = 0.30,
        stretch: float = 0.10,
        shift: float = 0.22,
    ) -> None:
        """Take the largest turn, the largest logarithm of scale and of stretch, and the largest shift in half sides.

        The defaults are those of `rl_training.warp`.
        """
        super().__init__(prob=prob)
        self.most = degrees, scale, stretch, shift
        self.drawn = np.zeros(5)

    def randomize(self, data: Any = None) -> None:
        super().randomize(data)
        self.drawn = self.R.uniform(-1, 1, 5)

    def __call__(self, data: Mapping[Any, Any]) -> Data:
        """Move, or leave as it is where the draw says so or too much of the target would be lost."""
        self.randomize()
        if not self._do_transform:
            return dict(data)
        degrees, scale, stretch, shift = self.most
        turn, size, aspect = math.radians(degrees) * self.drawn[0], scale * self.drawn[1], stretch * self.drawn[2]
        height, width = data["image"].shape[-2:]
        cos, sin = math.cos(turn), math.sin(turn)
        linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([math.exp(size + aspect), math.exp(size)])
        middle = np.array([width, height]) / 2
        return move(data, _affine(linear, middle - linear @ middle + shift * middle * self.drawn[3:]))


class RandCropTargetd(RandomizableTransform):
    """Show a square part of the picture that holds the whole target, enlarged to the canvas."""

    def __init__(self, prob: float = 0.3, smallest: float = 0.6) -> None:
        """Take the smallest side of the part, as a share of the picture's."""
        super().__init__(prob=prob)
        self.smallest = smallest
        self.drawn = np.zeros(3)

    def randomize(self, data: Any = None) -> None:
        super().randomize(data)
        self.drawn = self.R.uniform(0, 1, 3)

    def __call__(self, data: Mapping[Any, Any]) -> Data:
        """Crop, so that no target is ever cut."""
        self.randomize()
        if not self._do_transform:
            return dict(data)
        side = data["image"].shape[-1]
        part = side * (self.smallest + (1 - self.smallest) * self.drawn[0])
        low, high = np.zeros(2), np.full(2, side - part)
        if not data["absent"]:
            box = data["box"].numpy()
            part = min(side, max(part, *(box[2:] - box[:2])))
            low, high = np.maximum(0, box[2:] - part), np.minimum(side - part, box[:2])
        start = low + (high - low) * self.drawn[1:]
        return move(data, _affine(np.eye(2) * side / part, -start * side / part))


def _affine(linear: NDArray[np.float64], shift: NDArray[np.float64]) -> torch.Tensor:
    """Put a 2 x 2 matrix and a shift into one 3 x 3 matrix."""
    return torch.from_numpy(np.block([[linear, shift[:, None]], [np.zeros(2), np.ones(1)]]))

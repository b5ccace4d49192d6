"""Move pictures and masks together on the GPU, and read box and points from the mask that comes out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

POINT_SPREAD = 1.0  # points lie this many standard deviations from the centre, along the mask's long axis
_MIN_KEPT = 0.65  # a warp that pushes more of the target out of the picture is not used
_MIN_PIXELS = 40


@dataclass(frozen=True)
class Freedom:
    """What each picture of a batch allows; all (batch,) bool."""

    warp: torch.Tensor
    flip_horizontal: torch.Tensor
    flip_vertical: torch.Tensor


def warp_batch(
    pictures: torch.Tensor, masks: torch.Tensor, freedom: Freedom, generator: torch.Generator, strength: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate, scale, shift and flip each picture with its mask, then vary its intensities.

    Args:
        pictures: (batch, 3, side, side) float in [0, 1].
        masks: (batch, side, side) float of zeros and ones; all-zero masks (absent targets) move freely.
        freedom: which pictures may be warped and flipped.
        generator: source of randomness, on the same device.
        strength: multiplies every range of the move: 18 degrees, a factor of 1.35, a stretch of 1.1, 0.11 sides.

    Returns:
        pictures and masks of the same shapes.
    """
    count, device = len(pictures), pictures.device

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(count, device=device, generator=generator) * (high - low) + low

    angle, scale = strength * uniform(-1, 1) * math.radians(18), torch.exp(strength * uniform(-0.30, 0.30))
    stretch = torch.exp(strength * uniform(-0.10, 0.10))
    shift_x, shift_y = strength * uniform(-0.22, 0.22), strength * uniform(-0.22, 0.22)
    mirror = torch.where(freedom.flip_horizontal & (uniform(0, 1) < 0.5), -1.0, 1.0)
    turn = torch.where(freedom.flip_vertical & (uniform(0, 1) < 0.5), -1.0, 1.0)
    still = ~freedom.warp
    angle = torch.where(still, torch.zeros_like(angle), angle)
    scale, stretch = (torch.where(still, torch.ones_like(v), v) for v in (scale, stretch))
    shift_x, shift_y = (torch.where(still, torch.zeros_like(v), v) for v in (shift_x, shift_y))
    theta = torch.stack(
        [
            torch.stack([torch.cos(angle) * scale * stretch * mirror, -torch.sin(angle) * scale * turn, shift_x], 1),
            torch.stack([torch.sin(angle) * scale * stretch * mirror, torch.cos(angle) * scale * turn, shift_y], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    moved = F.grid_sample(pictures, grid, mode="bilinear", align_corners=False)
    moved_mask = F.grid_sample(masks[:, None], grid, mode="nearest", align_corners=False)[:, 0]
    before, after = masks.flatten(1).sum(1), moved_mask.flatten(1).sum(1)
    kept = after > _MIN_KEPT * before / (scale**2 * stretch)
    fine = (before == 0) | (kept & (after > _MIN_PIXELS))
    pictures = torch.where(fine[:, None, None, None], moved, pictures)
    masks = torch.where(fine[:, None, None], moved_mask, masks)
    return _vary_intensity(pictures, generator), masks


def _vary_intensity(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Gamma, contrast, brightness, a tint, blur and noise, each mild; three pictures in four."""
    count, device = len(pictures), pictures.device

    def uniform(low: float, high: float, channels: int = 1) -> torch.Tensor:
        shape = (count, channels, 1, 1)
        return torch.rand(shape, device=device, generator=generator) * (high - low) + low

    varied = pictures.clamp(1e-4, 1) ** torch.exp(uniform(-0.35, 0.35))
    varied = (varied - 0.5) * uniform(0.8, 1.25) + 0.5 + uniform(-0.08, 0.08)
    varied = varied * uniform(0.93, 1.07, 3)
    small = F.interpolate(varied, scale_factor=0.5, mode="bilinear", antialias=True)
    blurred = F.interpolate(small, size=varied.shape[-2:], mode="bilinear")
    varied = torch.where(uniform(0, 1) < 0.2, blurred, varied)
    noise = torch.randn(varied.shape, device=device, generator=generator)
    varied = (varied + noise * uniform(0, 0.03)).clamp(0, 1)
    return torch.where(uniform(0, 1) < 0.75, varied, pictures)


def boxes_and_points(masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Read the tight box and two points from each mask.

    The points are the mask pixels nearest to one standard deviation from the centre of mass on both sides along the
    mask's long axis: inside the target, apart from each other, on both halves of it.

    Args:
        masks: (batch, side, side) bool, none of them empty (an empty one gives a box over everything).

    Returns:
        boxes (batch, 4) long, half-open x_min, y_min, x_max, y_max, and points (batch, 2, 2) long, x and y of pixel
        corners rounded down.
    """
    side = masks.shape[-1]
    rows, columns = masks.any(2).int(), masks.any(1).int()
    y_min, y_max = rows.argmax(1), side - rows.flip(1).argmax(1)
    x_min, x_max = columns.argmax(1), side - columns.flip(1).argmax(1)
    boxes = torch.stack([x_min, y_min, x_max, y_max], 1)

    weight = masks.float()
    total = weight.flatten(1).sum(1).clamp(min=1)
    steps = torch.arange(side, device=masks.device, dtype=torch.float32)
    xs, ys = steps[None, None, :], steps[None, :, None]

    def mean(values: torch.Tensor) -> torch.Tensor:
        return (weight * values).flatten(1).sum(1) / total

    x0, y0 = mean(xs.expand_as(weight)), mean(ys.expand_as(weight))
    dx, dy = xs - x0[:, None, None], ys - y0[:, None, None]
    xx, xy, yy = mean(dx * dx + 0 * dy), mean(dx * dy), mean(dy * dy + 0 * dx)
    spread = (xx + yy) / 2 + ((xx - yy) ** 2 / 4 + xy**2).sqrt()
    angle = 0.5 * torch.atan2(2 * xy, xx - yy)
    reach = POINT_SPREAD * spread.clamp(min=0).sqrt()
    found = []
    for sign in (-1, 1):
        off_x, off_y = sign * reach * torch.cos(angle), sign * reach * torch.sin(angle)
        distance = (dx - off_x[:, None, None]) ** 2 + (dy - off_y[:, None, None]) ** 2
        nearest = (distance + (~masks) * 1e9).flatten(1).argmin(1)
        found.append(torch.stack([nearest % side, nearest // side], 1))
    return boxes, torch.stack(found, 1)

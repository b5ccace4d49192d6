"""Plane geometry on `Box` and `Point`; pure functions, pixels in, ratios out."""

from __future__ import annotations

import math

from medreasoner.contract.answer import Box, Point


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, in [0, 1]."""
    width = min(a.x_max, b.x_max) - max(a.x_min, b.x_min)
    height = min(a.y_max, b.y_max) - max(a.y_min, b.y_min)
    if width <= 0 or height <= 0:
        return 0.0
    overlap = width * height
    return overlap / (a.area + b.area - overlap)


def disc_of(points: tuple[Point, Point]) -> tuple[Point, float]:
    """Return centre and radius (pixels) of the disc whose diameter joins the two points."""
    first, second = points
    centre = Point((first.x + second.x) / 2, (first.y + second.y) / 2)
    return centre, math.hypot(first.x - second.x, first.y - second.y) / 2


def disc_overlap(a: tuple[Point, Point], b: tuple[Point, Point]) -> tuple[float, float, float]:
    """Areas in square pixels: of the overlap of both discs, of the first disc, of the second.

    The overlap of two circles is the sum of two circular segments (https://mathworld.wolfram.com/
    Circle-CircleIntersection.html, equation 14).
    """
    (p, r), (q, s) = disc_of(a), disc_of(b)
    distance = math.hypot(p.x - q.x, p.y - q.y)
    first, second = math.pi * r * r, math.pi * s * s
    if distance >= r + s:
        return 0.0, first, second
    if distance <= abs(r - s):
        return min(first, second), first, second
    at_p = math.acos(_unit((distance**2 + r**2 - s**2) / (2 * distance * r)))
    at_q = math.acos(_unit((distance**2 + s**2 - r**2) / (2 * distance * s)))
    lens = r * r * (at_p - math.sin(2 * at_p) / 2) + s * s * (at_q - math.sin(2 * at_q) / 2)
    return min(lens, first, second), first, second


def _unit(value: float) -> float:
    return min(1.0, max(-1.0, value))

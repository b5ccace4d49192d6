"""Where DICOM slices lie in the patient: PS3.3 C.7.6.2 for single slices, C.7.6.16 for the frames of enhanced files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medreasoner.contract.errors import ImageError
from medreasoner.picture import Matrix

SAME_DIRECTION = 1e-3  # of a cosine, 0.06 degrees: scanners round
SAME_PLACE_MM = 0.01
UNEVEN = 0.05, 0.02  # of the slice spacing, plus mm: positions are written with two or three decimals


@dataclass(frozen=True)
class SlicePlane:
    """One slice: LPS mm of the centre of its first pixel, and the steps to the next pixels and to the next slice."""

    position: NDArray[np.float64]
    right: NDArray[np.float64]
    down: NDArray[np.float64]
    thickness: float

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector that makes right, down, normal right-handed."""
        cross = np.cross(self.right, self.down)
        return np.asarray(cross / np.linalg.norm(cross))


def frame_value(dataset: Dataset, frame: int, sequence: str, keyword: str) -> Any:
    """An attribute as it holds for one frame: its own, else the one all frames share, else the file's, else None."""
    own = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for group in (*own[frame : frame + 1], *shared[:1]):
        items = group.get(sequence)
        if items and items[0].get(keyword) not in (None, ""):
            return items[0][keyword].value
    return dataset.get(keyword)


def slice_plane(dataset: Dataset, frame: int = 0) -> SlicePlane | None:
    """The plane of one frame, or None where the file does not say (or says nonsense, such as all zeros)."""
    if int(dataset.get("NumberOfFrames") or 1) > 1 and "PerFrameFunctionalGroupsSequence" not in dataset:
        return None  # one position for all frames of a film says nothing about each
    position = frame_value(dataset, frame, "PlanePositionSequence", "ImagePositionPatient")
    cosines = frame_value(dataset, frame, "PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = frame_value(dataset, frame, "PixelMeasuresSequence", "PixelSpacing")
    if not (position and cosines and spacing) or (len(position), len(cosines), len(spacing)) != (3, 6, 2):
        return None
    right, down = np.asarray(cosines, float).reshape(2, 3)
    row_step, column_step = (float(v) for v in spacing)  # PS3.3 10.7.1.3: between rows first
    lengths = np.linalg.norm(right), np.linalg.norm(down)
    if min(row_step, column_step) <= 0 or not np.allclose([*lengths, 1 + right @ down], 1, atol=0.01):
        return None
    steps = [
        frame_value(dataset, frame, "PixelMeasuresSequence", keyword)
        for keyword in ("SpacingBetweenSlices", "SliceThickness")
    ]
    thickness = next((float(step) for step in steps if step and float(step) > 0), 1.0)
    return SlicePlane(np.asarray(position, float), right * column_step, down * row_step, thickness)


def stack(planes: Sequence[SlicePlane], names: Sequence[str], whole: str, hint: str) -> tuple[list[int], Matrix]:
    """Order slices along their normal and build the affine of the volume they make.

    Under gantry tilt the positions drift sideways from slice to slice; the third column keeps that shear.

    Args:
        planes: one for each slice, in any order.
        names: what to call each slice in a message.
        whole: what to call all of them.
        hint: what to do when they make no volume.

    Returns:
        The order, and the 4x4 matrix from IJK to LPS mm (k counts in that order).

    Raises:
        ImageError: other orientations, sizes of pixels, doubled or missing positions.
    """
    head = planes[0]
    for plane in planes[1:]:
        if not np.allclose([plane.right, plane.down], [head.right, head.down], rtol=0, atol=_step_tolerance(head)):
            raise ImageError(f"the slices of {whole} differ in orientation or pixel spacing", hint)
    depths = np.array([plane.position @ head.normal for plane in planes])
    order = [int(n) for n in np.argsort(depths, kind="stable")]
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 3] = head.right, head.down, planes[order[0]].position
    affine[:3, 2] = head.normal * head.thickness
    if len(planes) > 1:
        affine[:3, 2] = _slice_step([planes[n] for n in order], depths[order], [names[n] for n in order], whole, hint)
    return order, affine


def _step_tolerance(plane: SlicePlane) -> float:
    return SAME_DIRECTION * max(float(np.linalg.norm(plane.right)), float(np.linalg.norm(plane.down)))


def _slice_step(
    planes: list[SlicePlane], depths: NDArray[np.float64], names: list[str], whole: str, hint: str
) -> NDArray[np.float64]:
    gaps = np.diff(depths)
    if gaps.min() < SAME_PLACE_MM:
        twin = int(np.argmin(gaps))
        raise ImageError(
            f"{whole} has several slices at one place ({names[twin]} and {names[twin + 1]}), as 4-D series do", hint
        )
    positions = np.stack([plane.position for plane in planes])
    step = (positions[-1] - positions[0]) / (len(planes) - 1)
    off = np.linalg.norm(positions - positions[0] - np.arange(len(planes))[:, None] * step, axis=1)
    if off.max() > UNEVEN[0] * np.linalg.norm(step) + UNEVEN[1]:
        widest = int(np.argmax(gaps))
        raise ImageError(
            f"the slices of {whole} are not evenly spaced: {gaps.min():.2f} to {gaps.max():.2f} mm apart, "
            f"the widest gap between {names[widest]} and {names[widest + 1]}",
            "fetch the missing slices, or resample the series to even spacing first",
        )
    return np.asarray(step)

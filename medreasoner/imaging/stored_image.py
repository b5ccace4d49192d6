"""One opened file or series: its values, where they lie in the patient, and the pictures that can be cut from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medreasoner.contract.errors import ImageError
from medreasoner.contract.wire import AXES
from medreasoner.imaging.grey_levels import (
    LookupTable,
    Window,
    automatic_window,
    check_window,
    exact_function,
    window_grey,
)
from medreasoner.imaging.oblique import oblique_grid, sample
from medreasoner.imaging.planes import (
    IndexPlane,
    acquired_name,
    anatomical_plane,
    square_pixels,
    stored_plane,
    view_across,
)
from medreasoner.picture import Matrix, Picture

ANISOTROPIC = 1.5  # slices this much thicker than their pixels are shown in the plane they were taken in


@dataclass(frozen=True, eq=False)
class StoredImage:
    """An image as its file has it.

    Attributes:
        path: the file, or the folder of a DICOM series.
        values: (i, j, k) scalars after the modality LUT, or (i, j, k, 3) uint8 colours; k counts slices or frames.
        index_to_lps: 4x4, IJK (voxel centres) to DICOM patient mm, or None where the file does not say.
        modality: DICOM code, or an empty string; CT also for NIfTI and NRRD that reach below -500.
        default_window: (centre, width) from the file, None where it has none.
        is_volume: several slices with geometry, so that axial, coronal and sagittal make sense.
        inverted: MONOCHROME1, where small values are bright.
        voi_function: how `default_window` is meant: LINEAR, LINEAR_EXACT or SIGMOID.
        voi_table: the file's VOI lookup table, used before `default_window`.
        padding: lowest and highest value (inclusive) that mean "not imaged".
        pixel_size: size of a voxel along i, j, k where `index_to_lps` is None; only ratios matter.
        opens_as_stored: without a wish, show rows and columns as stored (DICOM, pictures), not a radiological view.
        sources: for DICOM, the file and the frame in it (from 0) of each k.
    """

    path: Path
    values: NDArray[Any]
    index_to_lps: Matrix | None = None
    modality: str = ""
    default_window: Window | None = None
    is_volume: bool = False
    inverted: bool = False
    voi_function: str = "LINEAR"
    voi_table: LookupTable | None = None
    padding: tuple[float, float] | None = None
    pixel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    opens_as_stored: bool = True
    sources: tuple[tuple[Path, int], ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Size along i, j, k."""
        i, j, k = self.values.shape[:3]
        return i, j, k

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxel centres along i, j, k; mm where the geometry is known."""
        if self.index_to_lps is None:
            return self.pixel_size
        i, j, k = np.linalg.norm(self.index_to_lps[:3, :3], axis=0)
        return float(i), float(j), float(k)

    def slice_count(self, axis: str | None = None) -> int:
        """How many slices a view has; `axis` as in `picture`."""
        return self.shape[self._plane(axis).through]

    def picture(self, axis: str | None = None, slice_index: int | None = None, window: Window | None = None) -> Picture:
        """Cut one slice.

        Args:
            axis: axial, coronal, sagittal (radiological display), stored (columns right, rows down), or None for the
                acquired plane as stored (DICOM, pictures) or the plane of finest resolution (NIfTI, NRRD).
            slice_index: counted from 0 in stored order; None is the middle one.
            window: (centre, width) in the image's units; None is the file's own, else an automatic one.

        Returns:
            A picture with square pixels. Its `to_index` holds any flip and scale.

        Raises:
            ImageError: the view or slice does not exist, or the window cannot be used.
        """
        plane = self._plane(axis)
        count = self.shape[plane.through]
        index = count // 2 if slice_index is None else slice_index
        if not 0 <= index < count:
            raise ImageError(
                f"slice {index} of {self.path.name} does not exist",
                f"choose a {plane.name} slice from 0 to {count - 1}",
            )
        pixels = plane.cut(self.values, index)
        chosen = self._window(pixels, window)
        spacing = self.spacing[plane.right[0]], self.spacing[plane.down[0]]
        square, steps = square_pixels(pixels, spacing, self.path.name)
        to_index = plane.to_index(self.shape, index, steps)
        return self._finish(square, chosen, window is not None, to_index, plane.name, index)

    def oblique_picture(
        self,
        centre_lps: Any,
        right_lps: Any,
        down_lps: Any,
        size_mm: tuple[float, float],
        spacing_mm: float | None = None,
        window: Window | None = None,
    ) -> Picture:
        """Resample any plane of a volume, linearly; what lies outside the volume is black.

        Args:
            centre_lps: patient position of the picture's centre, mm.
            right_lps: direction of picture right; any length.
            down_lps: direction of picture down, perpendicular to `right_lps`; any length.
            size_mm: width and height.
            spacing_mm: pixel size; None is the volume's finest spacing.
            window: as in `picture`.

        Raises:
            ImageError: not a volume, a plane that is none or misses the volume, or a window that cannot be used.
        """
        if not self.is_volume or self.index_to_lps is None:
            raise ImageError(f"{self.path.name} is not a volume with geometry", "use one of its stored slices")
        spacing = min(self.spacing) if spacing_mm is None else spacing_mm
        to_index, width, height = oblique_grid(self.index_to_lps, centre_lps, right_lps, down_lps, size_mm, spacing)
        pixels, inside = sample(self.values, to_index, width, height)
        if not inside.any():
            raise ImageError(f"the plane does not cut {self.path.name}", "move the plane into the volume")
        chosen = self._window(pixels[inside], window)
        picture = self._finish(pixels, chosen, window is not None, to_index, "oblique", 0)
        picture.pixels[~inside] = 0
        return picture

    def _plane(self, axis: str | None) -> IndexPlane:
        if axis == "stored" or (axis is None and self.index_to_lps is None):
            return stored_plane()
        if axis is not None and axis not in AXES:
            raise ImageError(f"there is no view {axis!r}", f"use one of {', '.join(AXES)}")
        if self.index_to_lps is None:
            raise ImageError(
                f"{self.path.name} does not say how it lies in the patient, so it has no {axis} view",
                "use the axis 'stored'",
            )
        if axis is None and self.opens_as_stored:
            return stored_plane(acquired_name(self.index_to_lps))
        if axis is None:
            return self._finest_plane(self.index_to_lps)
        plane = anatomical_plane(axis, self.index_to_lps)
        if min(self.shape[plane.right[0]], self.shape[plane.down[0]]) == 1 < self.shape[plane.through]:
            flat = view_across(self.shape.index(1), self.index_to_lps)
            raise ImageError(f"{self.path.name} is one {flat} slice and has no {axis} view", f"use the axis {flat!r}")
        return plane

    def _finest_plane(self, index_to_lps: Matrix) -> IndexPlane:
        """Axial, unless the slices are thick along another axis or there is only one slice."""
        order = np.argsort(self.spacing)
        flat = [axis for axis in (2, 1, 0) if self.shape[axis] == 1]
        thick = self.spacing[order[2]] > ANISOTROPIC * self.spacing[order[1]]
        if flat or thick:
            return anatomical_plane(view_across(flat[0] if flat else int(order[2]), index_to_lps), index_to_lps)
        return anatomical_plane("axial", index_to_lps)

    def _window(self, pixels: NDArray[Any], wished: Window | None) -> Window | None:
        if self.values.ndim == 4:
            return None
        if wished is not None:
            return check_window(wished, exact_function(self.values))
        if self.voi_table is not None:
            return self.default_window or self.voi_table.window
        if self.default_window is not None:
            return self.default_window
        imaged = pixels
        if self.padding is not None:
            imaged = pixels[(pixels < self.padding[0]) | (pixels > self.padding[1])]
        return automatic_window(imaged.astype(self.values.dtype, copy=False), self.modality)

    def _finish(
        self,
        values: NDArray[Any],
        window: Window | None,
        wished: bool,
        to_index: Matrix,
        axis: str,
        slice_index: int,
    ) -> Picture:
        if window is None:
            pixels = np.ascontiguousarray(values)
        else:
            grey = self._grey(values, window, wished)
            pixels = np.repeat((255 - grey if self.inverted else grey)[..., None], 3, axis=2)
        return Picture(pixels, to_index, self.index_to_lps, self.shape, axis, slice_index, self.modality, window)

    def _grey(self, values: NDArray[Any], window: Window, wished: bool) -> NDArray[np.uint8]:
        if not wished and self.voi_table is not None:
            return self.voi_table.grey(values)
        by_file = not wished and self.default_window is not None
        return window_grey(values, window, self.voi_function if by_file else exact_function(self.values))

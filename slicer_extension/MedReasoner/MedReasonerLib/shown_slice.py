"""What a slice view shows: which volume, which slice of it, in which window, and the way from there to voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from medreasoner.contract.errors import MedReasonerError
from MedReasonerLib.geometry import PicturePlane, stored_plane, stored_slice, voxels_under
from MedReasonerLib.mask import Mask

MAX_SIDE = 2048  # pixels of an oblique picture
_SHOW_ONE = "show a volume in it: drag one there from the Data module, or choose another view"


@dataclass(frozen=True)
class ShownSlice:
    """One slice as a view shows it.

    Attributes:
        volume: the view's background volume node.
        axis: axial, coronal or sagittal; stored for an oblique reformat, which is sent as an image of its own.
        slice_index: counted from 0 in stored order.
        window: centre and width as the server takes them; None for colours.
        plane: the server's picture in the volume's voxels.
        is_oblique: whether the view follows no stored slice.
        view: the view's name, such as Red.
        slice_to_ras: 4x4, to bring the view back later.
    """

    volume: Any
    axis: str
    slice_index: int
    window: Optional[tuple[float, float]]
    plane: PicturePlane
    is_oblique: bool
    view: str
    slice_to_ras: np.ndarray

    @staticmethod
    def voxels_of(volume: Any) -> np.ndarray:
        """(k, j, i) or (k, j, i, 3) of a volume node, without a copy."""
        return slicer.util.arrayFromVolume(volume)

    @property
    def sent_grid(self) -> tuple[tuple[int, int, int], np.ndarray]:
        """Size along i, j, k and IJK to RAS of what the server gets."""
        if self.is_oblique:
            return (*self.plane.size, 1), plane_to_ras(self.plane, ijk_to_ras(self.volume))
        return self.volume.GetImageData().GetDimensions(), ijk_to_ras(self.volume)

    @property
    def sent(self) -> tuple[np.ndarray, np.ndarray]:
        """What the server gets: (k, j, i) or (k, j, i, 3) voxels, and their IJK to RAS (the volume's own RAS)."""
        if self.is_oblique:
            return _resampled(self.volume, self.plane), self.sent_grid[1]
        return self.voxels_of(self.volume), self.sent_grid[1]

    def in_volume(self, mask: Mask) -> Mask:
        """Bring a mask of what was sent into the volume's grid."""
        if not self.is_oblique:
            return mask
        width, height = self.plane.size
        picture = mask.full((width, height, 1))[0]
        return Mask.at(voxels_under(picture, self.plane, self.volume.GetImageData().GetDimensions()))


def shown_in(slice_logic: Any) -> ShownSlice:
    """Read a view.

    Raises:
        MedReasonerError: no volume, one without voxels or under a warping transform, or a slice beside it.
    """
    node, layer = slice_logic.GetSliceNode(), slice_logic.GetBackgroundLayer()
    view, volume = node.GetLayoutName(), layer.GetVolumeNode()
    if volume is None or volume.GetImageData() is None or volume.GetImageData().GetNumberOfPoints() == 0:
        raise MedReasonerError(f"the {view} view shows no volume", _SHOW_ONE)
    to_ras, size = ijk_to_ras(volume), volume.GetImageData().GetDimensions()
    view_to_ijk = _view_to_ijk(layer, node.GetDimensions(), volume)
    try:
        stored = stored_slice(view_to_ijk, to_ras, size)
    except ValueError as error:
        raise MedReasonerError(
            f"the {view} view shows a plane beside {volume.GetName()}", "scroll until you see the image"
        ) from error
    if stored is None:
        axis, number, plane = "stored", 0, _oblique_plane(view_to_ijk, to_ras, size)
    else:
        axis, number, plane = *stored, stored_plane(*stored, to_ras, size)
    slice_to_ras = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
    return ShownSlice(volume, axis, number, _window(volume), plane, stored is None, view, slice_to_ras)


def ijk_to_ras(volume: Any) -> np.ndarray:
    """4x4, without the volume's parent transform: answers are put under the same one."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def plane_to_ras(plane: PicturePlane, to_ras: np.ndarray) -> np.ndarray:
    """4x4 of a one-slice volume whose voxels are a plane's pixels; as thick as its pixels are wide."""
    right, down, corner = (to_ras[:3, :3] @ plane.to_ijk).T
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = right, down
    affine[:3, 2] = np.cross(right, down) / np.linalg.norm(down)
    affine[:3, 3] = corner + to_ras[:3, 3] + 0.5 * right + 0.5 * down
    return affine


def _view_to_ijk(layer: Any, view_size: Any, volume: Any) -> np.ndarray:
    """4x4 with picture right (the screen's x) and down (against its y) as the first two columns."""
    layer.UpdateTransforms()
    transform = layer.GetXYToIJKTransform()
    width, height = max(view_size[0], 1), max(view_size[1], 1)
    corner, along, up, far = (
        np.array(transform.TransformPoint(x, y, 0)) for x, y in [(0, 0), (width, 0), (0, height), (width, height)]
    )
    if np.abs(along + up - corner - far).max() > 0.01:
        raise MedReasonerError(
            f"{volume.GetName()} lies under a transform that bends it", "harden the transform in the Data module first"
        )
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 3] = (along - corner) / width, (corner - up) / height, up
    return matrix


def _oblique_plane(view_to_ijk: np.ndarray, to_ras: np.ndarray, size: Any) -> PicturePlane:
    """Square pixels of the volume's finest spacing over all that the plane cuts of the volume's bounding box."""
    right, down = (to_ras[:3, :3] @ view_to_ijk[:3, :2]).T
    right = right / np.linalg.norm(right)
    down = down - (down @ right) * right
    down = down / np.linalg.norm(down)
    middle = (to_ras @ view_to_ijk[:, 3])[:3]
    corners = np.array([[i, j, k, 1] for i in (-0.5, size[0] - 0.5) for j in (-0.5, size[1] - 0.5)
                        for k in (-0.5, size[2] - 0.5)]) @ to_ras.T  # fmt: skip
    on_plane = (corners[:, :3] - middle) @ np.stack([right, down], axis=1)
    low, high = on_plane.min(axis=0), on_plane.max(axis=0)
    spacing = max(np.linalg.norm(to_ras[:3, :3], axis=0).min(), (high - low).max() / MAX_SIDE)
    width, height = (max(int(np.ceil(n)), 1) for n in (high - low) / spacing)
    corner = np.linalg.inv(to_ras) @ [*(middle + low[0] * right + low[1] * down), 1.0]
    to_ijk = np.linalg.inv(to_ras[:3, :3])
    steps = [to_ijk @ (right * spacing), to_ijk @ (down * spacing), corner[:3]]
    return PicturePlane(np.stack(steps, axis=1), (width, height))


def _resampled(volume: Any, plane: PicturePlane) -> np.ndarray:
    """Linear interpolation at the plane's pixel centres; (1, height, width[, 3]), dark outside the volume."""
    right, down, corner = plane.to_ijk.T
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 2] = right, down, np.cross(right, down)
    matrix[:3, 3] = corner + 0.5 * right + 0.5 * down
    transform = vtk.vtkMatrixToLinearTransform()
    transform.SetInput(slicer.util.vtkMatrixFromArray(matrix))
    reslice = vtk.vtkImageReslice()
    reslice.SetInputData(volume.GetImageData())
    reslice.SetResliceTransform(transform)
    reslice.SetInterpolationModeToLinear()
    reslice.SetOutputSpacing(1, 1, 1)
    reslice.SetOutputOrigin(0, 0, 0)
    reslice.SetOutputExtent(0, plane.size[0] - 1, 0, plane.size[1] - 1, 0, 0)
    # not VTK's GetScalarRange, which takes a quarter of a second for 512 x 512 x 200 voxels
    reslice.SetBackgroundLevel(float(np.nanmin(ShownSlice.voxels_of(volume))))
    reslice.Update()
    picture = reslice.GetOutput()
    values = vtk_to_numpy(picture.GetPointData().GetScalars())
    return values.reshape((1, plane.size[1], plane.size[0], *values.shape[1:]))


def _window(volume: Any) -> Optional[tuple[float, float]]:
    """The displayed window.

    Slicer spreads level - window/2 .. level + window/2 over the greys. For whole numbers the server follows DICOM's
    LINEAR function, which takes half a level from the centre and one from the width: they are added here.
    """
    display = volume.GetScalarVolumeDisplayNode() if hasattr(volume, "GetScalarVolumeDisplayNode") else None
    if display is None or volume.GetImageData().GetNumberOfScalarComponents() > 1:
        return None
    level, width = display.GetLevel(), display.GetWindow()
    if width <= 0:
        return None
    if volume.GetImageData().GetScalarType() in (vtk.VTK_FLOAT, vtk.VTK_DOUBLE):
        return level, width
    return level + 0.5, width + 1

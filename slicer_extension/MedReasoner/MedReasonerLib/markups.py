"""Box and points as Slicer markups, there and back: picture pixels to IJK to the volume's RAS, once."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
import slicer
import vtk

from medreasoner.contract.errors import MedReasonerError
from MedReasonerLib.geometry import PicturePlane, box_corners, box_round

BOX_COLOUR = (1.0, 0.84, 0.04)


def put_box(roi: Any, box: list[float], plane: PicturePlane, to_ras: np.ndarray) -> None:
    """Lay a ROI node round a box: its x and y axes along picture right and down, one voxel thick.

    Args:
        roi: vtkMRMLMarkupsROINode.
        box: ``[x_min, y_min, x_max, y_max]`` in picture pixels.
        plane: the picture in the volume's voxels.
        to_ras: 4x4, IJK to RAS.
    """
    corners = to_local(plane.ijk_of(box_corners(box)), to_ras)
    along, down = corners[1] - corners[0], corners[3] - corners[0]
    width, height = np.linalg.norm(along), np.linalg.norm(down)
    x_axis = along / width
    z_axis = np.cross(x_axis, down)
    z_axis = z_axis / np.linalg.norm(z_axis)
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 2] = x_axis, np.cross(z_axis, x_axis), z_axis
    matrix[:3, 3] = corners.mean(axis=0)
    thickness = np.abs(to_ras[:3, :3].T @ z_axis).max()
    roi.SetSize(width, height, thickness)
    roi.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(matrix))
    display = roi.GetDisplayNode()
    if display is not None:
        display.SetSelectedColor(*BOX_COLOUR)
        display.SetColor(*BOX_COLOUR)
        display.SetFillVisibility(False)
        display.SetPropertiesLabelVisibility(False)
        display.SetHandlesInteractive(True)


def box_pixels(roi: Any, plane: PicturePlane, to_ras: np.ndarray) -> list[float]:
    """Where the box is now, in picture pixels, cut to the picture; a turned box gives the upright one round it.

    Raises:
        MedReasonerError: there is no box, or it lies beside the picture.
    """
    if roi is None:
        raise MedReasonerError("the answer's box was deleted", "draw a new one with Draw box")
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(roi.GetObjectToNodeMatrix())
    x, y = (length / 2 for length in roi.GetSize()[:2])
    corners = np.array([[-x, -y, 0, 1], [x, -y, 0, 1], [x, y, 0, 1], [-x, y, 0, 1]])
    local = (corners @ slicer.util.arrayFromVTKMatrix(matrix).T)[:, :3]
    box = box_round(plane.clipped(plane.pixels_of(to_ijk(local, to_ras))))
    if box[2] - box[0] < 1 or box[3] - box[1] < 1:
        raise MedReasonerError("the box lies beside the picture or has no area", "move it onto the picture")
    return box


def put_points(fiducials: Any, points: list[list[float]], plane: PicturePlane, to_ras: np.ndarray) -> None:
    """Set a fiducial node's points, given in picture pixels, with small glyphs."""
    fiducials.RemoveAllControlPoints()
    for number, position in enumerate(to_local(plane.ijk_of(points), to_ras)):
        fiducials.AddControlPoint(vtk.vtkVector3d(*position), str(number + 1))
    display = fiducials.GetDisplayNode()
    if display is not None:
        display.SetSelectedColor(*BOX_COLOUR)
        display.SetGlyphScale(2.0)
        display.SetTextScale(2.0)


def point_pixels(fiducials: Any, plane: PicturePlane, to_ras: np.ndarray) -> Optional[list[list[float]]]:
    """Where the points are now, in picture pixels; None when there are not two."""
    if fiducials is None or fiducials.GetNumberOfControlPoints() != 2:
        return None
    local = np.array([fiducials.GetNthControlPointPosition(n) for n in range(2)])
    pixels = plane.clipped(plane.pixels_of(to_ijk(local, to_ras)))
    return [[round(float(x), 2), round(float(y), 2)] for x, y in pixels]


def to_local(ijk: np.ndarray, to_ras: np.ndarray) -> np.ndarray:
    """(n, 3) IJK to (n, 3) mm in the volume's RAS."""
    return ijk @ to_ras[:3, :3].T + to_ras[:3, 3]


def to_ijk(local: np.ndarray, to_ras: np.ndarray) -> np.ndarray:
    """(n, 3) mm in the volume's RAS to (n, 3) IJK."""
    return np.linalg.solve(to_ras[:3, :3], (local - to_ras[:3, 3]).T).T

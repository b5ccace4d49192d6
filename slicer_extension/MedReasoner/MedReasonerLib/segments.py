"""A mask as the one segment of a segmentation node, there and back, in the volume's own grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from MedReasonerLib.mask import Mask
from MedReasonerLib.shown_slice import ijk_to_ras

ID = "answer"  # of the segment
COLOUR = (46 / 255, 204 / 255, 113 / 255)
OPACITY = 0.35  # what lies under the mask stays visible


def paint(node: Any, volume: Any, mask: Mask, name: str) -> None:
    """Replace the segment's content, making it where there is none; a surface shown in 3-D follows.

    Args:
        node: vtkMRMLSegmentationNode.
        volume: whose grid the mask is in.
        mask: may be empty.
        name: for a new segment.
    """
    logic, segmentation = slicer.vtkSlicerSegmentationsModuleLogic, node.GetSegmentation()
    if segmentation.GetSegment(ID) is None:
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        segmentation.AddEmptySegment(ID, name, COLOUR)
        node.GetDisplayNode().SetOpacity2DFill(OPACITY)
    if mask.count:
        logic.SetBinaryLabelmapToSegment(_labelmap(mask, ijk_to_ras(volume)), node, ID, logic.MODE_REPLACE)
    else:
        logic.ClearSegment(node, ID)


def read(node: Any, volume: Any) -> Mask:
    """The segment in the volume's grid; resampled where the user has changed the segmentation's own."""
    labelmap = slicer.vtkOrientedImageData()
    if not node.GetBinaryLabelmapRepresentation(ID, labelmap) or labelmap.IsEmpty():
        return Mask.empty()
    grid, size = slicer.vtkOrientedImageData(), volume.GetImageData().GetDimensions()
    grid.SetExtent(0, size[0] - 1, 0, size[1] - 1, 0, size[2] - 1)
    grid.SetGeometryFromImageToWorldMatrix(slicer.util.vtkMatrixFromArray(ijk_to_ras(volume)))
    resample = slicer.vtkOrientedImageDataResample
    if not resample.DoGeometriesMatch(labelmap, grid):
        resample.ResampleOrientedImageToReferenceOrientedImage(labelmap, grid, labelmap)
    extent = labelmap.GetExtent()
    values = vtk_to_numpy(labelmap.GetPointData().GetScalars())
    return Mask.cropped(values.reshape([extent[n + 1] - extent[n] + 1 for n in (4, 2, 0)]), *extent[::2])


def _labelmap(mask: Mask, to_ras: np.ndarray) -> Any:
    """A labelmap that covers only the mask's part of the volume's grid."""
    image = slicer.vtkOrientedImageData()
    (i, j, k), (depth, height, width) = mask.offset, mask.voxels.shape
    image.SetExtent(i, i + width - 1, j, j + height - 1, k, k + depth - 1)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    scalars = vtk_to_numpy(image.GetPointData().GetScalars())
    scalars[:] = mask.voxels.reshape(-1)
    image.SetGeometryFromImageToWorldMatrix(slicer.util.vtkMatrixFromArray(to_ras))
    return image

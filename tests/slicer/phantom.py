"""A volume that no flip, turn or swap of axes maps onto itself, and an answer about it without network or models."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import slicer.util
from MedReasonerLib.nrrd_file import compressed_file, read_mask
from MedReasonerLib.scene import SceneAnswer
from MedReasonerLib.shown_slice import ShownSlice
from scipy.spatial.transform import Rotation

from medreasoner.contract.label import LabelRecord
from medreasoner.imaging import open_image
from medreasoner.imaging.mask_file import write_mask
from tests.slicer.scripted_server import BRIGHT, box_round_mask, result_of
from tests.slicer.steps import finish

SIZE = (40, 32, 24)  # voxels along i, j, k
BLOCK = (slice(4, 15), slice(6, 12), slice(3, 16))  # k, j, i of the bright block, away from every middle
SPACING = (0.9, 1.1, 2.0)


def values() -> np.ndarray:
    """(k, j, i) int16: a ramp with a bright block."""
    k, j, i = np.indices(SIZE[::-1])
    found = (i + 2 * j + 3 * k).astype(np.int16) % 50
    found[BLOCK] = 400
    return found


def block() -> np.ndarray:
    """(k, j, i) uint8: what is bright."""
    return (values() > 300).astype(np.uint8)


def matrix(tilt: float = 0.0, flipped: bool = False) -> np.ndarray:
    """IJK to RAS with unequal spacing; flipped as DICOM has it, i to the left and j to the back."""
    affine = np.eye(4)
    signs = np.diag([-1, -1, 1] if flipped else [1, 1, 1])
    affine[:3, :3] = Rotation.from_euler("xyz", [tilt, -tilt / 2, tilt / 3], degrees=True).as_matrix() @ signs
    affine[:3, :3] *= SPACING
    affine[:3, 3] = [12.0, -31.0, 55.5]
    return affine


def volume(tilt: float = 0.0, flipped: bool = False, kind: Any = np.int16) -> Any:
    """The phantom as a node, displayed with level 200 and window 400."""
    affine = slicer.util.vtkMatrixFromArray(matrix(tilt, flipped))
    node = slicer.util.addVolumeFromArray(values().astype(kind), affine, "phantom")
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(400, 200)
    return node


def answer(shown: ShownSlice, question: str = "Where is the block?") -> SceneAnswer:
    """What a server that points at the bright block would answer, put into the scene."""
    voxels, to_ras = shown.sent
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sent.nrrd"
        file.write_bytes(finish(compressed_file(voxels, to_ras)))
        image = open_image(file)
        picture = image.picture(shown.axis, shown.slice_index, shown.window)
        bright = picture.pixels[..., 0] > BRIGHT
        data = write_mask(bright, picture, image, Path(folder) / "mask.nrrd").read_bytes()
    result = result_of(picture, question, box_round_mask(bright) if bright.any() else None)
    steps = read_mask(data, image.shape, to_ras)
    mask = shown.in_volume(finish(steps))
    return SceneAnswer.create(shown, LabelRecord.of(result, shown.window), mask, result.confidence)

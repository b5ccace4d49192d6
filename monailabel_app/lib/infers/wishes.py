"""What a client asked for, read from MONAI Label's request into the contract's types.

A request holds the client's `params` and what MONAI Label adds (model, image, description ...). Only the fields that
a task knows are read. MONAI Label's plug-in for 3D Slicer sends the cells of its table as text: an empty one leaves
the choice of axis or slice to the image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from medreasoner.contract.errors import ImageError, MedReasonerError
from medreasoner.contract.wire import AXES, GroundingRequest, RegionRequest
from medreasoner.imaging import StoredImage
from medreasoner.picture import Picture

AXIS_CHOICES = ["", *AXES]
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".png")
NUMBERS = ("uint8", "uint16", "int16", "uint32", "int32")

Wish = Mapping[str, Any]


def question_of(wish: Wish) -> GroundingRequest:
    """Read a question and its slice; raises `QuestionError` or `MedReasonerError` naming the wrong field."""
    return GroundingRequest.from_json(json.dumps({"question": wish.get("question", ""), **_view(wish)}))


def region_of(wish: Wish) -> RegionRequest:
    """Read a box and points in picture pixels; raises `MedReasonerError` or `AnswerError` naming the wrong field."""
    region = {name: wish.get(name) for name in ("box", "points")}
    return RegionRequest.from_json(json.dumps({"question": wish.get("question") or "", **region, **_view(wish)}))


def picture_of(image: StoredImage, request: GroundingRequest | RegionRequest) -> Picture:
    """Cut the slice that a request means.

    Its axis can be asked for again, which a name such as "axial" cannot where DICOM opens as stored: the named view
    may be flipped against it.

    Raises:
        ImageError: there is no such view or slice.
    """
    axis = "stored" if request.axis is None and image.opens_as_stored else request.axis
    return image.picture(axis, request.slice_index, request.window)


def file_ending(wish: Wish, image: StoredImage) -> str:
    """The wished ending of the mask's file, or one that fits the image: its own kind, or else NIfTI.

    Raises:
        MedReasonerError: masks are not written as such files.
    """
    wished = wish.get("result_extension")
    if wished in (None, ""):
        name = image.path.name.lower()
        if name.endswith((".nrrd", ".nhdr")):
            return ".nrrd"
        flat = not image.is_volume and image.shape[2] == 1 and image.index_to_lps is None
        return ".png" if flat and not name.endswith((".nii", ".nii.gz")) else ".nii.gz"
    if wished not in ENDINGS:
        raise MedReasonerError(f"masks are not written as {str(wished)[:40]!r}", f"use one of {', '.join(ENDINGS)}")
    return str(wished)


def number_type(wish: Wish) -> str:
    """The wished type of the mask's values, uint8 without a wish; raises `MedReasonerError` on unknown ones."""
    wished = wish.get("result_dtype") or "uint8"
    if wished not in NUMBERS:
        raise MedReasonerError(
            f"masks do not hold numbers of type {str(wished)[:40]!r}", f"use one of {', '.join(NUMBERS)}"
        )
    return str(wished)


def check_image(wish: Wish) -> str:
    """The path that MONAI Label found for the image or session; raises `ImageError` where it found none."""
    path = wish.get("image")
    if not isinstance(path, str) or not path:
        raise ImageError("there is no such image or session", "choose an image of the list, or upload it again")
    return path


def _view(wish: Wish) -> dict[str, Any]:
    """Axis, slice and window with the names and types that the contract has."""
    axis = wish.get("axis")
    index = wish.get("slice_index")
    if index in (None, ""):
        index = wish.get("slice")
    if isinstance(index, str):
        index = int(index) if index.strip().isdecimal() else (index.strip() or None)
    return {
        "axis": None if axis == "" else axis,
        "slice_index": index,
        "window": wish.get("window"),
    }

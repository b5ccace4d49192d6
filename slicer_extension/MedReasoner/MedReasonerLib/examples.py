"""Questions to begin with, for the kind of image that is shown."""

from __future__ import annotations

from typing import Any

import slicer

CT = (
    "Which organ makes bile?",
    "Which organ clears old red cells?",
    "Which vessel carries blood from the heart down the abdomen?",
    "Where is the left kidney?",
)
MR = (
    "Which chamber pumps blood into the aorta?",
    "Where is the muscle of the left ventricle?",
    "Which structure forms new memories?",
    "Where is the disc between the last lumbar vertebra and the sacrum?",
)
ULTRASOUND = ("Where is the head of the fetus?", "Where is the breast lesion?")
COLOUR = (
    "Where do the nerve fibres leave the eye as one bundle?",
    "Which pale hollow grows when the pressure in the eye is too high?",
    "Where is the skin lesion?",
    "Where is the polyp?",
)
XRAY = ("Where is the left lung?", "Where do heart and great vessels lie?")
_BY_MODALITY = {"CT": CT, "MR": MR, "US": ULTRASOUND, "CR": XRAY, "DX": XRAY, "OP": COLOUR, "XC": COLOUR, "ES": COLOUR}


def examples_for(volume: Any) -> tuple[str, ...]:
    """By the DICOM modality where it is known, else by the values: colours, or Hounsfield units."""
    if volume is None or volume.GetImageData() is None:
        return (CT[0], MR[0], COLOUR[0])
    known = _BY_MODALITY.get(_modality(volume))
    if known is not None:
        return known
    if volume.GetImageData().GetNumberOfScalarComponents() > 1:
        return COLOUR
    # of some voxels: the range of all would stop the user interface for a second
    voxels = slicer.util.arrayFromVolume(volume)
    some = voxels[tuple(slice(None, None, max(n // 16, 1)) for n in voxels.shape)]
    return CT if some.min() < -500 else (*MR[:2], *CT[:2], XRAY[0])


def _modality(volume: Any) -> str:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volume.GetScene())
    item = hierarchy.GetItemByDataNode(volume) if hierarchy is not None else 0
    return str(hierarchy.GetItemAttribute(item, "DICOM.Modality") or "") if item else ""

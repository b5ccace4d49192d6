"""What a DICOM file says about showing its values: window, VOI lookup table, padding, shape of a pixel."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset

from medreasoner.imaging.dicom_pixels import read_table, rescale
from medreasoner.imaging.dicom_planes import frame_value
from medreasoner.imaging.grey_levels import LookupTable, Window, is_wide_enough

FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_GROUP = "FrameVOILUTSequence"


def voi_window(dataset: Dataset, frame: int = 0) -> tuple[str, Window | None]:
    """The VOI LUT function and the first window (PS3.3 C.11.2.1.2).

    A window of a width that the standard forbids, as unset fields often have, counts as none.
    """
    function = str(frame_value(dataset, frame, _GROUP, "VOILUTFunction") or "LINEAR").upper()
    function = function if function in FUNCTIONS else "LINEAR"
    centre, width = (_first(frame_value(dataset, frame, _GROUP, word)) for word in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None or not is_wide_enough(float(width), function):
        return function, None
    return function, (float(centre), float(width))


def voi_table(dataset: Dataset) -> LookupTable | None:
    """The first VOI lookup table, or None."""
    items = dataset.get("VOILUTSequence")
    return read_table(items[0]) if items and "LUTData" in items[0] else None


def padding(dataset: Dataset, frame: int = 0) -> tuple[float, float] | None:
    """Lowest and highest value after rescaling that stand for "not imaged" (PS3.3 C.7.5.1.1.2), inclusive."""
    value = dataset.get("PixelPaddingValue")
    if value is None or dataset.get("ModalityLUTSequence"):
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    slope, start = rescale(dataset, frame)
    low, high = sorted(float(v) * slope + start for v in (value, value if limit is None else limit))
    return low - abs(slope) / 4, high + abs(slope) / 4  # a quarter step covers rounding to float32


def pixel_size(dataset: Dataset) -> tuple[float, float, float]:
    """Width and height of a pixel where there is no geometry: from any spacing, else the aspect ratio; else square."""
    for word in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"):
        pair = dataset.get(word)
        if pair and len(pair) == 2 and min(float(v) for v in pair) > 0:
            return float(pair[1]), float(pair[0]), 1.0  # each is written vertical first
    return 1.0, 1.0, 1.0


def _first(value: Any) -> Any:
    many = value is not None and not isinstance(value, (str, float, int))
    return (value[0] if len(value) else None) if many else value

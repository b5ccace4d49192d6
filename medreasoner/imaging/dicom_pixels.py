"""From a DICOM file's pixel data to values after the modality LUT, or to RGB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_pixel_data_frame
from pydicom.pixel_data_handlers.util import apply_color_lut, convert_color_space
from pydicom.uid import UID

from medreasoner.contract.errors import ImageError
from medreasoner.imaging.dicom_dataset import COPY_AGAIN, JPEG_SYNTAXES
from medreasoner.imaging.dicom_planes import frame_value
from medreasoner.imaging.grey_levels import LookupTable
from medreasoner.imaging.values import check_size, reading

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
SAMPLES = {
    **dict.fromkeys((*MONOCHROME, "PALETTE COLOR"), 1),
    **dict.fromkeys(("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"), 3),
}
AS_RGB = "convert it to RGB or MONOCHROME2 first"
END_OF_IMAGE = b"\xff\xd9"


def frame_count(dataset: Dataset) -> int:
    """Number of frames; 1 where the file does not say."""
    return int(dataset.get("NumberOfFrames") or 1)


def size_in_bytes(dataset: Dataset) -> tuple[tuple[int, ...], int]:
    """(frames, rows, columns, samples) and bytes a sample, as the header has them."""
    shape = frame_count(dataset), int(dataset.Rows), int(dataset.Columns), int(dataset.get("SamplesPerPixel") or 1)
    return shape, max(int(dataset.get("BitsAllocated") or 8) // 8, 1)


def read_values(dataset: Dataset, path: Path) -> NDArray[Any]:
    """Decode all frames.

    Returns:
        (frames, rows, columns) values after the modality LUT (PS3.3 C.11.1): rescaled, integers where they stay whole;
        or (frames, rows, columns, 3) uint8 RGB.

    Raises:
        ImageError: too large, truncated, damaged, or of an unknown photometric interpretation.
    """
    kind = str(dataset.get("PhotometricInterpretation"))
    with reading(path, "DICOM", COPY_AGAIN):
        shape, width = size_in_bytes(dataset)
        check_size(shape, width, path.name)
        if shape[3] != SAMPLES.get(kind):
            raise ImageError(f"{path.name} stores {shape[3]} samples a pixel as {kind}, which is not supported", AS_RGB)
        if UID(dataset.file_meta.TransferSyntaxUID).is_compressed:
            _check_frames(dataset, path)
            if kind == "RGB" and _is_plain_rgb(dataset):
                dataset.PhotometricInterpretation = "YBR_FULL"  # the JPEG decoder's name for: leave components alone
            _decode(dataset, path)
        stored = dataset.pixel_array.reshape(shape if shape[3] == 3 else shape[:3])
        return _rescaled(stored, dataset) if kind in MONOCHROME else _colours(stored, kind, dataset)


def read_table(item: Dataset) -> LookupTable:
    """A LUT from an item of the Modality or VOI LUT Sequence; 8-bit entries may be packed into words."""
    count, start, bits = (int(v) for v in item.LUTDescriptor)
    count = count or 2**16  # PS3.3 C.11.1.1: 0 stands for 65,536
    data = item.LUTData
    if isinstance(data, bytes):
        entries = np.frombuffer(data, np.uint8 if len(data) < 2 * count else np.dtype("<u2"))
    else:
        entries = np.asarray([data] if isinstance(data, int) else list(data))
    return LookupTable(start, entries[:count].astype(np.uint16), bits)


def _check_frames(dataset: Dataset, path: Path) -> None:
    """Count the compressed frames and look for each JPEG's end mark: decoders fill what is missing with grey."""
    wanted = frame_count(dataset)
    frames = list(generate_pixel_data_frame(dataset.PixelData, wanted))
    if len(frames) != wanted:
        raise ImageError(f"{path.name} holds {len(frames)} of its {wanted} frames", COPY_AGAIN)
    if UID(dataset.file_meta.TransferSyntaxUID) in JPEG_SYNTAXES:
        cut = [n for n, frame in enumerate(frames) if not frame.rstrip(b"\x00\xff").endswith(END_OF_IMAGE)]
        if cut:
            raise ImageError(f"{path.name} is truncated: its frame {cut[0]} ends too early", COPY_AGAIN)


def _decode(dataset: Dataset, path: Path) -> None:
    """Decompress with pylibjpeg, whatever other decoders are installed: each treats colours in its own way."""
    try:
        dataset.convert_pixel_data("pylibjpeg")
    except BaseException as error:  # its RLE decoder is written in Rust, whose panics are no Exception
        if type(error).__name__ != "PanicException":
            raise
        raise ImageError(f"the compressed pixels of {path.name} are damaged", COPY_AGAIN) from error


def _is_plain_rgb(dataset: Dataset) -> bool:
    """Whether a JPEG labelled RGB holds RGB components that the decoder would wrongly take for YCbCr.

    Without an Adobe mark, components numbered 1, 2, 3 are YCbCr whatever the label says (JFIF); numbered 0, 1, 2
    they are RGB, as pydicom 3 reads them. An Adobe mark or the names R, G, B the decoder understands by itself.
    """
    if dataset.file_meta.TransferSyntaxUID not in JPEG_SYNTAXES:
        return False
    frame = next(generate_pixel_data_frame(dataset.PixelData, frame_count(dataset)))
    start = max(frame.find(b"\xff\xc0"), frame.find(b"\xff\xc1"))  # the frame header names the components
    adobe = b"\xff\xee\x00\x0eAdobe" in frame[: max(start, 0)]
    return start > 0 and not adobe and frame[start + 10 : start + 19 : 3] == b"\x00\x01\x02"


def _colours(stored: NDArray[Any], kind: str, dataset: Dataset) -> NDArray[np.uint8]:
    """RGB of every photometric interpretation of PS3.3 C.7.6.3.1.2 that has colour; (..., 3) uint8."""
    if kind == "PALETTE COLOR":
        entries = apply_color_lut(stored, dataset)[..., :3]
        return _eight_bits(entries, entries.dtype.itemsize * 8)
    colours = _eight_bits(stored, int(dataset.BitsStored))
    if kind in ("YBR_FULL", "YBR_FULL_422"):
        return np.asarray(convert_color_space(colours, "YBR_FULL", "RGB", per_frame=True), np.uint8)
    return colours  # RGB; the JPEG 2000 decoder undoes YBR_ICT and YBR_RCT itself


def _eight_bits(colours: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    return colours.astype(np.uint8) if bits <= 8 else (colours >> (bits - 8)).astype(np.uint8)


def _rescaled(stored: NDArray[Any], dataset: Dataset) -> NDArray[Any]:
    tables = dataset.get("ModalityLUTSequence")
    if tables:
        return read_table(tables[0]).look_up(stored)
    lines = [rescale(dataset, frame) for frame in range(len(stored))]
    if set(lines) == {(1.0, 0.0)}:
        return stored
    if stored.dtype.kind in "iu" and all(slope.is_integer() and start.is_integer() for slope, start in lines):
        largest = max(abs(slope) * 2.0 ** (8 * stored.itemsize) + abs(start) for slope, start in lines)
        wide = np.int32 if largest < np.iinfo(np.int32).max else np.int64
        slopes, starts = np.array(lines).astype(wide).T.reshape(2, -1, 1, 1)
        return _narrowed(stored.astype(wide) * slopes + starts)
    values = np.empty(stored.shape, np.float32)
    for frame, (slope, start) in enumerate(lines):
        values[frame] = stored[frame] * slope + start
    return values


def rescale(dataset: Dataset, frame: int = 0) -> tuple[float, float]:
    """Slope and intercept of a frame (PS3.3 C.11.1.1.2); 1 and 0 where the file has none."""
    slope, start = (
        frame_value(dataset, frame, "PixelValueTransformationSequence", keyword)
        for keyword in ("RescaleSlope", "RescaleIntercept")
    )
    return float(slope or 1), float(start or 0)  # a slope of 0, which some devices write, means none


def _narrowed(values: NDArray[Any]) -> NDArray[Any]:
    fits = np.iinfo(np.int16).min <= values.min() and values.max() <= np.iinfo(np.int16).max
    return values.astype(np.int16) if fits else values

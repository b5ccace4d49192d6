"""What kind of file is this? Judged by its first bytes, never by its name."""

from __future__ import annotations

HEAD_BYTES = 132

_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")  # TIFF and BigTIFF
_NIFTI = (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c", b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")  # header sizes 348, 540
_GZIP = b"\x1f\x8b"


def kind_of(head: bytes) -> str:
    """DICOM, NRRD, NIfTI, picture, or an empty string for anything else.

    Args:
        head: a file's first `HEAD_BYTES` bytes, or all of a shorter file.
    """
    if head[128:132] == b"DICM":  # first of all: the 128 bytes before it may look like anything (PS3.10 7.1)
        return "DICOM"
    if head.startswith(b"NRRD"):
        return "NRRD"
    if head.startswith((_GZIP, *_NIFTI)):
        return "NIfTI"
    if head.startswith(_PICTURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "picture"
    return "DICOM" if _starts_with_attribute(head) else ""


def _starts_with_attribute(head: bytes) -> bool:
    """Whether a DICOM file without preamble, as of the 1990s, starts here: an attribute of group 2 or 8."""
    little = head[:2] in (b"\x02\x00", b"\x08\x00")
    big = head[:2] in (b"\x00\x02", b"\x00\x08")
    element = head[2:4] if little else head[3:1:-1]
    return (little or big) and len(element) == 2 and element[1] == 0 and element[0] <= 0x18

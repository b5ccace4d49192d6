"""The one thing that Slicer changes when it loads a NIfTI file: it turns the slices of left-handed ones round."""

from __future__ import annotations

import struct
import zlib

import numpy as np

_HEADER = 348  # bytes; the format's own number for itself, too


def is_left_handed(data: bytes) -> bool:
    """Whether a NIfTI-1 file's i, j, k run like a left hand's fingers; False for files of another kind.

    Args:
        data: the file, compressed or not.
    """
    head = zlib.decompressobj(31).decompress(data, _HEADER) if data[:2] == b"\x1f\x8b" else data[:_HEADER]
    order = {struct.pack("<i", _HEADER): "<", struct.pack(">i", _HEADER): ">"}.get(head[:4])
    if order is None or len(head) < _HEADER or head[344:346] not in (b"n+", b"ni"):
        return False
    qform, sform = struct.unpack(order + "2h", head[252:256])
    if sform > 0:
        rows = np.array(struct.unpack(order + "12f", head[280:328])).reshape(3, 4)
        return bool(np.linalg.det(rows[:, :3]) < 0)
    return qform > 0 and struct.unpack(order + "f", head[76:80])[0] < 0

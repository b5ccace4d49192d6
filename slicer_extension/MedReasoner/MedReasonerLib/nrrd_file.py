"""Volumes as NRRD files to the server, masks back from it; in small steps, so that the user interface stays awake."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from medreasoner.contract.errors import MedReasonerError
from MedReasonerLib.geometry import RAS_TO_LPS
from MedReasonerLib.mask import Mask, Steps
from MedReasonerLib.multipart import Form

_STEP = 1 << 20  # bytes: some milliseconds each
_TYPES = {
    "i1": "int8",
    "u1": "uint8",
    "i2": "int16",
    "u2": "uint16",
    "i4": "int32",
    "u4": "uint32",
    "f4": "float",
    "f8": "double",
}
_MASK_TYPES = {"uchar": "u1", "unsigned char": "u1", "uint8": "u1", "uint8_t": "u1", "unsigned short": "u2"}
_COLOURS = {3: "RGB-color", 4: "RGBA-color"}
_TOLERANCE = 1e-3  # mm and voxel steps; files carry rounded numbers


def header(values: np.ndarray, ijk_to_ras: np.ndarray, encoding: str = "raw") -> bytes:
    """The text before the values of an attached NRRD.

    Args:
        values: (k, j, i) scalars or (k, j, i, 3 or 4) uint8 colours.
        ijk_to_ras: 4x4, to the volume's own RAS; the file says LPS.

    Raises:
        MedReasonerError: values that no picture can be made of.
    """
    colour = values.ndim == 4
    kind = _TYPES.get(values.dtype.str[1:])
    if kind is None or (colour and (values.dtype != np.uint8 or values.shape[3] not in _COLOURS)):
        shape = f"{values.shape[3]} numbers" if colour else "one number"
        raise MedReasonerError(
            f"each voxel holds {shape} of type {values.dtype}, which is neither a grey value nor a colour",
            "show a scalar volume or an RGB image in the view, for example one component made with Vector to Scalar",
        )
    affine = RAS_TO_LPS @ ijk_to_ras
    vectors = ["({:.17g},{:.17g},{:.17g})".format(*affine[:3, axis]) for axis in range(4)]
    fields = {
        "type": kind,
        "dimension": values.ndim,
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, values.shape[::-1] if not colour else (values.shape[3], *values.shape[2::-1]))),
        "space directions": " ".join((["none"] if colour else []) + vectors[:3]),
        "kinds": " ".join(([_COLOURS[values.shape[3]]] if colour else []) + ["domain"] * 3),
        "endian": "little",
        "encoding": encoding,
        "space origin": vectors[3],
    }
    return ("NRRD0004\n" + "".join(f"{name}: {value}\n" for name, value in fields.items()) + "\n").encode()


def compressed_file(values: np.ndarray, ijk_to_ras: np.ndarray) -> Steps:
    """Make a whole compressed NRRD in memory, for masks; yields often, returns bytes. Raises as `header` does."""
    content = _little(values)
    pieces, packer = [header(values, ijk_to_ras, "gzip")], zlib.compressobj(1, zlib.DEFLATED, 31)  # 31: gzip
    for start in range(0, len(content), _STEP):
        pieces.append(packer.compress(content[start : start + _STEP].data))
        yield
    return b"".join([*pieces, packer.flush()])


def write_form(values: np.ndarray, ijk_to_ras: np.ndarray, form: Form, field: str, filename: str, path: Path) -> Steps:
    """Write an upload's whole HTTP body: a form with one NRRD file; yields often. Raises as `header` does."""
    first = form.head(field, filename) + header(values, ijk_to_ras)
    content = _little(values)
    with path.open("wb") as file:
        file.write(first)
        for start in range(0, len(content), _STEP):
            file.write(content[start : start + _STEP].data)
            yield
        file.write(form.end)


def read_mask(data: bytes, shape: Any, ijk_to_ras: np.ndarray) -> Steps:
    """Read a mask file of a known grid; yields often, returns a `Mask`.

    Raises:
        MedReasonerError: not a NRRD mask, damaged, or of another grid than the volume's.
    """
    head, found, content = data.partition(b"\n\n")
    if not head.startswith(b"NRRD") or not found:
        raise _unreadable("it is not an attached NRRD file")
    fields = dict(line.split(":", 1) for line in head.decode("ascii", "replace").splitlines()[1:] if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    _check_grid(fields, shape, ijk_to_ras)
    kind = _MASK_TYPES.get(fields.get("type", ""))
    if kind is None or fields.get("encoding") not in ("raw", "gzip", "gz"):
        raise _unreadable(f"type {fields.get('type')}, encoding {fields.get('encoding')}")
    raw: Any = io.BytesIO(content)
    stream = raw if fields["encoding"] == "raw" else gzip.GzipFile(fileobj=raw)
    dtype = np.dtype(("<" if fields.get("endian", "little") == "little" else ">") + kind)
    i, j, k = (int(n) for n in shape)
    at_once = max(_STEP // (i * j * dtype.itemsize), 1)
    pieces = []
    for first in range(0, k, at_once):
        count = min(at_once, k - first)
        try:
            piece = stream.read(i * j * count * dtype.itemsize)
        except (OSError, EOFError) as error:
            raise _unreadable(str(error)) from error
        if len(piece) != i * j * count * dtype.itemsize:
            raise _unreadable("it ends early")
        found = Mask.cropped(np.frombuffer(piece, dtype).reshape(count, j, i), first_k=first)
        if found.count:
            pieces.append(found)
        yield
    return (yield from Mask.joined(pieces))


def _little(values: np.ndarray) -> np.ndarray:
    """The bytes of an array, little-endian; without a copy where they are so already."""
    little = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
    return little.reshape(-1).view(np.uint8)


def _check_grid(fields: dict[str, str], shape: Any, ijk_to_ras: np.ndarray) -> None:
    sizes = [int(n) for n in fields.get("sizes", "").split()]
    if sizes != [int(n) for n in shape]:
        raise _unreadable(f"it has {sizes} voxels, the volume {list(shape)}")
    if fields.get("space") not in ("left-posterior-superior", "LPS"):
        raise _unreadable(f"its space is {fields.get('space')!r}")
    numbers = fields.get("space directions", "") + " " + fields.get("space origin", "")
    given = np.array([float(n) for n in numbers.replace("(", " ").replace(")", " ").replace(",", " ").split()])
    wanted = (RAS_TO_LPS @ ijk_to_ras)[:3].T.reshape(-1)
    if given.shape != wanted.shape or not np.allclose(given, wanted, atol=_TOLERANCE):
        raise MedReasonerError(
            "the server's mask lies elsewhere than the volume",
            "do not use this answer, and report the geometry of the volume",
        )


def _unreadable(why: str) -> MedReasonerError:
    return MedReasonerError(f"the server's mask cannot be read: {why}", "ask again; if it recurs, look into its log")

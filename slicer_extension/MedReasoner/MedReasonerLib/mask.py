"""A mask as the part of a volume's grid that holds it, so that work and memory follow the target, not the volume."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medreasoner.contract.errors import MedReasonerError

Steps = Generator[None, None, Any]


@dataclass(frozen=True)
class Mask:
    """The part of a volume's grid that holds all true voxels.

    Attributes:
        voxels: (k, j, i) uint8 of zeros and ones; empty when nothing is true.
        offset: i, j, k of its first voxel in the volume.
    """

    voxels: np.ndarray
    offset: tuple[int, int, int] = (0, 0, 0)

    @property
    def digest(self) -> str:
        """Tells two masks apart."""
        return hashlib.sha256(repr((self.offset, self.voxels.shape)).encode() + self._bits()).hexdigest()

    @property
    def count(self) -> int:
        return int(np.count_nonzero(self.voxels))

    @classmethod
    def empty(cls) -> Mask:
        return cls(np.zeros((0, 0, 0), np.uint8))

    @classmethod
    def cropped(cls, voxels: np.ndarray, first_i: int = 0, first_j: int = 0, first_k: int = 0) -> Mask:
        """Cut (k, j, i) voxels, the first of which has these indices in the volume, to the true ones."""
        slices = np.flatnonzero(voxels.any(axis=(1, 2)))
        if not len(slices):
            return cls.empty()
        flat = voxels[slices[0] : slices[-1] + 1].any(axis=0)
        rows, columns = np.flatnonzero(flat.any(axis=1)), np.flatnonzero(flat.any(axis=0))
        k, j, i = (slice(int(true[0]), int(true[-1]) + 1) for true in (slices, rows, columns))
        return cls(
            np.ascontiguousarray(voxels[k, j, i] != 0, np.uint8),
            (i.start + first_i, j.start + first_j, k.start + first_k),
        )

    @classmethod
    def at(cls, ijk: np.ndarray) -> Mask:
        """The mask of these voxels, (n, 3) whole numbers."""
        if not len(ijk):
            return cls.empty()
        low, high = ijk.min(axis=0), ijk.max(axis=0)
        voxels = np.zeros((high - low + 1)[::-1], np.uint8)
        voxels[tuple((ijk - low).T[::-1])] = 1
        return cls(voxels, (int(low[0]), int(low[1]), int(low[2])))

    @classmethod
    def joined(cls, pieces: Sequence[Mask]) -> Steps:
        """The mask of all that is true in any of these, none of them empty; yields often, returns a `Mask`."""
        if not pieces:
            return cls.empty()
        low = np.min([piece.offset for piece in pieces], axis=0)
        high = np.max([np.add(piece.offset, piece.voxels.shape[::-1]) for piece in pieces], axis=0)
        whole = cls(np.zeros((high - low)[::-1], np.uint8), (int(low[0]), int(low[1]), int(low[2])))
        for piece in pieces:
            whole.voxels[piece.within(low)] |= piece.voxels
            yield
        return whole

    def full(self, shape: Any) -> np.ndarray:
        """(k, j, i) uint8 in the whole grid of `shape` (i, j, k)."""
        voxels = np.zeros(tuple(shape)[::-1], np.uint8)
        voxels[self.within((0, 0, 0))] = self.voxels
        return voxels

    def within(self, first: Any) -> tuple[slice, ...]:
        """Where it lies, along k, j, i, in an array the first voxel of which has these i, j, k."""
        starts = [a - b for a, b in zip(self.offset, first)][::-1]
        return tuple(slice(start, start + size) for start, size in zip(starts, self.voxels.shape))

    def packed(self) -> dict[str, Any]:
        """As values for JSON, a bit for each voxel before compression; `unpacked` reads them."""
        bits = base64.b64encode(zlib.compress(self._bits(), 1)).decode("ascii")
        return {"offset": list(self.offset), "shape": list(self.voxels.shape), "bits": bits}

    @classmethod
    def unpacked(cls, values: Any) -> Mask:
        """Raises `MedReasonerError` for anything that `packed` has not written."""
        try:
            (i, j, k), (depth, height, width) = values["offset"], values["shape"]
            bits = np.frombuffer(zlib.decompress(base64.b64decode(values["bits"])), np.uint8)
            if len(bits) != -(-depth * height * width // 8):
                raise ValueError(f"{len(bits)} bytes for {depth} x {height} x {width} voxels")
            voxels = np.unpackbits(bits, count=depth * height * width).reshape(depth, height, width)
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise MedReasonerError(f"a mask kept for Undo cannot be read: {error}", "ask the question again") from error
        return cls(voxels, (int(i), int(j), int(k)))

    def _bits(self) -> bytes:
        return np.packbits(self.voxels).tobytes()

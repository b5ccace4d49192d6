"""Left- and right-handed NIfTI files, told apart as nibabel does."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from MedReasonerLib.nifti_header import is_left_handed

SIGNS = [(1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, 1, -1), (-1, 1, -1)]


@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("form", ["sform", "qform"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_hands_are_told_apart(signs: tuple[int, ...], form: str, big_endian: bool, tmp_path: Path) -> None:
    header = nibabel.Nifti1Header(endianness=">" if big_endian else "<")
    affine = np.diag([*np.array(signs) * (1.0, 2.0, 3.0), 1.0])[:, [1, 0, 2, 3]]  # i and j swapped, too
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), affine, header)
    image.set_sform(affine if form == "sform" else None, code=1 if form == "sform" else 0)
    image.set_qform(affine if form == "qform" else None, code=1 if form == "qform" else 0)
    nibabel.save(image, tmp_path / "a.nii")
    data = (tmp_path / "a.nii").read_bytes()
    expected = np.linalg.det(nibabel.load(tmp_path / "a.nii").affine[:3, :3]) < 0
    assert is_left_handed(data) == expected
    assert is_left_handed(gzip.compress(data)) == expected


@pytest.mark.parametrize("data", [b"", b"NRRD0004\n", b"\x89PNG", bytes(400), gzip.compress(b"short", mtime=0)])
def test_other_files_are_left_alone(data: bytes) -> None:
    assert not is_left_handed(data)

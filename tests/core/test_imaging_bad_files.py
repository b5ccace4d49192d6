"""NIfTI, NRRD and picture files that cannot be shown give one `ImageError`: what is wrong, and what to do."""

from __future__ import annotations

import bz2
import gzip
import io
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest
from nibabel.testing import data_path as NIBABEL
from PIL import Image

from medreasoner.contract.errors import ImageError
from medreasoner.imaging import open_image
from tests.image_errors import error_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # PIL comments on damage, too

NIFTI = nibabel.Nifti1Image(np.arange(4000, dtype=np.float32).reshape(10, 20, 20), np.eye(4))


def nifti(values: np.ndarray, affine: np.ndarray | None = None) -> bytes:
    return nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine).to_bytes()


def huge_nifti() -> bytes:
    header = nibabel.Nifti1Header()
    header.set_data_shape((2000, 2000, 2000))
    header.set_data_dtype(np.int16)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    return header.binaryblock + bytes(400)


def flat() -> np.ndarray:
    affine = np.eye(4)
    affine[:3, 2] = affine[:3, 1]
    return affine


def png(size: tuple[int, int] = (30, 20)) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise(size, 50).save(stream, "PNG")
    return stream.getvalue()


def text_nrrd(sizes: str = "4 5 6", kind: str = "short", extra: str = "") -> bytes:
    lines = f"type: {kind}\ndimension: {len(sizes.split())}\nsizes: {sizes}\nencoding: raw\nendian: little\n"
    return f"NRRD0004\n{lines}{extra}\n".encode()


PATIENT = "space: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n"
OTHERS = {
    "text.nii": (b"not a volume", "known kind"),
    "text.png": (b"not a picture", "known kind"),
    "text.nrrd": (b"not a volume", "known kind"),
    "empty.nii.gz": (b"", "empty"),
    "empty.png": (b"", "empty"),
    "cut.nii": (NIFTI.to_bytes()[:-100], "bytes"),
    "cut.nii.gz": (gzip.compress(NIFTI.to_bytes())[:-100], "ended"),
    "header only.nii": (NIFTI.to_bytes()[:200], "."),
    "gzipped text.nii.gz": (gzip.compress(b"not a volume" * 50), "."),
    "complex.nii": (nifti(np.zeros((3, 4, 5), np.complex64)), "complex"),
    "film.nii": (nifti(np.zeros((3, 4, 5, 6), np.int16)), "4 dimensions .3 x 4 x 5 x 6"),
    "holes only.nii": (nifti(np.full((3, 4, 5), np.nan, np.float32)), "no finite value"),
    "flat.nii": (nifti(np.zeros((3, 4, 5), np.int16), flat()), "singular"),
    "huge.nii": (huge_nifti(), "14.9 GiB"),
    "cut.nrrd": (text_nrrd() + bytes(100), "."),
    "header only.nrrd": (b"NRRD0004\n", "."),
    "huge.nrrd": (text_nrrd("4000 4000 4000"), "119.2 GiB"),
    "zero.nrrd": (text_nrrd("4 0 6"), "no pixels"),
    "film.nrrd": (text_nrrd("2 4 5 6", extra="kinds: list domain domain domain\n") + bytes(480), "3 dimensions"),
    "four.nrrd": (text_nrrd("2 4 5 6") + bytes(480), "3 dimensions"),
    "vectors.nrrd": (text_nrrd("3 4 5 6", extra="kinds: vector domain domain domain\n") + bytes(720), "3 numbers"),
    "inches.nrrd": (text_nrrd(extra=f'{PATIENT}space units: "mm" "mm" "inch"\n') + bytes(240), "'inch'"),
    "micro sign.nrrd": (text_nrrd(extra=f'{PATIENT}space units: "µm" "µm" "µm"\n') + bytes(240), "'m'"),
    "lonely.nhdr": (text_nrrd(extra="data file: gone.raw\n"), "gone.raw"),
    "absolute.nrrd": (text_nrrd(extra="data file: /etc/passwd\n"), "in another folder"),
    "absolute too.nrrd": (text_nrrd(extra="datafile: /dev/zero\n"), "in another folder"),
    "both.nrrd": (text_nrrd(extra="data file: both.raw\ndatafile: /etc/passwd\n"), "in another folder"),
    "above.nrrd": (text_nrrd(extra="data file: here/../../secret.raw\n"), "in another folder"),
    "more.nrrd": (text_nrrd().replace(b"raw", b"gzip") + gzip.compress(bytes(241)), "more values"),
    "cut.png": (png()[:300], "."),
    "cut.jpg": (b"\xff\xd8\xff\xe0" + bytes(30), "."),
    "cut.bmp": (b"BM" + bytes(20), "."),
    "cut.tif": (b"II*\x00" + bytes(20), "."),
    "cut.webp": (b"RIFF\x00\x00\x00\x00WEBP", "."),
    "video.mp4": (b"\x00\x00\x00\x18ftypmp42" + bytes(200), "known kind"),
    "page.pdf": (b"%PDF-1.7\n" + bytes(200), "known kind"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_that_cannot_be_shown(name: str, tmp_path: Path) -> None:
    content, message = OTHERS[name]
    (tmp_path / name).write_bytes(content)
    assert re.search(message, error_of(tmp_path / name).what)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "nothing.dcm" in error_of(tmp_path / "nothing.dcm").what


@pytest.mark.parametrize("name", ["functional.nii", "example4d.nii.gz", "example_nifti2.nii.gz"])
def test_real_films_say_how_to_choose(name: str) -> None:
    error = error_of(NIBABEL / name)
    assert "4 dimensions" in error.what
    assert "volume" in error.hint


def test_a_machine_short_of_memory_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    nrrd.write(str(tmp_path / "volume.nrrd"), np.zeros((3, 4, 5)))
    monkeypatch.setattr(nrrd, "read_data", exhausted)
    assert "memory" in error_of(tmp_path / "volume.nrrd").what


@pytest.mark.parametrize(("encoding", "squeeze"), [("gzip", gzip.compress), ("bzip2", bz2.compress)])
def test_a_small_nrrd_file_cannot_fill_the_memory(
    encoding: str, squeeze: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    """Its header speaks of 240 bytes; what lies behind it inflates to as much as the sender likes."""
    bomb = text_nrrd().replace(b"raw", encoding.encode()) + squeeze(bytes(5 * 10**7))
    (tmp_path / "bomb.nrrd").write_bytes(bomb)
    assert len(bomb) < 10**5
    tracemalloc.start()
    try:
        error = error_of(tmp_path / "bomb.nrrd")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "more values" in error.what
    assert most < 10**7


def assert_image_or_one_error(path: Path) -> None:
    try:
        image = open_image(path)
    except ImageError:
        return
    assert image.picture().pixels.dtype == np.uint8


def test_damaged_volumes_give_an_image_or_one_error(tmp_path: Path) -> None:
    random = np.random.default_rng(12)
    nrrd.write(
        str(tmp_path / "whole.nrrd"), np.zeros((3, 4, 5), np.int16), {"space": "LPS", "space directions": np.eye(3)}
    )
    for name, whole in [
        ("v.nii", NIFTI.to_bytes()),
        ("v.nrrd", (tmp_path / "whole.nrrd").read_bytes()),
        ("v.png", png()),
    ]:
        for _ in range(60):
            damaged = bytearray(whole)
            for place in random.integers(4, min(len(whole), 400), 3):
                damaged[place] = random.integers(256)
            (tmp_path / name).write_bytes(damaged)
            assert_image_or_one_error(tmp_path / name)

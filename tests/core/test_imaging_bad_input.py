"""Every file that cannot be shown gives one `ImageError`: one sentence of what is wrong, one of what to do."""

from __future__ import annotations

import gzip
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pydicom.data
import pytest
from nibabel.testing import data_path as NIBABEL
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_pixel_data_frame
from pydicom.sequence import Sequence
from pydicom.uid import MPEG4HP41

from medreasoner.contract.errors import ImageError
from medreasoner.imaging import StoredImage, open_image

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom and PIL comment on damage, too

PYDICOM = Path(pydicom.data.__file__).parent / "test_files"
NIFTI = nibabel.Nifti1Image(np.arange(4000, dtype=np.float32).reshape(10, 20, 20), np.eye(4))


def error_of(path: Path) -> ImageError:
    with pytest.raises(ImageError) as caught:
        open_image(path)
    error = caught.value
    assert 0 < len(error.what) < 400
    assert 0 < len(error.hint) < 200
    assert "\n" not in error.what + error.hint
    return error


def ct(**changes: object) -> Callable[[Path], None]:
    """CT_small with other attributes; None removes one."""

    def write(path: Path) -> None:
        dataset = dcmread(PYDICOM / "CT_small.dcm")
        for keyword, value in changes.items():
            if value is None:
                del dataset[keyword]
            else:
                setattr(dataset, keyword, value)
        dataset.save_as(path)

    return write


def syntax(uid: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        dataset = dcmread(PYDICOM / "MR_small_jp2klossless.dcm")
        dataset.file_meta.TransferSyntaxUID = uid
        dataset.save_as(path)

    return write


def encrypted(path: Path) -> None:
    ct(PixelData=None, EncryptedAttributesSequence=Sequence([Dataset()]))(path)


def cut(name: str, keep: float) -> Callable[[Path], None]:
    """A file cut short; PixelData in these is the last element."""
    return lambda path: path.write_bytes((raw := (PYDICOM / name).read_bytes())[: int(len(raw) * keep)]) and None


def cut_frame(name: str, keep: float) -> Callable[[Path], None]:
    """A whole file around a compressed last frame cut short."""

    def write(path: Path) -> None:
        dataset = dcmread(PYDICOM / name)
        *whole, last = generate_pixel_data_frame(dataset.PixelData, int(dataset.get("NumberOfFrames") or 1))
        dataset.PixelData = encapsulate([*whole, last[: int(len(last) * keep) // 2 * 2]])
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(path)

    return write


def lost_frame(path: Path) -> None:
    dataset = dcmread(PYDICOM / "SC_rgb_rle_2frame.dcm")
    dataset.PixelData = encapsulate(list(generate_pixel_data_frame(dataset.PixelData, 2))[:1])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)


def bundled(name: str) -> Callable[[Path], None]:
    return lambda path: shutil.copy(PYDICOM / name, path) and None


DICOM = {
    "empty": (lambda path: path.touch(), "is empty"),
    "text": (lambda path: path.write_text("Patient: Doe, John\n" * 40) and None, "not an image of a known kind"),
    "short": (lambda path: path.write_bytes(b"\x08") and None, "not an image of a known kind"),
    "only a preamble": (lambda path: path.write_bytes(bytes(128) + b"DICM") and None, "no image"),
    "truncated pixels": (cut("CT_small.dcm", 0.9), "expected length|incomplete"),
    "truncated header": (cut("CT_small.dcm", 0.05), "."),
    "truncated on purpose by pydicom": (bundled("MR_truncated.dcm"), "expected length"),
    "truncated JPEG 2000 file": (cut("693_J2KI.dcm", 0.5), "incomplete"),
    "truncated JPEG file": (cut("SC_rgb_jpeg_dcmtk.dcm", 0.5), "incomplete"),
    "cut JPEG": (cut_frame("SC_rgb_jpeg_dcmtk.dcm", 0.7), "truncated"),
    "cut 12-bit JPEG": (cut_frame("JPGExtended.dcm", 0.99), "truncated"),
    "cut lossless JPEG": (cut_frame("SC_rgb_jpeg_gdcm.dcm", 0.7), "truncated"),
    "cut JPEG-LS": (cut_frame("MR_small_jpeg_ls_lossless.dcm", 0.7), "truncated"),
    "cut JPEG 2000": (cut_frame("MR_small_jp2klossless.dcm", 0.7), "decod"),
    "cut RLE": (cut_frame("MR_small_RLE.dcm", 0.7), "RLE"),
    "cut second frame": (cut_frame("SC_rgb_rle_2frame.dcm", 0.7), "RLE"),
    "lost frame": (lost_frame, "1 of its 2 frames|cannot be read"),
    "damaged JPEG": (bundled("JPEG-lossy.dcm"), "marker"),
    "damaged JPEG 2000": (bundled("JPEG2000-embedded-sequence-delimiter.dcm"), "header"),
    "encrypted": (encrypted, "encrypted"),
    "video": (syntax(MPEG4HP41), "MPEG-4"),
    "unknown transfer syntax": (syntax("1.2.3.4"), "cannot be decoded"),
    "JPEG 2000 that claims to be raw": (syntax("1.2.840.10008.1.2.1"), "."),
    "JPEG 2000 that claims to be RLE": (syntax("1.2.840.10008.1.2.5"), "."),
    "without pixels": (ct(PixelData=None), "incomplete"),
    "with no bytes of pixels": (ct(PixelData=b""), "incomplete"),
    "without rows": (ct(Rows=None), "no image"),
    "no rows": (ct(Rows=0), "no pixels"),
    "without bits": (ct(BitsAllocated=None), "."),
    "odd bits": (ct(BitsAllocated=12), "."),
    "colour in name only": (ct(PhotometricInterpretation="RGB"), "samples"),
    "unknown colours": (ct(PhotometricInterpretation="HSV"), "HSV"),
    "more frames than data": (ct(NumberOfFrames=9), "expected length"),
    "larger than memory": (ct(NumberOfFrames=900_000), "GiB"),
    "report": (bundled("test-SR.dcm"), "no image .Comprehensive SR"),
    "contours": (bundled("rtstruct.dcm"), "contours"),
    "plan": (bundled("rtplan.dcm"), "plan"),
    "dose": (bundled("rtdose.dcm"), "dose"),
    "segmentation": (bundled("liver_1frame.dcm"), "segmentation"),
    "electrocardiogram": (bundled("waveform_ecg.dcm"), "no image"),
    "index of a disc": (bundled("dicomdirtests/DICOMDIR"), "no image"),
    "frames that are no number": (bundled("badVR.dcm"), "dose"),
}


@pytest.mark.parametrize("case", DICOM)
def test_dicom_that_cannot_be_shown(case: str, tmp_path: Path) -> None:
    write, message = DICOM[case]
    write(tmp_path / "image.dcm")
    error = error_of(tmp_path / "image.dcm")
    assert re.search(message, error.what)


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
    dimension = len(sizes.split())
    return f"NRRD0004\ntype: {kind}\ndimension: {dimension}\nsizes: {sizes}\nencoding: raw\nendian: little\n{extra}\n".encode()


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
    "lonely.nhdr": (text_nrrd(extra="data file: gone.raw\n"), "gone.raw"),
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
    monkeypatch.setattr(nrrd, "read", exhausted)
    assert "memory" in error_of(tmp_path / "volume.nrrd").what


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "SC_rgb_small_odd_jpeg.dcm"]
)
def test_damage_anywhere_gives_an_image_or_one_error(name: str, tmp_path: Path) -> None:
    """Two hundred files with a few flipped bytes or a lost end."""
    whole, random = (PYDICOM / name).read_bytes(), np.random.default_rng(11)
    for _ in range(50):
        damaged = bytearray(whole)
        for place in random.integers(132, len(whole), 4):
            damaged[place] = random.integers(256)
        (tmp_path / "image").write_bytes(
            damaged[: random.integers(140, len(whole))] if random.random() < 0.3 else damaged
        )
        try:
            image = open_image(tmp_path / "image")
        except ImageError as error:
            assert error.hint
        else:
            assert isinstance(image, StoredImage)
            image.picture()


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
            try:
                open_image(tmp_path / name).picture()
            except ImageError as error:
                assert error.hint

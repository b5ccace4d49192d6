"""DICOM files that cannot be shown give one `ImageError`: what is wrong, and what to do."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_pixel_data_frame
from pydicom.sequence import Sequence
from pydicom.uid import MPEG4HP41

from medreasoner.contract.errors import ImageError
from medreasoner.imaging import open_image
from tests.image_errors import error_of

pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")  # which comments on damage, too

PYDICOM = Path(pydicom.data.__file__).parent / "test_files"
Writer = Callable[[Path], object]


def ct(**changes: object) -> Writer:
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


def syntax(uid: str) -> Writer:
    def write(path: Path) -> None:
        dataset = dcmread(PYDICOM / "MR_small_jp2klossless.dcm")
        dataset.file_meta.TransferSyntaxUID = uid
        dataset.save_as(path)

    return write


def encrypted(path: Path) -> None:
    ct(PixelData=None, EncryptedAttributesSequence=Sequence([Dataset()]))(path)


def cut(name: str, keep: float) -> Writer:
    """A file cut short; PixelData in these is the last element."""
    whole = (PYDICOM / name).read_bytes()
    return lambda path: path.write_bytes(whole[: int(len(whole) * keep)])


def cut_frame(name: str, keep: float) -> Writer:
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


def bundled(name: str) -> Writer:
    return lambda path: shutil.copy(PYDICOM / name, path)


DICOM = {
    "empty": (lambda path: path.touch(), "is empty"),
    "text": (lambda path: path.write_text("Patient: Doe, John\n" * 40), "not an image of a known kind"),
    "short": (lambda path: path.write_bytes(b"\x08"), "not an image of a known kind"),
    "only a preamble": (lambda path: path.write_bytes(bytes(128) + b"DICM"), "no image"),
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
    "cut RLE": (cut_frame("MR_small_RLE.dcm", 0.7), "segment"),
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


def assert_image_or_one_error(path: Path) -> None:
    try:
        image = open_image(path)
    except ImageError:
        return
    assert image.picture().pixels.dtype == np.uint8


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
        assert_image_or_one_error(tmp_path / "image")

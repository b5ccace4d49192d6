"""Real files from pydicom, nibabel and scikit-image, read here and by GDCM (inside SimpleITK), which must agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom.data
import pytest
import SimpleITK as sitk
import skimage
from highdicom.spatial import PixelToReferenceTransformer
from nibabel.testing import data_path as NIBABEL
from PIL import Image

from medreasoner.contract.answer import Point
from medreasoner.imaging import open_image

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # decoders comment on the flaws of some files

PYDICOM = Path(pydicom.data.__file__).parent / "test_files"
SKIMAGE = Path(skimage.__file__).parent / "data"

GREY = {  # why this file
    "CT_small.dcm": "rescale, padding value, no window",
    "693_J2KI.dcm": "JPEG 2000 lossy, 14 of 16 bits",
    "J2K_pixelrep_mismatch.dcm": "JPEG 2000 whose sign differs from the header's; tilted gantry; three windows",
    "JPEG2000.dcm": "NM, pixel spacing but no position",
    "JPGExtended.dcm": "12-bit JPEG, end mark padded with FF",
    "MR_small.dcm": "plain little endian",
    "MR_small_RLE.dcm": "RLE",
    "MR_small_bigendian.dcm": "big endian words",
    "MR_small_expb.dcm": "explicit big endian",
    "MR_small_implicit.dcm": "implicit VR",
    "MR_small_jp2klossless.dcm": "JPEG 2000 lossless",
    "MR_small_jpeg_ls_lossless.dcm": "JPEG-LS",
    "MR_small_padded.dcm": "more bytes than pixels",
    "image_dfl.dcm": "deflated",
}
COLOUR = {
    "ExplVR_BigEnd.dcm": "US, RGB, big endian",
    "GDCMJ2K_TextGBR.dcm": "YBR_RCT, undone by the JPEG 2000 decoder",
    "SC_rgb_dcmtk_+eb+cr.dcm": "JPEG with components named R, G, B",
    "SC_rgb_dcmtk_+eb+cy+n1.dcm": "YBR_FULL, subsampled 4:2:2",
    "SC_rgb_dcmtk_+eb+cy+n2.dcm": "YBR_FULL, subsampled 4:2:0",
    "SC_rgb_dcmtk_+eb+cy+np.dcm": "YBR_FULL_422",
    "SC_rgb_dcmtk_+eb+cy+s2.dcm": "YBR_FULL_422, Adobe mark",
    "SC_rgb_dcmtk_+eb+cy+s4.dcm": "YBR_FULL, 4:4:4",
    "SC_rgb_gdcm_KY.dcm": "JPEG 2000 of RGB",
    "SC_rgb_jpeg_app14_dcmd.dcm": "JPEG of RGB, Adobe mark",
    "SC_rgb_jpeg_dcmd.dcm": "decompressed, implicit VR",
    "SC_rgb_jpeg_gdcm.dcm": "lossless JPEG",
    "SC_rgb_rle.dcm": "RLE, one plane a colour",
    "SC_rgb_rle_2frame.dcm": "two frames",
    "SC_rgb_small_odd.dcm": "odd number of bytes",
    "SC_rgb_small_odd_jpeg.dcm": "YBR_FULL of 3 x 3 pixels",
    "SC_ybr_full_422_uncompressed.dcm": "shared chroma without compression",
}
PLACED = ["CT_small.dcm", "MR_small.dcm", "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm"]
BARS = {5: (255, 0, 0), 15: (255, 128, 128), 25: (0, 255, 0), 45: (0, 0, 255), 75: (64, 64, 64)}


@pytest.mark.parametrize("name", GREY)
def test_grey_values_agree_with_gdcm(name: str) -> None:
    values = open_image(PYDICOM / name).values
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(PYDICOM / name))).T
    np.testing.assert_allclose(values, expected, atol=1 if name == "JPGExtended.dcm" else 1e-6)  # lossy, rounded


@pytest.mark.parametrize("name", COLOUR)
def test_colours_agree_with_gdcm(name: str) -> None:
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(PYDICOM / name)))
    expected = expected.reshape(-1, *expected.shape[-3:])
    image = open_image(PYDICOM / name)
    for frame in range(len(expected)):
        pixels = image.picture(slice_index=frame).pixels
        np.testing.assert_allclose(pixels, expected[frame], atol=2)  # JPEG decoders may round differently


@pytest.mark.parametrize("name", ["SC_rgb_rle_16bit.dcm", "SC_rgb_rle_32bit.dcm", "SC_rgb_jpeg_lossy_gdcm.dcm"])
def test_colours_that_gdcm_misreads_show_the_known_bars(name: str) -> None:
    """16 and 32 bits a colour, and YCbCr components in a JPEG labelled RGB; every one holds the same test bars."""
    pixels = open_image(PYDICOM / name).picture().pixels
    for row, colour in BARS.items():
        np.testing.assert_allclose(pixels[row, 50], colour, atol=3)


@pytest.mark.parametrize("name", ["SC_jpeg_no_color_transform.dcm", "SC_rgb_jpeg.dcm"])
def test_jpeg_that_holds_rgb_is_not_converted_again(name: str) -> None:
    """Components 0, 1, 2 without an Adobe mark; the decompressed twin of the file is the reference."""
    expected = open_image(PYDICOM / "SC_rgb_jpeg_dcmd.dcm").values
    np.testing.assert_allclose(open_image(PYDICOM / name).values.astype(int), expected, atol=1)


@pytest.mark.parametrize("name", PLACED)
@pytest.mark.parametrize(("column", "row"), [(0, 0), (63, 0), (17, 43)])
def test_pixel_centres_lie_where_highdicom_puts_them(name: str, column: int, row: int) -> None:
    file = pydicom.dcmread(PYDICOM / name)
    to_lps = PixelToReferenceTransformer(file.ImagePositionPatient, file.ImageOrientationPatient, file.PixelSpacing)
    expected = to_lps(np.array([[column, row]]))[0]
    picture = open_image(PYDICOM / name).picture()
    np.testing.assert_allclose(picture.lps_of(Point(column + 0.5, row + 0.5)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("path", "modality", "axis", "window", "inverted"),
    [
        ("CT_small.dcm", "CT", "axial", (40, 400), False),  # no window of its own
        ("693_J2KI.dcm", "CT", "axial", (40, 100), False),
        ("J2K_pixelrep_mismatch.dcm", "CT", "axial", (40, 100), False),  # tilted by 22 degrees; the first of three
        ("dicomdirtests/98892001/CT2N/6293", "CT", "sagittal", (50, 500), False),  # scout
        ("dicomdirtests/98892001/CT2N/6924", "CT", "coronal", (50, 500), False),
        ("dicomdirtests/98892003/MR700/4467", "MR", "oblique", (149, 359), False),  # a projection turned by 49 degrees
        ("dicomdirtests/77654033/CR1/6154", "CR", "stored", (1600, 2800), True),  # MONOCHROME1, no position
        ("ExplVR_BigEnd.dcm", "US", "stored", None, False),
    ],
)
def test_what_a_file_says_about_itself(
    path: str, modality: str, axis: str, window: tuple[float, float] | None, inverted: bool
) -> None:
    image = open_image(PYDICOM / path)
    picture = image.picture()
    assert (image.modality, picture.axis, picture.window, image.inverted) == (modality, axis, window, inverted)


def test_a_preamble_may_look_like_another_format() -> None:
    """nibabel's Siemens files have the bytes of a NIfTI header size before the DICM mark."""
    values = open_image(NIBABEL / "0.dcm").values
    np.testing.assert_array_equal(values, sitk.GetArrayFromImage(sitk.ReadImage(str(NIBABEL / "0.dcm"))).T)


def test_a_series_is_ordered_by_position_as_itk_orders_it() -> None:
    """Five CT slices whose instance numbers run against their positions."""
    folder = PYDICOM / "dicomdirtests/98892001/CT5N"
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    expected = sitk.ReadImage(names)
    image = open_image(folder)
    assert [file.name for file, _ in image.sources] == [Path(name).name for name in names]
    np.testing.assert_array_equal(image.values, sitk.GetArrayFromImage(expected).T)
    for axis in ("axial", "coronal", "sagittal", None):
        picture = image.picture(axis)
        index = picture.index_of(Point(3.25, 4.5)).tolist()
        np.testing.assert_allclose(
            picture.lps_of(Point(3.25, 4.5)), expected.TransformContinuousIndexToPhysicalPoint(index), atol=1e-4
        )


@pytest.mark.parametrize("name", ["camera.png", "chelsea.png", "retina.jpg", "chessboard_GRAY.png", "rocket.jpg"])
def test_ordinary_pictures_keep_their_pixels(name: str) -> None:
    """Grey, colour, baseline JPEG, a fundus photograph: what PIL sees is what the reasoner sees."""
    expected = np.asarray(Image.open(SKIMAGE / name).convert("RGB"))
    np.testing.assert_array_equal(open_image(SKIMAGE / name).picture().pixels, expected)


def test_transparency_lies_on_black() -> None:
    rgba = np.asarray(Image.open(SKIMAGE / "logo.png")).astype(float)
    expected = rgba[..., :3] * rgba[..., 3:] / 255
    np.testing.assert_allclose(open_image(SKIMAGE / "logo.png").picture().pixels, expected, atol=0.51)


def test_tiff_pages_are_slices_along_k() -> None:
    image = open_image(SKIMAGE / "multipage.tif")
    assert image.shape == (10, 15, 2)
    assert image.slice_count() == 2
    assert not image.is_volume

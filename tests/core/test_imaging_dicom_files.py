"""Single DICOM files: enhanced multi-frame volumes, films, palettes, lookup tables, windows, padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixel_data_handlers.util import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from medreasoner.contract.errors import ImageError
from medreasoner.imaging import StoredImage, open_image

CT_SERIES = Path(pydicom.data.__file__).parent / "test_files/dicomdirtests/98892001/CT5N"


def changed(name: str, **changes: object) -> Dataset:
    dataset = dcmread(get_testdata_file(name))
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return dataset


def opened(dataset: Dataset, tmp_path: Path) -> StoredImage:
    dataset.save_as(tmp_path / "image.dcm")
    return open_image(tmp_path / "image.dcm")


@pytest.fixture
def enhanced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """highdicom's multi-frame version of five CT slices, with per-frame position, window and rescale."""
    monkeypatch.setattr(pydicom.config, "datetime_conversion", True)  # highdicom reckons with dates
    slices = [dcmread(file) for file in sorted(CT_SERIES.iterdir())]
    file = LegacyConvertedEnhancedCTImage(slices, generate_uid(), 1, generate_uid(), 1)
    file.save_as(tmp_path / "enhanced.dcm")
    return dcmread(tmp_path / "enhanced.dcm")


def test_an_enhanced_file_is_the_same_volume_as_its_series(enhanced: Dataset, tmp_path: Path) -> None:
    image, series = opened(enhanced, tmp_path), open_image(CT_SERIES)
    np.testing.assert_array_equal(image.values, series.values)
    np.testing.assert_allclose(image.index_to_lps, series.index_to_lps, atol=1e-6)
    assert (image.is_volume, image.default_window, image.modality) == (True, (40, 400), "CT")
    for axis in ("axial", "coronal", "sagittal", "stored", None):
        np.testing.assert_array_equal(image.picture(axis).pixels, series.picture(axis).pixels)


def test_frames_are_ordered_by_position_and_remember_their_number(enhanced: Dataset, tmp_path: Path) -> None:
    plain = opened(enhanced, tmp_path)
    groups, frames = enhanced.PerFrameFunctionalGroupsSequence, enhanced.pixel_array
    order = [3, 0, 4, 1, 2]
    enhanced.PerFrameFunctionalGroupsSequence = Sequence([groups[n] for n in order])
    enhanced.PixelData = frames[order].tobytes()
    shuffled = opened(enhanced, tmp_path)
    np.testing.assert_array_equal(shuffled.values, plain.values)
    assert [order[frame] for _, frame in shuffled.sources] == [frame for _, frame in plain.sources]


def test_frames_at_one_place_are_refused(enhanced: Dataset, tmp_path: Path) -> None:
    groups = enhanced.PerFrameFunctionalGroupsSequence
    groups[1].PlanePositionSequence = groups[0].PlanePositionSequence
    with pytest.raises(ImageError, match=r"one place.*frame"):
        opened(enhanced, tmp_path)


def test_a_film_has_frames_but_no_geometry(tmp_path: Path) -> None:
    """One root position for many frames says nothing about each."""
    file = changed("MR_small.dcm", NumberOfFrames=3)
    file.PixelData = file.PixelData * 3
    film = opened(file, tmp_path)
    assert (film.slice_count(), film.is_volume, film.index_to_lps) == (3, False, None)
    assert film.picture(slice_index=2).slice_index == 2


@pytest.mark.parametrize("bits", [8, 16])
def test_palette_colours_are_looked_up(bits: int, tmp_path: Path) -> None:
    scale = 1 if bits == 8 else 257
    tables = np.arange(256)[:, None] * [1, 0, 0] + np.arange(255, -1, -1)[:, None] * [0, 1, 0] + [0, 0, 7]
    index = np.arange(256, dtype=np.uint8).reshape(16, 16)
    file = changed("image_dfl.dcm", PhotometricInterpretation="PALETTE COLOR", Rows=16, Columns=16)
    file.PixelData = index.tobytes()
    for name, table in zip(("Red", "Green", "Blue"), tables.T, strict=True):
        file.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [256, 0, bits])
        setattr(file, f"{name}PaletteColorLookupTableData", (table * scale).astype(f"<u{bits // 8}").tobytes())
    np.testing.assert_array_equal(opened(file, tmp_path).picture().pixels, tables[index])


def lut(first: int, entries: np.ndarray, bits: int) -> Sequence:
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [len(entries), first, bits], entries.astype("<u2").tobytes()
    item["LUTData"].VR = "OW"
    return Sequence([item])


def test_a_modality_table_replaces_the_rescale(tmp_path: Path) -> None:
    entries = np.linspace(4000, 100, 1500).astype(int)
    file = changed("MR_small.dcm", ModalityLUTSequence=lut(200, entries, 16))
    expected = apply_modality_lut(file.pixel_array, file)
    np.testing.assert_array_equal(opened(file, tmp_path).values[..., 0], expected.T)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_a_voi_table_comes_before_the_window_unless_someone_asks_for_another(bits: int, tmp_path: Path) -> None:
    entries = (np.linspace(0, 1, 1200) ** 2 * (2**bits - 1)).astype(int)
    file = changed("MR_small.dcm", VOILUTSequence=lut(300, entries, bits))
    expected = apply_voi_lut(file.pixel_array, file) / (2**bits - 1) * 255
    image = opened(file, tmp_path)
    np.testing.assert_allclose(image.picture().pixels[..., 1], expected, atol=0.51)
    plain = open_image(Path(get_testdata_file("MR_small.dcm")))
    np.testing.assert_array_equal(image.picture(window=(600, 1600)).pixels, plain.picture().pixels)


def test_eight_bit_entries_may_be_packed_two_to_a_word(tmp_path: Path) -> None:
    entries = (np.linspace(0, 1, 1200) ** 2 * 255).astype(np.uint8)
    file = changed("MR_small.dcm", VOILUTSequence=lut(300, entries, 8))
    file.VOILUTSequence[0].LUTData = entries.tobytes()
    expected = entries[np.clip(file.pixel_array - 300, 0, 1199)]  # PS3.3 C.11.2.1.1; pydicom 2 wraps the index here
    np.testing.assert_array_equal(opened(file, tmp_path).picture().pixels[..., 2], expected)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("window", [(40.0, 400.0), (-600.0, 1500.0), (100.5, 2.0)])
def test_windows_agree_with_pydicom(function: str, window: tuple[float, float], tmp_path: Path) -> None:
    file = changed("CT_small.dcm", VOILUTFunction=function, WindowCenter=window[0], WindowWidth=window[1])
    with np.errstate(over="ignore"):  # in pydicom's sigmoid
        shown = apply_voi_lut(apply_modality_lut(file.pixel_array, file), file)
    low, high = (-(2.0**15) - 1024, 2.0**15 - 1 - 1024)  # pydicom spreads windows over the range of the stored bits
    picture = opened(file, tmp_path).picture()
    np.testing.assert_allclose(picture.pixels[..., 0], (shown - low) / (high - low) * 255, atol=0.51)
    assert picture.window == window


def test_the_first_of_several_windows_counts(tmp_path: Path) -> None:
    file = changed("CT_small.dcm", WindowCenter=[-600, 40], WindowWidth=[1500, 400])
    assert opened(file, tmp_path).picture().window == (-600, 1500)


@pytest.mark.parametrize(("centre", "width"), [(40, 0), (40, -5), (None, 400), (40, None), ("", "")])
def test_a_window_that_the_standard_forbids_counts_as_none(centre: object, width: object, tmp_path: Path) -> None:
    file = changed("CT_small.dcm", WindowCenter=centre, WindowWidth=width)
    assert opened(file, tmp_path).default_window is None


def test_monochrome1_looks_like_monochrome2(tmp_path: Path) -> None:
    bright = opened(changed("MR_small.dcm"), tmp_path).picture()
    dark = opened(changed("MR_small.dcm", PhotometricInterpretation="MONOCHROME1"), tmp_path).picture()
    np.testing.assert_array_equal(dark.pixels, 255 - bright.pixels)


def test_padding_does_not_count_in_the_automatic_window(tmp_path: Path) -> None:
    """A third of the picture is padding, at a value and up to a limit."""
    file = changed("MR_small.dcm", WindowCenter=None, WindowWidth=None)
    pixels = file.pixel_array.copy()
    expected = np.percentile(pixels[20:], (0.5, 99.5))
    pixels[:20] = np.random.default_rng(1).integers(-2000, -1899, pixels[:20].shape)
    file.PixelData = pixels.tobytes()
    file.add_new("PixelPaddingValue", "SS", -2000)
    file.add_new("PixelPaddingRangeLimit", "SS", -1900)
    centre, width = opened(file, tmp_path).picture().window
    np.testing.assert_allclose([centre - width / 2, centre + width / 2 - 1], expected)


def test_unequal_spacing_and_pixel_aspect_become_square_pixels(tmp_path: Path) -> None:
    spaced = opened(changed("MR_small.dcm", PixelSpacing=[0.5, 0.25]), tmp_path)
    assert spaced.picture().pixels.shape == (128, 64, 3)
    video = opened(changed("ExplVR_BigEnd.dcm", PixelAspectRatio=[12, 11]), tmp_path)  # PAL
    assert video.picture().pixels.shape == (round(60 * 12 / 11), 80, 3)


def test_a_file_without_preamble_or_meta_is_read(tmp_path: Path) -> None:
    """As written in the 1990s."""
    file = dcmread(get_testdata_file("MR_small_implicit.dcm"))
    values = file.pixel_array
    bare = Dataset(file)
    bare.is_little_endian, bare.is_implicit_VR = True, True
    bare.save_as(tmp_path / "old", write_like_original=True)
    assert (tmp_path / "old").read_bytes()[128:132] != b"DICM"
    np.testing.assert_array_equal(open_image(tmp_path / "old").values[..., 0], values.T)

"""Grey levels where no file defines them: explicit and automatic windows, constants, holes."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medreasoner.contract.errors import ImageError
from medreasoner.imaging import StoredImage, open_image
from medreasoner.imaging.grey_levels import automatic_window, exact_function, window_grey


def image_of(values: np.ndarray, **fields: object) -> StoredImage:
    return StoredImage(Path("made up"), np.atleast_3d(values), **fields)


def grey_of(values: np.ndarray, window: tuple[float, float] | None = None, **fields: object) -> list[int]:
    return image_of(values, **fields).picture("stored", 0, window).pixels[..., 0].ravel().tolist()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (np.int16, [0, 0, 0, 128, 255, 255]),  # LINEAR, PS3.3 C.11.2.1.2.1: -160 is still black, 239 is white
        (np.float32, [0, 0, 1, 128, 254, 255]),  # fractions have no half a level to allow for
    ],
)
def test_soft_tissue_window(kind: type, expected: list[int]) -> None:
    values = np.array([-1000, -160, -159, 40, 239, 240], kind)
    assert grey_of(values, (40, 400)) == pytest.approx(expected, abs=1)
    assert grey_of(values, (40, 400))[1] == 0
    assert grey_of(values, (40, 400))[-1] == 255


def test_a_window_one_level_wide_is_a_threshold() -> None:
    assert grey_of(np.array([9, 10, 11], np.int16), (10.5, 1)) == [0, 0, 255]


@given(st.floats(-1e6, 1e6), st.floats(1, 1e6), st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]))
def test_windows_never_fall(centre: float, width: float, function: str) -> None:
    values = np.sort(np.random.default_rng(0).uniform(centre - width, centre + width, 50))
    assert (np.diff(window_grey(values, (centre, width), function).astype(int)) >= 0).all()


@pytest.mark.parametrize("window", [(40, 0), (40, -1), (40, 0.5), (float("nan"), 400), (40, float("inf"))])
def test_windows_that_cannot_be_used_are_refused(window: tuple[float, float]) -> None:
    with pytest.raises(ImageError, match="width"):
        grey_of(np.zeros((2, 2), np.int16), window)


def test_narrow_windows_suit_fractions() -> None:
    """Volumes scaled to 0..1 have windows narrower than 1."""
    assert grey_of(np.array([0.2, 0.25, 0.5, 0.75]), (0.5, 0.5)) == [0, 0, 128, 255]


def test_an_asked_window_beats_the_one_of_the_file() -> None:
    values = np.arange(256, dtype=np.uint8)
    assert grey_of(values, default_window=(128, 256)) == list(range(256))
    assert grey_of(values, (64, 128), default_window=(128, 256))[127:] == [255] * 129


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.float32])
@pytest.mark.parametrize("level", [0, 100])
def test_constant_images_are_one_grey(kind: type, level: int) -> None:
    assert len(set(grey_of(np.full((4, 5), level, kind)))) == 1


def test_a_few_bright_pixels_on_a_constant_ground_are_seen() -> None:
    """The percentiles alone would make the window empty."""
    values = np.zeros((100, 100), np.uint16)
    values[50, 50] = 900
    assert sorted(set(grey_of(values))) == [0, 255]


@given(st.lists(st.integers(-30000, 30000), min_size=2, max_size=200), st.booleans())
def test_the_automatic_window_runs_from_percentile_to_percentile(numbers: list[int], whole: bool) -> None:
    values = np.array(numbers, np.int32 if whole else np.float32)
    low, high = np.percentile(values, (0.5, 99.5))
    if low == high:
        return
    levels = window_grey(np.array([low, high]), automatic_window(values, "MR"), exact_function(values))
    assert levels.tolist() == [0, 255]


def test_ct_without_a_window_shows_soft_tissue() -> None:
    assert image_of(np.arange(9, dtype=np.int16), modality="CT").picture().window == (40, 400)


def test_a_slice_of_nothing_but_padding_still_has_a_window() -> None:
    assert len(set(grey_of(np.full((3, 3), -2000, np.int16), padding=(-2000, -2000)))) == 1


def test_holes_look_like_background_and_infinities_like_extremes(tmp_path: Path) -> None:
    values = np.array([np.nan, -3, 5, np.inf, -np.inf, 1e300]).reshape(1, 2, 3)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "volume.nii")
    assert open_image(tmp_path / "volume.nii").values.ravel().tolist() == [-3, -3, 5, 5, -3, 5]


@pytest.mark.parametrize(
    ("stored", "expected"),
    [("<i8", np.int16), (">i2", np.int16), ("<f8", np.float32), (">f4", np.float32), ("<u4", np.uint32)],
)
def test_values_are_native_and_at_most_32_bits(stored: str, expected: type, tmp_path: Path) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(stored)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4), dtype=stored), tmp_path / "volume.nii")
    image = open_image(tmp_path / "volume.nii")
    assert (image.values.dtype, image.values.dtype.isnative) == (expected, True)
    np.testing.assert_array_equal(image.values, values)

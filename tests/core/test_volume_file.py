"""A volume written as one file holds the same values in the same place, by SimpleITK and by our own reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import skimage
from numpy.testing import assert_allclose, assert_array_equal

from medreasoner.contract.errors import ImageError
from medreasoner.imaging import open_image, write_volume
from tests.dicom_files import ALIGNED, OBLIQUE, series


@pytest.mark.parametrize("directions", [ALIGNED, OBLIQUE], ids=["aligned", "oblique"])
def test_a_series_is_where_it_was(directions: np.ndarray, tmp_path: Path) -> None:
    folder = tmp_path / "series"
    series(folder, directions=directions)
    image = open_image(folder)
    written = sitk.ReadImage(str(write_volume(image, tmp_path / "volume.nrrd")))
    assert_array_equal(sitk.GetArrayFromImage(written), image.values.transpose(2, 1, 0))
    for index in ((0, 0, 0), (3, 5, 2)):
        assert image.index_to_lps is not None
        expected = image.index_to_lps @ [*index, 1]
        assert_allclose(written.TransformIndexToPhysicalPoint(index), expected[:3], atol=1e-4)


@pytest.mark.parametrize("name", ["retina.jpg", "coins.png"], ids=["colours", "grey"])
def test_a_picture_keeps_its_pixels(name: str, tmp_path: Path) -> None:
    image = open_image(Path(skimage.__file__).parent / "data" / name)
    again = open_image(write_volume(image, tmp_path / "picture.nrrd"))
    assert_array_equal(again.values, image.values)


def test_says_where_it_cannot_write(tmp_path: Path) -> None:
    image = open_image(Path(skimage.__file__).parent / "data" / "coins.png")
    with pytest.raises(ImageError, match="cannot be written"):
        write_volume(image, tmp_path / "nowhere" / "volume.nrrd")

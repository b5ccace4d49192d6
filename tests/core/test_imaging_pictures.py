"""PNG, JPEG, BMP, TIFF and WebP in all their modes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medreasoner.contract.errors import ImageError
from medreasoner.imaging import open_image

RNG = np.random.default_rng(5)
COLOURS = RNG.integers(0, 256, (6, 9, 3)).astype(np.uint8)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".tiff", ".PNG"])
def test_lossless_formats_keep_every_pixel(ending: str, tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / f"image{ending}")
    image = open_image(tmp_path / f"image{ending}")
    assert (image.shape, image.modality, image.index_to_lps) == ((9, 6, 1), "", None)
    np.testing.assert_array_equal(image.picture().pixels, COLOURS)


@pytest.mark.parametrize(
    ("ending", "options"), [(".webp", {"lossless": True}), (".jpg", {}), (".jpeg", {"progressive": True})]
)
def test_pixels_are_those_of_pil(ending: str, options: dict, tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / f"image{ending}", **options)
    expected = np.asarray(Image.open(tmp_path / f"image{ending}").convert("RGB"))
    np.testing.assert_array_equal(open_image(tmp_path / f"image{ending}").picture().pixels, expected)


def test_the_name_does_not_matter(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "image.bin", format="PNG")
    np.testing.assert_array_equal(open_image(tmp_path / "image.bin").picture().pixels, COLOURS)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LA", "RGBA"])
def test_modes(mode: str, tmp_path: Path) -> None:
    """Bits, grey, palette, print colours, transparency: what a person would see on black."""
    ending = ".png" if mode not in ("CMYK", "YCbCr") else ".tif"
    packed = {"compression": "tiff_lzw"} if ending == ".tif" else {}  # Pillow 11 and 12 misread a plain YCbCr TIFF
    Image.fromarray(COLOURS).convert(mode).save(tmp_path / f"image{ending}", **packed)
    expected = np.asarray(Image.open(tmp_path / f"image{ending}").convert("RGB"))
    np.testing.assert_array_equal(open_image(tmp_path / f"image{ending}").picture().pixels, expected)


def test_transparent_palette_entries_are_black(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).convert("P").save(tmp_path / "image.png", transparency=0)
    indices = np.asarray(Image.open(tmp_path / "image.png"))
    pixels = open_image(tmp_path / "image.png").picture().pixels
    assert (pixels[indices == 0] == 0).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(orientation: int, tmp_path: Path) -> None:
    """A bright left half, stored as a camera held in each of eight ways would."""
    upright = np.zeros((40, 64), np.uint8)
    upright[:, :32] = 255
    undo = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(undo[orientation])).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    pixels = open_image(tmp_path / "photo.jpg").picture().pixels[..., 0]
    np.testing.assert_allclose(pixels.astype(int), upright, atol=8)


@pytest.mark.parametrize(
    ("kind", "ending"), [(np.uint16, ".png"), (np.uint16, ".tif"), (np.int32, ".tif"), (np.float32, ".tif")]
)
def test_wide_grey_is_windowed(kind: type, ending: str, tmp_path: Path) -> None:
    ramp = np.linspace(500, 3000, 600).reshape(20, 30).astype(kind)
    Image.fromarray(ramp).save(tmp_path / f"image{ending}")
    image = open_image(tmp_path / f"image{ending}")
    np.testing.assert_array_equal(image.values[..., 0].T, ramp)
    pixels = image.picture().pixels[..., 0].ravel()
    assert (pixels[0], pixels[-1], pixels[300]) == (0, 255, pytest.approx(128, abs=2))
    assert (image.picture(window=(4000, 100)).pixels == 0).all()


def test_pages_of_different_size_are_refused(tmp_path: Path) -> None:
    first, second = Image.fromarray(COLOURS), Image.fromarray(COLOURS[:3])
    first.save(tmp_path / "image.tif", save_all=True, append_images=[second])
    with pytest.raises(ImageError, match="pages"):
        open_image(tmp_path / "image.tif")


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "image.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    with pytest.raises(ImageError, match="too many pixels"):
        open_image(tmp_path / "image.png")


def test_views_need_a_patient(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "image.png")
    image = open_image(tmp_path / "image.png")
    with pytest.raises(ImageError, match="'stored'"):
        image.picture("axial")
    with pytest.raises(ImageError, match="stored slices"):
        image.oblique_picture((0, 0, 0), (1, 0, 0), (0, 1, 0), (9.0, 9.0))

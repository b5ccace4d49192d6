"""What every unreadable image must give: one short sentence, and a hint."""

from __future__ import annotations

from pathlib import Path

import pytest

from medreasoner.contract.errors import ImageError
from medreasoner.imaging import open_image


def error_of(path: Path) -> ImageError:
    with pytest.raises(ImageError) as caught:
        open_image(path)
    error = caught.value
    assert 0 < len(error.what) < 400
    assert 0 < len(error.hint) < 200
    assert "\n" not in error.what + error.hint
    return error

"""The extension's code is imported as Slicer does: from the module's own folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.slicer.stand_in.application import Application

MODULE = Path(__file__).parents[2] / "slicer_extension" / "MedReasoner"
sys.path.insert(0, str(MODULE))

# slicer-core, 3D Slicer's own scene library, is built for Python 3.11 only.
SCENE_TESTS = ["test_scene.py", "test_slice_view.py", "test_panel.py"]
collect_ignore = [] if sys.version_info[:2] == (3, 11) else SCENE_TESTS


def pytest_report_header() -> str:
    if collect_ignore:
        return f"left out, for slicer-core needs Python 3.11: {', '.join(collect_ignore)} in tests/slicer"
    return "tests/slicer: scene and panel tests run on slicer-core"


@pytest.fixture(scope="session")
def application() -> Application:
    """One stand-in for the Slicer application; `scene` empties it."""
    from tests.slicer.stand_in.application import Application

    return Application()


@pytest.fixture
def scene(application: Application) -> Iterator[Application]:
    """The application with an empty scene."""
    application.close_scene()
    yield application
    application.close_scene()

"""The extension's code is imported as Slicer does: from the module's own folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from ctypes.util import find_library
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.slicer.stand_in.application import Application

MODULE = Path(__file__).parents[2] / "slicer_extension" / "MedReasoner"
sys.path.insert(0, str(MODULE))

# slicer-core, 3D Slicer's own scene library, is built for Python 3.11 only, and draws through libEGL.
ON_SLICER_CORE = ["test_scene.py", "test_slice_view.py", "test_panel.py"]
collect_ignore = ["gui"]  # in a process of its own: test_panel.py
REASON = ""
if sys.version_info[:2] != (3, 11):
    REASON = "slicer-core needs Python 3.11"
elif find_library("EGL") is None and os.environ.get("CI") != "true":  # in CI these tests must run, and fail
    REASON = "libEGL is missing (apt-get install libegl1)"
if REASON:
    collect_ignore += ON_SLICER_CORE
if os.environ.get("SLICER_PANEL_TESTS"):
    collect_ignore.remove("gui")


def pytest_report_header() -> str:
    if REASON:
        return f"tests/slicer: left out, for {REASON}: {', '.join(ON_SLICER_CORE)}"
    return "tests/slicer: scene and panel are tested on slicer-core"


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

"""The extension's code is imported as Slicer does: from the module's own folder."""

from __future__ import annotations

import sys
from pathlib import Path

MODULE = Path(__file__).parents[2] / "slicer_extension" / "MedReasoner"
sys.path.insert(0, str(MODULE))

# slicer-core, 3D Slicer's own scene library, is built for Python 3.11 only.
SCENE_TESTS = ["test_scene.py", "test_slice_view.py", "test_panel.py"]
collect_ignore = [] if sys.version_info[:2] == (3, 11) else SCENE_TESTS


def pytest_report_header() -> str:
    if collect_ignore:
        return f"left out, for slicer-core needs Python 3.11: {', '.join(collect_ignore)} in tests/slicer"
    return "tests/slicer: scene and panel tests run on slicer-core"

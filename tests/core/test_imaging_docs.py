"""docs/coordinates.md must not lie."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path

import medreasoner.imaging
from medreasoner.contract.answer import Box
from medreasoner.imaging.planes import VIEWS

ROOT = Path(medreasoner.imaging.__file__).parents[2]
PAGE = ROOT / "docs/coordinates.md"


def test_the_example_holds() -> None:
    results = doctest.testfile(str(PAGE), module_relative=False)
    assert results.attempted > 10
    assert results.failed == 0


def test_the_box_in_the_drawing_is_two_pixels_wide() -> None:
    corners = re.search(r"box of the marked pixels: \[(.*?)\]", PAGE.read_text())
    box = Box(*(float(v) for v in corners[1].split(",")))
    assert (box.x_max - box.x_min, box.y_max - box.y_min, box.area) == (2, 1, 2)


def test_the_table_of_views_is_the_one_the_code_uses() -> None:
    words = {(0, 1): "patient's left", (1, 1): "posterior", (2, -1): "inferior"}
    for view, (right, down) in VIEWS.items():
        assert f"| {view} | {words[right]} | {words[down]} |" in PAGE.read_text()


def test_importing_the_package_loads_no_reader() -> None:
    """The command line must answer --help at once."""
    heavy = "{'pydicom', 'nibabel', 'nrrd', 'PIL', 'scipy', 'SimpleITK'}"
    code = f"import sys, medreasoner.imaging; print(sorted({heavy} & sys.modules.keys()))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert printed.stdout.strip() == "[]"

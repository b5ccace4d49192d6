"""The extension's build files against a stub of Slicer's, its catalogue entry, its syntax, its .ui file."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import jsonschema
import pytest

ROOT = Path(__file__).parents[2]
EXTENSION = ROOT / "slicer_extension"
MODULE = EXTENSION / "MedReasoner"
STUB = Path(__file__).parent / "stand_in" / "slicer_config"
BIN = Path(sys.executable).parent

# The rules of Slicer's schema v1.0.1 and of its extension index's checks, in own words.
ENTRY = {
    "type": "object",
    "required": ["$schema", "category", "scm_url"],
    "additionalProperties": False,
    "properties": {
        "$schema": {"pattern": "slicer-extension-catalog-entry-schema-v1\\.0\\.\\d+\\.json"},
        "category": {"enum": ["Segmentation"]},  # one of the index's list; ours
        "scm_url": {"pattern": "^https://[^/]+/.*[Ss]licer[^/]*\\.git$"},  # the repository's name holds "Slicer"
        "scm_revision": {"type": "string"},
        "scm_type": {"enum": ["git", "local"]},
        "build_dependencies": {"type": "array", "items": {"type": "string"}},
        "build_subdirectory": {"type": "string"},
        "enabled": {"type": "boolean"},
        "tier": {"type": "integer", "minimum": 1, "maximum": 5},
    },
}


def sources(folder: Path) -> Path:
    """A copy of what CMake reads."""
    shutil.copytree(EXTENSION, folder / "slicer_extension", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "medreasoner/contract", folder / "medreasoner/contract")
    for name in ("CMakeLists.txt", "CITATION.cff"):
        shutil.copy(ROOT / name, folder)
    return folder


def configure(source: Path, build: Path) -> subprocess.CompletedProcess[str]:
    # LANGUAGES is left out in the root file, as in Slicer's own template; no compiler is needed to list files
    command = [str(BIN / "cmake"), "-S", str(source), "-B", str(build), f"-DSlicer_DIR={STUB}"]
    command += ["-DCMAKE_C_COMPILER_WORKS=1", "-DCMAKE_CXX_COMPILER_WORKS=1", "-Wno-dev"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    source = sources(tmp_path_factory.mktemp("source"))
    citation = source / "CITATION.cff"
    address = 'repository-code: "https://github.com/someone/SlicerMedReasoner"\n'
    text = re.sub(r"(?m)^repository-code:.*\n", "", citation.read_text())
    citation.write_text(text.rstrip("\n") + "\n" + address)
    build = tmp_path_factory.mktemp("build")
    run = configure(source, build)
    assert run.returncode == 0, run.stdout + run.stderr
    return source, build


def test_every_file_is_listed_for_the_build(built: tuple[Path, Path]) -> None:
    source, build = built
    named = {Path(line) for line in (build / "named.txt").read_text().splitlines()}
    kinds = {".py", ".ui", ".png", ".svg"}
    there = {p for p in (source / "slicer_extension/MedReasoner").rglob("*") if p.suffix in kinds}
    there |= set((source / "medreasoner/contract").glob("*.py"))
    assert {p.resolve() for p in there} == {p.resolve() for p in named}


@pytest.mark.parametrize(
    "missing",
    [
        "slicer_extension/MedReasoner/MedReasonerLib/scene.py",
        "slicer_extension/MedReasoner/Resources/Icons/MedReasoner.png",
        "slicer_extension/MedReasoner/Testing/Python/MedReasonerSelfTest.py",
        "medreasoner/contract/wire.py",
    ],
)
def test_a_missing_file_stops_the_build(missing: str, tmp_path: Path) -> None:
    source = sources(tmp_path / "source")
    (source / missing).unlink()
    run = configure(source, tmp_path / "build")
    assert run.returncode != 0
    assert "does not exist" in run.stderr


def test_without_an_address_it_builds_and_says_what_is_left_out(tmp_path: Path) -> None:
    source = sources(tmp_path / "source")
    citation = source / "CITATION.cff"
    citation.write_text(re.sub(r"(?m)^repository-code:.*\n", "", citation.read_text()))
    run = configure(source, tmp_path / "build")
    assert run.returncode == 0, run.stderr
    assert "CITATION.cff has no repository-code yet" in run.stdout
    assert not (tmp_path / "build/MedReasoner.json").exists()


def test_the_extension_describes_itself(built: tuple[Path, Path]) -> None:
    source, build = built
    fields = dict(line.split("=", 1) for line in (build / "extension.txt").read_text().splitlines())
    assert fields["HOMEPAGE"] == "https://github.com/someone/SlicerMedReasoner"
    assert fields["DEPENDS"] == "NA"
    prefix = "https://raw.githubusercontent.com/someone/SlicerMedReasoner/main/"
    for url in [fields["ICONURL"], *fields["SCREENSHOTURLS"].split()]:
        assert url.startswith(prefix)
        assert (ROOT / url[len(prefix) :]).is_file()
    assert "project(MedReasoner)" in (source / "CMakeLists.txt").read_text()
    assert (ROOT / "LICENSE").is_file()


def test_the_catalogue_entry_follows_its_schema(built: tuple[Path, Path]) -> None:
    _, build = built
    entry = json.loads((build / "MedReasoner.json").read_text())
    jsonschema.validate(entry, ENTRY)
    assert entry["scm_url"] == "https://github.com/someone/SlicerMedReasoner.git"


def test_the_code_runs_on_slicers_python_3_9() -> None:
    command = [
        str(BIN / "vermin"),
        "-t=3.9-",
        "--no-tips",
        "--violations",
        str(EXTENSION),
        str(ROOT / "medreasoner/contract"),
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


def test_nothing_but_slicers_own_packages_is_imported() -> None:
    allowed = {"medreasoner", "MedReasonerLib", "MedReasoner", "numpy", "vtk", "slicer", "qt"} | sys.stdlib_module_names
    for file in MODULE.rglob("*.py"):
        found = set(re.findall(r"^\s*(?:from|import) (\w+)", file.read_text(), re.MULTILINE))
        assert found <= allowed, f"{file.name} imports {sorted(found - allowed)}"
        inner = set(re.findall(r"^\s*from (medreasoner[\w.]*)", file.read_text(), re.MULTILINE))
        assert all(name.startswith("medreasoner.contract.") for name in inner), file.name


def test_client_and_geometry_need_neither_slicer_nor_qt() -> None:
    code = "import sys; sys.modules['slicer'] = sys.modules['qt'] = sys.modules['vtk'] = None\n"
    code += f"sys.path.insert(0, {str(MODULE)!r})\n"
    code += "from MedReasonerLib import address, client, geometry, multipart, nifti_header, nrrd_file"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_ui_file_names_every_widget_that_the_panel_uses() -> None:
    tree = ET.parse(MODULE / "Resources/UI/MedReasoner.ui")
    named = [w.get("name") for w in tree.iter("widget")]
    assert len(named) == len(set(named))
    panel = (MODULE / "MedReasonerLib/panel.py").read_text()
    used = set(re.findall(r"\bui\.(\w+)", panel))
    assert used <= set(named)
    kinds = {w.get("class") for w in tree.iter("widget")}
    assert {k for k in kinds if not k.startswith("Q")} == {"qMRMLWidget", "ctkCollapsibleButton"}
    assert "pip_install" not in "".join(f.read_text() for f in MODULE.rglob("*.py"))


def test_the_readme_names_tests_and_pictures_that_exist() -> None:
    readme = (EXTENSION / "README.md").read_text()
    tests = "".join(f.read_text() for f in (ROOT / "tests/slicer").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", readme):
        assert f"def {name}(" in tests, name
    for path in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (EXTENSION / path).exists(), path

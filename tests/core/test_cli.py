"""The command line as people run it: a process, an exit code, one sentence for every mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

CT = str(get_testdata_file("CT_small.dcm"))


def package_file(package: str, name: str) -> str:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / name)


def medreasoner(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "medreasoner.cli", *arguments],
        input=typed,
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
        check=False,
    )


def test_ask_writes_overlay_mask_and_result(tmp_path: Path) -> None:
    retina = package_file("skimage", "data/retina.jpg")
    run = medreasoner("ask", retina, "Outline the optic disc.", "--out", str(tmp_path))
    assert run.returncode == 0, run.stderr
    assert "optic disc" in run.stdout
    assert "confidence" in run.stdout
    result = json.loads((tmp_path / "retina.json").read_text())
    mask = np.asarray(Image.open(tmp_path / "retina.mask.png"))
    assert mask.shape == (1411, 1411)
    assert set(np.unique(mask)) == {0, 255}
    assert result["absent"] is False
    assert len(result["points"]) == 2
    assert Image.open(tmp_path / "retina.overlay.png").size == (768, 768)


def test_volume_mask_has_the_volumes_own_geometry(tmp_path: Path) -> None:
    volume = package_file("nibabel", "tests/data/anatomical.nii")
    run = medreasoner("ask", volume, "Where is the hippocampus?", "--slice", "10", "--out", str(tmp_path))
    assert run.returncode == 0, run.stderr
    made, given = nibabel.load(tmp_path / "anatomical.mask.nii.gz"), nibabel.load(volume)
    assert made.shape == given.shape
    np.testing.assert_allclose(made.affine, given.affine, atol=1e-5)


def test_questions_can_be_typed_one_after_another(tmp_path: Path) -> None:
    retina = package_file("skimage", "data/retina.jpg")
    run = medreasoner("ask", retina, "--out", str(tmp_path), typed="optic disc?\n" + "x" * 3000 + "\noptic cup?\n\n")
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "retina.json").exists()
    assert (tmp_path / "retina-2.json").exists()
    assert "3,000 characters" in run.stderr


def truncated(folder: Path) -> str:
    path = folder / "cut.dcm"
    path.write_bytes(Path(CT).read_bytes()[:-5000])
    return str(path)


def four_dimensional(folder: Path) -> str:
    path = folder / "four.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 3), np.float32), np.eye(4)), path)
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["no-such.dcm", "where?"], 2, "no-such.dcm"),
        ([CT, ""], 2, "question is empty"),
        ([CT, "x" * 10_000], 2, "10,000 characters"),
        ([CT, "where?", "--axis", "diagonal"], 2, "diagonal"),
        ([CT, "where?", "--slice", "7"], 2, "slice"),
        ([CT, "where?", "--reasoner", "no-such"], 3, "no-such"),
        ([CT, "where?", "--expert", "no-such"], 2, "no-such"),
        ([CT, "where?", "--expert", "medsam-vit-b"], 3, "medsam_vit_b.pth"),
        ([truncated, "where?"], 2, "cut.dcm"),
        ([four_dimensional, "where?"], 2, "four.nii.gz"),
    ],
    ids=["missing", "empty", "endless", "axis", "slice", "reasoner", "expert", "weights", "truncated", "4-D"],
)
def test_every_mistake_gets_a_sentence_and_a_hint(arguments: list, code: int, says: str, tmp_path: Path) -> None:
    given = [a(tmp_path) if callable(a) else a for a in arguments]
    run = medreasoner("ask", *given, "--out", str(tmp_path / "out"))
    assert run.returncode == code, run.stderr
    assert says in run.stderr
    assert "->" in run.stderr
    assert "Traceback" not in run.stderr


def test_models_lists_what_is_there() -> None:
    run = medreasoner("models")
    assert run.returncode == 0, run.stderr
    for name in ("medreasoner-embedded", "litemedsam", "sam-vit-b", "medsam2", "not installed"):
        assert name in run.stdout

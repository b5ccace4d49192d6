"""The command line as people run it: a process, an exit code, one sentence for every mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from medreasoner.folders import embedded_folder
from tests.collection import make_collection

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


def damaged(folder: Path) -> str:
    copy = folder / "model"
    copy.mkdir()
    for file in embedded_folder().iterdir():
        if "03-of" in file.name:
            (copy / file.name).write_bytes(file.read_bytes()[:100_000])
        else:
            (copy / file.name).symlink_to(file)
    return str(copy)


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
        ([CT, "where?", "--window", "40", "0"], 2, "window"),
        ([CT, "where?", "--device", "abacus"], 3, "abacus"),
        ([CT, "where?", "--out", CT], 2, "cannot be made"),
        ([CT, "where?", "--reasoner", damaged], 3, "03-of"),
        ([CT, "where?", "--reasoner", "no-such"], 3, "no-such"),
        ([CT, "where?", "--expert", "no-such"], 2, "no-such"),
        ([CT, "where?", "--expert", "medsam-vit-b"], 3, "medsam_vit_b.pth"),
        ([truncated, "where?"], 2, "cut.dcm"),
        ([four_dimensional, "where?"], 2, "four.nii.gz"),
    ],
    ids=[
        "missing",
        "empty",
        "endless",
        "axis",
        "slice",
        "window",
        "device",
        "out",
        "damaged",
        "reasoner",
        "expert",
        "weights",
        "truncated",
        "4-D",
    ],
)
def test_every_mistake_gets_a_sentence_and_a_hint(arguments: list, code: int, says: str, tmp_path: Path) -> None:
    given = [a(tmp_path) if callable(a) else a for a in arguments]
    out = [] if "--out" in given else ["--out", str(tmp_path / "out")]
    run = medreasoner("ask", *given, *out)
    assert run.returncode == code, run.stderr
    assert says in run.stderr
    assert "->" in run.stderr
    assert "Traceback" not in run.stderr


def test_models_lists_what_is_there() -> None:
    run = medreasoner("models")
    assert run.returncode == 0, run.stderr
    for name in ("--reasoner embedded", "litemedsam", "sam-vit-b", "medsam2", "not installed"):
        assert name in run.stdout


def break_row(data: Path, **changes: object) -> None:
    rows = [json.loads(line) for line in (data / "samples.jsonl").read_text().splitlines()]
    for name, value in changes.items():
        rows[-1].pop(name) if value is None else rows[-1].update({name: value})
    (data / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.mark.parametrize(
    ("spoil", "options", "says"),
    [
        (lambda _: None, ["--split", "exam"], "exam"),
        (lambda data: (data / "samples.jsonl").write_text("{oops"), [], "line 1"),
        (lambda data: break_row(data, bbox=None), [], "bbox"),
        (lambda data: (data / "questions.json").unlink(), [], "questions.json"),
        (lambda data: (data / "masks" / "5.png").unlink(), [], "5.png"),
        (lambda data: break_row(data, bbox=[5, 5, 5, 5]), [], "bbox"),
    ],
    ids=["split", "not JSON", "missing key", "no questions", "no mask", "flat box"],
)
def test_evaluate_names_what_is_wrong_with_a_collection(
    spoil: Any, options: list[str], says: str, tmp_path: Path
) -> None:
    data = make_collection(tmp_path / "data")
    spoil(data)
    run = medreasoner("evaluate", str(data), *options, "--out", str(tmp_path / "out"))
    assert run.returncode == 2, run.stderr
    assert says in run.stderr
    assert "->" in run.stderr
    assert "Traceback" not in run.stderr

"""From a hospital's folder to a prepared collection, as `python -m rl_training.prepare` makes it."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections import defaultdict
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medreasoner.contract.answer import Box
from medreasoner.contract.errors import MedReasonerError
from medreasoner.evaluation.cases import cases_of, read_samples
from medreasoner.imaging import open_image
from rl_training.dataset import Collection, DataError, Example, QuestionFile, examples_of
from rl_training.dataset import prepared as prepared_folder
from rl_training.dataset.placing import place_of
from rl_training.dataset.practice import PATIENTS, SIDE, make_folder
from rl_training.prepare import main, open_reader, prepare
from tests.collection import make_collection

UMRG_MINI = Path(__file__).parents[3] / "shared" / "data" / "umrg-mini"
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}


@dataclass(frozen=True)
class Finished:
    code: int
    told: str
    errors: str


def run(*arguments: object) -> Finished:
    """Run the command as a shell would, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["prepare", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    return Finished(int(ended.value.code or 0), out.getvalue(), " ".join(err.getvalue().split()))


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("hospital") / "spine-ct")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_collection(tmp_path_factory.mktemp("collection") / "made")


@pytest.fixture(scope="module")
def prepared(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "prepared"
    result = run(hospital, out, "--shares", 0.6, 0.2, 0.2)
    assert result.code == 0, result.told
    assert "By target" in result.told and "36/36" in result.told
    return out


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_boxes_and_points_come_from_the_masks(prepared: Path) -> None:
    for row in rows_of(prepared):
        mask = np.asarray(Image.open(prepared / row["mask"])) > 0
        if row["absent"]:
            assert not mask.any() and row["bbox"] is row["points"] is None
            continue
        ys, xs = np.nonzero(mask)
        assert row["bbox"] == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert all(mask[y, x] for x, y in row["points"])
        place = place_of(mask)
        assert place is not None and [[p.x, p.y] for p in place[1]] == row["points"]


def test_pictures_are_what_the_reasoner_will_see(hospital: Path, prepared: Path) -> None:
    shown = {open_image(file).picture().content_hash for file in (hospital / "images").iterdir()}
    kept = {open_image(file).picture().content_hash for file in (prepared / "images").iterdir()}
    assert kept == shown and len(kept) == PATIENTS
    for row in rows_of(prepared):
        assert (row["width"], row["height"], row["modality"], row["modality_code"]) == (SIDE, SIDE, "CT", "CT")


def test_no_patient_is_in_two_splits_and_no_id_leaves_the_hospital(prepared: Path) -> None:
    splits = defaultdict(set)
    for row in rows_of(prepared):
        splits[row["group"]].add(row["split"])
    assert len(splits) == PATIENTS and all(len(found) == 1 for found in splits.values())
    counts = [sum(found == {split} for found in splits.values()) for split in ("train", "val", "test")]
    assert counts == pytest.approx([0.6 * PATIENTS, 0.2 * PATIENTS, 0.2 * PATIENTS], abs=1)
    text = "".join(path.read_text() for path in prepared.glob("*.*"))
    assert "practice-" not in text and "CompressedSamples" not in text
    assert not any(b"practice-" in path.read_bytes() for path in (prepared / "images").iterdir())


def test_training_and_evaluation_read_the_folder(prepared: Path) -> None:
    examples = list(examples_of(Collection(prepared)))
    assert len(examples) == 36
    present = next(e for e in examples if not e.absent)
    assert present.modality == "CT" and present.box is not None and present.mask is not None
    absent = next(e for e in examples if e.absent)
    assert absent.target == "gallbladder" and absent.mask is absent.box is None
    assert absent.questions.by_style["implicit"] == ["Where is bile stored between meals?"]
    for split in ("train", "val", "test"):
        cases = cases_of(read_samples(prepared), prepared, split)
        mine = [e for e in examples if e.split == split]
        assert sum(not c.absent for c in cases) == sum(not e.absent for e in mine)
        assert sum(c.absent for c in cases) == sum(e.absent for e in mine)


def test_the_data_card_counts_what_is_there(prepared: Path) -> None:
    card = json.loads((prepared / "data_card.json").read_text())
    rows = rows_of(prepared)
    assert {s: card["splits"][s]["examples"] for s in card["splits"]} == {
        s: sum(row["split"] == s for row in rows) for s in ("train", "val", "test")
    }
    assert card["boxes_and_points"] == {"made from the mask": 24, "absent": 12}
    assert sum(card["target"]["aorta"].values()) == PATIENTS
    assert card["checks"]["patients_in_two_splits"] == card["checks"]["pictures_in_two_splits"] == 0
    assert card["checks"]["wordings_in_two_splits"] == 7, "the practice folder asks every patient the same"
    assert card["sources"] == {"spine-ct": {"examples": 36, "licence": ["unknown"]}}
    page = (prepared / "DATA_CARD.md").read_text()
    assert card["sha256"] in page and "| aorta |" in page


def test_the_same_input_gives_the_same_folder(hospital: Path, prepared: Path, tmp_path: Path) -> None:
    prepared_again = tmp_path / "again"
    assert run(hospital, prepared_again, "--shares", 0.6, 0.2, 0.2).code == 0
    assert (prepared_again / "samples.jsonl").read_bytes() == (prepared / "samples.jsonl").read_bytes()


def test_a_dry_run_checks_and_writes_nothing(hospital: Path) -> None:
    before = sorted(hospital.parent.rglob("*"))
    result = run(hospital, "--dry-run")
    assert result.code == 0 and "By target" in result.told
    assert sorted(hospital.parent.rglob("*")) == before


def test_a_collection_is_prepared_again_with_its_own_split_and_shared_questions(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(made, out).code == 0
    assert json.loads((out / "data_card.json").read_text())["boxes_and_points"] == {"given": 6}
    again, before = Collection(out, "test"), Collection(made, "test")
    assert [e.questions for e in examples_of(again)] == [e.questions for e in examples_of(before)]
    assert [(e.box, e.points) for e in examples_of(again)] == [(e.box, e.points) for e in examples_of(before)]


def test_the_rule_replaces_given_points_when_wished(made: Path) -> None:
    card = prepare(open_reader(made), made, None, SHARES, by_rule=True)
    assert card["boxes_and_points"] == {"made from the mask": 6}


def test_a_given_box_unlike_the_mask_is_counted(made: Path, tmp_path: Path) -> None:
    collection = shutil.copytree(made, tmp_path / "made")
    rows = rows_of(collection)
    rows[2]["bbox"] = [0, 0, 40, 40]
    (collection / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    card = prepare(open_reader(collection), collection, None, SHARES)
    assert card["boxes_and_points"] == {"given": 5, "given, unlike the mask's": 1}


class Rows:
    """A reader of examples that a test has made."""

    def __init__(self, examples: list[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


def test_leaks_are_refused_and_name_the_rows(hospital: Path) -> None:
    examples = list(examples_of(QuestionFile(hospital)))
    copied = replace(examples[0], where="the copy", group="somebody else", split="test")
    given = [replace(examples[0], split="train"), copied]
    no_val = {"train": 0.8, "val": 0.0, "test": 0.2}
    with pytest.raises(DataError, match=r"(?s)two splits: questions.csv line 2 and the copy.*same patient"):
        prepare(Rows(given), hospital, None, no_val)
    with pytest.raises(DataError, match="is in train and in test"):
        prepare(Rows([given[0], replace(copied, group=examples[0].group)]), hospital, None, no_val)


def test_bad_rows_are_all_named_and_left_out_only_when_wished(hospital: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(hospital, tmp_path / "broken")
    Image.new("L", (SIDE, SIDE)).save(broken / "masks" / "01-aorta.png")
    Image.new("L", (50, 60), 255).save(broken / "masks" / "02-vertebra.png")
    (broken / "images" / "03.dcm").write_bytes((hospital / "images" / "03.dcm").read_bytes()[:5000])
    result = run(broken, "--dry-run")
    assert result.code == 2
    told = result.errors
    assert "the mask is empty" in told
    assert re.search(r"the mask is 50 x 60( x 1)?, its image 104 x 104", told)
    assert "5 of 36 rows cannot be used" in told
    for line in ("line 5:", "line 9:", "line 16:", "line 19:", "line 22:"):
        assert f"questions.csv {line}" in told
    out = tmp_path / "out"
    assert run(broken, out, "--leave-out-bad").code == 0
    card = json.loads((out / "data_card.json").read_text())
    assert card["boxes_and_points"]["left out"] == 5 and len(rows_of(out)) == 31


def test_an_existing_folder_is_not_touched(hospital: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    result = run(hospital, tmp_path / "out")
    assert result.code == 2 and "exists already" in result.errors
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("arguments", [(), ("out", "--dry-run")], ids=["neither", "both"])
def test_either_out_or_dry_run(hospital: Path, arguments: tuple[str, ...]) -> None:
    result = run(hospital, *arguments)
    assert result.code == 2 and "--dry-run" in result.errors


@pytest.mark.parametrize("part", ["images", "samples.jsonl", "data_card.json"])
def test_a_full_disk_leaves_nothing_behind(
    hospital: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def full(path: Path, *_: object) -> None:
        if part in str(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    write_bytes, write_text = Path.write_bytes, Path.write_text
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: (full(path), write_bytes(path, data))[1])
    monkeypatch.setattr(Path, "write_text", lambda path, *a, **k: (full(path), write_text(path, *a, **k))[1])
    result = run(hospital, tmp_path / "out")
    assert result.code == 2 and "the disk is full" in result.errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.nightly
def test_a_limit_on_file_size_is_told_like_a_full_disk(hospital: Path, tmp_path: Path) -> None:
    limit = 4000  # bytes: less than a picture
    found = subprocess.run(
        [sys.executable, "-m", "rl_training.prepare", hospital, tmp_path / "out"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        check=False,
    )
    assert found.returncode == 2 and "the disk is full" in found.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    def begin_and_stop() -> None:
        with prepared_folder.new_folder(tmp_path / "deep" / "out") as temporary:
            (temporary / "images" / "half").write_bytes(b"x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin_and_stop()
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error(hospital: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(hospital, tmp_path / "file" / "out")
    assert result.code == 2 and "cannot be written" in result.errors


def test_what_is_no_collection_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MedReasonerError, match=r"is not one question file"):
        open_reader(tmp_path)


@pytest.mark.shared_data
@pytest.mark.skipif(not UMRG_MINI.exists(), reason="umrg-mini does not ship with the repository")
def test_umrg_mini_reads_as_examples() -> None:
    collection = Collection(UMRG_MINI, "val")
    assert len(collection) > 600
    for index in range(0, len(collection), 60):
        example = collection[index]
        mask = np.asarray(Image.open(example.mask)) > 0  # type: ignore[arg-type]
        place = place_of(mask)
        assert place is not None and example.box == place[0] == Box(*place[0].as_list())

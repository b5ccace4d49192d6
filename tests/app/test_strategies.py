"""Which case next: the worklist, questions asked before, and whose turn it is."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from medreasoner.contract.errors import MedReasonerError
from medreasoner.contract.label import LabelRecord
from monailabel_app.lib.activelearning.questions import NOTE, AskedBefore
from monailabel_app.lib.activelearning.ranking import among_like_sizes, as_they_are
from monailabel_app.lib.activelearning.score_notes import questions_of
from monailabel_app.lib.activelearning.strategies import ENOUGH, LATELY, First, Random, Worst
from monailabel_app.lib.activelearning.worklist import EXAMPLE, Worklist, WorklistError
from monailabel_app.lib.datastore import open_datastore
from monailabel_app.lib.datastore.label_shelf import FOLDER
from monailabel_app.lib.datastore.shelved import ShelvedDatastore
from monailabel_app.lib.settings import Settings
from tests.dicom_files import ALIGNED, projection, series

# The worklist


def worklist(tmp_path: Path, text: str | bytes) -> Worklist:
    file = tmp_path / "list.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Worklist.of(str(file))


def test_questions_come_by_modality_and_those_of_other_images_for_the_rest(tmp_path: Path) -> None:
    found = worklist(tmp_path, "CT:\n  - Where is  the liver?\n  - Which organ?\nother:\n- What stands out?\n")
    assert found.about("CT") == ("Where is the liver?", "Which organ?")
    assert found.about("MR") == found.about("") == ("What stands out?",)
    assert worklist(tmp_path, "CT: [Where]").about("MR") == ()
    assert found.sha256 != worklist(tmp_path, "CT: [Where]").sha256


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no table"),
        ("- a list", "holds no table"),
        ("CT:\n  - Where?\nct:\n  - Where?", "line 3: 'ct' is no modality"),
        ("CT: [Where]\nCT: [Which]", "line 2: CT comes twice"),
        ("CT: Where?", "line 1: CT has no list"),
        ("CT: []", "line 1: CT has no list"),
        ("CT:\n  - Where?\n  - Which one: the left?", "line 3: this is no text"),  # YAML reads a table
        ("CT:\n  - Where?\n  - 7", "line 3: this is no text"),
        ("CT:\n  - Where?\n  -\n", "line 3: this is no text"),
        ("CT:\n  - Where?\n  - ' '", "line 3: the question is empty"),
        (f"CT:\n  - {'a' * 2001}", "line 2: the question has 2,001 characters"),
        ("CT:\n  - Where?\n\n  -  Where?", "line 4: this question comes twice"),
        ("CT: [Where\nMR: [", "line 2: "),
        ("CT:\n\t- Where?", "line 2: "),
        ("CT: &a [*a]", "line 1: this is no text"),  # a list in itself
        ("CT: !!python/object:os.system [rm]", "line 1: CT has no list"),
        (b"CT: [\xff]", "not UTF-8"),
        ("CT: [\x00]", "is not YAML"),
    ],
)
def test_a_line_that_is_wrong_is_named(text: str | bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(WorklistError) as caught:
        worklist(tmp_path, text)
    assert said in caught.value.what
    assert caught.value.hint


def test_a_worklist_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorklistError, match=r"missing\.yaml cannot be read"):
        Worklist.of(str(tmp_path / "missing.yaml"))


def test_the_example_ships_and_asks_about_every_kind_of_image_of_the_archive() -> None:
    example = Worklist.of(EXAMPLE)
    for modality in Settings().dicomweb_modalities:
        assert modality in example.questions
    assert example.about("NM") == example.questions["other"]


# Whose turn it is


def pictures(folder: Path, names: Sequence[str]) -> ShelvedDatastore:
    folder.mkdir(parents=True)
    for name in names:
        Image.new("L", (8, 8)).save(folder / f"{name}.png")
    return open_folder(folder)


def open_folder(folder: Path) -> ShelvedDatastore:
    store = open_datastore(str(folder), Settings())
    assert isinstance(store, ShelvedDatastore)
    return store


def score(store: ShelvedDatastore, image: str, value: float, reasoner: str = "now", **more: Any) -> None:
    """Note a score; without a size, as before sizes were noted, if `more` tells none."""
    scores = {"disagreement": value, "low_confidence": 1 - value}
    note = {"scores": scores, "question": "Where?", "reasoner_sha256": reasoner, **more}
    store.update_image_info(image, {NOTE: note})


def worst(score: str = "disagreement", chance: int = 1) -> Worst:
    wanted = among_like_sizes if score == "disagreement" else as_they_are
    return Worst(score, "", lambda: "now", wanted, random.Random(chance))


def save_label(store: ShelvedDatastore, image: str, folder: Path, question: str = "Where?") -> None:
    """A final label of an image that is all background."""
    mask = folder / f"mask-{random.getrandbits(32)}.png"
    facts = store.image_facts(image)
    width, height = (8, 8) if "path" in facts else (36, 40)
    Image.new("L", (width, height)).save(mask)
    record = LabelRecord(question=question, absent=True, axis="stored", slice_index=0)
    store.save_label(image, str(mask), "final", {"medreasoner": json.loads(record.to_json())})


def test_the_worst_score_comes_first_then_the_next(tmp_path: Path) -> None:
    store = pictures(tmp_path / "studies", [f"p{n:02d}" for n in range(ENOUGH)])
    for n in range(ENOUGH):
        score(store, f"p{n:02d}", n / 20)
    by_disagreement, by_confidence = worst(), worst("low_confidence")
    found = by_disagreement({}, store)
    assert found == {"id": "p09", "chosen_by": "disagreement", "note": "10 of 10 scored"}
    assert [by_disagreement({}, store)["id"] for _ in range(2)] == ["p08", "p07"]
    assert by_confidence({}, store)["id"] == "p00"
    save_label(store, "p06", tmp_path)
    assert by_disagreement({}, store)["id"] == "p05", "what is labelled does not come again"


def test_a_large_box_that_is_unsure_for_its_size_comes_before_small_ones(tmp_path: Path) -> None:
    """Five images with small boxes, whose answers differ more each, and five with large ones."""
    store = pictures(tmp_path / "studies", [f"{kind}-{n}" for kind in ("large", "small") for n in range(5)])
    for n in range(5):
        score(store, f"small-{n}", 0.70 + 0.05 * n, size=0.01)
        score(store, f"large-{n}", 0.10 + 0.05 * n, size=0.40)
    by_disagreement = worst()
    turns = [by_disagreement({}, store)["id"] for _ in range(4)]
    assert turns == ["small-4", "large-4", "small-3", "large-3"], "equal ranks go by the disagreement itself"
    assert worst("low_confidence")({}, store)["id"] == "large-0", "the likelihood of a box does not go by its size"


def test_scores_without_a_size_are_ranked_among_themselves(tmp_path: Path) -> None:
    store = pictures(tmp_path / "studies", [f"p{n:02d}" for n in range(ENOUGH)])
    for n in range(ENOUGH):
        score(store, f"p{n:02d}", n / 20, **({"size": 0.1} if n < 5 else {}))
    by_disagreement = worst()
    assert [by_disagreement({}, store)["id"] for _ in range(4)] == ["p09", "p04", "p08", "p03"]


def test_an_image_comes_for_the_question_that_is_wanted_most(tmp_path: Path) -> None:
    """Of each image a small target is torn and a large one is not, but for one image, whose large one is a little."""
    store = pictures(tmp_path / "studies", [f"p{n:02d}" for n in range(ENOUGH)])
    for n in range(ENOUGH):
        large = {"question": "Large?", "scores": {"disagreement": 0.3 if n == 2 else 0.1, "low_confidence": 0.2}}
        score(store, f"p{n:02d}", 0.8, size=0.01, others=[{**large, "size": 0.4, "boxes": []}])
    found = worst()({}, store)
    assert found["id"] == "p02"
    note = store.notes()["p02"][NOTE]
    assert (note["question"], note["scores"]["disagreement"], note["size"]) == ("Large?", 0.3, 0.4)
    assert [asked["question"] for asked in questions_of(note)] == ["Large?", "Where?"], "the other one is kept"
    assert store.notes()["p01"][NOTE]["question"] == "Where?"


def test_two_who_ask_at_once_get_two_images_also_after_a_restart(tmp_path: Path) -> None:
    store = pictures(tmp_path / "studies", ["a", "b", "c"])
    for image, value in (("a", 0.3), ("b", 0.2), ("c", 0.1)):
        score(store, image, value)
    assert worst()({}, store)["id"] == "a"
    again = open_folder(tmp_path / "studies")
    assert worst()({}, again)["id"] == "b"
    assert [worst()({}, again)["id"] for _ in range(4)] == ["c", "a", "b", "c"], "who was served longest ago"


def test_while_few_are_scored_it_is_any_image_and_the_reply_says_so(tmp_path: Path) -> None:
    store = pictures(tmp_path / "studies", [f"p{n:02d}" for n in range(30)])
    for n in range(ENOUGH - 1):
        score(store, f"p{n:02d}", 0.5)
    found = worst()({}, store)
    assert found["chosen_by"] == "random"
    assert found["note"] == "9 of 30 scored; too few to choose by, so this is any image"
    others = {worst(chance=n)({}, store)["id"] for n in range(8)}
    assert len(others) > 2
    score(store, "p29", 0.4, "before")
    assert worst()({}, store)["note"] == "10 of 30 scored, 1 by an earlier reasoner"


def test_a_score_of_another_name_does_not_count_and_nothing_is_left_at_the_end(tmp_path: Path) -> None:
    store = pictures(tmp_path / "studies", ["a"])
    store.update_image_info("a", {NOTE: {"scores": {"entropy": 1.0}}})
    assert worst()({}, store)["chosen_by"] == "random"
    save_label(store, "a", tmp_path)
    for strategy in (worst(), First(), Random()):
        assert strategy({}, store) is None


def test_first_goes_by_name_and_random_by_chance(tmp_path: Path) -> None:
    store = pictures(tmp_path / "studies", list("cab"))
    assert First()({}, store) == {"id": "a"}
    assert {Random(random.Random(n))({}, store)["id"] for n in range(20)} == set("abc")


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven patients with one CT each, but the first with five."""
    studies = tmp_path_factory.mktemp("patients") / "studies"
    for number, patient in enumerate(["P1"] * 5 + [f"P{n}" for n in range(2, 8)]):
        dataset = dcmread(get_testdata_file("CT_small.dcm"))
        dataset.PatientID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = patient, generate_uid(), generate_uid()
        dataset.StudyInstanceUID = generate_uid()
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        (studies / patient).mkdir(parents=True, exist_ok=True)
        dataset.save_as(studies / patient / f"{number}.dcm")
    return studies


@pytest.fixture
def department(patients: Path, tmp_path: Path) -> ShelvedDatastore:
    """The first patient's images have the five highest scores."""
    shutil.copytree(patients, tmp_path / "studies")
    store = open_folder(tmp_path / "studies")
    by_patient = sorted(store.list_images(), key=store.subject_of)
    for rank, image in enumerate(by_patient):
        score(store, image, 0.9 - 0.05 * rank)
    return store


def test_one_patient_does_not_fill_the_queue(department: ShelvedDatastore) -> None:
    turns = [department.subject_of(worst()({}, department)["id"]) for _ in range(LATELY + 3)]
    assert turns == ["P1", "P2", "P3", "P4", "P5", "P6", "P1", "P2"], "five others, then the first one again"


def test_who_share_one_patient_get_an_image_each(tmp_path: Path) -> None:
    for number in range(3):
        dataset = dcmread(get_testdata_file("CT_small.dcm"))
        dataset.SeriesInstanceUID, dataset.SOPInstanceUID = f"1.2.{number}", f"1.3.{number}"
        (tmp_path / "studies").mkdir(exist_ok=True)
        dataset.save_as(tmp_path / "studies" / f"{number}.dcm")
    store = open_folder(tmp_path / "studies")
    for number, image in enumerate(store.list_images()):
        score(store, image, 0.9 - number / 10)
    assert [worst()({}, store)["id"] for _ in range(4)] == ["1.2.0", "1.2.1", "1.2.2", "1.2.0"]


def test_a_label_counts_as_a_turn_too(department: ShelvedDatastore, tmp_path: Path) -> None:
    image = next(i for i in department.list_images() if department.subject_of(i) == "P1")
    label = tmp_path / "studies" / FOLDER / "final" / f"{image}.json"
    label.parent.mkdir(parents=True)
    label.write_text(json.dumps({"files": {}, "info": {}}))
    os.utime(label, (time.time() - 60, time.time() - 60))
    turns = [department.subject_of(worst()({}, department)["id"]) for _ in range(LATELY + 1)]
    assert turns == ["P2", "P3", "P4", "P5", "P6", "P1"]


def test_series_without_a_patient_belong_together_by_their_study(tmp_path: Path) -> None:
    series(tmp_path / "studies" / "ct", directions=ALIGNED, count=1)
    dataset = dcmread(next((tmp_path / "studies" / "ct").iterdir()))
    dataset.PatientID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = "", generate_uid(), generate_uid()
    dataset.save_as(tmp_path / "studies" / "anonymous.dcm")
    store = open_folder(tmp_path / "studies")
    assert store.subject_of(dataset.SeriesInstanceUID) == dataset.StudyInstanceUID
    assert len({store.subject_of(image) for image in store.list_images()}) == 2


# Notes of images


def test_notes_outlive_the_server_and_go_with_the_image(tmp_path: Path) -> None:
    store = pictures(tmp_path / "studies", ["Fall Ü", "b"])
    store.update_image_info("Fall Ü", {"x": 1, "y": [None, "ü"]})
    store.update_image_info("Fall Ü", {"x": 2})
    again = open_folder(tmp_path / "studies")
    assert again.notes() == {"Fall Ü": {"x": 2, "y": [None, "ü"]}}
    assert again.get_image_info("Fall Ü")["x"] == 2
    assert again.status()["label_tags"] == {}, "notes are no labels"
    again.remove_image("Fall Ü")
    Image.new("L", (8, 8)).save(tmp_path / "studies" / "Fall Ü.png")
    assert open_folder(tmp_path / "studies").notes() == {}, "another image of that name begins anew"


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff"])
def test_damaged_notes_are_left_out_and_can_be_made_again(
    damage: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = pictures(tmp_path / "studies", ["a", "b"])
    for image in "ab":
        store.update_image_info(image, {"x": 1})
    (tmp_path / "studies" / FOLDER / ".notes" / "a.json").write_bytes(damage)
    again = open_folder(tmp_path / "studies")
    assert again.notes() == {"a": {}, "b": {"x": 1}}
    assert "notes of an image" in caplog.text
    again.update_image_info("a", {"x": 3})
    assert open_folder(tmp_path / "studies").notes()["a"] == {"x": 3}


@pytest.mark.parametrize("name", ["../out", "a/b", ".hidden", ""])
def test_no_note_is_written_outside_its_folder(name: str, tmp_path: Path) -> None:
    store = pictures(tmp_path / "studies", ["a"])
    with pytest.raises(MedReasonerError):
        store.update_image_info(name, {"x": 1})


# Questions asked before


def test_questions_of_labels_come_by_modality_the_most_frequent_first(tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    series(studies / "ct", directions=ALIGNED, count=1)
    projection(studies / "dx", "DX")
    store = pictures(studies / "plain", list("abcd"))
    store = open_folder(studies)
    for image in "abcd":
        shutil.copy(studies / "plain" / f"{image}.png", studies)
    asked = AskedBefore(store)
    assert not asked.known
    assert asked.about("CT") == ()
    for image, question in zip(
        "abcd", ["Where is the cup?", "Where is the disc?", "Where is the disc?", ""], strict=True
    ):
        save_label(store, image, tmp_path, question)
    assert asked.known
    assert asked.about("") == ("Where is the disc?", "Where is the cup?")
    ct = next(i for i in store.list_images() if store.image_facts(i).get("Modality") == "CT")
    assert asked.about("CT") == asked.about(""), "until somebody asks about such an image"
    save_label(store, ct, tmp_path, "Where is the liver?")
    assert asked.about("CT") == ("Where is the liver?",)
    store.remove_label(ct, "final")
    assert asked.about("CT") == asked.about("")


def test_a_label_is_read_once_and_again_when_it_has_changed(tmp_path: Path, monkeypatch: Any) -> None:
    store = pictures(tmp_path / "studies", ["a"])
    asked, read = AskedBefore(store), []
    original = store.get_label_info
    monkeypatch.setattr(store, "get_label_info", lambda *label: read.append(label) or original(*label))
    save_label(store, "a", tmp_path, "Where is the cup?")
    assert [asked.about("")[0] for _ in range(3)] == ["Where is the cup?"] * 3
    assert len(read) == 1
    time.sleep(0.01)  # clocks of files may be coarse
    save_label(store, "a", tmp_path, "Where is the disc?")
    assert asked.about("") == ("Where is the disc?",)
    assert len(read) == 2

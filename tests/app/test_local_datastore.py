"""A folder of images and its labels: what is listed, what is kept, and what a crash or a damaged file leaves."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import httpx
import nibabel
import nrrd
import numpy as np
import pytest
from monailabel.datastore.local import LocalDatastore as MonaiLabelsDatastore
from PIL import Image

from medreasoner.contract.errors import ImageError, MedReasonerError
from medreasoner.contract.label import LabelEdit, LabelRecord
from medreasoner.contract.wire import GroundingResult
from medreasoner.durable import PARTIAL
from monailabel_app.lib.datastore import open_datastore
from monailabel_app.lib.datastore.label_shelf import FOLDER, LabelShelf, UnknownLabel
from monailabel_app.lib.datastore.local import LocalDatastore, open_local
from monailabel_app.lib.datastore.shelved import UnknownImage
from monailabel_app.lib.settings import Settings
from tests.app.small import SmallApplication, served

RECORD = LabelRecord(
    question="Where is the liver?",
    absent=False,
    axis="stored",
    slice_index=2,
    reasoning="This is a CT. The question points to the liver. Here it is large.",
    target="liver",
    box=[1.0, 2.0, 6.0, 7.0],
    points=[[3.0, 4.0]],
    reasoner={"name": "embedded", "sha256": "ab", "instruction_sha256": "cd"},
    expert={"name": "litemedsam", "sha256": "ef"},
    author="whoever wrote this",
    edits=(LabelEdit("box", "2026-02-01T08:29:00Z"),),
)
SHAPE = (8, 9, 4)


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Two volumes, a photograph, and files that are no images."""
    folder = tmp_path / "studies"
    folder.mkdir()
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, np.int16), np.eye(4)), folder / "case a.nii.gz")
    nrrd.write(str(folder / "case.b.nrrd"), np.zeros(SHAPE, np.int16))
    Image.fromarray(np.zeros((9, 8, 3), np.uint8)).save(folder / "Fall Ü.JPG")
    (folder / "README.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "below").mkdir()
    return folder


def mask_file(tmp_path: Path, value: int = 1, shape: tuple[int, ...] = SHAPE) -> Path:
    path = tmp_path / f"mask-{value}.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.full(shape, value, np.uint8), np.eye(4)), path)
    return path


def with_record(record: LabelRecord = RECORD, **more: object) -> dict:
    return {"medreasoner": json.loads(record.to_json()), "label_info": [{"name": "liver", "idx": 1}], **more}


def kept_record(store: LocalDatastore, image: str, tag: str = "final") -> LabelRecord:
    return LabelRecord.from_json(json.dumps(store.get_label_info(image, tag)["medreasoner"]))


def test_images_are_known_by_their_names(studies: Path) -> None:
    store = open_datastore(str(studies), Settings())
    assert isinstance(store, LocalDatastore)
    assert store.list_images() == ["Fall Ü", "case a", "case.b"]
    assert Path(store.get_image_uri("case.b")).name == "case.b.nrrd"
    assert store.get_image_info("case a")["name"] == "case a.nii.gz"
    assert store.get_image("Fall Ü")[:3] == b"\xff\xd8\xff"
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, np.int16), np.eye(4)), studies / "new.nii")
    (studies / "case.b.nrrd").unlink()
    assert store.list_images() == ["Fall Ü", "case a", "new"]  # copied in and deleted while the server runs


def test_files_that_differ_by_their_ending_only_are_two_images(studies: Path) -> None:
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(studies / "case a.png")
    store = open_local(studies)
    assert store.list_images() == ["Fall Ü", "case a", "case a.png", "case.b"]
    assert Path(store.get_image_uri("case a")).name == "case a.nii.gz"


@pytest.mark.parametrize("image", ["nobody", "", "..", "../studies/case a", "README", "README.txt", ".hidden", "below"])
def test_what_is_not_listed_is_not_an_image(studies: Path, tmp_path: Path, image: str) -> None:
    store = open_local(studies)
    with pytest.raises(UnknownImage):
        store.get_image_uri(image)
    with pytest.raises(UnknownImage):
        store.save_label(image, str(mask_file(tmp_path)), "final", {})


def test_a_label_keeps_its_question_its_author_and_its_edits(studies: Path, tmp_path: Path) -> None:
    store = open_local(studies)
    mask = mask_file(tmp_path)
    assert store.save_label("case a", str(mask), "final", with_record(author="r.koch")) == "case a"
    again = open_local(studies)
    record = kept_record(again, "case a")
    assert (record.question, record.edits, record.target) == (RECORD.question, RECORD.edits, "liver")
    assert record.author == "r.koch"  # who the gateway says it was, not what the client wrote
    assert record.saved_at.endswith("+00:00")
    assert (
        Path(again.get_label_uri("case a", "final")).read_bytes()
        == mask.read_bytes()
        == again.get_label("case a", "final")
    )
    assert again.get_label_info("case a", "final")["label_info"] == [{"name": "liver", "idx": 1}]
    assert again.get_labels_by_image_id("case a") == {"final": "case a"}
    assert (again.get_labeled_images(), again.get_unlabeled_images()) == (["case a"], ["Fall Ü", "case.b"])
    assert again.status() == {"total": 3, "completed": 1, "label_tags": {"final": 1}}
    assert [Path(pair["label"]).read_bytes() for pair in again.datalist()] == [mask.read_bytes()]


def test_an_answer_that_is_saved_as_it_came_keeps_its_question(studies: Path, tmp_path: Path) -> None:
    """MONAI Label's clients send ``save_label``; the application then passes model and reply on."""
    result = GroundingResult("Where?", "Here.", False, 0.7, (8, 9), "stored", 1, [1.0, 2.0, 3.0, 4.0], [[1.5, 2.5]])
    reply = {**json.loads(result.to_json()), "label_names": {"target": 1}, "latencies": {"total": 1.0}}
    store = open_local(studies)
    store.save_label("case.b", str(mask_file(tmp_path)), "original", {"model": "medreasoner", "params": reply})
    assert kept_record(store, "case.b", "original").box == [1.0, 2.0, 3.0, 4.0]
    assert store.get_labeled_images() == []  # only final labels count


def test_a_second_label_replaces_the_first_whole(studies: Path, tmp_path: Path) -> None:
    store = open_local(studies)
    store.save_label("case a", str(mask_file(tmp_path, 1)), "final", with_record())
    store.save_label("case a", str(mask_file(tmp_path, 2)), "final", {"label_info": [{"name": "spleen"}]})
    assert np.asarray(nibabel.load(store.get_label_uri("case a", "final")).dataobj).min() == 2
    record = kept_record(store, "case a")
    assert (record.question, record.target) == ("", "spleen")  # drawn by hand: nobody asked
    assert len(list((studies / FOLDER / "final").iterdir())) == 2  # one mask, one record
    store.remove_label("case a", "final")
    assert list((studies / FOLDER / "final").iterdir()) == []
    with pytest.raises(UnknownLabel):
        store.get_label_uri("case a", "final")


def test_a_picture_has_a_label_too(studies: Path, tmp_path: Path) -> None:
    store = open_local(studies)
    Image.fromarray(np.full((9, 8), 255, np.uint8)).save(tmp_path / "mask.png")
    store.save_label("Fall Ü", str(tmp_path / "mask.png"), "final", with_record())
    assert store.get_label_uri("Fall Ü", "final").endswith(".mask.png")


@pytest.mark.parametrize("tag", ["..", "../evil", "a/b", "/tmp/evil", ".hidden", "", "a\0b", "a\nb", "x" * 201])
def test_a_tag_leads_nowhere_else(studies: Path, tmp_path: Path, tag: str) -> None:
    store = open_local(studies)
    mask = mask_file(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(MedReasonerError, match="cannot be the tag"):
        store.save_label("case a", str(mask), tag, with_record())
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("file", "info", "why"),
    [
        ("mask-1.nii.gz", {"medreasoner": {"question": "Where?"}}, "without absent"),
        ("other.nii.gz", {}, "8 x 9 x 5 does not fit"),
        ("mask.tif", {}, "cannot be the file 'mask.tif'"),
        ("damaged.nii.gz", {}, "damaged.nii.gz"),
    ],
)
def test_what_cannot_be_a_label_leaves_the_label_before(
    studies: Path, tmp_path: Path, file: str, info: dict, why: str
) -> None:
    store = open_local(studies)
    good = mask_file(tmp_path)
    nrrd.write(str(tmp_path / "plain.nrrd"), np.ones(SHAPE, np.uint8))
    nibabel.save(nibabel.Nifti1Image(np.ones((8, 9, 5), np.uint8), None), tmp_path / "other.nii.gz")
    (tmp_path / "damaged.nii.gz").write_bytes(good.read_bytes()[:40])
    (tmp_path / "mask.tif").write_bytes(b"")
    store.save_label("case.b", str(tmp_path / "plain.nrrd"), "final", with_record())
    with pytest.raises(MedReasonerError, match=why):
        store.save_label("case.b", str(tmp_path / file), "final", info)
    assert kept_record(store, "case.b").question == RECORD.question


def test_new_images_are_whole_and_never_replace_others(studies: Path, tmp_path: Path) -> None:
    store = open_local(studies)
    source = mask_file(tmp_path)
    assert store.add_image("uploaded", str(source), {"user": "r.koch"}) == "uploaded"
    assert (studies / "uploaded.nii.gz").read_bytes() == source.read_bytes()
    assert store.get_image_info("uploaded")["user"] == "r.koch"
    assert store.add_image("", str(source), {}) == "mask-1"
    for name, file, why in [
        ("case a", source, "is an image case a already"),
        ("../evil", source, "cannot be called"),
        (".evil", source, "cannot be called"),
        ("text", studies / "README.txt", "cannot be called"),
    ]:
        with pytest.raises(ImageError, match=why):
            store.add_image(name, str(file), {})
    (tmp_path / "damaged.nii.gz").write_bytes(source.read_bytes()[:40])
    with pytest.raises(ImageError, match="damaged"):
        store.add_image("damaged", str(tmp_path / "damaged.nii.gz"), {})
    assert store.list_images() == ["Fall Ü", "case a", "case.b", "mask-1", "uploaded"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["damaged.nii.gz", "mask-1.nii.gz", "studies"]


def test_an_image_goes_with_its_labels(studies: Path, tmp_path: Path) -> None:
    store = open_local(studies)
    store.save_label("case a", str(mask_file(tmp_path)), "final", with_record())
    store.remove_image("case a")
    assert store.list_images() == ["Fall Ü", "case.b"]
    assert [p for p in studies.rglob("*") if "case a" in p.name] == []


def test_what_an_interrupted_save_left_is_removed(
    studies: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_local(studies)
    store.save_label("case a", str(mask_file(tmp_path)), "final", with_record())
    kept = set(studies.rglob("*"))
    for left in (
        studies / f"{PARTIAL}x1",
        studies / FOLDER / "final" / f"{PARTIAL}x2",
        studies / FOLDER / "final" / "case a.0123abcd.mask.nii.gz",
    ):
        left.write_bytes(b"half")
    again = open_local(studies)
    assert set(studies.rglob("*")) == kept
    assert caplog.text.count("interrupted") == 3
    assert kept_record(again, "case a").question == RECORD.question


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"files": 3}', b"\xff\xfe", b'{"files": {"mask": "gone"}, "info": {}}']
)
def test_a_damaged_record_is_rebuilt_from_its_mask_and_said_aloud(
    studies: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    store = open_local(studies)
    mask = mask_file(tmp_path)
    for image in ("case a", "case.b"):
        store.save_label(image, str(mask), "final", with_record(author="r.koch"))
    (studies / FOLDER / "final" / "case a.json").write_bytes(content)
    again = open_local(studies)
    assert again.get_labeled_images() == ["case a", "case.b"]
    assert Path(again.get_label_uri("case a", "final")).read_bytes() == mask.read_bytes()
    assert "rebuilt" in again.get_label_info("case a", "final")
    assert kept_record(again, "case.b").author == "r.koch"
    assert "rebuilding the label case a.json" in caplog.text


def test_a_record_that_the_disk_does_not_give_now_is_not_taken_for_damaged(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network drive's hiccup at the start must not cost a label its question and author."""
    open_local(studies).save_label("case a", str(mask_file(tmp_path)), "final", with_record(author="r.koch"))
    read = Path.read_text

    def hiccup(path: Path, **options: str) -> str:
        if path.name == "case a.json":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", hiccup)
        with pytest.raises(MedReasonerError, match="Input/output error"):
            open_local(studies)
    assert kept_record(open_local(studies), "case a").author == "r.koch"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"files": 3}', b"\xff\xfe"])
def test_a_record_that_is_damaged_while_the_server_runs_can_be_replaced_or_removed(
    studies: Path, tmp_path: Path, content: bytes
) -> None:
    store = open_local(studies)
    for act, left in (
        (lambda: store.save_label("case a", str(mask_file(tmp_path, 2)), "final", with_record()), [2]),
        (lambda: store.remove_label("case a", "final"), []),
    ):
        store.save_label("case a", str(mask_file(tmp_path)), "final", with_record())
        (studies / FOLDER / "final" / "case a.json").write_bytes(content)
        with pytest.raises(MedReasonerError, match="save it again"):
            store.get_label_uri("case a", "final")
        act()
        found = [Path(pair["label"]) for pair in store.datalist()]
        assert [np.asarray(nibabel.load(path).dataobj).max() for path in found] == left
    open_local(studies)
    assert not list((studies / FOLDER / "final").iterdir())  # nor is the mask that nothing names any more


def test_a_damaged_record_without_a_mask_is_set_aside(studies: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry = studies / FOLDER / "final" / "case a.json"
    entry.parent.mkdir(parents=True)
    entry.write_text("{")
    assert open_local(studies).get_labeled_images() == []
    assert [p.name for p in entry.parent.iterdir()] == [".damaged-case a.json"]
    assert "aside" in caplog.text


@pytest.mark.parametrize("index", ["as written", "damaged", "missing"])
def test_labels_that_monai_label_saved_are_taken_over(studies: Path, tmp_path: Path, index: str) -> None:
    theirs = MonaiLabelsDatastore(str(studies), extensions=["*.nii.gz", "*.nrrd"])
    theirs.save_label("case a", str(mask_file(tmp_path)), "final", {"label_info": [{"name": "liver"}]})
    if index == "damaged":
        (studies / "datastore_v2.json").write_text("{")
    if index == "missing":
        (studies / "datastore_v2.json").unlink()
    store = open_local(studies)
    assert store.get_labeled_images() == ["case a"]
    assert Path(store.get_label_uri("case a", "final")).read_bytes() == mask_file(tmp_path).read_bytes()
    known = store.get_label_info("case a", "final").get("label_info")
    assert known == ([{"name": "liver"}] if index == "as written" else None)
    store.remove_label("case a", "final")
    assert open_local(studies).get_labeled_images() == []  # once only


def test_no_room_is_an_error_and_leaves_the_label_before(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_local(studies)
    store.save_label("case a", str(mask_file(tmp_path)), "final", with_record())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MedReasonerError, match="No space left") as refused:
        store.save_label("case a", str(mask_file(tmp_path, 2)), "final", with_record())
    assert refused.value.status == 507
    monkeypatch.undo()
    assert np.asarray(nibabel.load(store.get_label_uri("case a", "final")).dataobj).max() == 1
    assert len(list((studies / FOLDER / "final").iterdir())) == 2


def test_a_label_that_is_saved_anew_while_it_is_downloaded_comes_whole(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the first looks for its file is followed by a save, which removes that file."""
    store, file, looks = open_local(studies), LabelShelf.file, iter((2, 3))
    store.save_label("case a", str(mask_file(tmp_path)), "final", with_record())

    def overtaken(shelf: LabelShelf, *label: str) -> Path:
        path = file(shelf, *label)
        if value := next(looks, 0):
            store.save_label("case a", str(mask_file(tmp_path, value)), "final", with_record())
        return path

    application = SmallApplication()
    application.store = store
    with served(application) as url:
        monkeypatch.setattr(LabelShelf, "file", overtaken)
        reply = httpx.get(f"{url}/datastore/label", params={"label": "case a", "tag": "final"})
    assert reply.content == mask_file(tmp_path, 3).read_bytes(), reply.text


def test_a_mask_that_someone_took_away_is_missed_with_what_to_do(studies: Path, tmp_path: Path) -> None:
    store = open_local(studies)
    store.save_label("case a", str(mask_file(tmp_path)), "final", with_record())
    Path(store.get_label_uri("case a", "final")).unlink()
    with pytest.raises(MedReasonerError, match="mask of case a is gone"):
        store.get_label("case a", "final")


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.nightly)])
def test_killed_while_it_saves_it_loses_nothing_that_it_acknowledged(studies: Path, tmp_path: Path, kills: int) -> None:
    """A process saves label after label and tells the number of each; it is killed at any moment, again and again."""
    masks = [mask_file(tmp_path, value) for value in range(1, 6)]
    chance, acknowledged = random.Random(kills), 0
    for _ in range(kills):
        reader, writer = os.pipe()
        process = multiprocessing.get_context("fork").Process(
            target=_save_for_ever, args=(studies, masks, acknowledged, writer), daemon=True
        )
        process.start()
        os.close(writer)
        first = os.read(reader, 8)
        time.sleep(chance.uniform(0, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        process.join(20)
        with os.fdopen(reader, "rb") as stream:
            told = first + stream.read()
        assert len(told) >= 8
        acknowledged = int.from_bytes(told[len(told) // 8 * 8 - 8 :][:8], "little")

        store = open_local(studies)
        number = int(kept_record(store, "case a").question)
        assert number >= acknowledged
        mask = np.asarray(nibabel.load(store.get_label_uri("case a", "final")).dataobj)
        assert (mask == number % 5 + 1).all()  # record and mask belong together
        assert len(list((studies / FOLDER / "final").iterdir())) == 2
        acknowledged = number
    assert acknowledged >= kills


def _save_for_ever(studies: Path, masks: list[Path], start: int, told: int) -> None:
    shelf = LabelShelf(studies / FOLDER)
    for number in range(start + 1, 10**9):
        record = json.loads(LabelRecord(str(number), False, "stored", 0).to_json())
        shelf.put("case a", "final", {"mask.nii.gz": masks[number % 5].read_bytes()}, {"medreasoner": record})
        os.write(told, number.to_bytes(8, "little"))

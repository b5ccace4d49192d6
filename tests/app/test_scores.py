"""Scores made in idle time: what they hold, that they give way to questions, and that they outlive the server."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from medreasoner.contract.answer import AbsentAnswer, Answer, Box
from medreasoner.contract.errors import MedReasonerError, ReasonerError
from medreasoner.contract.label import LabelRecord
from medreasoner.picture import Picture
from medreasoner.pipeline import GroundingPipeline
from medreasoner.reasoner.protocol import Reply
from monailabel_app.gateway.errors import kind_and_status
from monailabel_app.gateway.lanes import Lanes
from monailabel_app.gateway.service import Service
from monailabel_app.lib.activelearning.idle import IdleScoring
from monailabel_app.lib.activelearning.questions import NOTE, AskedBefore, NoQuestion
from monailabel_app.lib.activelearning.score_notes import questions_of
from monailabel_app.lib.activelearning.scores import AnswerScores, key_picture
from monailabel_app.lib.activelearning.worklist import OTHER, Worklist
from monailabel_app.lib.datastore import open_datastore
from monailabel_app.lib.datastore.shelved import ShelvedDatastore
from monailabel_app.lib.settings import Settings
from tests.app.plain_models import BrightInBox, ToldReasoner, found
from tests.app.server import RunningServer, running
from tests.collection import retina

QUESTION = "Where do the nerve fibres leave the eye?"
WORKLIST = Worklist({OTHER: (QUESTION,)}, "c" * 64)
BOX = Box(1, 1, 7, 7)


class Drawing(ToldReasoner):
    """Draws the answers it is given, over and over, and writes down each question as it is drawn."""

    def __init__(self, *answers: Answer, sha256: str = "a" * 64) -> None:
        super().__init__(answers[0])
        self.answers, self.sha256 = answers, sha256
        self.drawn: list[str] = []
        self.may_draw = threading.Semaphore(10**6)

    def samples(
        self, question: str, picture: Picture, count: int, seed: int = 0, temperature: float = 1.0
    ) -> Iterator[Reply]:
        assert (seed, temperature, picture.width) == (0, 1.0, 8)
        for number in range(count):
            self.drawn.append(question)
            assert self.may_draw.acquire(timeout=30)
            yield Reply(self.answers[number % len(self.answers)], "", 0.9)


def scores_of(reasoner: ToldReasoner, questions: Any = WORKLIST, samples: int = 2, most: int = 3) -> AnswerScores:
    return AnswerScores(GroundingPipeline(reasoner, BrightInBox()), questions, samples, most)


@pytest.fixture
def store(tmp_path: Path) -> ShelvedDatastore:
    folder = tmp_path / "studies"
    folder.mkdir()
    for name in "abcd":
        Image.new("L", (8, 8), 200).save(folder / f"{name}.png")
    return opened(folder)


def opened(folder: Path) -> ShelvedDatastore:
    datastore = open_datastore(str(folder), Settings())
    assert isinstance(datastore, ShelvedDatastore)
    return datastore


def save_label(store: ShelvedDatastore, image: str, mask: Path, tag: str = "final", **record: Any) -> None:
    told = LabelRecord(**{"question": QUESTION, "absent": True, "axis": "stored", "slice_index": 0, **record})
    store.save_label(image, str(mask), tag, {"medreasoner": json.loads(told.to_json())})


def until(condition: Callable[[], bool], seconds: float = 20, every: float = 0.01) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(every)


# What a score holds


def test_a_score_says_what_was_asked_where_and_what_came_back(store: ShelvedDatastore) -> None:
    reasoner = Drawing(found(BOX), AbsentAnswer("No."), found(BOX))
    assert scores_of(reasoner, samples=3).score("a", store)
    note = store.notes()["a"][NOTE]
    unsure = pytest.approx(0.1, abs=1e-4)  # reasoner and expert are both sure to 0.9
    assert note.pop("scores") == {"disagreement": pytest.approx(2 / 3, abs=1e-4), "low_confidence": unsure}
    assert note.pop("at").endswith("+00:00")
    assert note == {
        "question": QUESTION,
        "axis": "stored",
        "slice_index": 0,
        "boxes": [[1, 1, 7, 7], None, [1, 1, 7, 7]],
        "size": 0.5625,  # 6 x 6 of 8 x 8; "absent" has none
        "others": [],
        "reasoner_sha256": "a" * 64,
        "questions_sha256": "c" * 64,
    }


def test_of_several_questions_the_one_with_the_widest_spread_comes_first(store: ShelvedDatastore) -> None:
    class Torn(Drawing):
        def samples(self, question: str, *rest: Any) -> Iterator[Reply]:
            self.answers = (found(BOX), AbsentAnswer("No.")) if question == "Which?" else (found(BOX),)
            return super().samples(question, *rest)

    reasoner = Torn(found(BOX))
    scores = scores_of(reasoner, Worklist({OTHER: ("Where?", "Which?", "How?", "Never?")}, ""))
    scores.score("a", store)
    assert reasoner.drawn == ["Where?", "Where?", "Which?", "Which?", "How?", "How?"], "at most three questions"
    note = store.notes()["a"][NOTE]
    kept = [(asked["question"], asked["scores"]["disagreement"], asked["size"]) for asked in questions_of(note)]
    assert kept == [("Which?", 1.0, 0.5625), ("Where?", 0.0, 0.5625), ("How?", 0.0, 0.5625)]
    assert note["question"] == "Which?"


def test_the_slice_is_the_middle_one_or_that_of_an_earlier_label(tmp_path: Path) -> None:
    volume = np.zeros((8, 9, 7), np.int16)
    volume[:, :, 1] = 5
    folder = tmp_path / "studies"
    folder.mkdir()
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / "v.nii.gz")
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.uint8), np.eye(4)), tmp_path / "mask.nii.gz")
    store = opened(folder)
    assert key_picture("v", store).slice_index == 3
    save_label(store, "v", tmp_path / "mask.nii.gz", "original", axis="axial", slice_index=1)
    picture = key_picture("v", store)
    assert (picture.axis, picture.slice_index) == ("axial", 1)
    time.sleep(0.01)  # records count in milliseconds
    save_label(store, "v", tmp_path / "mask.nii.gz", "second", axis="sagittal", slice_index=6)
    assert (key_picture("v", store).axis, key_picture("v", store).slice_index) == ("sagittal", 6)


def test_questions_of_saved_labels_are_asked_about_the_others(store: ShelvedDatastore, tmp_path: Path) -> None:
    reasoner = Drawing(found(BOX))
    scores = scores_of(reasoner, AskedBefore(store))
    assert list(scores.due(store)) == [], "nobody has asked anything yet"
    Image.new("L", (8, 8)).save(tmp_path / "mask.png")
    save_label(store, "a", tmp_path / "mask.png", question="Where is the cup?")
    assert sorted(scores.due(store)) == ["b", "c", "d"]
    assert scores({}, store) == {"scored": 3}
    assert set(reasoner.drawn) == {"Where is the cup?"}
    assert list(scores.due(store)) == []


# What is due


def test_what_is_scored_is_left_alone_after_a_restart_until_reasoner_or_worklist_change(
    store: ShelvedDatastore, tmp_path: Path
) -> None:
    first = Drawing(found(BOX))
    scores = scores_of(first)
    assert sorted(scores.due(store)) == list("abcd")
    for image in "ab":
        scores.score(image, store)
    again = opened(tmp_path / "studies")
    assert sorted(scores_of(Drawing(found(BOX))).due(again)) == ["c", "d"]
    assert len(list(scores_of(Drawing(found(BOX), sha256="b" * 64)).due(again))) == 4
    assert len(list(scores_of(first, Worklist({OTHER: ("Else?",)}, "d" * 64)).due(again))) == 4
    Image.new("L", (8, 8)).save(tmp_path / "mask.png")
    save_label(again, "c", tmp_path / "mask.png")
    assert list(scores_of(first).due(again)) == ["d"], "what is labelled needs no score"


def test_a_new_champion_scores_anew_without_a_restart(store: ShelvedDatastore) -> None:
    pipeline = GroundingPipeline(Drawing(found(BOX)), BrightInBox())
    scores = AnswerScores(pipeline, WORKLIST, 2, 1)
    scores({}, store)
    assert list(scores.due(store)) == []
    pipeline.reasoner = Drawing(found(BOX), sha256="b" * 64)
    assert scores({}, store) == {"scored": 4}
    assert {note[NOTE]["reasoner_sha256"] for note in store.notes().values()} == {"b" * 64}


def test_a_reasoner_that_cannot_draw_is_refused_at_the_start() -> None:
    with pytest.raises(ReasonerError, match="told cannot draw"):
        scores_of(ToldReasoner(found(BOX)))


def test_an_image_that_no_question_fits_is_refused(store: ShelvedDatastore) -> None:
    with pytest.raises(NoQuestion, match="such images"):
        scores_of(Drawing(found(BOX)), Worklist({"CT": ("Where?",)}, "")).score("a", store)
    assert store.notes() == {}


# In idle time


class Clock:
    """How long a server has been quiet, and how often scoring has looked."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes, self.looked = lanes, 0

    def __call__(self) -> float:
        self.looked += 1
        return self._lanes.quiet_seconds()


@pytest.fixture
def idle() -> Iterator[Callable[..., IdleScoring]]:
    begun: list[IdleScoring] = []

    def begin(*arguments: Any, **options: Any) -> IdleScoring:
        begun.append(IdleScoring(*arguments, **{"settle": 0.001, "look_again": 0.05, **options}))
        begun[-1].start()
        return begun[-1]

    yield begin
    for scoring in begun:
        scoring.close()


def test_a_question_begins_at_once_and_nothing_is_drawn_until_it_has_been_answered(
    store: ShelvedDatastore, idle: Callable[..., IdleScoring]
) -> None:
    reasoner, lanes, answered = Drawing(found(BOX)), Lanes(4), threading.Event()
    reasoner.may_draw = threading.Semaphore(0)
    clock, events = Clock(lanes), reasoner.drawn
    idle(scores_of(reasoner, samples=3), store, clock)
    until(lambda: len(events) == 1)  # the first draw is under way

    def question(_: object) -> None:
        events.append("begins")
        assert answered.wait(30)
        events.append("ends")

    ticket = lanes.submit("medreasoner", question, "q")
    until(lambda: "begins" in events)  # while the draw is still under way
    looked = clock.looked
    for _ in range(100):
        reasoner.may_draw.release()
    until(lambda: clock.looked > looked + 3)  # the draw has ended, scoring looks and looks whether it may go on
    answered.set()
    ticket.future.result(10)
    until(lambda: len(store.notes()) == 4)
    assert events[:4] == [QUESTION, "begins", "ends", QUESTION]
    assert events.count(QUESTION) == 3 * 4, "no draw was lost, or made twice"


def test_a_training_is_no_quiet_time() -> None:
    for runs, quiet in ((True, False), (False, True)):
        server: Any = SimpleNamespace(training=SimpleNamespace(runs=runs), lanes=Lanes(1))
        assert (Service.quiet_seconds(server) > 0) is quiet


def test_scoring_waits_for_the_settled_quiet(store: ShelvedDatastore, idle: Callable[..., IdleScoring]) -> None:
    reasoner, quiet = Drawing(found(BOX)), [0.0, 1.0, 1.9, 2.0]
    seen: list[int] = []

    def quiet_seconds() -> float:
        seen.append(len(reasoner.drawn))
        return quiet.pop(0) if len(quiet) > 1 else quiet[0]

    idle(scores_of(reasoner), store, quiet_seconds, settle=2.0)
    until(lambda: len(store.notes()) == 4)
    assert seen[:4] == [0, 0, 0, 0]


def test_the_end_does_not_wait_for_the_rest_and_notes_nothing_half_done(
    store: ShelvedDatastore, idle: Callable[..., IdleScoring]
) -> None:
    reasoner = Drawing(found(BOX))
    reasoner.may_draw = threading.Semaphore(0)
    scoring = idle(scores_of(reasoner), store, lambda: 1e9)
    until(lambda: len(reasoner.drawn) == 1)
    closing = threading.Thread(target=scoring.close)
    closing.start()
    reasoner.may_draw.release()
    closing.join(10)
    assert not closing.is_alive()
    assert len(reasoner.drawn) == 1
    assert store.notes() == {}


def test_one_bad_image_does_not_keep_the_others_waiting_and_logs_do_not_name_it(
    store: ShelvedDatastore, idle: Callable[..., IdleScoring], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "studies" / "zebrafish.png").write_bytes(b"no picture")
    caplog.set_level(logging.DEBUG)
    idle(scores_of(Drawing(found(BOX))), store, lambda: 1e9)
    until(lambda: len(store.notes()) == 4)
    until(lambda: "an image cannot be scored: ImageError" in caplog.text)
    new = Image.new("L", (8, 8), 9)
    new.save(tmp_path / "studies" / "later.png")
    until(lambda: "later" in store.notes())  # found without a restart
    assert caplog.text.count("cannot be scored") == 1, "it is left for an hour"
    assert "zebrafish" not in caplog.text
    assert QUESTION not in caplog.text


def test_studies_that_were_away_are_scored_when_they_are_back(
    store: ShelvedDatastore, idle: Callable[..., IdleScoring], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A network drive that is not mounted for a while; who asks meanwhile is told so."""
    (tmp_path / "studies").rename(tmp_path / "away")
    idle(scores_of(Drawing(found(BOX))), store, lambda: 1e9)
    until(lambda: "cannot be listed for scoring" in caplog.text)
    with pytest.raises(MedReasonerError, match="cannot be listed") as caught:
        store.get_image_uri("a")
    assert kind_and_status(caught.value) == ("StudiesAway", 503)
    (tmp_path / "away").rename(tmp_path / "studies")
    until(lambda: len(store.notes()) == 4)


def test_images_that_fail_again_and_again_do_not_take_the_turns_of_others(
    store: ShelvedDatastore, idle: Callable[..., IdleScoring], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than there are pauses in an hour: each is due again before the last has had its turn."""
    monkeypatch.setattr("monailabel_app.lib.activelearning.idle._TRY_AGAIN_S", 0.0)
    for number in range(8):  # two of them come before all good ones in the order of scoring
        (tmp_path / "studies" / f"bad-{number}.png").write_bytes(b"no picture")
    idle(scores_of(Drawing(found(BOX))), store, lambda: 1e9, look_again=0.01)
    until(lambda: len(store.notes()) == 4)


def test_images_without_a_question_cost_no_pause(
    store: ShelvedDatastore, idle: Callable[..., IdleScoring], caplog: pytest.LogCaptureFixture
) -> None:
    class OneAlone:
        """Has a question for the fourth picture that is asked about."""

        sha256, known, asked = "", True, 0

        def about(self, modality: str) -> tuple[str, ...]:  # noqa: ARG002
            self.asked += 1
            return (QUESTION,) if self.asked == 4 else ()

    idle(scores_of(Drawing(found(BOX)), OneAlone()), store, lambda: 1e9, look_again=3600)
    until(lambda: len(store.notes()) == 1)
    assert not caplog.text, "that a worklist leaves a modality out is no trouble"


def test_a_bug_is_logged_with_its_place_and_ends_nothing(
    store: ShelvedDatastore, idle: Callable[..., IdleScoring], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Drawing):
        def samples(self, *arguments: Any) -> Iterator[Reply]:
            if not self.asked:
                self.asked.append(("", arguments[1]))
                raise ZeroDivisionError
            return super().samples(*arguments)

    idle(scores_of(Broken(found(BOX))), store, lambda: 1e9)
    until(lambda: len(store.notes()) == 3)
    assert "an image cannot be scored: ZeroDivisionError" in caplog.text
    assert "Traceback" in caplog.text


# The real server


def noted(server: RunningServer) -> dict[str, dict[str, Any]]:
    with server.client() as client:
        objects = client.get("/datastore/?output=all").json()["objects"]
    return {image: about["image"][NOTE] for image, about in objects.items() if NOTE in about["image"]}


@pytest.fixture(scope="module")
def scoring_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    work = tmp_path_factory.mktemp("scoring")
    (work / "studies").mkdir()
    for number in range(3):
        place = (40 + 90 * number, 420, 520 + 90 * number, 900)
        retina().crop(place).save(work / "studies" / f"eye-{number}.png")
    worklist = work / "worklist.yaml"
    worklist.write_text(f"other:\n  - {QUESTION}\n")
    conf = ("scoring=true", f"worklist={worklist}", "score_samples=2", "score_questions=1")
    with running(work / "studies", work / "run", *conf) as server:
        yield server


def test_a_server_answers_while_it_scores_and_hands_out_the_worst_case(scoring_server: RunningServer) -> None:
    with scoring_server.client() as client:
        assert "answers" in client.get("/info/").json()["scoring"]
        until(lambda: len(noted(scoring_server)) >= 1, 120, every=0.3)
        question = {"params": json.dumps({"question": "Where is the macula?"})}
        reply = client.post("/infer/medreasoner?image=eye-0&output=json", data=question)
        assert reply.status_code == 200, reply.text
        assert len(noted(scoring_server)) < 3, "the question did not wait until all were scored"
        early = client.post("/activelearning/disagreement").json()
        assert early["chosen_by"] == "random"
        assert "of 3 scored; too few" in early["note"]
        until(lambda: len(noted(scoring_server)) == 3, 240, every=1.0)
        notes = noted(scoring_server)
        assert all(note["question"] == QUESTION and len(note["boxes"]) == 2 for note in notes.values())
        first, second = (client.post("/activelearning/disagreement").json() for _ in range(2))
    left = {image: note["scores"]["disagreement"] for image, note in notes.items() if image != early["id"]}  # one size
    assert first["note"] == "3 of 3 scored"
    assert first[NOTE]["question"] == QUESTION
    assert first["id"] == max(sorted(left), key=lambda image: left[image])
    assert second["id"] not in (early["id"], first["id"])
    assert QUESTION not in scoring_server.log
    assert "eye-" not in scoring_server.log

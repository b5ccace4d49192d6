"""The simulated department: who is in its archive, whose label is next, what its curve says, and a tiny run of all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import cdist
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from benchmarks import active_learning
from benchmarks.learning import curve
from benchmarks.learning.department import ARMS, SMALL, TINY, Department, queue
from benchmarks.learning.draws import disagreement, draw_boxes, sizes
from benchmarks.learning.features import features
from benchmarks.learning.small_reasoner import SmallReasoner
from benchmarks.learning.small_student import SmallStudent
from benchmarks.learning.spread import farthest_first, unlike_first
from medreasoner.contract.answer import Box, parse_answer
from medreasoner.contract.errors import MedReasonerError
from medreasoner.folders import embedded_folder
from medreasoner.geometry import box_iou
from medreasoner.reasoner.card import ReasonerCard
from medreasoner.reasoner.grammar import AnswerGrammar
from rl_training.evaluate import answer_batch
from rl_training.feed import Feed
from rl_training.pack import load_pictures, pack
from rl_training.questions import training_entries
from rl_training.tiny import configuration
from tests.collection import make_collection

KINDS = {"drishti_gs": "new", "wbc": "known", "acdc": "known"}  # sources of fundus photographs, smears, heart MRI


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a collection of three kinds of image, eight patients of each with two targets, and four for the test."""
    folder = make_collection(tmp_path_factory.mktemp("made") / "data")
    made = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    rows = []
    for source in KINDS:
        for number in range(20):
            split = "train" if number < 16 else "test"
            seen = made[number % 4] if split == "train" else made[5]
            who = f"{source}:{number // 2}"
            rows.append({**seen, "id": f"{source}/{number}", "source": source, "group": who, "split": split})
    (folder / "samples.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def packed(data: Path) -> Path:
    folder = data.parent / "packed"
    pack(data, folder)
    return folder


def test_department_is_divided_by_patients(data: Path) -> None:
    department = Department(data, TINY)
    archive, known = ({department.patient(i) for i in rows} for rows in (department.archive, department.known))
    assert not archive & known
    assert sum(map(department.is_new, department.archive)) == 8  # half of the patients of every kind
    assert len(department.archive) == 24
    assert len(department.known) == 16
    assert not any(map(department.is_new, department.known))
    assert len(department.cases) == 6
    assert all(department.samples[case.row]["split"] == "test" for case in department.cases)


def test_knobs_are_chosen_by_another_split(data: Path) -> None:
    department, other = Department(data, TINY), Department(data, replace(TINY, split="train"))
    assert {department.samples[case.row]["split"] for case in other.cases} == {"train"}
    assert (other.archive, other.known) == (department.archive, department.known)


def test_lessons_mix_what_is_known_with_what_is_revealed(data: Path) -> None:
    department = Department(data, TINY)
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    revealed = department.archive[:3]
    feed = department.lessons(TINY.round, tokenizer, revealed)
    shares = dict(zip(feed.rows, feed.weights, strict=True))
    assert sorted(shares) == sorted(department.known + revealed)
    assert sum(shares[row] for row in revealed) == pytest.approx(0.5)
    assert sum(shares[row] for row in department.known) == pytest.approx(0.5)
    alone = department.lessons(TINY.round, tokenizer, [])
    assert alone.rows == sorted(department.known)
    assert sum(alone.weights) == pytest.approx(1)


@pytest.mark.parametrize(
    ("scores", "patients", "limit", "expected"),
    [
        ([0.1, 0.9, 0.5], ["a", "b", "c"], 1, [1, 2, 0]),  # by falling score
        ([0.9, 0.8, 0.7, 0.1], ["a", "a", "a", "b"], 2, [0, 1, 3, 2]),  # the third of one patient waits for the others
        ([0.9, 0.8, 0.7], ["a", "a", "a"], 1, [0, 1, 2]),  # nobody else is left
    ],
)
def test_queue(scores: list[float], patients: list[str], limit: int, expected: list[int]) -> None:
    assert queue(scores, patients, limit) == expected


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([Box(0, 0, 4, 4)] * 3, 0.0),  # of one mind
        ([Box(0, 0, 4, 4), Box(4, 4, 8, 8)], 1.0),  # nothing in common
        ([Box(0, 0, 4, 4), Box(0, 0, 4, 4), Box(0, 0, 4, 2)], 1 - (1 + 0.5 + 0.5) / 3),
    ],
)
def test_disagreement(boxes: list[Box], expected: float) -> None:
    assert disagreement(boxes) == pytest.approx(expected)


def test_sizes_are_mean_areas() -> None:
    assert sizes([[Box(0, 0, 2, 3), Box(1, 1, 3, 2)], [Box(0, 0, 1, 1)]]) == [4.0, 1.0]


@pytest.mark.parametrize(
    ("points", "before", "expected"),
    [
        ([0, 1, 10, 5], [], [0, 2, 3, 1]),  # the first, the farthest from it, then the middle
        ([0, 1, 10, 5], [10], [0, 3, 1, 2]),  # known pictures count as chosen
        ([4, 4, 4], [0], [0, 1, 2]),  # of equals the first
        ([7], [], [0]),
    ],
)
def test_farthest_first(points: list[float], before: list[float], expected: list[int]) -> None:
    assert farthest_first(np.array(points)[:, None] * 1.0, np.array(before).reshape(-1, 1) * 1.0) == expected


def test_each_of_a_traversal_is_the_farthest_that_is_left() -> None:
    chance = np.random.default_rng(3)
    points, before = chance.normal(size=(30, 5)), chance.normal(size=(4, 5))
    order = farthest_first(points, before)
    assert sorted(order) == list(range(30))
    for at in range(30):
        seen = np.vstack([before, points[order[:at]]])
        gaps = cdist(points[order[at:]], seen).min(1)
        assert gaps[0] == pytest.approx(gaps.max())


def test_pictures_that_look_new_come_first_of_the_most_wanted() -> None:
    """Of ten candidates three are in the pool: two alike, one like what is known. Channels differ in scale."""
    looks = np.array([[0, 0], [0, 0], [9, 1e6], *[[3, 3e5]] * 7], float)
    wanted = [0.9, 0.8, 0.7, *[0.1] * 7]
    found = unlike_first(wanted, looks, np.array([[9, 1e6]], float))
    assert sorted(range(10), key=lambda i: -found[i])[:3] == [0, 1, 2], "the first two are far from what is known"
    none_known = unlike_first(wanted, looks, np.zeros((0, 2)))
    assert sorted(range(10), key=lambda i: -none_known[i])[:3] == [0, 2, 1]
    assert found[3:] == wanted[3:]


@pytest.mark.parametrize(
    ("values", "target", "expected"),
    [
        ([0.1, 0.2, 0.4], 0.3, 60.0),  # half-way between 40 and 80
        ([0.1, 0.2, 0.4], 0.4, 80.0),  # exactly at the end
        ([0.5, 0.2, 0.4], 0.3, 0.0),  # there before the first label
        ([0.1, 0.2, 0.3], 0.4, None),  # never
    ],
)
def test_labels_needed(values: list[float], target: float, expected: float | None) -> None:
    found = curve.labels_needed(np.array(values), [0, 40, 80], target)
    assert found == (None if expected is None else pytest.approx(expected))


def made_rounds(gains: list[float], cases: int) -> list[dict[str, Any]]:
    return [{"iou": [0.2 + g] * cases, "new_kinds": 3, "device": "CPU", "seconds": [1, 2, 3]} for g in gains]


def test_figures_compare_arms_on_the_same_patients() -> None:
    """An arm that gains twice as fast needs half the labels, whoever is resampled; equal cases leave no interval."""
    start, patients = [0.2] * 6, ["a", "a", "b", "c", "c", "c"]
    plan = replace(TINY, rounds=2, labels=40)
    rounds = {
        "random": [made_rounds([0.1, 0.2], 6), made_rounds([0.1, 0.2], 6)],
        "disagreement": [made_rounds([0.2, 0.4], 6)] * 2,
    }
    about = {"patients": patients, "is_new": [True, True, False, False, False, False]}
    found = curve.figures(start, rounds, about | {"known": 1, "archive": 2, "archive_new": 1}, plan)
    against = found["against_random"]["disagreement"]["all"]
    assert against["share_of_labels"] == pytest.approx({"mean": 0.5, "low": 0.5, "high": 0.5})
    assert [d["mean"] for d in against["difference"]] == pytest.approx([0, 0.1, 0.2])
    assert found["arms"]["random"]["new"][2] == pytest.approx({"mean": 0.4, "low": 0.4, "high": 0.4})
    assert found["arms"]["random"]["labels_of_new_kinds"] == [0, 3, 6]
    iou = {"random": np.array([[start, [0.4] * 6]]), "disagreement": np.array([[start, [0.3] * 6]])}
    worse = curve.against_random(curve.Curves(patients, iou), "disagreement", [0, 40])
    assert worse["share_of_labels"] == {"mean": None, "low": 1.0, "high": 1.0}
    assert worse["share_by_seed"] == [None]


def test_intervals_come_from_patients_not_from_cases() -> None:
    """Six cases of two patients: a resample holds one patient or the other or both, so the ends are their own means."""
    curves = curve.Curves(["a"] * 5 + ["b"], {"random": np.array([[[0.0] * 5 + [0.6]]])})
    assert curves.point("random", 0) == pytest.approx({"mean": 0.1, "low": 0.0, "high": 0.6})


def test_intervals_come_from_seeds_too() -> None:
    """Two seeds that differ on every patient alike: a resample holds one, the other or both, the same for all arms."""
    seeds = np.array([[[0.2] * 4], [[0.4] * 4]])
    curves = curve.Curves(list("abcd"), {"random": seeds, "disagreement": seeds + 0.1})
    assert curves.point("random", 0) == pytest.approx({"mean": 0.3, "low": 0.2, "high": 0.4})
    assert curves.difference("disagreement", "random", 0) == pytest.approx({"mean": 0.1, "low": 0.1, "high": 0.1})


class Ending(torch.nn.Module):
    """Makes a head of random weights end its reasoning in one answer after the other: the first after three tokens."""

    def __init__(self, head: torch.nn.Module, end: int) -> None:
        super().__init__()
        self.head, self.end, self.read = head, end, 0

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        logits = self.head(states)
        self.read += 1
        logits[:, self.end] = torch.where(self.read > 3 + 3 * torch.arange(len(states)), 99.0, -99.0)
        return logits


@pytest.fixture(scope="module")
def drawing(data: Path, packed: Path) -> tuple[Any, Any, AnswerGrammar, list[list[int]], torch.Tensor]:
    """Give a model of random weights, its tokenizer, a grammar, three prompts of unequal length and their pictures."""
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    torch.manual_seed(1)
    model = Qwen2_5_VLForConditionalGeneration(configuration(tokenizer)).eval()
    model.lm_head = Ending(model.lm_head, tokenizer.convert_tokens_to_ids("</think>"))
    card = ReasonerCard("drawn", 336, "direct", may_abstain=False, dialect="strict", max_reasoning=12)
    grammar = AnswerGrammar.for_tokenizer(tokenizer, card)
    feed = Feed([], training_entries(data), [], tokenizer, TINY.start)
    asked = ["disc?", "Where is the optic disc?", "Which bright round structure do the vessels come from?"]
    prompts = [[*feed.prompt(q), *grammar.opening] for q in asked]
    pictures = torch.from_numpy(load_pictures(packed)[0][:3]).permute(0, 3, 1, 2).float() / 255
    return model, tokenizer, grammar, prompts, pictures


def test_greedy_boxes_are_those_of_guided_answers(drawing: Any) -> None:
    model, tokenizer, grammar, prompts, pictures = drawing
    texts = answer_batch(model, tokenizer, grammar, prompts, pictures)
    model.lm_head.read = 0
    drawn = draw_boxes(model, tokenizer.pad_token_id, grammar, prompts, pictures)
    lengths = {len(tokenizer(parse_answer(text).reasoning)["input_ids"]) for text in texts}
    assert len(lengths) > 1  # they end their reasoning one after another
    assert [boxes[0] for boxes in drawn.boxes] == [parse_answer(text).box for text in texts]
    assert all(-14 < confidence < 0 for confidence in drawn.confidence)


def test_samples_are_valid_boxes_and_spread_with_temperature(drawing: Any) -> None:
    model, tokenizer, grammar, prompts, pictures = drawing

    def sampled(temperature: float, seed: int) -> list[list[Box]]:
        model.lm_head.read = 0
        return draw_boxes(model, tokenizer.pad_token_id, grammar, prompts, pictures, 8, temperature, seed).boxes

    first = sampled(1.0, 3)
    assert [len(boxes) for boxes in first] == [8, 8, 8]
    every = [box for boxes in first for box in boxes]
    assert all(0 <= b.x_min < b.x_max <= 336 and 0 <= b.y_min < b.y_max <= 336 for b in every)
    assert sampled(1.0, 3) == first
    assert sampled(1.0, 4) != first
    spread = [[disagreement(boxes) for boxes in sampled(temperature, 3)] for temperature in (0.001, 1.0)]
    assert max(spread[0]) < 0.1  # next to the likeliest
    assert min(spread[1]) > 0.3  # random weights draw all over the picture


def test_boxes_are_not_drawn_by_a_card_that_may_abstain(drawing: Any) -> None:
    model, tokenizer, grammar, prompts, pictures = drawing
    with pytest.raises(MedReasonerError, match="absence"):
        draw_boxes(model, tokenizer.pad_token_id, replace(grammar, may_abstain=True), prompts, pictures)


def test_features_are_kept(packed: Path, tmp_path: Path) -> None:
    pictures = load_pictures(packed)[0]
    first = features(tmp_path, pictures, [1])
    assert first.shape == (len(pictures), 14 * 14, 256)
    assert [bool(np.isnan(row).any()) for row in first[:3]] == [True, False, True]
    first[1] = 7  # a mark that a second look would wipe away
    first.flush()
    again = features(tmp_path, pictures, [0, 1])
    assert (again[1] == 7).all()
    assert not np.isnan(again[0]).any()
    upside_down = features(tmp_path, pictures[:, ::-1], [2])[2].reshape(14, 14, 256)[::-1]
    straight = features(packed, pictures, [2])[2].reshape(14, 14, 256)  # the file's order of cells: row by row
    assert np.corrcoef(upside_down.ravel(), straight.ravel())[0, 1] > 0.8


def test_numbers_depend_on_those_before_them_alone() -> None:
    torch.manual_seed(0)
    model = SmallReasoner(336).eval()
    cells, asked = model.seen(torch.randn(1, 14 * 14, 256), ["Where is the disc?"])
    slots, before = torch.arange(4), torch.tensor([10.0, 20.0, 300.0]).expand(1, 4, 3)
    logits = model(cells, asked, slots, before)
    assert logits.shape == (1, 4, 337)
    for changed in range(3):
        other = before.clone()
        other[..., changed] += 100
        same = (model(cells, asked, slots, other) == logits).all(2)[0].tolist()
        assert same == [slot <= changed for slot in range(4)]


def test_small_student_learns_what_is_revealed(data: Path, packed: Path, tmp_path: Path) -> None:
    """Unasked questions are answered anywhere; forty steps on the labels put the answers where those are."""
    plan = replace(SMALL, start_steps=0, round_steps=40, new_kinds=(), round=replace(SMALL.round, batch=16))
    department = Department(data, plan)
    student = SmallStudent(department, packed, tmp_path)
    assert student.make_start(tmp_path, float("inf"))
    rows = department.archive[:8]
    questions = [department.question(row, Random(0)) for row in rows]

    def overlap() -> float:
        drawn = student.answer(rows, questions)
        return float(
            np.mean([box_iou(b[0], Box(*student.boxes[r].tolist())) for r, b in zip(rows, drawn.boxes, strict=True)])
        )

    before = overlap()
    sampled = student.answer(rows, questions, 6, seed=1).boxes
    assert [len(boxes) for boxes in sampled] == [6] * 8
    assert min(map(disagreement, sampled)) > 0.3
    student.learn(rows, 0)
    assert overlap() > before + 0.2
    assert np.mean([*map(disagreement, student.answer(rows, questions, 6, seed=1).boxes)]) < 0.6
    student.to_start()
    assert overlap() == before


def test_the_reasoner_needs_a_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--data", tmp_path, "--packed", tmp_path, "--state", tmp_path]
    with pytest.raises(SystemExit):
        active_learning.main([*map(str, given)])
    assert "--base" in capsys.readouterr().err


@pytest.mark.parametrize("learner", ["reasoner", "small"])
def test_simulation_is_interrupted_and_goes_on(
    data: Path, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], learner: str
) -> None:
    state = tmp_path / "state"
    given = ["--data", data, "--packed", packed, "--base", embedded_folder(), "--state", state, "--tiny"]
    given += ["--learner", learner]
    given = [*map(str, given), "--seeds", "0"]
    active_learning.main([*given, "--seconds", "0"])
    assert "call again" in capsys.readouterr().out
    assert torch.load(state / "start-unfinished.pt", weights_only=True)["step"] == 1
    active_learning.main([*given, "--arms", "random"])
    assert not (state / "start-unfinished.pt").exists()
    first = {path.name: path.read_bytes() for path in state.glob("*-0.json")}
    active_learning.main(given)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(first) == {"start-0.json", "random-0.json"}
    assert all((state / name).read_bytes() == content for name, content in first.items())  # nothing is done twice

    assert found["labels"] == [0, 4, 8]
    assert ("stand-in" in found["learner"]) == (learner == "small")
    assert set(found["arms"]) == set(ARMS)
    department = Department(data, TINY)
    for arm in found["arms"]:
        rounds = json.loads((state / f"{arm}-0.json").read_text())
        revealed = [row for record in rounds for row in record["revealed"]]
        assert len(set(revealed)) == 8
        assert set(revealed) <= set(department.archive)
        assert found["arms"][arm]["all"][2]["mean"] == pytest.approx(np.mean(rounds[1]["iou"]), abs=1e-3)
    results, png = tmp_path / "results.json", tmp_path / "curve.png"
    results.write_text(json.dumps(found))
    curve.main([str(results), str(png)])
    with Image.open(png) as picture:
        assert picture.width > 900
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50

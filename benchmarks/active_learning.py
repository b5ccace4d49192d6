"""Does asking for the labels that the reasoner is least sure of teach it faster than asking for any?

python -m rl_training.pack DATA PACKED
python -m rl_training.trunk SmolLM2-135M-Instruct.Q4_1.gguf BASE
python -m benchmarks.active_learning --data DATA --packed PACKED --base BASE --state STATE [--seconds 500]
python -m benchmarks.active_learning --learner small --data DATA --packed PACKED --state STATE --seeds 0 1 2

A reasoner is trained on all kinds of image but six. Then a department that has all of them reveals its labels, 40 at a
time, in the order of an arm: `random`; `disagreement`, 1 minus the mean pairwise IoU of six sampled boxes;
`low_confidence`, the likelihood of the greedy box; `disagreement_for_size`, the rank of the disagreement among boxes of
like size, the product's strategy; `disagreement_spread`, this rank and that of the low confidence together, and of the
30 % that are first by their sum those whose pictures look least like each other and like what was revealed. Every round
trains from the same start on what is revealed so far, mixed with what the start knows, and answers the same test
cases. Masks and absent targets are left out.

`--learner small`, which needs no BASE, puts a stand-in in the reasoner's place that a processor core trains in seconds
(benchmarks.learning.small_student): archive, queue, disagreement and test are the same, so it tests the choice of
labels, not what the reasoner gains from them.

What is done is kept in STATE, one folder a learner, and the same command goes on there. Several may share it once the
start is made, each with arms or seeds of its own: `--seeds` with none after it makes the start, `--seeds 0 1` does two
seeds of every arm. When all rounds are there, the last line is JSON (benchmarks/results/active_learning*.json), of
which `python -m benchmarks.learning.curve RESULTS PNG` draws the curves.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import torch

from benchmarks.figures import print_figures
from benchmarks.learning.curve import figures, table
from benchmarks.learning.department import ARMS, SMALL, TINY, Department, Plan, queue
from benchmarks.learning.draws import disagreement, sizes
from benchmarks.learning.small_student import SmallStudent
from benchmarks.learning.spread import unlike_first
from benchmarks.learning.student import ReasonerStudent, Student
from medreasoner.durable import write_durably
from monailabel_app.lib.activelearning.ranking import among_like_sizes, ranks_within
from rl_training.config.reading import read_yaml

Record = dict[str, Any]
LEARNERS = {
    "reasoner": "the reasoner, trained from SmolLM2's text trunk and a fresh vision tower",
    "small": "a stand-in for the reasoner on frozen features: tests the choice of labels, not what the reasoner gains",
}


class Branch:
    """One arm with one seed: its rounds so far, in a file."""

    def __init__(self, state: Path, arm: str, seed: int) -> None:
        self.arm, self.seed = arm, seed
        self._path = state / f"{arm}-{seed}.json"
        self.rounds: list[Record] = json.loads(self._path.read_text()) if self._path.exists() else []

    @property
    def revealed(self) -> list[int]:
        """Rows of the samples whose labels are known by now."""
        return [row for record in self.rounds for row in record["revealed"]]

    def add(self, record: Record) -> None:
        """Keep a round."""
        self.rounds.append(record)
        write_durably(self._path, json.dumps(self.rounds).encode())


def scores(student: Student, arm: str, rows: list[int], chance: Random) -> list[float]:
    """Say how much an arm wants each candidate's label; more is sooner."""
    questions = [student.department.question(row, chance) for row in rows]
    if arm == "random":
        return [chance.random() for _ in rows]
    if arm == "low_confidence":
        return [-c for c in student.answer(rows, questions).confidence]
    drawn = student.answer(rows, questions, student.plan.draws, chance.randrange(2**31))
    found = [disagreement(boxes) for boxes in drawn.boxes]
    if arm == "disagreement":
        return found
    ranks = among_like_sizes(found, sizes(drawn.boxes))
    if arm == "disagreement_for_size":
        return ranks
    unsure = [-c for c in student.answer(rows, questions).confidence]
    return [a + b for a, b in zip(ranks, ranks_within(unsure, [0] * len(unsure)), strict=True)]


def next_round(student: Student, branch: Branch) -> Record:
    """Choose labels with the weights of the round before, which the student holds; train on all of them; examine."""
    department, plan, begun = student.department, student.plan, time.perf_counter()
    chance = Random(1000 * branch.seed + len(branch.rounds))
    left = sorted(set(department.archive) - set(branch.revealed))
    rows = chance.sample(left, min(plan.candidates, len(left)))
    wanted = scores(student, branch.arm, rows, chance)
    if branch.arm == "disagreement_spread":
        wanted = unlike_first(wanted, student.looks(rows), student.looks(branch.revealed))
    order = queue(wanted, [department.patient(row) for row in rows], plan.patient_limit)
    new = [rows[i] for i in order[: plan.labels]]
    scored = time.perf_counter()
    student.learn(branch.revealed + new, branch.seed)
    trained = time.perf_counter()
    iou = student.examine()
    return {
        "revealed": new,
        "new_kinds": sum(department.is_new(row) for row in new),
        "iou": [round(v, 4) for v in iou],
        "seconds": [round(t, 1) for t in (scored - begun, trained - scored, time.perf_counter() - trained)],
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
    }


def run_branch(student: Student, branch: Branch, until: float) -> None:
    """Go on with a branch until its rounds are done, or the next one would not be by `until`."""
    if len(branch.rounds) == student.plan.rounds or time.perf_counter() > until:
        return
    if not branch.rounds:
        student.to_start()
    elif branch.arm != "random":  # the others score candidates with the last round's weights
        student.learn(branch.revealed, branch.seed)
    longest = 0.0
    while len(branch.rounds) < student.plan.rounds and time.perf_counter() + longest < until:
        record = next_round(student, branch)
        branch.add(record)
        longest = max(longest, sum(record["seconds"]))
        mean, labels = sum(record["iou"]) / len(record["iou"]), len(branch.revealed)
        memory = f", {torch.cuda.max_memory_reserved() / 2**30:.0f} GiB" if torch.cuda.is_available() else ""
        took = f"{record['new_kinds']} of new kinds, IoU {mean:.3f}, {record['seconds']} s"
        print(f"{branch.arm} {branch.seed}: {labels} labels, {took}{memory}", flush=True)


def about(department: Department) -> Record:
    """Describe the test cases and the archive, as `figures` needs them."""
    return {
        "patients": [department.patient(case.row) for case in department.cases],
        "is_new": [department.is_new(case.row) for case in department.cases],
        "known": len(department.known),
        "archive": len(department.archive),
        "archive_new": sum(map(department.is_new, department.archive)),
    }


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="umrg-mini's samples and questions")
    parser.add_argument("--packed", type=Path, required=True, help="what rl_training.pack wrote")
    parser.add_argument("--learner", choices=LEARNERS, default="reasoner", help="who is taught")
    parser.add_argument("--base", type=Path, help="what rl_training.trunk wrote; for the reasoner alone")
    parser.add_argument("--state", type=Path, required=True, help="folder of what is done so far")
    parser.add_argument("--seconds", type=float, default=1e9, help="of this call; begins no round that would end later")
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=ARMS)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--plan", type=Path, help="YAML of knobs (benchmarks.learning.department.Plan)")
    parser.add_argument("--split", choices=("val", "test"), help="whose cases are examined, in place of the plan's")
    parser.add_argument("--tiny", action="store_true", help="a few steps of random weights, on any machine")
    given = parser.parse_args(argv)
    if given.learner == "reasoner" and given.base is None:
        parser.error("the reasoner needs --base")
    return given


def new_student(given: argparse.Namespace, department: Department) -> Student:
    """Make who is taught."""
    if given.learner == "small":
        return SmallStudent(department, given.packed, given.state)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return ReasonerStudent(department, given.packed, given.base, given.state, given.tiny, device)


def simulate(given: argparse.Namespace, department: Department, start: Branch, branches: list[Branch]) -> None:
    """Make the start and go on with the branches, for as long as there is time."""
    until = time.perf_counter() + given.seconds
    student = new_student(given, department)
    if not student.make_start(given.state, until):
        return
    if not start.rounds:
        start.add({"iou": [round(v, 4) for v in student.examine()]})
    for branch in branches:
        run_branch(student, branch, until)


def main(argv: list[str] | None = None) -> None:
    given = arguments(argv)
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.cache_size_limit = 64
    usual = TINY if given.tiny else SMALL if given.learner == "small" else Plan()
    plan = read_yaml(given.plan, Plan) if given.plan else usual
    plan = replace(plan, split=given.split or plan.split)
    department = Department(given.data, plan)
    given.state.mkdir(parents=True, exist_ok=True)
    start = Branch(given.state, "start", 0)
    branches = [Branch(given.state, arm, seed) for seed in given.seeds for arm in given.arms]

    def left() -> int:
        return sum(plan.rounds - len(branch.rounds) for branch in branches)

    if left() or not start.rounds:
        simulate(given, department, start, branches)
    if left() or not (start.rounds and branches):
        print(f"the start is {'' if start.rounds else 'not '}done, {left()} rounds are left: call again", flush=True)
        return
    rounds = {arm: [branch.rounds for branch in branches if branch.arm == arm] for arm in given.arms}
    found = figures(start.rounds[0]["iou"], rounds, about(department), plan)
    print(table(found))
    print_figures({"learner": LEARNERS[given.learner]} | found)


if __name__ == "__main__":
    main()

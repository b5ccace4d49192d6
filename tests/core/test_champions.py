"""The registry of checkpoints: which one takes over, and what is left when disk, process or person interfere."""

from __future__ import annotations

import fcntl
import json
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from medreasoner.contract.errors import CheckpointError, MedReasonerError
from medreasoner.durable import PARTIAL
from medreasoner.reasoner.champions import CHAMPION, SHIPPED, Champions
from medreasoner.reasoner.lineage import Lineage, Rule, not_worse

BEFORE = {"n": 40, "box_iou": 0.5, "dice": None, "false_absent": 0.05, "by_modality": {"MR": {"n": 40, "failures": 9}}}
LINEAGE = Lineage(
    made_at="2026-11-28T01:00:00+00:00",
    parent="a" * 64,
    parent_number=SHIPPED,
    data_sha256="b" * 64,
    labels=120,
    champion=BEFORE,
    challenger={**BEFORE, "box_iou": 0.56},
    difference={"mean": 0.06, "low": 0.01, "high": 0.11},
)


def better_than(number: int) -> Lineage:
    return replace(LINEAGE, parent_number=number)


def worse_than(number: int) -> Lineage:
    return replace(LINEAGE, parent_number=number, difference={"mean": -0.1, "low": -0.2, "high": 0.0})


@pytest.fixture
def challenger(tmp_path):
    folder = tmp_path / "run" / "adapter"
    (folder / "more").mkdir(parents=True)
    (folder / "medreasoner.json").write_text('{"name": "local", "base": "embedded"}')
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 400)
    (folder / "more" / "notes.txt").write_text("rank 8")
    return folder


@pytest.fixture
def champions(tmp_path):
    return Champions(tmp_path / "models" / "local")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("low", "before", "after", "cases", "published", "says"),
    [
        (0.01, 0.05, 0.05, 40, True, "not worse"),
        (-0.01, 0.05, 0.05, 40, True, "not worse"),  # the margin itself
        (-0.0101, 0.05, 0.05, 40, False, "fallen by more than 0.01"),
        (0.2, 1 / 50, 2 / 50, 40, True, "not worse"),  # as many more absent as may be, in shares that round
        (0.2, 0.05, 0.08, 40, False, "of the present targets absent"),  # better boxes do not outweigh it
        (0.2, 0.08, 0.00, 40, True, "not worse"),
        (0.2, 0.05, 0.05, 10, True, "not worse"),
        (0.2, 0.05, 0.05, 9, False, "has 9 cases, and 10 are needed"),
        (0.2, 0.05, 0.05, 0, False, "has 0 cases"),
    ],
)
def test_the_rule(low, before, after, cases, published, says):
    lineage = replace(
        LINEAGE,
        champion={**BEFORE, "false_absent": before},
        challenger={**BEFORE, "false_absent": after, "n": cases},
        difference={"mean": low + 0.05, "low": low, "high": low + 0.1},
    )
    verdict = not_worse(lineage)
    assert verdict.published is published
    assert says in verdict.reason


@pytest.mark.parametrize(
    ("before", "after", "published"),
    [
        (0.9, 0.8, True),  # as much as may be
        (0.9, 0.75, False),
        (0.5, 0.9, True),
        (None, 0.1, True),  # the champion's hold-out had none
        (0.9, None, True),
    ],
)
def test_better_boxes_do_not_outweigh_targets_that_are_not_there(before, after, published):
    champion, challenger = ({**BEFORE, "n": 40, "absent_recognised": share} for share in (before, after))
    lineage = replace(
        LINEAGE, champion=champion, challenger=challenger, difference={"mean": 0.1, "low": 0.05, "high": 0.2}
    )
    verdict = not_worse(lineage)
    assert verdict.published is published
    assert ("absent recognised" in verdict.reason) is (before is not None and after is not None)


def test_a_department_may_set_its_own_rule():
    lineage = replace(worse_than(SHIPPED), challenger={**BEFORE, "n": 4, "false_absent": 0.2})
    assert not_worse(lineage, Rule(margin=0.3, false_absent=0.2, cases=3)).published


def test_a_lineage_is_the_same_after_writing_and_reading():
    assert Lineage.from_json(LINEAGE.to_json()) == LINEAGE


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"colour": "red"}, "Lineage"),
        ({"labels": -1}, "labels"),
        ({"number": True}, "number"),
        ({"parent_number": 1.5}, "parent_number"),
        ({"published": 1}, "published"),
        ({"made_at": "yesterday"}, "made_at"),
        ({"configuration": [1]}, "configuration"),
        ({"champion": {**BEFORE, "box_iou": 1.2}}, "champion are not usable: box_iou"),
        ({"challenger": {"n": 3, "box_iou": 0.2}}, "challenger are not usable: false_absent"),
        ({"challenger": {**BEFORE, "n": -3}}, "n"),
        ({"challenger": {**BEFORE, "luck": 0.1}}, "luck"),
        ({"challenger": {**BEFORE, "by_modality": {"MR": 0.3}}}, "by_modality"),
        ({"challenger": {**BEFORE, "by_modality": {"MR": {"n": 40}}}}, "by_modality"),
        ({"difference": {"mean": 0.1}}, "difference"),
        ({"difference": {"mean": 0.1, "low": "0", "high": 0.2}}, "difference"),
        ({"difference": {"mean": 0.1, "low": float("nan"), "high": 0.2}}, "difference"),  # would pass every comparison
    ],
)
def test_a_lineage_with_a_mistake_is_refused(change, says):
    text = json.dumps({**json.loads(LINEAGE.to_json()), **change})
    with pytest.raises(MedReasonerError, match=says):
        Lineage.from_json(text)


def test_a_registry_that_is_not_there_yet_has_no_champion(champions):
    assert champions.entries() == []
    assert champions.number() == SHIPPED
    assert champions.champion() is None


def test_the_better_takes_over_the_worse_is_kept_beside_it(champions, challenger):
    given = contents(challenger)
    assert champions.propose(challenger, better_than(SHIPPED)) == 1
    assert champions.propose(challenger, worse_than(1)) == 2
    assert champions.champion() == champions.path(1)
    first, second = champions.entries()
    assert (first.number, first.published) == (1, True)
    assert (second.number, second.published) == (2, False)
    assert "fallen" in second.reason
    assert contents(challenger) == given
    copied = contents(champions.path(2))
    assert Lineage.from_json(copied.pop("lineage.json").decode()) == second
    assert copied == given


def test_a_comparison_with_another_than_the_present_champion_does_not_count(champions, challenger):
    champions.propose(challenger, better_than(SHIPPED))
    champions.propose(challenger, better_than(SHIPPED))
    assert champions.number() == 1
    assert "compared with number 0, and 1 is in service" in champions.entries()[1].reason


def test_steps_back_and_forth(champions, challenger):
    for parent in (SHIPPED, 1, 2):
        champions.propose(challenger, better_than(parent))
    assert champions.history() == [1, 2, 3]
    assert champions.rollback() == champions.number() == 2
    champions.publish(3)
    assert champions.rollback() == 2
    assert champions.rollback() == 1
    champions.publish(SHIPPED)
    assert champions.champion() is None
    assert champions.rollback() == 1
    assert champions.rollback() == SHIPPED
    assert champions.champion() is None
    with pytest.raises(CheckpointError, match="as shipped is in service"):
        champions.rollback()
    with pytest.raises(CheckpointError, match="no checkpoint 7"):
        champions.publish(7)


def test_rolling_back_passes_over_what_somebody_removed(champions, challenger):
    for parent in (SHIPPED, 1, 2):
        champions.propose(challenger, better_than(parent))
    champions.path(2).rename(champions.folder.parent / "taken away")
    assert champions.rollback() == 1


@pytest.mark.parametrize(
    ("history", "keep", "left"),
    [
        ([1, 2, 3, 4, 5], 2, [4, 5]),
        ([1, 2, 3, 4, 5], 1, [4, 5]),  # to roll back to
        ([1, 3], 1, [1, 3, 5]),
        ([2], 2, [2, 4, 5]),
        ([], 9, [1, 2, 3, 4, 5]),
    ],
)
def test_trimming_leaves_the_champion_and_the_one_before(champions, challenger, history, keep, left):
    for _ in range(5):
        champions.propose(challenger, worse_than(SHIPPED))
    for number in history:
        champions.publish(number)
    removed = champions.trim(keep)
    assert [lineage.number for lineage in champions.entries()] == left
    assert sorted({*removed, *left}) == [1, 2, 3, 4, 5]
    assert champions.number() == (history[-1] if history else SHIPPED)
    assert set(champions.history()) <= set(left)
    assert not list(champions.folder.glob(f"{PARTIAL}*"))


def test_trimming_leaves_what_is_being_loaded(champions, challenger):
    for _ in range(3):
        champions.propose(challenger, worse_than(SHIPPED))
    with champions.reading(1) as folder:
        assert champions.trim(1) == [2]
        assert contents(challenger).keys() < contents(folder).keys()
    assert champions.trim(1) == [1]
    with pytest.raises(CheckpointError, match="no checkpoint 1"), champions.reading(1):
        pass


def test_a_checkpoint_that_is_trimmed_while_someone_waits_to_read_it_is_gone(champions, challenger, monkeypatch):
    champions.propose(challenger, LINEAGE)

    def waits(_file: object, how: int) -> None:
        assert how == fcntl.LOCK_SH
        shutil.rmtree(champions.path(1))

    monkeypatch.setattr(fcntl, "flock", waits)
    with pytest.raises(CheckpointError, match="no checkpoint 1"), champions.reading(1):
        pytest.fail("there is nothing to read")


def test_the_umask_says_who_may_read_a_checkpoint(champions, challenger, tmp_path):
    champions.propose(challenger, LINEAGE)
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "file").touch()
    assert champions.path(1).stat().st_mode == (tmp_path / "plain").stat().st_mode
    for file in (champions.path(1) / "lineage.json", champions.folder / CHAMPION):
        assert file.stat().st_mode == (tmp_path / "plain" / "file").stat().st_mode, file


def test_keeping_none_is_refused(champions):
    with pytest.raises(MedReasonerError, match="holds none"):
        champions.trim(0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        '{"number": 1}',
        '{"number": 2, "since": "", "history": [1]}',
        '{"number": 1, "since": "", "history": []}',
        '{"number": "1", "since": "", "history": ["1"]}',
        '{"number": 1, "since": "", "history": "1"}',
    ],
)
def test_a_damaged_champion_file_is_an_error_and_not_the_reasoner_as_shipped(champions, challenger, text):
    champions.propose(challenger, better_than(SHIPPED))
    (champions.folder / CHAMPION).write_text(text)
    with pytest.raises(CheckpointError, match=CHAMPION):
        champions.champion()


def test_a_champion_whose_folder_is_gone_is_an_error(champions, challenger):
    champions.propose(challenger, better_than(SHIPPED))
    champions.path(1).rename(champions.folder.parent / "taken away")
    with pytest.raises(CheckpointError, match="no checkpoint 1"):
        champions.champion()


def test_a_damaged_lineage_is_an_error_that_names_it(champions, challenger):
    champions.propose(challenger, better_than(SHIPPED))
    (champions.path(1) / "lineage.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"0001/lineage\.json"):
        champions.entries()


def test_a_folder_without_a_checkpoint_is_refused(champions, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        champions.propose(tmp_path / "nothing", LINEAGE)


PROPOSE = """
import os, sys
from pathlib import Path
from medreasoner.reasoner.champions import Champions
from medreasoner.reasoner.lineage import Lineage

registry, challenger, lineage, steps = sys.argv[1:]
left = int(steps)

def count(event, _):
    global left
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod"):
        left -= 1
        if left == 0:
            os._exit(9)  # as SIGKILL ends it

sys.addaudithook(count)
Champions(Path(registry)).propose(Path(challenger), Lineage.from_json(lineage))
"""


def propose_in_a_process(champions, challenger, lineage, steps=0, **options):
    command = [sys.executable, "-c", PROPOSE, champions.folder, challenger, lineage.to_json(), str(steps)]
    return subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True, **options)


def test_a_crash_at_any_step_leaves_the_champion_and_no_half_checkpoint(champions, challenger):
    champions.propose(challenger, better_than(SHIPPED))
    given, steps, ended = contents(challenger), 0, False
    while not ended:
        steps += 1
        was, known = champions.number(), len(champions.entries())
        process = propose_in_a_process(champions, challenger, better_than(was), steps)
        assert process.communicate()[1] == ""
        ended = process.returncode == 0
        new = champions.entries()[known:]
        assert champions.number() in (was, *(lineage.number for lineage in new))
        for lineage in new:
            found = contents(champions.path(lineage.number))
            assert {name: found[name] for name in given} == given
    assert steps > 10
    assert champions.number() == champions.entries()[-1].number
    assert not list(champions.folder.glob(f"{PARTIAL}*"))  # the last one swept away what the others left


def test_a_full_disk_leaves_everything_as_it_was(champions, challenger):
    champions.propose(challenger, better_than(SHIPPED))
    before = contents(champions.folder)
    room = len((challenger / "adapter_model.safetensors").read_bytes()) // 2
    limit = (room, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    process = propose_in_a_process(
        champions, challenger, better_than(1), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    )
    said = process.communicate()[1]
    assert process.returncode == 1
    assert "cannot be changed" in said
    assert "free space" in said
    assert contents(champions.folder) == before
    assert champions.propose(challenger, better_than(1)) == champions.number() == 2


def test_of_many_at_once_each_gets_a_number_and_one_takes_over(champions, challenger):
    running = [propose_in_a_process(champions, challenger, better_than(SHIPPED)) for _ in range(6)]
    for process in running:
        assert process.communicate()[1] == ""
    assert [lineage.number for lineage in champions.entries()] == [1, 2, 3, 4, 5, 6]
    assert [lineage.published for lineage in champions.entries()] == [True] + [False] * 5
    assert champions.number() == 1

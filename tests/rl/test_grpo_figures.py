"""The comparison of runs counts what the runs' cases hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import grpo_umrg_mini
from benchmarks.grpo_umrg_mini import add_points, gain, measured
from rl_training.pack import load_masks, pack
from rl_training.warp import boxes_and_points
from tests.collection import make_collection


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    pack(make_collection(folder / "data"), folder / "packed")
    return folder / "packed"


def answered(row: int, iou: float, **changes: Any) -> dict[str, Any]:
    case = {"row": row, "question": f"Where is {row}?", "name": "optic disc", "named": "optic disc", "iou": iou}
    return {**case, "absent": False, "said_absent": False, "parsed": True, "text": "", **changes}


def missing(row: int, said: bool) -> dict[str, Any]:
    return answered(row, 0.0, absent=True, said_absent=said, named="")


def test_figures_are_means_over_the_cases_they_name(packed: Path) -> None:
    masks = torch.from_numpy(load_masks(packed))
    first, second = boxes_and_points(masks[[2]] > 0)[1][0].tolist()
    exact = f'<think>It.</think><answer>{{"bbox": [1, 2, 30, 40], "points_1": {first}, "points_2": {second}}}</answer>'
    cases = [
        answered(2, 0.8, text=exact),
        answered(3, 0.4, named="optic cup"),
        answered(4, 0.0, said_absent=True, named=""),
        missing(5, True),
        missing(5, False),
    ]
    add_points(cases, masks)
    assert [case["point_dice"] for case in cases[:3]] == [1.0, 0.0, 0.0]
    found = measured(cases)
    assert (found["present"], found["absent"]) == (3, 2)
    means = {name: value["mean"] for name, value in found.items() if isinstance(value, dict)}
    assert means == pytest.approx(
        {
            "box_iou": 0.4,
            "point_dice": 1 / 3,
            "named": 1 / 3,
            "false_absent": 1 / 3,
            "absent_recognised": 0.5,
            "failed": 0.0,
            "box_iou_where_named": 0.8,
        },
        abs=1e-4,
    )


def test_a_gain_is_paired_case_by_case() -> None:
    start = [answered(row, 0.1 * row) for row in range(8)] + [missing(9, True)]
    better = [{**case, "iou": case["iou"] + 0.05} for case in start]
    found = gain(better, start)
    assert found == {"mean": 0.05, "low": 0.05, "high": 0.05, "p": 0.0}, "the same gain everywhere has no spread"
    assert gain(start, start)["p"] == 1.0
    with pytest.raises(AssertionError):
        gain(better[::-1], start)


def test_runs_are_compared_and_drawn(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                     monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    for name, shift in (("start", 0.0), ("soft", 0.1)):
        run = tmp_path / name
        run.mkdir()
        (run / "val.json").write_text(json.dumps([answered(row, 0.3 + shift) for row in range(4)] + [missing(5, True)]))
    log = [
        {"step": n, "reward": n / 20, "rewards/iou/mean": n / 30, "kl": 0.001 * n, "seconds": 2.0} for n in range(20)
    ]
    (tmp_path / "soft" / "log.jsonl").write_text("\n".join(map(json.dumps, log)))
    picture = tmp_path / "curves.png"
    runs = [f"{name}={tmp_path / name}" for name in ("start", "soft")]
    monkeypatch.setattr("sys.argv", ["x", "--packed", str(packed), "--picture", str(picture), *runs])
    grpo_umrg_mini.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["soft_val"]["box_iou_gain"]["mean"] == pytest.approx(0.1)
    assert found["soft_training"] == {"steps": 20, "median_seconds_a_step": 2.0}
    assert picture.stat().st_size > 10_000

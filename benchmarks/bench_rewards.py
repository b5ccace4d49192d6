"""How many completions a second do the rewards score on one core? GRPO scores thousands a step beside its generation.

python -m benchmarks.bench_rewards [--completions 4096] [--repeats 7]   (the last line is JSON)

No two completions are alike, half of them are near the truth, one in eight is malformed, one target in
eight is absent, and what was read is forgotten before every repeat, so that it is parsed anew (`absent` reads only
where the target is absent).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.figures import print_figures
from rl_training.rewards import REWARDS, combine
from rl_training.rewards.reading import read

TARGET = 20_000  # completions a second
SENTENCE = "The rounded bright structure beside the spine is the left kidney, so it is marked here. "


def batch(count: int, characters: int) -> dict[str, Any]:
    """Make TRL's arguments for `count` completions whose reasoning has about so many characters."""
    draw = random.Random(0)
    columns: dict[str, Any] = {"completions": [], "box": [], "points": [], "completion_ids": []}
    for row in range(count):
        x, y, w, h = draw.randint(0, 500), draw.randint(0, 500), draw.randint(20, 300), draw.randint(20, 300)
        off = draw.randint(0, 40) if row % 2 else draw.randint(0, 400)
        answer = {
            "bbox": [x + off, y, x + off + w, y + h],
            "points_1": [x + off + 5, y + 5],
            "points_2": [x + w, y + h],
        }
        closing = "" if row % 8 == 7 else "</answer>"
        reasoning = f"{row}: {SENTENCE * (characters // len(SENTENCE) + 1)}"[:characters]
        columns["completions"].append(
            [{"role": "assistant", "content": f"<think>{reasoning}</think><answer>{json.dumps(answer)}{closing}"}]
        )
        missing = row % 8 == 3
        columns["box"].append(None if missing else [x, y, x + w, y + h])
        columns["points"].append(None if missing else [[x + 6, y + 6], [x + w - 6, y + h - 6]])
        columns["completion_ids"].append([0] * (characters // 4))
    return columns


def rate(reward: Callable[..., list[float]], given: dict[str, Any], repeats: int) -> float:
    """Completions a second, median of the repeats, in processor time: other programs may share the machine."""
    seconds = []
    for _ in range(repeats):
        read.cache_clear()
        start = time.process_time()
        reward(**given)
        seconds.append(time.process_time() - start)
    return len(given["completions"]) / statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--completions", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=7, help="the median is reported")
    args = parser.parse_args()

    mixed = combine(["paper_soft", "absent", "brevity"], [1, 1, 0.25])
    rewards = {name: reward for name, reward in REWARDS.items() if name != "mask_dice"} | {mixed.__name__: mixed}
    found: dict[str, dict[str, int]] = {}
    for characters in (100, 400, 2000):  # the embedded reasoner's length, a 7B model's, a long chain of thought
        given = batch(args.completions, characters)
        found[str(characters)] = {name: round(rate(reward, given, args.repeats)) for name, reward in rewards.items()}
    for name in rewards:
        print(f"{name:34}", *(f"{found[length][name]:>9,}/s at {length} characters" for length in found))
    slowest = {length: min(rates.values()) for length, rates in found.items()}
    print_figures(
        {
            "question": "completions a second on one core without the expert, by characters of reasoning",
            "target": TARGET,
            "slowest": slowest,
            "completions_per_s": found,
        }
    )


if __name__ == "__main__":
    main()

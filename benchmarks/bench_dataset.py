"""What does an example cost, and when does a cache pay? Loading, moving, and MONAI's two caches, side by side.

python -m benchmarks.bench_dataset DATA [--examples 60] [--canvas 336] [--repeats 3]
The last line is JSON; benchmarks/results/dataset.json keeps it for umrg-mini.

DATA is a folder in umrg-mini's layout. Every way runs the same chain over the same examples, turn by turn, in processor
time of one core, because other programs may share the machine; the median of the repeats counts. The first epoch,
which fills a cache, is given apart.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import print_figures
from rl_training.dataset import Collection, Example
from rl_training.dataset.augmentation import in_memory, on_disk, training_chain
from rl_training.dataset.loading import LoadExample


class Anew:
    """The chain without a cache."""

    def __init__(self, examples: Sequence[Example], chain: Callable[[Example], Any]) -> None:
        self.examples, self.chain = examples, chain

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Any:
        return self.chain(self.examples[index])


def epoch(data: Any) -> float:
    """Return milliseconds of processor time an example."""
    start = time.process_time()
    for index in range(len(data)):
        data[index]
    return 1000 * (time.process_time() - start) / len(data)


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--examples", type=int, default=60, help="evenly spread over the training split")
    parser.add_argument("--canvas", type=int, default=336, help="pixels a side")
    parser.add_argument("--repeats", type=int, default=3, help="epochs of each way; the median is reported")
    args = parser.parse_args()

    collection = Collection(args.data, "train")
    count = min(args.examples, len(collection))
    examples = [collection[i * len(collection) // count] for i in range(count)]
    with tempfile.TemporaryDirectory() as cache:
        start = time.process_time()
        kept = in_memory(examples, training_chain(args.canvas))
        filled = {"memory": 1000 * (time.process_time() - start) / count}
        stored = on_disk(examples, training_chain(args.canvas), Path(cache))
        filled["disk"] = epoch(stored)
        ways = {
            "load only": Anew(examples, LoadExample(args.canvas)),
            "anew": Anew(examples, training_chain(args.canvas)),
            "memory": kept,
            "disk": stored,
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(args.repeats):
            for name, data in ways.items():
                taken[name].append(epoch(data))
        disk_bytes = folder_bytes(Path(cache)) / count
    medians = {name: statistics.median(values) for name, values in taken.items()}
    for name, milliseconds in medians.items():
        print(
            f"{name:10} {milliseconds:7.1f} ms an example, {medians['anew'] / milliseconds:5.2f} times as fast as anew"
        )
    print_figures(
        {
            "question": "processor time of an example through the training chain, by where loading is kept",
            "examples": count,
            "ms_an_example": {name: round(value, 2) for name, value in medians.items()},
            "times_as_fast_as_anew": {name: round(medians["anew"] / value, 2) for name, value in medians.items()},
            "first_epoch_ms": {name: round(value, 2) for name, value in filled.items()},
            "disk_bytes_an_example": round(disk_bytes),
        }
    )


if __name__ == "__main__":
    main()

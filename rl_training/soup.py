"""Average what several runs changed into one adapter: runs from the same start, with different seeds.

python -m rl_training.soup OUT ADAPTER ADAPTER ... [--keep 0.9]

Runs of reinforcement learning move the weights in a common direction and each in one of its own; the mean keeps the
first and loses most of the second, at no cost to an answer (model soups, Wortsman et al., ICML 2022,
https://arxiv.org/abs/2203.05482). The mean of n adapters of rank r has rank n r; it is cut to the smallest rank that
keeps the asked share of its squared norm, by the singular values (Eckart and Young, 1936).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from medreasoner.console import errors_for_people, out
from medreasoner.contract.errors import CheckpointError
from medreasoner.reasoner.adapter import CONFIG, WEIGHTS, adapter_parts, read_adapter

Change = tuple[torch.Tensor, torch.Tensor]  # down (rank, inputs) and up (outputs, rank)


def mean_change(changes: list[Change]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the singular value decomposition of the mean of low-rank matrices ``up @ down``.

    Args:
        changes: one of each run; their ranks may differ.

    Returns:
        left (outputs, n), singular values (n,) falling, right (n, inputs); n is the sum of the ranks, at most the
        smaller side.
    """
    down = torch.cat([change[0] for change in changes]).double()
    up = torch.cat([change[1] for change in changes], 1).double() / len(changes)
    left, upper = torch.linalg.qr(up)
    right, lower = torch.linalg.qr(down.T)
    u, values, v = torch.linalg.svd(upper @ lower.T, full_matrices=False)
    return left @ u, values, v @ right.T


def rank_keeping(values: list[torch.Tensor], share: float) -> tuple[int, float]:
    """Return the smallest rank at which all matrices together keep a share of their squared norm, and what it keeps."""
    total = sum(float((v**2).sum()) for v in values)
    for rank in range(1, max(len(v) for v in values)):
        kept = sum(float((v[:rank] ** 2).sum()) for v in values)
        if kept >= share * total:
            return rank, kept / total if total else 1.0
    return max(len(v) for v in values), 1.0


def _cut(left: torch.Tensor, values: torch.Tensor, right: torch.Tensor, rank: int) -> Change:
    """Return down and up of a rank, which zeros fill where the matrix has fewer singular values, as float16."""
    roots = values[:rank].sqrt()
    missing = rank - len(roots)
    down = torch.nn.functional.pad(roots[:, None] * right[:rank], (0, 0, 0, missing))
    return down.half(), torch.nn.functional.pad(left[:, :rank] * roots, (0, missing)).half()


def make_soup(adapters: list[Path], output: Path, keep: float = 0.9) -> tuple[int, float]:
    """Write the mean of adapters as one adapter of float16 matrices; returns its rank and the share that it keeps.

    Raises:
        CheckpointError: an adapter cannot be read, or they change different weights, or `output` is already there.
    """
    if output.exists():
        raise CheckpointError(f"{output} is already there", "name a new folder, or remove it first")
    read = [read_adapter(folder) for folder in adapters]
    shapes = [{name: (up.shape[0], down.shape[1]) for name, (down, up) in some.items()} for some in read]
    for folder, some in zip(adapters[1:], shapes[1:], strict=True):
        if some != shapes[0]:
            raise CheckpointError(f"{folder} and {adapters[0]} change different weights", "average runs of one start")
    parts = {name: mean_change([some[name] for some in read]) for name in read[0]}
    rank, kept = rank_keeping([values for _, values, _ in parts.values()], keep)
    mean = {name: _cut(*decomposed, rank) for name, decomposed in parts.items()}
    output.mkdir(parents=True)
    save_file(adapter_parts(mean), output / WEIGHTS, {"format": "pt"})
    config = json.loads((adapters[0] / CONFIG).read_text(encoding="utf-8"))
    config |= {"r": rank, "lora_alpha": rank, "use_rslora": False}
    (output / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return rank, kept


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="a folder that does not exist yet")
    parser.add_argument("adapters", type=Path, nargs="+", help="folders with an adapter each")
    parser.add_argument("--keep", type=float, default=0.9, help="share of the squared norm that the rank keeps")
    given = parser.parse_args(argv)
    with errors_for_people():
        rank, kept = make_soup(given.adapters, given.output, given.keep)
        out.print(f"{given.output}: rank {rank} keeps {kept:.3f} of the mean of {len(given.adapters)}", markup=False)


if __name__ == "__main__":
    main()

"""Cut a collection into train, val and test, patient by patient."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from medreasoner.evaluation.questions import SPLITS
from rl_training.dataset.example import DataError

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def cut(
    groups: Sequence[str], given: Sequence[str], shares: Mapping[str, float] = SHARES, seed: int = 0
) -> dict[str, str]:
    """Give every group its split.

    Groups stand in an order that depends on their names and the seed alone. Those without a given split are dealt to
    the split that lacks most of its share of examples. Where all splits are given and none is val, a part of
    train becomes val, so that nothing is ever chosen by the test split.

    Args:
        groups: of each example.
        given: split of each example, or an empty string.
        shares: of the examples, by split; they sum to 1.
        seed: another one gives another cut.

    Returns:
        group -> split.

    Raises:
        DataError: a group is in two given splits, the shares are none, or there are fewer groups than splits to fill.
    """
    if shares.keys() != set(SPLITS) or min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise DataError(f"the shares {dict(shares)} are not those of three splits", "give three shares that sum to 1")
    splits: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for group, split in zip(groups, given, strict=True):
        sizes[group] = sizes.get(group, 0) + 1
        if split and splits.setdefault(group, split) != split:
            raise DataError(
                f"patient or group {group!r} is in {splits[group]} and in {split}", "put all its rows into one split"
            )
    order = sorted(sizes, key=lambda group: hashlib.sha256(f"{seed} {group}".encode()).digest())
    if free := [group for group in order if group not in splits]:
        return _deal(free, sizes, splits, shares)
    if "val" not in splits.values() and shares["val"] > 0:
        train = [group for group in order if splits[group] == "train"]
        kept = {group: split for group, split in splits.items() if split == "test"}
        return _deal(train, sizes, kept, {**shares, "test": 0.0})
    return splits


def _deal(
    free: list[str], sizes: Mapping[str, int], fixed: Mapping[str, str], shares: Mapping[str, float]
) -> dict[str, str]:
    """Deal groups one by one to the split that lacks most of its share; the last ones go to splits still empty."""
    wanted = [split for split in SPLITS if shares[split] > 0]
    have = {split: sum(sizes[g] for g, s in fixed.items() if s == split) for split in wanted}
    total = sum(have.values()) + sum(sizes[group] for group in free)
    splits = dict(fixed)
    for index, group in enumerate(free):
        empty = [split for split in wanted if not have[split]]
        left = len(free) - index
        if len(empty) > left:
            raise DataError(
                f"{len(free)} patients or groups cannot fill the splits {', '.join(wanted)}",
                "add patients, set a share to 0, or check that the patient column tells them apart",
            )
        scale = total / sum(shares[split] for split in wanted)
        split = max(empty if len(empty) == left else wanted, key=lambda s: shares[s] * scale - have[s])
        splits[group] = split
        have[split] += sizes[group]
    return splits

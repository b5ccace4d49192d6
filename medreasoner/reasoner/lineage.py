"""Where a checkpoint trained here comes from, how it compares, and the rule by which it may take over.

Standard library only, so that a page or a command can read hundreds of them without loading a model.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from medreasoner.contract.checks import checked_moment, read_object
from medreasoner.contract.errors import MedReasonerError

Metrics = dict[str, Any]

_SHARES = {"box_iou": False, "false_absent": False, "dice": True, "absent_recognised": True}  # name -> may be null


@dataclass(frozen=True)
class Lineage:
    """What lies as lineage.json beside a checkpoint.

    Metrics are of one hold-out and in [0, 1]: ``n`` cases, mean ``box_iou``, ``false_absent`` (share of present targets
    called absent); ``dice`` and ``absent_recognised``, null where they could not be measured; ``by_modality``, from a
    modality to an object such as ``{"n": 12, "box_iou": 0.61, "failures": 2}``.

    Attributes:
        number: its folder's name in the registry; `Champions.propose` sets it.
        made_at: ISO 8601, UTC.
        parent: SHA-256 of the reasoner it was trained from and compared with.
        parent_number: that one's number; 0 is the reasoner as shipped.
        data_sha256: of the labels it was trained with.
        labels: how many these were.
        configuration: of the training.
        champion: metrics of the parent.
        challenger: metrics of this checkpoint.
        difference: challenger less champion, box IoU case by case: ``mean``, and ``low`` and ``high``, its 95 % paired
            bootstrap interval.
        published: whether `not_worse` let it take over; champion.json says which one answers now.
        reason: one sentence why.
    """

    made_at: str
    parent: str
    parent_number: int
    data_sha256: str
    labels: int
    champion: Metrics
    challenger: Metrics
    difference: dict[str, float]
    configuration: dict[str, Any] = field(default_factory=dict)
    number: int = 0
    published: bool = False
    reason: str = ""

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            negative = isinstance(value, int) and value < 0
            if type(value) is not kind or negative:  # true is an int too
                raise MedReasonerError(f"{name} is {str(value)[:40]!r}", f"a lineage holds {_CALLED[kind]} there")
        checked_moment(self.made_at, "made_at")
        for name in ("champion", "challenger"):
            _check_metrics(name, getattr(self, name))
        if self.difference.keys() != {"mean", "low", "high"} or not all(map(_finite, self.difference.values())):
            raise MedReasonerError(f"the difference is {str(self.difference)[:80]}", "give mean, low and high")

    @classmethod
    def from_json(cls, text: str) -> Lineage:
        """Read and check; raises `MedReasonerError` for a field that is unknown, missing or of another kind."""
        return cls(**read_object(text, cls))

    def to_json(self) -> str:
        """Indented JSON that people can read too."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


class Rule(NamedTuple):
    """How much worse is still not worse.

    Attributes:
        margin: of box IoU, that the low end of the difference's interval may lie below 0.
        false_absent: how much more of the present targets may be called absent.
        cases: that the hold-out must have.
        absent_recognised: how much less of the absent targets may be recognised, where the hold-out has any.
    """

    margin: float = 0.01
    false_absent: float = 0.02
    cases: int = 10
    absent_recognised: float = 0.1


RULE = Rule()


class Verdict(NamedTuple):
    """Whether a challenger takes over, and one sentence why."""

    published: bool
    reason: str


def not_worse(lineage: Lineage, rule: Rule = RULE) -> Verdict:
    """Decide whether a challenger takes over.

    It does when all of this holds: the hold-out has at least `rule.cases` cases; the low end of the 95 % paired
    bootstrap interval of the difference in box IoU is at least ``-rule.margin``; the share of present targets that it
    calls absent is at most `rule.false_absent` above the champion's; the share of absent targets that it recognises is
    at most `rule.absent_recognised` below. (Non-inferiority with a margin: Piaggio et al., JAMA 2012,
    doi:10.1001/jama.2012.87802.)
    """
    cases = min(lineage.champion["n"], lineage.challenger["n"])
    low, high, mean = (lineage.difference[name] for name in ("low", "high", "mean"))
    before, after = lineage.champion["false_absent"], lineage.challenger["false_absent"]
    absent = f"false absent {before:.3f} to {after:.3f}"
    known, recognised = lineage.champion.get("absent_recognised"), lineage.challenger.get("absent_recognised")
    lost = 0.0
    if known is not None and recognised is not None:
        lost, absent = known - recognised, f"{absent}, absent recognised {known:.3f} to {recognised:.3f}"
    figures = f"box IoU {mean:+.3f} ({low:+.3f} to {high:+.3f}), {absent}, {cases} cases"
    if cases < rule.cases:
        return Verdict(False, f"the hold-out has {cases} cases, and {rule.cases} are needed")
    if low < -rule.margin:
        return Verdict(False, f"box IoU may have fallen by more than {rule.margin:g}: {figures}")
    if after - before > rule.false_absent + 1e-9:  # of shares such as 2/50 - 1/50
        return Verdict(False, f"it calls more than {rule.false_absent:g} more of the present targets absent: {figures}")
    if lost > rule.absent_recognised + 1e-9:
        return Verdict(False, f"it recognises more than {rule.absent_recognised:g} less of the absent ones: {figures}")
    return Verdict(True, f"not worse than what it was trained from: {figures}")


_KINDS: dict[str, type] = {
    **dict.fromkeys(("made_at", "parent", "data_sha256", "reason"), str),
    **dict.fromkeys(("number", "parent_number", "labels"), int),
    **dict.fromkeys(("configuration", "champion", "challenger", "difference"), dict),
    "published": bool,
}
_CALLED = {str: "a text", int: "a whole number from 0 on", dict: "an object", bool: "true or false"}


def _check_metrics(name: str, metrics: Metrics) -> None:
    cases, by_modality = metrics.get("n"), metrics.get("by_modality", {})
    wrong = metrics.keys() - {"n", "by_modality", *_SHARES}
    wrong |= {share for share, optional in _SHARES.items() if not _is_share(metrics.get(share), optional)}
    if not isinstance(cases, int) or isinstance(cases, bool) or cases < 0:
        wrong.add("n")
    if not isinstance(by_modality, dict) or not all(map(_is_count_of_failures, by_modality.values())):
        wrong.add("by_modality")
    if wrong:
        raise MedReasonerError(
            f"the metrics of the {name} are not usable: {', '.join(sorted(map(str, wrong)))[:80]}",
            f"give n, by_modality, and shares from 0 to 1: {', '.join(_SHARES)}",
        )


def _is_count_of_failures(found: Any) -> bool:
    counts = [found.get(key) for key in ("n", "failures")] if isinstance(found, dict) else [None]
    return all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in counts)


def _is_share(value: Any, optional: bool) -> bool:
    return optional if value is None else _finite(value) and 0 <= value <= 1


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

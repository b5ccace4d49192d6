"""The numbers on the page, and nothing else: equal figures make an equal page, so they are what it is cached by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from itertools import accumulate

BINS = 10  # of the disagreement, each 0.1 wide; the last holds 1 too


@dataclass(frozen=True)
class Checkpoint:
    """One local checkpoint with its figures on the hold-out. Overlaps are means in [0, 1]."""

    number: int  # 0: the reasoner as shipped
    cases: int  # in the hold-out
    box_iou: float
    dice: float | None
    reason: str
    made: str = ""  # day, ISO 8601; empty for the shipped one
    labels: int = 0
    difference: tuple[float, float, float] | None = None  # to the champion of its day: box IoU's mean, low, high
    published: bool = True


@dataclass(frozen=True)
class Modality:
    """How often the champion's box misses the target on the hold-out, for one kind of image."""

    name: str
    cases: int
    failures: int

    @property
    def share(self) -> float:
        """Failures of all cases, in [0, 1]."""
        return self.failures / self.cases if self.cases else 0.0


@dataclass(frozen=True)
class NextCase:
    """An image without a label whose answers disagree most, among boxes of like size."""

    image: str
    question: str
    disagreement: float


@dataclass(frozen=True)
class Training:
    """What the newest run says of itself."""

    status: str
    progress: float  # 0 to 1
    step: int
    of: int
    message: str


@dataclass(frozen=True)
class Figures:
    """Everything that the page shows."""

    images: int
    days: tuple[tuple[date, int], ...] = ()  # labels saved on each day that has any, oldest first
    checkpoints: tuple[Checkpoint, ...] = ()
    champion: int = 0
    trouble: str = ""  # why the champion does not answer yet
    modalities: tuple[Modality, ...] = ()
    bins: tuple[int, ...] = ()  # scored images by disagreement; empty: none is scored
    next_cases: tuple[NextCase, ...] = ()
    training: Training | None = None

    @property
    def labels(self) -> int:
        """All labels."""
        return sum(count for _, count in self.days)

    @property
    def scored(self) -> int:
        """Images whose disagreement is known."""
        return sum(self.bins)

    @property
    def growth(self) -> tuple[tuple[date, int], ...]:
        """How many labels there were at the end of each day that brought some."""
        return tuple(zip((day for day, _ in self.days), accumulate(n for _, n in self.days), strict=True))

    @property
    def in_service(self) -> Checkpoint | None:
        """The champion's row; None where nothing was ever measured."""
        return next((c for c in self.checkpoints if c.number == self.champion), None)


def binned(scores: list[float]) -> tuple[int, ...]:
    """Count scores in [0, 1] by tenths; no scores make no bins."""
    counts = [0] * BINS
    for score in scores:
        counts[min(BINS - 1, int(score * BINS))] += 1
    return tuple(counts) if scores else ()

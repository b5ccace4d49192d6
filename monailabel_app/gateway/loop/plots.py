"""The page's plots, drawn by matplotlib as SVG: each once for light and once for dark."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from monailabel_app.gateway.loop.figures import BINS, Checkpoint, Modality

_INCHES = (4.7, 2.5)  # about its width on the page at 96 pixels an inch, so that 9 pt stay readable on a phone too
_SETTINGS: Any = {
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text: small files, the reader's own font
    "text.parse_math": False,  # a file may call its modality $x$
    "svg.hashsalt": "medreasoner",  # equal figures make equal files
}
_drawing = threading.Lock()  # matplotlib's settings belong to the whole process


@dataclass(frozen=True)
class Theme:
    """Colours against one background; contrast of ink, blue and orange to it is above 4.5."""

    ink: str
    faint: str
    blue: str
    orange: str


LIGHT = Theme(ink="#3d4650", faint="#dfe3e8", blue="#1f66d1", orange="#b45309")
DARK = Theme(ink="#b6c0cb", faint="#343b44", blue="#6cb0ff", orange="#ffab5e")


@dataclass(frozen=True)
class Plot:
    """One plot in both themes, as SVG."""

    light: bytes
    dark: bytes


@lru_cache(maxsize=4)
def labels_over_time(growth: tuple[tuple[date, int], ...]) -> Plot:
    """A step line of all labels by day; (day, labels at its end), oldest first."""

    def draw(axes: Axes, theme: Theme) -> None:
        days, counts = zip(*growth, strict=True)
        days, counts = (days[0] - timedelta(1), *days), (0, *counts)  # it began with none
        axes.fill_between(days, counts, step="post", color=theme.blue, alpha=0.15, linewidth=0)
        axes.step(days, counts, where="post", color=theme.blue, linewidth=2)
        axes.plot(days[-1], counts[-1], "o", color=theme.blue)
        locator = AutoDateLocator(minticks=2, maxticks=5)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_ylim(0, counts[-1] * 1.12)

    return _in_both(draw)


@lru_cache(maxsize=4)
def overlap_by_checkpoint(checkpoints: tuple[Checkpoint, ...]) -> Plot:
    """Box IoU and Dice on the hold-out; a checkpoint that was refused is a hollow mark off the line."""

    def draw(axes: Axes, theme: Theme) -> None:
        for name, colour in (("box_iou", theme.blue), ("dice", theme.orange)):
            known = [(c, getattr(c, name)) for c in checkpoints if getattr(c, name) is not None]
            served = [(c.number, value) for c, value in known if c.published]
            refused = [(c.number, value) for c, value in known if not c.published]
            if served:
                axes.plot(*zip(*served, strict=True), "o-", color=colour, linewidth=2)
            if refused:
                axes.plot(*zip(*refused, strict=True), "o", color=colour, fillstyle="none", markeredgewidth=1.5)
            if known:
                label = "box IoU" if name == "box_iou" else "Dice"
                axes.annotate(
                    label,
                    (known[-1][0].number, known[-1][1]),
                    (9, 0),
                    textcoords="offset points",
                    va="center",
                    color=colour,
                    annotation_clip=False,
                )
        axes.set_xlabel("checkpoint (0: as shipped)", color=theme.ink)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.margins(x=0.06, y=0.25)

    return _in_both(draw)


@lru_cache(maxsize=4)
def disagreement(bins: tuple[int, ...]) -> Plot:
    """How many images have a disagreement in each tenth of [0, 1]."""

    def draw(axes: Axes, theme: Theme) -> None:
        left = [n / BINS for n in range(BINS)]
        axes.bar(left, bins, width=0.088, align="edge", color=theme.blue)
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0, all agree", "0.25", "0.5", "0.75", "1"])
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))

    return _in_both(draw)


@lru_cache(maxsize=4)
def failures_by_modality(modalities: tuple[Modality, ...]) -> Plot:
    """The share of failures for each modality, the worst on top."""

    def draw(axes: Axes, theme: Theme) -> None:
        ordered = sorted(modalities, key=lambda m: m.share)
        names = [m.name for m in ordered]
        axes.barh(names, [m.share for m in ordered], height=0.6, color=theme.orange)
        for place, modality in enumerate(ordered):
            told = f"{modality.failures} of {modality.cases}"
            axes.annotate(
                told, (modality.share, place), (6, 0), textcoords="offset points", va="center", color=theme.ink
            )
        axes.set_xlim(0, max(0.25, 1.3 * max(m.share for m in ordered)))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x", color=theme.faint, linewidth=0.8)

    return _in_both(draw)


def _in_both(draw: Callable[[Axes, Theme], None]) -> Plot:
    return Plot(_svg(draw, LIGHT), _svg(draw, DARK))


def _svg(draw: Callable[[Axes, Theme], None], theme: Theme) -> bytes:
    with _drawing, matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=_INCHES, layout="constrained")
        axes = figure.add_subplot()
        axes.set_axisbelow(True)
        axes.grid(visible=True, axis="y", color=theme.faint, linewidth=0.8)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(theme.ink)
        axes.tick_params(colors=theme.ink, left=False, length=3)
        draw(axes, theme)
        axes.xaxis.get_offset_text().set_color(theme.ink)
        out = io.BytesIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return out.getvalue()

"""One training example, whatever collection it comes from.

Box and points are in picture pixels (docs/coordinates.md): corner origin, x right, y down, the box half-open. A point
is the corner of the pixel that it names, in whole pixels, as umrg-mini, U-MRG-14K and the answers have it; the pixel's
centre is half a pixel further.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from medreasoner.contract.answer import Box, Point
from medreasoner.contract.errors import MedReasonerError
from medreasoner.evaluation.questions import Entry
from medreasoner.imaging import open_image
from medreasoner.picture import Picture

Points = tuple[Point, Point]


class DataError(MedReasonerError):
    """A row or file of a collection cannot be used; the text names it."""


@dataclass(frozen=True)
class View:
    """Which slice of a file is meant, as `StoredImage.picture` takes it; the defaults suit a file with one image."""

    axis: str | None = None
    slice_index: int | None = None
    window: tuple[float, float] | None = None  # centre and width, in the file's units


@dataclass(frozen=True)
class Example:
    """What is asked about one picture, and the truth.

    Attributes:
        id: unique in its collection.
        where: names the row for people, such as "samples.jsonl line 12"; every error about the row starts with it.
        image: a file or the folder of a DICOM series, or the bytes of a PNG or JPEG.
        questions: the target's name (may be empty), a sentence on its looks (may be empty) and all wordings by style,
            those that this example's split may use.
        mask: a file that covers `image`, or the bytes of a PNG; None where the target is absent or only box and points
            are known.
        box: tight and half-open; None where the target is absent or the mask has not been read yet.
        points: two pixels on the target; None with `box`.
        group: the patient, or the closest thing known; a group is never in two splits.
        split: train, val or test; empty until `rl_training.prepare` has cut the collection.
        modality: DICOM code (PS3.3 C.7.3.1.1.1), or empty.
        laterality: left or right where the target is one of a pair, from the patient's point of view; else empty.
        label: value of the target in `mask`; None: every value but 0.
        dispersed: in many pieces (vessels, nuclei), so that one box and two points say little; None: judge by the mask.
        shared_questions: the questions are those of questions.json, not this row's own.
        kind: kind of image in words, such as "chest X-ray".
    """

    id: str
    where: str
    image: Path | bytes
    questions: Entry
    absent: bool = False
    mask: Path | bytes | None = None
    box: Box | None = None
    points: Points | None = None
    group: str = ""
    split: str = ""
    source: str = ""
    licence: str = ""
    modality: str = ""
    laterality: str = ""
    label: int | None = None
    view: View = View()
    dispersed: bool | None = None
    shared_questions: bool = False
    kind: str = ""

    @property
    def target(self) -> str:
        """Name of what is looked for; of what is missing where it is absent; may be empty."""
        return self.questions.name

    def picture(self) -> Picture:
        """Cut the picture that the questions are about.

        Raises:
            DataError: the image cannot be read, or has no such slice.
        """
        try:
            if isinstance(self.image, bytes):
                return Picture(_pixels(self.image), modality=self.modality)
            picture = open_image(self.image).picture(self.view.axis, self.view.slice_index, self.view.window)
        except MedReasonerError as error:
            raise DataError(f"{self.where}: {error.what}", error.hint) from error
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{self.where}: the image cannot be read: {error}", "repair the file or the row") from error
        return replace(picture, modality=self.modality or picture.modality)


class Reader(Protocol):
    """A collection: as many examples as it has rows, each made when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example:
        """Return an example; raises `DataError` naming the row that cannot be used, `IndexError` beyond the end."""
        ...


def examples_of(reader: Reader, split: str = "") -> Iterator[Example]:
    """Yield a reader's examples in order, all or those of one split; raises `DataError` at the first bad row."""
    for index in range(len(reader)):
        example = reader[index]
        if split in ("", example.split):
            yield example


def typed_place(box: Any, points: Any, where: str) -> tuple[Box, Points]:
    """Type four and twice two numbers; raises `DataError` for anything else."""
    try:
        x_min, y_min, x_max, y_max = (float(v) for v in box)
        (x1, y1), (x2, y2) = points
        place = Box(x_min, y_min, x_max, y_max), (Point(float(x1), float(y1)), Point(float(x2), float(y2)))
        if not np.isfinite([x_min, y_min, x_max, y_max, *(v for p in place[1] for v in (p.x, p.y))]).all():
            raise ValueError("a number is not finite")
    except (TypeError, ValueError, MedReasonerError) as error:
        what = error.what if isinstance(error, MedReasonerError) else str(error)
        raise DataError(
            f"{where}: box {str(box)[:80]} and points {str(points)[:80]} cannot be used: {what}",
            "give box [x_min, y_min, x_max, y_max] and points [[x, y], [x, y]] in pixels, or a mask",
        ) from error
    return place


def _pixels(encoded: bytes) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 of an encoded 8-bit picture, upright."""
    with Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG")) as file:
        if file.mode in ("I", "F") or file.mode.startswith("I;"):
            raise ValueError(f"it has {file.mode} pixels, whose window is not known; save it with 8 bits")
        return np.asarray(ImageOps.exif_transpose(file).convert("RGB"))

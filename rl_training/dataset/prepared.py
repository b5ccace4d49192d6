"""Write a collection as one prepared folder in umrg-mini's layout: all of it, or nothing.

    samples.jsonl     a target a line: umrg-mini's keys and `questions` (style -> wordings), `absent`, `appearance`,
                      `modality_code`, and `kind` where source and modality do not tell it
    images/HASH.png   what the reasoner sees: windowed, square pixels, 8 bits, no patient data beside it
    masks/HASH.png    0 and 255, all 0 where the target is absent
    questions.json    questions that rows share, and absent_questions.json; empty where rows have their own
    DATA_CARD.md      counts, sources, licences, checks; data_card.json is the same for programs

Files are named by their content, so the SHA-256 of samples.jsonl stands for the whole folder.
"""

from __future__ import annotations

import errno
import hashlib
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medreasoner import durable
from medreasoner.contract.answer import Box
from medreasoner.evaluation.kinds import kind_of, modality_word
from rl_training.dataset.example import DataError, Example, Points
from rl_training.dataset.placing import is_dispersed


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder for images and masks that becomes `out` when the block ends, and vanishes when it fails.

    Raises:
        DataError: `out` exists already, cannot be made, or the disk is full.
    """
    if out.exists():
        raise DataError(f"{out} exists already", "name a new folder: prepared collections are not changed")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with durable.new_folder(out) as temporary:
            (temporary / "images").mkdir()
            (temporary / "masks").mkdir()
            yield temporary
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise DataError(
            f"{out} cannot be written: {'the disk is full' if full else error.strerror or error}",
            "nothing of it was left behind; free some space or choose another folder",
        ) from error


def write_png(folder: Path, pixels: NDArray[np.uint8]) -> str:
    """Write a picture or mask under the hash of its file; returns ``images/HASH.png`` of the folder ``images``."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=4)
    encoded = stream.getvalue()
    path = folder / f"{hashlib.sha256(encoded).hexdigest()[:24]}.png"
    if not path.exists():
        path.write_bytes(encoded)
    return f"{folder.name}/{path.name}"


def row_of(
    example: Example, image: str, mask: str | None, seen: NDArray[np.bool_] | None, place: tuple[Box, Points] | None
) -> dict[str, Any]:
    """Return an example's line of samples.jsonl, without the size of its picture, `group` and `split`."""
    box, points = place if place is not None else (None, None)
    dispersed = example.dispersed
    if dispersed is None:
        dispersed = seen is not None and is_dispersed(seen)
    own = {style: wordings for style, wordings in example.questions.by_style.items() if wordings}
    row = {
        "id": example.id,
        "image": image,
        "mask": mask,
        "absent": example.absent,
        "modality": modality_word(example.modality),
        "modality_code": example.modality,
        "source": example.source,
        "licence": example.licence,
        "category": example.target,
        "question_key": None if example.absent else example.target,
        "laterality": example.laterality or None,
        "bbox": None if box is None else _outwards(box),
        "points": None if points is None else [[math.floor(p.x), math.floor(p.y)] for p in points],
        "dispersed": dispersed,
        "area_frac": None if seen is None else round(float(seen.mean()), 6),
    }
    if example.kind and example.kind != kind_of(row):
        row["kind"] = example.kind
    return row if example.shared_questions else {**row, "questions": own, "appearance": example.questions.appearance}


def _outwards(box: Box) -> list[int]:
    return [math.floor(box.x_min), math.floor(box.y_min), math.ceil(box.x_max), math.ceil(box.y_max)]

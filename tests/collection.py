"""A tiny labelled collection in umrg-mini's layout, made from scikit-image's fundus photograph, for tests."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

DISC = (120, 565, 290, 765)  # optic disc of retina.jpg, read off by eye
STYLES = ("implicit", "visual", "clinical", "terse", "explicit")


def retina() -> Image.Image:
    """Return the photograph, 1411 x 1411."""
    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    return Image.open(Path(spec.origin).parent / "data" / "retina.jpg").convert("RGB")


def make_collection(folder: Path) -> Path:
    """Write six pictures (four for training, one each for validation and test) with masks and questions."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows = []
    for number, split in enumerate(["train"] * 4 + ["val", "test"]):
        left, top = 40 + 4 * number, 420 + 4 * number
        crop = (left, top, left + 480, top + 480)
        box = [DISC[0] - left, DISC[1] - top, DISC[2] - left, DISC[3] - top]
        retina().crop(crop).save(folder / "images" / f"{number}.png")
        mask = Image.new("L", (480, 480))
        ImageDraw.Draw(mask).ellipse([box[0], box[1], box[2] - 1, box[3] - 1], fill=255)
        mask.save(folder / "masks" / f"{number}.png")
        rows.append(sample(number, split, box, float((np.asarray(mask) > 0).mean())))
    (folder / "samples.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    questions = {style: [f"Where is the optic disc, {style} wording {n}?" for n in range(10)] for style in STYLES}
    entry = {**questions, "appearance": ["On a fundus photograph it is bright."], "synonyms": [], "clues": []}
    (folder / "questions.json").write_text(json.dumps({"optic disc": entry}))
    asked = [f"Which gallstone number {n} hurts?" for n in range(10)]
    (folder / "absent_questions.json").write_text(json.dumps([{"modality": "fundus", "question": q} for q in asked]))
    return folder


def sample(number: int, split: str, box: list[int], share: float) -> dict[str, Any]:
    """Return one row of samples.jsonl."""
    centre_x, centre_y = (box[0] + box[2]) // 2, (box[1] + box[3]) // 2
    return {
        "id": f"made/{number}",
        "image": f"images/{number}.png",
        "mask": f"masks/{number}.png",
        "modality": "fundus",
        "source": "drishti_gs",
        "category": "optic disc",
        "question_key": "optic disc",
        "laterality": None,
        "width": 480,
        "height": 480,
        "bbox": box,
        "points": [[centre_x, centre_y - 40], [centre_x, centre_y + 40]],
        "split": split,
        "group": f"made:{number}",
        "area_frac": share,
        "n_components": 1,
        "dispersed": False,
        "augmented": False,
    }

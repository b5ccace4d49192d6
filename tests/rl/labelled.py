"""A server's folder of studies with saved labels: crops of a fundus photograph, each of a patient of its own."""

from __future__ import annotations

import io
import json
from collections.abc import Container, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, ImageDraw

from medreasoner.contract.label import LabelRecord
from monailabel_app.lib.datastore.label_shelf import LabelShelf
from rl_training.dataset.saved_labels import SHELF
from tests.collection import DISC, retina

SIDE = 300  # pixels of a crop
SAID = {  # as the reasoner words an answer, by whether the target is absent
    False: "This is a fundus photograph. The question points to the {}. It is bright. Here it is medium and lies in "
    "the middle central part of the image.",
    True: "This is a fundus photograph. The question asks about the {}, which cannot be seen on such an image.",
}
LOOSE = {"margin": 1.0, "false_absent": 1.0, "cases": 2}  # whatever comes out takes over


def save_labels(studies: Path, numbers: range, misplaced: Container[int] = ()) -> Path:
    """Add crops and labels of the optic disc, every fifth of them of an absent gallbladder; returns the folder.

    The masks of `misplaced` lie in the opposite corner.
    """
    studies.mkdir(exist_ok=True)
    shelf, photograph = LabelShelf(studies / SHELF), retina()
    for number in numbers:
        left, top = 20 + 3 * number, 500 + 2 * number
        photograph.crop((left, top, left + SIDE, top + SIDE)).save(studies / f"{number:02d}.png")
        absent = number % 5 == 4
        mask = Image.new("L", (SIDE, SIDE))
        if not absent:
            box = (DISC[0] - left, DISC[1] - top, DISC[2] - left - 1, DISC[3] - top - 1)
            ImageDraw.Draw(mask).ellipse((200, 200, 290, 290) if number in misplaced else box, fill=255)
        target = "gallbladder" if absent else "optic disc"
        said = SAID[absent].format(target)
        record = LabelRecord(f"Where is the {target}?", absent, "stored", 0, said, target)
        content = io.BytesIO()
        mask.save(content, "PNG")
        shelf.put(f"{number:02d}", "final", {"mask.png": content.getvalue()}, {"medreasoner": asdict(record)})
    return studies


def write_local(
    path: Path,
    reasoner: str,
    rule: dict[str, float] | None = None,
    grpo: dict[str, Any] | None = None,
    launch: Sequence[str] = (),
    **finetune: Any,
) -> Path:
    """Write a small configuration of a local run: a few updates at a rate at which a tiny model learns."""
    both = {
        "reasoner": reasoner,
        "name": "tiny-local",
        "lora": {"rank": 4, "alpha": 8},
        "micro_batch": 2,
        "max_updates": 4,
        "learning_rate": 1e-2,
        "save_every": 2,
        "precision": "fp32",
        "recompute": False,
    }
    stages = {"finetune": {**both, "batch": 2, **finetune}, **({"grpo": {**both, **grpo}} if grpo else {})}
    run = {"launch": list(launch), "holdout": 0.3, "rule": rule or LOOSE, "device": "cpu"}
    path.write_text(yaml.safe_dump({**stages, **run}))
    return path


def state_of(run: Path) -> dict[str, Any]:
    """Return what a run says of itself."""
    found: dict[str, Any] = json.loads((run / "state.json").read_text(encoding="utf-8"))
    return found

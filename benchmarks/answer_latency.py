"""How long does an answer take on this machine, and what do guided decoding, drafts and caches bring?

python -m benchmarks.answer_latency [--repeats 3] > results/answer_latency.json   (the last line is JSON)

Compared in one run, on the same pictures and questions: this program's pipeline, and the naive loop that anyone would
write first (fp32 transformers `generate` and the expert's encoder in torch for every question, nothing remembered).
The naive loop gets our own quick encoder, so the ratio is a lower bound.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from medreasoner.contract.answer import Box, GroundingAnswer, parse_answer
from medreasoner.expert import load_expert
from medreasoner.geometry import box_iou
from medreasoner.imaging import open_image
from medreasoner.instruction import instruction
from medreasoner.picture import Picture
from medreasoner.pipeline import GroundingPipeline
from medreasoner.reasoner.catalogue import embedded_folder
from medreasoner.reasoner.letterbox import Letterbox
from medreasoner.reasoner.local import LocalReasoner, in_picture

QUESTIONS = (
    "Where do the nerve fibres leave the eye as one bundle?",
    "Which pale hollow grows when the pressure in the eye is too high?",
)


def retina() -> Picture:
    """Return scikit-image's fundus photograph as a file of modality OP would show it."""
    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    return replace(open_image(Path(spec.origin).parent / "data" / "retina.jpg").picture(), modality="OP")


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Time one call."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


class NaiveLoop:
    """The same weights, the plain way: generate token by token, encode anew for every question."""

    def __init__(self, reasoner: LocalReasoner, expert: Any) -> None:
        self._model, self._processor = reasoner._model, reasoner._processor
        self._expert = expert
        self._count = 0

    @torch.inference_mode()
    def ground(self, question: str, picture: Picture) -> Box | None:
        """Return the box of a free, greedy answer, after its mask was made."""
        from PIL import Image

        fit = Letterbox.of(picture.width, picture.height, 336)
        content = [{"type": "text", "text": instruction(question, "direct")}, {"type": "image"}]
        text = self._processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = self._processor(
            text=[text], images=[Image.fromarray(fit.picture(picture.pixels))], return_tensors="pt"
        )
        made = self._model.generate(**inputs, do_sample=False, max_new_tokens=200)
        written = self._processor.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        answer = in_picture(parse_answer(written), fit, picture)
        if not isinstance(answer, GroundingAnswer):
            return None
        self._count += 1
        pixels = picture.pixels.copy()
        pixels[0, 1] = self._count % 255  # a picture that the expert's cache does not know
        unseen = Picture(pixels)
        self._expert.set_picture(unseen)
        self._expert.segment(answer.box)
        return answer.box


def measure(repeats: int) -> dict[str, Any]:
    """Return medians in seconds, ratios, and the agreement of both ways."""
    load, pipeline = seconds(lambda: GroundingPipeline(LocalReasoner(embedded_folder(), "cpu"), load_expert()))
    picture = retina()
    first, grounding = seconds(lambda: pipeline.ground(QUESTIONS[0], picture))
    rows: dict[str, list[float]] = {"first": [first], "second": [], "refine": [], "naive": []}
    naive = NaiveLoop(pipeline.reasoner, pipeline.expert)  # type: ignore[arg-type]
    overlaps = []
    for number in range(repeats):
        # a picture that no cache knows: one pixel differs
        pixels = picture.pixels.copy()
        pixels[0, 0] = number + 1
        fresh = Picture(pixels, modality="OP")
        took, grounding = seconds(lambda fresh=fresh: pipeline.ground(QUESTIONS[0], fresh))
        rows["first"].append(took)
        rows["second"].append(seconds(lambda fresh=fresh: pipeline.ground(QUESTIONS[1], fresh))[0])
        answer = grounding.answer
        assert isinstance(answer, GroundingAnswer)
        edited = Box(answer.box.x_min - 9, answer.box.y_min, answer.box.x_max, answer.box.y_max + 9)
        rows["refine"].append(seconds(lambda fresh=fresh, edited=edited: pipeline.refine(fresh, edited))[0])
        took, box = seconds(lambda fresh=fresh: naive.ground(QUESTIONS[0], fresh))
        rows["naive"].append(took)
        overlaps.append(box_iou(box, answer.box) if box else 0.0)
        gc.collect()
    medians = {name: round(statistics.median(values), 3) for name, values in rows.items()}
    return {
        "load_s": round(load, 2),
        **{f"{name}_s": value for name, value in medians.items()},
        "second_faster_by": round(1 - medians["second"] / medians["first"], 3),
        "naive_over_first": round(medians["naive"] / medians["first"], 2),
        "smallest_box_iou_with_naive": round(min(overlaps), 4),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "all_s": {name: [round(v, 3) for v in values] for name, values in rows.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="medians over this many")
    args = parser.parse_args()
    found = measure(args.repeats)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    found["commit"], found["command"] = commit.stdout.strip(), "python -m benchmarks.answer_latency"
    found["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}, no GPU"
    for name, value in found.items():
        print(f"{name}: {value}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""How long does an answer take on this machine, and what do guided decoding, drafts and caches bring?

python -m benchmarks.answer_latency [--repeats 3] > benchmarks/results/answer_latency.json   (the last line is JSON)

Compared in one run, on the same pictures and questions: this program's pipeline, and the naive loop that anyone would
write first (fp32 transformers `generate` and the expert's encoder in torch for every question, nothing remembered).
The naive loop gets our own quick encoder, so the ratio is a lower bound, and the same rule for numbers (their
distribution's median, not its mode), so that both ways can give the same answers.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import LogitsProcessor

from benchmarks.figures import print_figures
from medreasoner.contract.answer import Box, GroundingAnswer, parse_answer
from medreasoner.contract.errors import AnswerError
from medreasoner.expert import load_expert
from medreasoner.folders import embedded_folder
from medreasoner.geometry import box_iou
from medreasoner.imaging import open_image
from medreasoner.instruction import instruction
from medreasoner.picture import Picture
from medreasoner.pipeline import GroundingPipeline
from medreasoner.reasoner.letterbox import Letterbox
from medreasoner.reasoner.local import LocalReasoner, in_picture

QUESTIONS = (
    "Where do the nerve fibres leave the eye as one bundle?",
    "Which pale hollow grows when the pressure in the eye is too high?",
)
TRUTH = (Box(120, 565, 290, 765), Box(160, 610, 255, 705))  # optic disc and cup of retina.jpg, read off by eye


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


class MedianNumbers(LogitsProcessor):
    """The decision rule of guided decoding for `generate`: a number is the median of the numbers' distribution."""

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self._numbers = torch.tensor(numbers)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        if int(scores[0].argmax()) not in set(self._numbers.tolist()):
            return scores
        share = scores[0, self._numbers].softmax(0)
        median = self._numbers[int((share.cumsum(0) < 0.5).sum().clamp(max=len(share) - 1))]
        forced = torch.full_like(scores, -float("inf"))
        forced[0, median] = 0.0
        return forced


class NaiveLoop:
    """The same weights, the plain way: generate token by token, encode anew for every question."""

    def __init__(self, reasoner: LocalReasoner, expert: Any) -> None:
        self._model, self._processor = reasoner._model, reasoner._processor
        self._expert = expert
        self._count = 0
        self._median = MedianNumbers(reasoner._grammar.numbers or ())

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
        made = self._model.generate(**inputs, do_sample=False, max_new_tokens=200, logits_processor=[self._median])
        written = self._processor.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        try:
            answer = in_picture(parse_answer(written), fit, picture)
        except AnswerError:  # nothing holds free text to its form
            return None
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
    naive = NaiveLoop(pipeline.reasoner, load_expert())  # type: ignore[arg-type]
    picture = retina()
    after_load, _ = seconds(lambda: pipeline.ground(QUESTIONS[0], picture))
    rows: dict[str, list[float]] = {"unseen": [], "seen": [], "refine": [], "naive": []}
    differences = []
    peak = 0.0
    for number in range(repeats):
        pixels = picture.pixels.copy()
        pixels[0, 0] = number + 1  # one pixel differs: no cache knows this picture
        fresh = Picture(pixels, modality="OP")
        for question in (QUESTIONS[number % 2], QUESTIONS[1 - number % 2]):
            kind = "unseen" if question == QUESTIONS[number % 2] else "seen"
            took, grounding = seconds(lambda question=question, fresh=fresh: pipeline.ground(question, fresh))
            rows[kind].append(took)
        answer = grounding.answer
        assert isinstance(answer, GroundingAnswer)
        edited = Box(answer.box.x_min - 9, answer.box.y_min, answer.box.x_max, answer.box.y_max + 9)
        rows["refine"].append(seconds(lambda fresh=fresh, edited=edited: pipeline.refine(fresh, edited))[0])
        if not number:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    for number in range(repeats):
        question = QUESTIONS[number % 2]
        took, box = seconds(lambda question=question: naive.ground(question, picture))
        rows["naive"].append(took)
        answer = pipeline.ground(question, picture).answer
        assert isinstance(answer, GroundingAnswer)
        truth = TRUTH[number % 2]
        differences.append(abs(box_iou(answer.box, truth) - (box_iou(box, truth) if box else 0.0)))
        gc.collect()
    medians = {name: round(statistics.median(values), 3) for name, values in rows.items()}
    return {
        "load_s": round(load, 2),
        "first_answer_after_load_s": round(after_load, 2),
        **{f"{name}_s": value for name, value in medians.items()},
        "seen_faster_by": round(1 - medians["seen"] / medians["unseen"], 3),
        "naive_over_unseen": round(medians["naive"] / medians["unseen"], 2),
        "largest_iou_difference_to_naive": round(max(differences), 4),
        "peak_memory_gib": round(peak, 2),
        "all_s": {name: [round(v, 3) for v in values] for name, values in rows.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=4, help="medians over this many")
    args = parser.parse_args()
    print_figures(measure(args.repeats))


if __name__ == "__main__":
    main()

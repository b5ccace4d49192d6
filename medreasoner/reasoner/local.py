"""A local checkpoint folder of the Qwen2.5-VL family, run by transformers on this machine."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medreasoner.contract.answer import AbsentAnswer, Answer, GroundingAnswer, Point
from medreasoner.contract.errors import AnswerError, CheckpointError
from medreasoner.instruction import instruction, instruction_hash
from medreasoner.picture import Picture
from medreasoner.reasoner.card import ReasonerCard, base_folder
from medreasoner.reasoner.drafts import Drafts
from medreasoner.reasoner.letterbox import Letterbox
from medreasoner.reasoner.protocol import Reply
from medreasoner.reasoner.published import read_answer
from medreasoner.reasoner.wording import Wording

if TYPE_CHECKING:
    import torch

    from medreasoner.reasoner.decoding import Decoder
    from medreasoner.reasoner.guided import GuidedAnswer

_PICTURES_KEPT = 8


class LocalReasoner:
    """Answers with guided, greedy decoding; remembers the image tokens of the last few pictures."""

    def __init__(self, folder: Path, device: str | None = None) -> None:
        """Load a folder onto a device ("cpu", "cuda"; None takes a GPU where there is one).

        Raises:
            CheckpointError: files are missing or damaged, or the model is of another kind.
        """
        import torch
        from transformers import AutoProcessor

        from medreasoner.reasoner.grammar import AnswerGrammar
        from medreasoner.reasoner.loading import checked_device, load_model

        self.card = ReasonerCard.of(folder)
        self.name = self.card.name
        self._torch = torch
        self._device = checked_device(device)
        base = base_folder(folder, self.card)
        self._model, self.sha256 = load_model(folder, self.card, self._device)
        try:
            self._processor = AutoProcessor.from_pretrained(base)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{base} has no usable processor: {error}", "copy the whole model folder") from error
        self._tokenizer = self._processor.tokenizer
        self._grammar = AnswerGrammar.for_tokenizer(self._tokenizer, self.card)
        self._wording = Wording.of(base) if self.card.wording_weight else None
        self._seen: OrderedDict[str, tuple[Any, Any]] = OrderedDict()
        self._drafts = Drafts(self._tokenizer(p, add_special_tokens=False)["input_ids"] for p in self.card.phrases)
        self._lock = threading.Lock()

    @property
    def instruction_sha256(self) -> str:
        """Hash of the instruction that every question is put into."""
        return instruction_hash(self.card.instruction)

    def answer(self, question: str, picture: Picture) -> Reply:
        """Answer a checked question about a picture.

        Guided decoding makes a malformed answer impossible except for a box without area in tokenizers that write
        numbers digit by digit; then the question is asked once more with the mistake named.

        Raises:
            AnswerError: the second text cannot be used either.
            MemoryError: there is not enough of it, on the CPU or the GPU.
        """
        fit = Letterbox.of(picture.width, picture.height, self.card.canvas)
        with self._at_work():
            timings: dict[str, float] = {}
            asked, attempts = question, 1
            while True:
                decoder = self._read(asked, picture, fit, timings)
                text, confidence = self._write(decoder, self._blank(question, picture.modality, fit), timings)
                try:
                    found = in_picture(read_answer(text, self.card), fit, picture)
                    return Reply(found, text, confidence, attempts, timings)
                except AnswerError as error:
                    if attempts == 2:
                        raise
                    asked, attempts = f"{question} (Your last answer could not be used: {error.what}.)", 2

    def samples(
        self, question: str, picture: Picture, count: int, seed: int = 0, temperature: float = 1.0
    ) -> Iterator[Reply]:
        """Draw answers to a checked question, as `SamplingReasoner` says; picture and prompt are read once for all.

        A draw that cannot be used is replaced by one more.

        Raises:
            AnswerError: the second draw cannot be used either.
            MemoryError: as for `answer`.
        """
        fit = Letterbox.of(picture.width, picture.height, self.card.canvas)
        timings: dict[str, float] = {}
        with self._at_work():
            decoder = self._read(question, picture, fit, timings)
        for number in range(count):
            for attempt in (1, 2):
                blank = self._blank(question, picture.modality, fit, temperature, f"{seed}/{number}/{attempt}")
                with self._at_work():
                    text, confidence = self._write(decoder, blank, timings)
                try:
                    found = in_picture(read_answer(text, self.card), fit, picture)
                    break
                except AnswerError:
                    if attempt == 2:
                        raise
            yield Reply(found, text, confidence, attempt, timings)
            timings = {}

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """One thread at a time, without gradients; raises `MemoryError` where PyTorch raises its own."""
        try:
            with self._lock, self._torch.inference_mode():
                yield
        except RuntimeError as error:
            from medreasoner.reasoner.loading import out_of_memory

            if out_of_memory(error):
                raise MemoryError from error
            raise

    def _image_tokens(self, picture: Picture, fit: Letterbox, timings: dict[str, float]) -> tuple[Any, Any]:
        """Return (image embeddings, grid), computed once a picture."""
        from PIL import Image

        key, start = picture.content_hash, time.perf_counter()
        if key not in self._seen:
            boxed = Image.fromarray(fit.picture(picture.pixels))
            pixels = self._processor.image_processor(images=[boxed], return_tensors="pt").to(self._device)
            grid = pixels["image_grid_thw"]
            values = pixels["pixel_values"].to(self._model.dtype)
            found = self._model.model.visual(values, grid_thw=grid).pooler_output
            self._seen[key] = (found, grid)
            while len(self._seen) > _PICTURES_KEPT:
                self._seen.popitem(last=False)
        self._seen.move_to_end(key)
        timings["look"] = timings.get("look", 0.0) + time.perf_counter() - start
        return self._seen[key]

    def _prompt(self, question: str, grid: Any) -> torch.Tensor:
        text = {"type": "text", "text": instruction(question, self.card.instruction)}
        parts = [text, {"type": "image"}] if self.card.question_first else [{"type": "image"}, text]
        turn = [{"role": "user", "content": parts}]
        written = self._processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        merge = self._model.config.vision_config.spatial_merge_size
        count = int(grid.prod()) // merge**2
        written = written.replace("<|image_pad|>", "<|image_pad|>" * count)
        ids = self._tokenizer(written, add_special_tokens=False)["input_ids"] + list(self._grammar.opening)
        return self._torch.tensor([ids], device=self._device)

    def _blank(
        self, question: str, modality: str, fit: Letterbox, temperature: float = 0.0, seed: str = ""
    ) -> GuidedAnswer:
        """Return an answer yet to be written: on the picture only, and true to the file's modality where it has one."""
        from medreasoner.reasoner.guided import GuidedAnswer
        from medreasoner.reasoner.noise import Noise

        openings = tuple(self._sentence(s) for s in self.card.kinds.get(modality, []))
        doubts = self._wording.doubts(question) if self._wording else {}
        weighed = {self._sentence(s): self.card.wording_weight * doubt for s, doubt in doubts.items()}
        return GuidedAnswer(self._grammar, openings, fit.area, weighed, Noise(temperature, seed))

    def _sentence(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _read(self, question: str, picture: Picture, fit: Letterbox, timings: dict[str, float]) -> Decoder:
        """Read picture and question, ready to write answers."""
        from medreasoner.reasoner.decoding import Decoder

        image = self._image_tokens(picture, fit, timings)
        start = time.perf_counter()
        decoder = Decoder(self._model, self._drafts)
        decoder.read(self._prompt(question, image[1]), *image)
        timings["reason"] = timings.get("reason", 0.0) + time.perf_counter() - start
        return decoder

    def _write(self, decoder: Decoder, blank: GuidedAnswer, timings: dict[str, float]) -> tuple[str, float]:
        start = time.perf_counter()
        tokens, likelihood = decoder.write(blank)
        timings["reason"] = timings.get("reason", 0.0) + time.perf_counter() - start
        return self._tokenizer.decode([t for t in tokens if t != self._grammar.stop]), math.exp(likelihood)


def in_picture(answer: Answer, fit: Letterbox, picture: Picture) -> Answer:
    """Bring an answer from the canvas into the picture; raises `AnswerError` when its box lies on the black border."""
    if isinstance(answer, AbsentAnswer):
        return answer
    box = picture.clip(fit.box_to_picture(answer.box))
    first, second = (picture.clip_point(fit.to_picture(Point(p.x + 0.5, p.y + 0.5))) for p in answer.points)
    return GroundingAnswer(box, (first, second), answer.reasoning)

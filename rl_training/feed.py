"""Draw training examples: which target, which question, and the tokens of prompt and answer with gaps for the place.

Everything that does not depend on the warped mask is decided here, on the CPU, in worker processes; the place words
and the numbers are filled in on the GPU once the mask has moved (rl_training/learner.py).
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from medreasoner.contract.errors import MedReasonerError
from medreasoner.evaluation.kinds import ABSENT_KINDS, cannot_show, kind_of, kinds_that_may_show
from medreasoner.evaluation.questions import Entry, choose, name_of
from medreasoner.instruction import instruction
from rl_training.batch import Batch
from rl_training.config import SftConfig
from rl_training.reasoning import COLUMNS, ROWS, SIZES, absent, present

DIRECTION = re.compile(
    r"\b(left|right|lt|rt|upper|lower|top|bottom|above|below|beneath|under|up|down|side|medial\w*|lateral\w*|nasal\w*|"
    r"temporal\w*|inner|outer|superior|inferior|clock)\b",
    re.IGNORECASE,
)
FLIPS_BOTH = {"colonoscopy", "blood smear", "dermoscopy image", "histology slide"}
FLIPS_ACROSS = FLIPS_BOTH | {"breast ultrasound", "mammogram", "OCT angiogram", "knee X-ray", "fetal ultrasound"}
_PLACEHOLDERS = (SIZES[0], ROWS[0], COLUMNS[0])
_NAME_WEIGHT, _SENTENCE_WEIGHT = 2.0, 0.15


class Feed:
    """Endless batches for the supervised stage."""

    def __init__(
        self,
        samples: list[dict[str, Any]],
        entries: dict[str, Entry],
        absent_questions: list[tuple[str, str, str]],
        tokenizer: Any,
        config: SftConfig,
    ) -> None:
        self.samples, self.entries, self.config = samples, entries, config
        self.tokenizer = tokenizer
        self.rows = [
            i
            for i, s in enumerate(samples)
            if s["split"] in config.splits and not s["dispersed"] and name_of(s, entries) is not None
        ]
        counts = Counter(name_of(samples[i], entries) for i in self.rows)
        self.weights = [
            config.splits[samples[i]["split"]] * counts[name_of(samples[i], entries)] ** -config.balance
            for i in self.rows
        ]
        self.kinds = [kind_of(s) for s in samples]
        self.target_kinds: dict[str, set[str]] = {}
        for i in self.rows:
            self.target_kinds.setdefault(str(name_of(samples[i], entries)), set()).add(self.kinds[i])
        self.rows_by_kind: dict[str, list[int]] = {}
        for i in self.rows:
            self.rows_by_kind.setdefault(self.kinds[i], []).append(i)
        self.crossings = {
            (kind, name)
            for kind in self.rows_by_kind
            for name, shown in self.target_kinds.items()
            if cannot_show(kind, shown)
        }
        self.absent_questions = [a for a in absent_questions if self._kinds_without(*a[:2])]
        self._known: dict[str, list[int]] = {}
        image = [tokenizer.convert_tokens_to_ids("<|image_pad|>")] * (config.canvas // 28) ** 2
        self._image = [*self._ids("<|vision_start|>"), *image, *self._ids("<|vision_end|>")]

    def _ids(self, text: str) -> list[int]:
        if text not in self._known:
            if len(self._known) > 200_000:
                self._known.clear()
            self._known[text] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._known[text]

    def prompt(self, question: str) -> list[int]:
        """Tokens up to the answer: the question first, so that every image token can attend to it."""
        asked = self._ids(instruction(question, "direct"))[: self.config.max_question]
        return [
            *self._ids("<|im_start|>user\n"),
            *asked,
            *self._image,
            *self._ids("<|im_end|>\n<|im_start|>assistant\n"),
        ]

    def _draw(self, rng: random.Random) -> tuple[int, str, str, bool, str]:
        """Return sample row, question, target name, whether it is there, and the name for an absent target."""
        if rng.random() >= self.config.absent_share:
            row = rng.choices(self.rows, self.weights)[0]
            name = str(name_of(self.samples[row], self.entries))
            return row, choose(self.entries[name], self.config.mix, rng)[1], name, True, ""
        if self.absent_questions and (rng.random() < 0.5 or not self.crossings):
            return self._draw_listed(rng)
        while self.crossings:
            row = rng.choices(self.rows, self.weights)[0]
            name = rng.choice(list(self.target_kinds))
            if (self.kinds[row], name) in self.crossings:
                return row, choose(self.entries[name], self.config.mix, rng)[1], name, False, name
        raise MedReasonerError(
            "nothing can be asked for that is absent: every target may be on every picture",
            "set absent_share to 0, or add absent_questions.json",
        )

    def _draw_listed(self, rng: random.Random) -> tuple[int, str, str, bool, str]:
        where, heading, question = rng.choice(self.absent_questions)
        row = rng.choice(self.rows_by_kind[rng.choice(self._kinds_without(where, heading))])
        name = heading.partition("|")[0].strip()
        return row, question, name, False, name

    def _kinds_without(self, where: str, heading: str) -> list[str]:
        """List the kinds of image here that cannot show what a listed question asks for (see `training_absent`)."""
        if where:
            return [kind for kind in ABSENT_KINDS.get(where, (where,)) if kind in self.rows_by_kind]
        may_show = kinds_that_may_show(heading)
        return [kind for kind in self.rows_by_kind if not might_show(kind, may_show)]

    def batch(self, rng: random.Random) -> Batch:
        """Make one batch."""
        size, length = self.config.batch, self.config.length
        ids = torch.full((size, length), self.tokenizer.pad_token_id)
        weight = torch.zeros(size, length)
        numbers, words = torch.full((size, 8), -1), torch.full((size, 3), -1)
        start, sample = torch.zeros(size, dtype=torch.long), torch.zeros(size, dtype=torch.long)
        there, warp, across, down = (torch.zeros(size, dtype=torch.bool) for _ in range(4))
        for b in range(size):
            row, question, name, is_there, missing = self._draw(rng)
            prompt = self.prompt(roughened(question, rng, self.config.roughen))
            answer, weights, number_at, word_at = self._answer(self.kinds[row], name, is_there, missing)
            total = len(prompt) + len(answer)
            if total > length:
                raise ValueError(f"{total} tokens do not fit into {length}: raise `length` in the configuration")
            ids[b, :total] = torch.tensor(prompt + answer)
            weight[b, len(prompt) : total] = torch.tensor(weights)
            start[b], sample[b], there[b] = prompt.index(self._image[1]), row, is_there
            if is_there:
                numbers[b] = torch.tensor(number_at) + len(prompt)
                words[b] = torch.tensor(word_at) + len(prompt)
            directed = bool(DIRECTION.search(question)) or bool(self.samples[row].get("laterality"))
            warp[b] = rng.random() < self.config.warp_share
            across[b] = not directed and self.kinds[row] in FLIPS_ACROSS
            down[b] = not directed and self.kinds[row] in FLIPS_BOTH
        return Batch(ids, weight, start, numbers, words, sample, there, warp, across, down)

    def _answer(
        self, kind: str, name: str, there: bool, missing: str
    ) -> tuple[list[int], list[float], list[int], list[int]]:
        if not there:
            text = f'<think>{absent(kind, missing)}</think><answer>{{"absent": true}}</answer><|im_end|>'
            tokens = self._ids(text)
            return tokens, [1.0] * len(tokens), [], []
        entry = self.entries[name]
        pieces = _pieces(kind, name, entry.appearance)
        ids: list[int] = []
        weights: list[float] = []
        for text, weight in pieces:
            new = self._ids(text)
            ids += new
            weights += [weight] * len(new)
        number = self._ids("0")[0]
        number_at = [i for i, token in enumerate(ids) if token == number and weights[i] == 0.0]
        word_at = [i for i in range(len(ids)) if weights[i] == 0.5]
        return ids, weights, number_at, word_at

    def stream(self, seed: int, workers: int) -> Iterator[Batch]:
        """Yield batches without end, made by worker processes (0: by this one)."""
        yield from DataLoader(
            _Endless(self, seed), batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None
        )


class _Endless(IterableDataset[Batch]):
    """The feed as a torch data set: every worker draws with a seed of its own."""

    def __init__(self, feed: Feed, seed: int) -> None:
        self.feed, self.seed = feed, seed

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        rng = random.Random(self.seed * 1000 + (worker.id if worker else 0))
        while True:
            yield self.feed.batch(rng)


def _pieces(kind: str, name: str, appearance: str) -> list[tuple[str, float]]:
    """Cut the answer where tokens may not merge; weight 0 marks numbers, 0.5 marks place words."""
    text = present(kind, name, appearance, *_PLACEHOLDERS)
    opening, rest = text.split(f"to the {name}. ", 1)
    sentence, place = rest.split("Here it is ", 1)
    size, row, column = _PLACEHOLDERS
    assert place == f"{size} and lies in the {row} {column} part of the image."
    closing: list[tuple[str, float]] = []
    between = ('{"bbox": [', ", ", ", ", ", ", '], "points_1": [', ", ", '], "points_2": [', ", ")
    for fixed in between:
        closing += [(fixed, 0.1), ("0", 0.0)]
    return [
        (f"<think>{opening}to the", 0.3),
        (f" {name}", _NAME_WEIGHT),
        (f". {sentence}Here it is", _SENTENCE_WEIGHT),
        (f" {size}", 0.5),
        (" and lies in the", 0.1),
        (f" {row}", 0.5),
        (f" {column}", 0.5),
        (" part of the image.</think><answer>", 0.1),
        *closing,
        ("]}</answer><|im_end|>", 0.1),
    ]


def might_show(kind: str, may_show: set[str]) -> bool:
    """Say whether a structure could after all be on this kind of image (see questions/absent.txt headings)."""
    return kind in may_show or (
        kind.endswith(("image", "MRI"))
        and kind not in ("dermoscopy image", "cardiac MRI", "lumbar spine MRI", "hippocampus MRI", "brain MRI")
    )


def roughened(question: str, rng: random.Random, share: float) -> str:
    """Now and then drop a word, swap two letters, or change case and the final mark, as people type."""
    if rng.random() >= share:
        return question
    words = question.split()
    act = rng.randrange(4)
    if act == 0 and len(words) > 4:
        del words[rng.randrange(len(words))]
    elif act == 1:
        at = rng.randrange(len(words))
        word = words[at]
        if len(word) > 4 and word.isalpha():
            i = rng.randrange(1, len(word) - 2)
            words[at] = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    elif act == 2:
        words = [w.lower() for w in words]
    else:
        words[-1] = words[-1].rstrip("?.!")
    return " ".join(words)

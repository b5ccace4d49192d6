"""Answers drawn at random: fair, repeatable, valid, and the greedy answer where the temperature is 0."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from transformers import AutoTokenizer

from medreasoner.contract.answer import AbsentAnswer, GroundingAnswer, parse_answer
from medreasoner.contract.errors import QuestionError, ReasonerError
from medreasoner.expert import load_expert
from medreasoner.folders import embedded_folder
from medreasoner.geometry import box_iou
from medreasoner.picture import Picture
from medreasoner.pipeline import GroundingPipeline
from medreasoner.reasoner.card import ReasonerCard
from medreasoner.reasoner.decoding import Decoder
from medreasoner.reasoner.grammar import AnswerGrammar
from medreasoner.reasoner.guided import GuidedAnswer
from medreasoner.reasoner.local import LocalReasoner
from medreasoner.reasoner.noise import Noise
from medreasoner.reasoner.protocol import Reply, SamplingReasoner, sampling

DISC = "Where do the nerve fibres leave the eye as one bundle?"
CARD = ReasonerCard("test", canvas=336, may_abstain=True, dialect="strict", max_reasoning=12)


# The noise


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(1.0, [0.7, 0.2, 0.1]), (0.5, [0.49 / 0.54, 0.04 / 0.54, 0.01 / 0.54])],
    ids=["the model's own distribution", "at half the temperature, its square"],
)
def test_the_largest_noisy_logit_is_a_draw_from_the_softmax(temperature: float, expected: list[float]) -> None:
    logits, count = torch.tensor([0.7, 0.2, 0.1]).log(), 4000
    drawn = [int(Noise(temperature, "x").on(logits, position).argmax()) for position in range(count)]
    share = np.bincount(drawn, minlength=3) / count
    assert np.abs(share - expected).max() < 4 * math.sqrt(0.25 / count)  # four standard deviations at most


@pytest.mark.parametrize(
    ("lead", "temperature", "expected"),
    [(0.0, 1.0, 0.5), (2.0, 1.0, 1 / (1 + math.exp(-2))), (2.0, 2.0, 1 / (1 + math.exp(-1)))],
)
def test_noise_in_log_odds_says_yes_as_often_as_the_odds_do(lead: float, temperature: float, expected: float) -> None:
    noise, count = Noise(temperature, "y"), 4000
    share = sum(lead + noise.in_log_odds(position) > 0 for position in range(count)) / count
    assert share == pytest.approx(expected, abs=4 * math.sqrt(0.25 / count))


def test_the_cut_is_the_median_without_noise_uniform_at_1_and_wider_beyond() -> None:
    assert Noise().quantile(7) == 0.5
    cuts = {t: np.array([Noise(t, "z").quantile(n) for n in range(4000)]) for t in (0.1, 1.0, 3.0)}
    assert np.quantile(cuts[1.0], [0.1, 0.25, 0.5, 0.9]) == pytest.approx([0.1, 0.25, 0.5, 0.9], abs=0.035)
    assert cuts[0.1].std() < cuts[1.0].std() / 3
    assert cuts[3.0].std() > cuts[1.0].std()


def test_noise_depends_on_seed_and_position_and_on_nothing_else() -> None:
    logits = torch.zeros(50)
    again = Noise(1.0, "a").on(logits, 3)
    assert torch.equal(Noise(1.0, "a").on(logits, 3), again)
    assert not torch.equal(Noise(1.0, "b").on(logits, 3), again)
    assert not torch.equal(Noise(1.0, "a").on(logits, 4), again)


@pytest.mark.parametrize("temperature", [-0.1, math.inf, math.nan])
def test_a_temperature_that_is_none_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        Noise(temperature)


# Guided answers with noise


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(embedded_folder())


@pytest.mark.parametrize("temperature", [1.0, 5.0])
@pytest.mark.parametrize("seed", range(8))
def test_every_drawn_answer_is_valid(seed: int, temperature: float, tokenizer: Any) -> None:
    grammar, generator = AnswerGrammar.for_tokenizer(tokenizer, CARD), torch.Generator().manual_seed(seed)
    answer = GuidedAnswer(grammar, noise=Noise(temperature, str(seed)))
    while not answer.done:
        answer.advance(torch.randn(len(tokenizer), generator=generator))
    parsed = parse_answer(tokenizer.decode(answer.tokens[:-1]))
    if isinstance(parsed, GroundingAnswer):
        assert parsed.box.area > 0
        assert parsed.box.x_max <= CARD.canvas


def test_a_verdict_is_drawn_with_its_own_odds_beyond_the_limit_of_the_card(tokenizer: Any) -> None:
    """The limit of 4 nats holds for the model's lead; noise on the logits would be cut off with it."""
    card = ReasonerCard(
        "test", canvas=336, may_abstain=True, dialect="strict", verdict=[" points", " asks"], verdict_limit=1.0
    )
    there, missing = (tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in card.verdict)
    logits = torch.full((len(tokenizer),), -30.0)
    logits[there], logits[missing] = 0.0, 9.0
    grammar = AnswerGrammar.for_tokenizer(tokenizer, card)
    words = [GuidedAnswer(grammar, noise=Noise(1.0, str(n))).advance(logits)[0] for n in range(400)]
    assert set(words) == {there, missing}
    assert words.count(missing) / 400 == pytest.approx(1 / (1 + math.exp(-1)), abs=0.1)


# The embedded reasoner


@pytest.fixture(scope="module")
def reasoner() -> LocalReasoner:
    return LocalReasoner(embedded_folder(), "cpu")


@pytest.fixture(scope="module")
def fundus() -> Picture:
    photograph = Image.open(Path(skimage.__file__).parent / "data" / "retina.jpg").resize((512, 512))
    return Picture(np.asarray(photograph.convert("RGB")), modality="OP")


def spread(replies: list[Reply]) -> float:
    """One minus the mean IoU of every two boxes; an absent target agrees with no box."""
    boxes = [None if isinstance(r.answer, AbsentAnswer) else r.answer.box for r in replies]
    pairs = list(itertools.combinations(boxes, 2))
    return 1 - sum(0.0 if a is None or b is None else box_iou(a, b) for a, b in pairs) / len(pairs)


def test_the_spread_grows_from_the_greedy_answer_with_the_temperature(reasoner: LocalReasoner, fundus: Picture) -> None:
    greedy = reasoner.answer(DISC, fundus)
    for reply in reasoner.samples(DISC, fundus, 2, temperature=1e-6):
        assert (reply.answer, reply.text) == (greedy.answer, greedy.text)
        assert reply.confidence == pytest.approx(greedy.confidence, abs=1e-4)
    drawn = {t: list(reasoner.samples(DISC, fundus, 4, seed=1, temperature=t)) for t in (0.3, 1.0)}
    assert 0 < spread(drawn[0.3]) < spread(drawn[1.0]) < 1
    for reply in itertools.chain(*drawn.values()):
        assert isinstance(reply.answer, GroundingAnswer)
        assert 0 <= reply.answer.box.x_min < reply.answer.box.x_max <= fundus.width


def test_a_seed_draws_the_same_answers_again_whatever_comes_in_between(
    reasoner: LocalReasoner, fundus: Picture
) -> None:
    first = [reply.text for reply in reasoner.samples(DISC, fundus, 2, seed=7)]
    drawing = reasoner.samples(DISC, fundus, 2, seed=7)
    again = [next(drawing).text]
    question = reasoner.answer("Where is the macula?", fundus)  # not kept waiting by the drawing that is under way
    again.append(next(drawing).text)
    assert again == first
    assert reasoner.answer("Where is the macula?", fundus).text == question.text
    assert len(set(first)) == 2


def test_picture_and_prompt_are_read_once(
    reasoner: LocalReasoner, fundus: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    original = Decoder.read

    def counting(self: Decoder, ids: torch.Tensor, *image: torch.Tensor) -> None:
        read.append(ids.shape[1])
        original(self, ids, *image)

    monkeypatch.setattr(Decoder, "read", counting)
    assert len(list(reasoner.samples(DISC, fundus, 3))) == 3
    assert len(read) == 1


# Telling apart who can


class Greedy:
    """A reasoner that cannot draw."""

    name, sha256, instruction_sha256 = "greedy", "", ""

    def answer(self, question: str, picture: Picture) -> Reply:
        raise AssertionError((question, picture))


class Drawing(Greedy):
    def samples(
        self, question: str, picture: Picture, count: int, seed: int = 0, temperature: float = 1.0
    ) -> Iterator[Reply]:
        assert (question, picture.modality, seed, temperature) == ("Where?", "MR", 3, 0.7)
        yield from (Reply(AbsentAnswer(f"No {number}."), "", 0.5) for number in range(count))


def test_a_reasoner_that_cannot_draw_is_told_apart(fundus: Picture) -> None:
    assert isinstance(Drawing(), SamplingReasoner)
    with pytest.raises(ReasonerError, match="greedy cannot draw") as caught:
        sampling(Greedy())
    assert caught.value.hint
    with pytest.raises(ReasonerError, match="greedy cannot draw"):
        GroundingPipeline(Greedy(), load_expert()).samples("Where?", fundus, 2)


def test_the_pipeline_completes_every_draw_and_checks_the_question() -> None:
    picture = Picture(np.zeros((8, 9, 3), np.uint8), modality="MR")
    pipeline = GroundingPipeline(Drawing(), load_expert())
    drawn = list(pipeline.samples(" Where? ", picture, 3, seed=3, temperature=0.7))
    assert [(g.question, g.answer.reasoning, g.absent) for g in drawn] == [
        ("Where?", f"No {number}.", True) for number in range(3)
    ]
    assert all(g.mask.shape == (8, 9) and not g.mask.any() for g in drawn)
    with pytest.raises(QuestionError):
        pipeline.samples("  ", picture, 3)

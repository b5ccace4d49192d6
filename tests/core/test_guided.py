"""Guided decoding: whatever the model prefers, the answer comes out well formed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from medreasoner.contract.answer import AbsentAnswer, GroundingAnswer, parse_answer
from medreasoner.folders import embedded_folder
from medreasoner.reasoner.card import ReasonerCard
from medreasoner.reasoner.grammar import AnswerGrammar
from medreasoner.reasoner.guided import GuidedAnswer

STOP = "<|im_end|>"
CARD = ReasonerCard("test", canvas=336, may_abstain=True, dialect="strict", max_reasoning=12)


class PieceTokenizer:
    """Splits text into the longest known pieces, as a byte-pair vocabulary that knows digits only would."""

    def __init__(self, *more: str) -> None:
        signs = [chr(code) for code in range(32, 127)]
        self.pieces = [STOP, *signs, "</", "think", "answer", '{"', '":', " [", "], ", ", ", "]}", *more]
        self.all_special_ids = [0]

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        assert not add_special_tokens
        ids = []
        while text:
            piece = max((p for p in self.pieces if text.startswith(p)), key=len)
            ids.append(self.pieces.index(piece))
            text = text[len(piece) :]
        return {"input_ids": ids}

    def convert_tokens_to_ids(self, piece: str) -> int:
        return self.pieces.index(piece)

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.pieces[i] for i in ids]

    def get_vocab(self) -> dict[str, int]:
        return {piece: i for i, piece in enumerate(self.pieces)}

    def decode(self, ids: list[int]) -> str:
        return "".join(self.pieces[i] for i in ids)

    def __len__(self) -> int:
        return len(self.pieces)


@pytest.fixture(scope="module")
def embedded() -> Any:
    return AutoTokenizer.from_pretrained(embedded_folder())


@pytest.fixture(scope="module")
def whole_numbers(embedded: Any) -> AnswerGrammar:
    return AnswerGrammar.for_tokenizer(embedded, CARD)


@pytest.fixture(scope="module")
def digits() -> AnswerGrammar:
    return AnswerGrammar.for_tokenizer(PieceTokenizer(), CARD)


def finished(answer: GuidedAnswer, make_logits: Any, most: int = 200) -> GuidedAnswer:
    for step in range(most):
        before = len(answer.tokens)
        new = answer.advance(make_logits(step))
        assert new
        assert answer.tokens[before:] == new
        if answer.done:
            return answer
    raise AssertionError("the answer never ends")


def text_of(answer: GuidedAnswer, tokenizer: Any) -> str:
    assert answer.tokens[-1] == answer.grammar.stop
    return str(tokenizer.decode(answer.tokens[:-1]))


def in_answer(grammar: AnswerGrammar, **fields: Any) -> GuidedAnswer:
    """An answer whose reasoning is over and whose box is begun."""
    answer = GuidedAnswer(replace(grammar, max_reasoning=1, may_abstain=False, **fields))
    answer.advance(torch.zeros(20_000))
    assert not answer.reasoning
    return answer


def on_numbers(grammar: AnswerGrammar, share: dict[int, float], size: int = 20_000) -> torch.Tensor:
    assert grammar.numbers is not None
    logits = torch.full((size,), -math.inf)
    for number, probability in share.items():
        logits[grammar.numbers[number]] = math.log(probability)
    return logits


# Whatever the logits


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("spread", [0.1, 10.0])
def test_random_logits_give_a_valid_answer_in_whole_numbers(
    seed: int, spread: float, embedded: Any, whole_numbers: AnswerGrammar
) -> None:
    generator = torch.Generator().manual_seed(seed)
    answer = GuidedAnswer(whole_numbers)
    finished(answer, lambda _: torch.randn(len(embedded), generator=generator) * spread)
    parsed = parse_answer(text_of(answer, embedded))
    assert isinstance(parsed, AbsentAnswer) == (answer.numbers == [])
    if isinstance(parsed, GroundingAnswer):
        points = [value for p in parsed.points for value in (p.x, p.y)]
        assert [*parsed.box.as_list(), *points] == answer.numbers
        assert 0 <= min(answer.numbers) <= max(answer.numbers) <= CARD.canvas
    assert answer.log_likelihood <= 1e-5


@pytest.mark.parametrize("favourite", [0, 1, 335, 336])
def test_a_stubborn_number_still_gives_a_box_with_area(
    favourite: int, embedded: Any, whole_numbers: AnswerGrammar
) -> None:
    logits = torch.zeros(len(embedded))
    logits[whole_numbers.numbers[favourite]] = 60.0
    answer = finished(in_answer(whole_numbers), lambda _: logits)
    box = parse_answer(text_of(answer, embedded)).box
    assert box.area > 0
    assert box.x_max <= CARD.canvas


@pytest.mark.parametrize("seed", range(12))
def test_random_logits_give_well_formed_json_digit_by_digit(seed: int, digits: AnswerGrammar) -> None:
    """Only the box's area is left to chance, which LocalReasoner asks a second time for."""
    tokenizer, generator = PieceTokenizer(), torch.Generator().manual_seed(seed)
    answer = finished(GuidedAnswer(digits), lambda _: torch.randn(len(tokenizer), generator=generator) * 3)
    text = text_of(answer, tokenizer)
    if answer.numbers:
        x_min, y_min, x_max, y_max, *points = answer.numbers
        assert text.endswith(
            f'<answer>{{"bbox": [{x_min}, {y_min}, {x_max}, {y_max}], '
            f'"points_1": [{points[0]}, {points[1]}], "points_2": [{points[2]}, {points[3]}]}}</answer>'
        )
        assert 0 <= min(answer.numbers) <= max(answer.numbers) <= CARD.canvas
    else:
        assert text.endswith('<answer>{"absent": true}</answer>')


@pytest.mark.parametrize("wanted", ["0", "7", "42", "335", "100"])
def test_digits_spell_the_number_that_the_model_wants(wanted: str, digits: AnswerGrammar) -> None:
    tokenizer, answer = PieceTokenizer(), in_answer(digits)
    for sign in wanted:
        logits = torch.zeros(len(tokenizer))
        logits[tokenizer.pieces.index(sign)] = 30.0
        answer.advance(logits)
    if not answer.numbers:
        logits = torch.zeros(len(tokenizer))
        logits[tokenizer.pieces.index(", ")] = 30.0
        answer.advance(logits)
    assert answer.numbers == [int(wanted)]


@pytest.mark.parametrize(("first", "then"), [("0", "5"), ("4", "0")], ids=["no leading zero", "at most the canvas"])
def test_a_digit_that_cannot_follow_is_not_offered(first: str, then: str, digits: AnswerGrammar) -> None:
    tokenizer, answer = PieceTokenizer(), in_answer(digits)
    for sign in (first, then, then):
        logits = torch.zeros(len(tokenizer))
        logits[tokenizer.pieces.index(sign)] = 30.0
        answer.advance(logits)
    assert answer.numbers[0] == {"0": 0, "4": 40}[first]


# The reasoning


def test_special_tokens_and_tags_cannot_stand_in_the_reasoning(embedded: Any, whole_numbers: AnswerGrammar) -> None:
    banned = [*embedded.all_special_ids, *embedded.convert_tokens_to_ids(["<think>", "<answer>", "</answer>"])]
    logits = torch.zeros(len(embedded))
    logits[banned] = 50.0
    logits[embedded.convert_tokens_to_ids("a")] = 1.0
    assert GuidedAnswer(whole_numbers).advance(logits) == embedded.convert_tokens_to_ids(["a"])


def test_the_reasoning_is_cut_off_at_its_longest(embedded: Any, whole_numbers: AnswerGrammar) -> None:
    logits = torch.zeros(len(embedded))
    logits[embedded.convert_tokens_to_ids("a")] = 9.0
    answer = finished(GuidedAnswer(whole_numbers), lambda _: logits)
    reasoning = parse_answer(text_of(answer, embedded)).reasoning
    assert reasoning == "a" * (CARD.max_reasoning - 1), "the opening counts too"


@pytest.mark.parametrize(
    "spelled",
    [["</", "think", ">"], [".</", "think", ">"], ["</", "think", "><"], [".</", "think", ">\n"]],
    ids=["plain", "stop before", "tag behind", "line behind"],
)
def test_the_reasoning_ends_however_the_vocabulary_merges_the_marks_around_its_end(spelled: list[str]) -> None:
    """Qwen's vocabulary has all of these tokens, and merges them in "here.</think><answer>"."""
    tokenizer = PieceTokenizer(".</", "><", ">\n")
    answer = GuidedAnswer(AnswerGrammar.for_tokenizer(tokenizer, replace(CARD, max_reasoning=90)))
    for piece in ["a", *spelled]:
        logits = torch.zeros(len(tokenizer))
        logits[tokenizer.pieces.index(piece)] = 9.0
        assert answer.reasoning
        answer.advance(logits)
    assert not answer.reasoning
    text = text_of(finished(answer, lambda _: torch.arange(len(tokenizer)).float()), tokenizer)
    assert text.startswith(f"<think>a{'.' * spelled[0].startswith('.')}</think><answer>{{")


# Present or absent


@pytest.mark.parametrize("grammar_of", ["whole_numbers", "digits"])
@pytest.mark.parametrize(("lead", "absent"), [(5.0, True), (-5.0, False), (0.0, False)])
def test_absent_is_chosen_where_the_model_prefers_it(
    grammar_of: str, lead: float, absent: bool, request: pytest.FixtureRequest
) -> None:
    grammar: AnswerGrammar = request.getfixturevalue(grammar_of)
    at = next(i for i, (a, b) in enumerate(zip(grammar.box, grammar.absent, strict=False)) if a != b)
    logits = torch.zeros(20_000)
    logits[grammar.absent[at]] = lead
    answer = GuidedAnswer(replace(grammar, max_reasoning=1))
    answer.advance(logits)
    answer.advance(logits)
    assert answer.done is absent
    chosen = 1 / (1 + math.exp(-abs(lead)))
    assert answer.log_likelihood == pytest.approx(math.log(chosen), abs=1e-5)


def test_absent_cannot_be_chosen_where_the_card_does_not_allow_it(embedded: Any) -> None:
    grammar = AnswerGrammar.for_tokenizer(embedded, replace(CARD, may_abstain=False))
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        answer = finished(GuidedAnswer(grammar), lambda _: torch.randn(len(embedded), generator=generator))
        assert isinstance(parse_answer(text_of(answer, embedded)), GroundingAnswer)


@pytest.mark.parametrize(
    ("lead", "word"),
    [(-1.0, " points"), (1.9, " points"), (2.0, " points"), (2.1, " asks"), (9.0, " asks")],
)
def test_the_verdict_says_absent_only_with_the_margin_of_the_card(lead: float, word: str, embedded: Any) -> None:
    card = replace(CARD, verdict=[" points", " asks"], absent_margin=2.0)
    there, missing = (embedded(w, add_special_tokens=False)["input_ids"][0] for w in card.verdict)
    logits = torch.full((len(embedded),), -20.0)
    logits[there], logits[missing] = 0.0, lead
    grammar = AnswerGrammar.for_tokenizer(embedded, card)
    assert embedded.decode(GuidedAnswer(grammar).advance(logits)) == word
    assert embedded.decode(GuidedAnswer(grammar).advance(logits, best=int(logits.argmax()))) == word


@pytest.mark.parametrize(
    ("lead", "doubt", "word"),
    [
        (9.0, -4.0, " points"),  # a sure reasoner counts 4 nats and no more, the words take them back
        (9.0, 0.0, " asks"),
        (-9.0, 7.0, " asks"),  # and the other way round
        (-9.0, 5.0, " points"),
        (1.0, 1.5, " asks"),
    ],
)
def test_the_wording_of_the_question_counts_in_the_verdict(lead: float, doubt: float, word: str, embedded: Any) -> None:
    card = replace(CARD, verdict=[" points", " asks"], absent_margin=2.0, verdict_limit=4.0, max_reasoning=60)
    (there, *_), (missing, *_), sentence, other = (
        embedded(text, add_special_tokens=False)["input_ids"]
        for text in (*card.verdict, "This is a mammogram.", "This is a brain MRI.")
    )
    logits = torch.full((len(embedded),), -20.0)
    logits[there], logits[missing] = 0.0, lead
    grammar = AnswerGrammar.for_tokenizer(embedded, card)
    answer = GuidedAnswer(grammar, doubts={tuple(other): -99.0, tuple(sentence): doubt})
    answer.tokens += sentence
    assert embedded.decode(answer.advance(logits)) == word
    likely = int(logits.argmax())
    assert answer.advance(logits) == [likely], "the verdict falls once: later these are words like others"


# Numbers


@pytest.mark.parametrize(
    ("share", "median"),
    [
        ({120: 1.0}, 120),
        ({10: 0.4, 200: 0.6}, 200),
        ({10: 0.6, 200: 0.4}, 10),
        ({10: 0.45, 100: 0.1, 300: 0.45}, 100),
        ({n: 1 / 101 for n in range(100, 201)}, 150),
        ({0: 1.0}, 0),
        ({335: 1.0}, 335),
        ({n: n / 5050 for n in range(1, 101)}, 71),  # the sum to 70 is 2485, to 71 it is 2556; half of 5050 is 2525
    ],
)
def test_a_number_is_the_median_of_the_models_distribution(
    share: dict[int, float], median: int, whole_numbers: AnswerGrammar
) -> None:
    answer = in_answer(whole_numbers)
    answer.advance(on_numbers(whole_numbers, share))
    assert answer.numbers == [median]


def test_the_far_side_of_the_box_is_chosen_beyond_the_near_one(whole_numbers: AnswerGrammar) -> None:
    answer = in_answer(whole_numbers)
    for wanted in ({50: 1.0}, {60: 1.0}, {40: 0.9, 90: 0.1}, {60: 0.9, 61: 0.1}):
        answer.advance(on_numbers(whole_numbers, wanted))
    assert answer.numbers == [50, 60, 90, 61]


def test_a_sure_number_is_likely_and_a_vague_one_is_not(whole_numbers: AnswerGrammar) -> None:
    sure, vague = in_answer(whole_numbers), in_answer(whole_numbers)
    sure.advance(on_numbers(whole_numbers, {n: 0.2 for n in range(100, 105)}))
    vague.advance(on_numbers(whole_numbers, {n: 1 / 300 for n in range(300)}))
    assert sure.log_likelihood == pytest.approx(0.0, abs=1e-5), "four pixels to either side count as the same place"
    assert vague.log_likelihood == pytest.approx(math.log(9 / 300), abs=1e-3)

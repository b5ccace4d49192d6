"""Read the answers of published checkpoints, which may write Python's single-quoted dictionaries."""

from __future__ import annotations

import ast
import re

from medreasoner.contract.answer import AbsentAnswer, Answer, answer_from_fields, parse_answer
from medreasoner.contract.errors import AnswerError
from medreasoner.reasoner.card import ReasonerCard

_BLOCK = re.compile(r"<answer>\s*(\{.{1,2000}?\})\s*</answer>", re.DOTALL)
_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_HINT = "ask again, or use a checkpoint that writes strict JSON"


def read_answer(text: str, card: ReasonerCard) -> Answer:
    """Read a text in its card's dialect; raises `AnswerError`, also when the card does not allow "absent"."""
    answer = parse_answer(text) if card.dialect == "strict" else parse_published(text)
    if isinstance(answer, AbsentAnswer) and not card.may_abstain:
        raise AnswerError("this reasoner may not answer 'absent'", "ask again in other words")
    return answer


def parse_published(text: str) -> Answer:
    """Read one ``<answer>`` block whose dictionary is a Python or JSON literal; the reasoning may be missing.

    Wider than `parse_answer` in three ways only: quotes may be single, text may stand around the blocks, and the
    ``<think>`` block is optional. Keys, counts, finiteness and a positive area are checked as strictly.

    Raises:
        AnswerError: no block, more than one, or a literal of another form.
    """
    blocks = _BLOCK.findall(text)
    if len(blocks) != 1 or text.count("<answer>") != 1:
        raise AnswerError(f"expected one <answer> block, found {text.count('<answer>')}", _HINT)
    try:
        tree = ast.parse(re.sub(r"\btrue\b", "True", blocks[0]), mode="eval")
        fields = ast.literal_eval(tree)
        if isinstance(tree.body, ast.Dict) and len(tree.body.keys) != len(fields):
            raise ValueError("a key is repeated")
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:  # TypeError: {[1]: 2}
        raise AnswerError(f"the <answer> block is not a dictionary: {str(error)[:120]}", _HINT) from error
    reasoning = _THINK.search(text)
    return answer_from_fields(fields, reasoning[1].strip() if reasoning else "")

"""Read the answers of published checkpoints, which may write Python's single-quoted dictionaries."""

from __future__ import annotations

import ast
import re

from medreasoner.contract.answer import Answer, answer_from_fields
from medreasoner.contract.errors import AnswerError

_BLOCK = re.compile(r"<answer>\s*(\{.{1,2000}?\})\s*</answer>", re.DOTALL)
_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_HINT = "ask again, or use a checkpoint that writes strict JSON"


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
        fields = ast.literal_eval(re.sub(r"\btrue\b", "True", blocks[0]))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:  # TypeError: {[1]: 2}
        raise AnswerError(f"the <answer> block is not a dictionary: {str(error)[:120]}", _HINT) from error
    reasoning = _THINK.search(text)
    return answer_from_fields(fields, reasoning[1].strip() if reasoning else "")

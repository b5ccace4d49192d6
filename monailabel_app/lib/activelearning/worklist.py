"""A worklist: the questions that are asked about each kind of image, in a YAML file that people write.

CT:
  - Where is the liver?
MR:
  - Which structure is the hippocampus?
other:                            # images that name no modality, or one that is not listed
  - Where is the abnormality?
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import yaml

from medreasoner.contract.checks import checked_question
from medreasoner.contract.errors import MedReasonerError, QuestionError

EXAMPLE = "example"  # instead of a file's path: the worklist that ships
OTHER = "other"
_MODALITY = re.compile(r"[A-Z]{2,16}")  # PS3.3 C.7.3.1.1.1
_TEXT, _LIST = "tag:yaml.org,2002:str", "tag:yaml.org,2002:seq"
_FORM = "write modality codes such as CT, each with a list of questions; monailabel_app has an example"


class WorklistError(MedReasonerError):
    """The worklist cannot be read, or holds what is no question."""


@dataclass(frozen=True)
class Worklist:
    """Questions by DICOM modality code, and under `OTHER` for all other images."""

    questions: Mapping[str, tuple[str, ...]]
    sha256: str  # of the file
    known = True  # a worklist without questions is refused

    @classmethod
    def of(cls, name: str) -> Worklist:
        """Read a file, or the example where `name` is "example".

        Raises:
            WorklistError: it cannot be read; or a line, which it names, holds what it should not.
        """
        path = Path(str(files(__package__))) / "worklist.yaml" if name == EXAMPLE else Path(name).expanduser()
        try:
            content = path.read_bytes()
            root = yaml.compose(content.decode("utf-8"), yaml.SafeLoader)
        except OSError as error:
            raise WorklistError(f"the worklist {path} cannot be read: {error.strerror}", "name a YAML file") from error
        except UnicodeDecodeError as error:
            raise WorklistError(f"the worklist {path} is not UTF-8", "save it as UTF-8") from error
        except yaml.MarkedYAMLError as error:
            where = error.problem_mark or error.context_mark
            at = f", line {where.line + 1}" if where else ""
            raise WorklistError(f"{path.name}{at}: {error.problem}", "correct the YAML there") from error
        except yaml.YAMLError as error:
            raise WorklistError(f"{path.name} is not YAML: {error}", "remove what is no text") from error
        return cls(dict(_entries(path.name, root)), hashlib.sha256(content).hexdigest())

    def about(self, modality: str) -> tuple[str, ...]:
        """Return the questions about images of this modality, in the file's order."""
        return self.questions.get(modality) or self.questions.get(OTHER, ())


def _entries(name: str, root: yaml.Node | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    if not isinstance(root, yaml.MappingNode) or not root.value:
        raise WorklistError(f"{name} holds no table of questions", _FORM)
    seen = set()
    for key, value in root.value:
        modality = str(key.value)
        if modality != OTHER and not _MODALITY.fullmatch(modality):
            raise _wrong(name, key, f"{modality[:40]!r} is no modality")
        if modality in seen:
            raise _wrong(name, key, f"{modality} comes twice")
        seen.add(modality)
        if not isinstance(value, yaml.SequenceNode) or value.tag != _LIST or not value.value:
            raise _wrong(name, value, f"{modality} has no list of questions")
        yield modality, tuple(_questions(name, value))


def _questions(name: str, listed: yaml.SequenceNode) -> Iterator[str]:
    seen = set()
    for node in listed.value:
        if not isinstance(node, yaml.ScalarNode) or node.tag != _TEXT:
            raise _wrong(name, node, "this is no text", "write a question, in quotes where it holds a colon")
        try:
            question = checked_question(node.value)
        except QuestionError as error:
            raise _wrong(name, node, error.what, error.hint) from error
        if question in seen:
            raise _wrong(name, node, "this question comes twice", "remove one of the two")
        seen.add(question)
        yield question


def _wrong(name: str, node: yaml.Node, what: str, hint: str = _FORM) -> WorklistError:
    return WorklistError(f"{name}, line {node.start_mark.line + 1}: {what}", hint)

"""Read a YAML file into a dataclass: every key known, every value of its type, or an error that names it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from medreasoner.contract.errors import MedReasonerError

T = TypeVar("T")


def read_yaml(path: Path, kind: type[T]) -> T:
    """Return the configuration in a YAML file.

    Args:
        path: a mapping of the dataclass's fields; ``1e-6`` counts as a number, which plain YAML reads as text.
        kind: a dataclass, whose fields may be dataclasses.

    Raises:
        MedReasonerError: the file cannot be read, or some of its keys or values do not fit; all of them are named.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MedReasonerError(
            f"{path} cannot be read as YAML: {error}", "see rl_training/configs for examples"
        ) from error
    try:
        return TypeAdapter(_strict(kind)).validate_python(values or {})
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise MedReasonerError(f"{path}: {wrong}", f"the keys and their units are in {kind.__module__}") from error


def _strict(kind: type[T]) -> type[T]:
    """Let pydantic refuse keys that the dataclass does not have."""
    kind.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]
    return kind

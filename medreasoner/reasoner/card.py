"""The card of a checkpoint folder: what a reasoner was trained to read and may answer (medreasoner.json)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from medreasoner.contract.errors import CheckpointError
from medreasoner.contract.wire import SCHEMA_VERSION
from medreasoner.folders import embedded_folder
from medreasoner.instruction import instruction_hash

FILE = "medreasoner.json"
EMBEDDED = "embedded"
DIALECTS, STORED_AS = ("strict", "published"), ("", "int8-rows")


@dataclass(frozen=True)
class ReasonerCard:
    """How to talk to a checkpoint. The defaults fit a downloaded Qwen2.5-VL, Lingshu or MedReasoner folder.

    Attributes:
        canvas: side in pixels of the square every picture is letterboxed to; answers count its pixels. 840 is what
            the published system trains and evaluates on (30 x 30 image tokens, no further scaling).
        instruction: which of medreasoner/instructions the user's turn follows.
        question_first: the text stands before the image in the user's turn.
        may_abstain: ``{"absent": true}`` is a valid answer of this checkpoint.
        dialect: "strict" JSON, or "published": single-quoted dictionaries as the published checkpoints write them.
        base: where weights, tokenizer and processor lie: "" in this folder, "embedded" in the package, else a path
            relative to this folder, which then holds the card and an adapter (medreasoner.reasoner.adapter).
        base_sha256: hash of the base's weights that the adapter was trained on; empty when that is not known.
        quantised: "int8-rows" for weights of medreasoner.reasoner.quantised, "" for ordinary safetensors.
        max_reasoning: tokens after which the reasoning is cut off.
        verdict: two words, of which the reasoning holds the first when the target is there, the second when not.
        absent_margin: how many nats the second word must lead by; chosen by rl_training.calibrate.
        verdict_limit: the model's own lead counts at most that many nats either way; None: all of it.
        wording_weight: nats added to the lead for each nat of doubt from the question's wording
            (medreasoner.reasoner.wording); 0 for checkpoints without wording.safetensors.
        kinds: for each DICOM modality code, the first sentences that the reasoning may start with: what a file says of
            its modality, the reasoner need not guess. Pictures of other or unknown modality start freely.
        phrases: sentences the reasoner often writes; they speed up decoding and never change what it writes.
        trained_with: SHA-256 of the instruction it was trained with; empty when that is not known.
    """

    name: str
    canvas: int = 840
    instruction: str = "full"
    question_first: bool = False
    may_abstain: bool = False
    dialect: str = "published"
    base: str = ""
    base_sha256: str = ""
    quantised: str = ""
    max_reasoning: int = 768
    verdict: list[str] = field(default_factory=list)
    absent_margin: float = 0.0
    verdict_limit: float | None = None
    wording_weight: float = 0.0
    kinds: dict[str, list[str]] = field(default_factory=dict)
    phrases: list[str] = field(default_factory=list)
    trained_with: str = ""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Raise `ValueError` for what would otherwise be taken for something else, or fail much later."""
        if type(self.canvas) is not int or self.canvas < 1:
            raise ValueError(f"canvas is {self.canvas!r}, which is no number of pixels")
        for name, known in (("dialect", DIALECTS), ("quantised", STORED_AS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}, which is none of {known}")
        if len(self.verdict) not in (0, 2):
            raise ValueError(f"verdict is {self.verdict}, which is not two words")

    @classmethod
    def of(cls, folder: Path) -> ReasonerCard:
        """Read a folder's card, or assume the defaults where it has none.

        Raises:
            CheckpointError: the card is not readable, knows other fields, or was trained with another instruction.
        """
        path = folder / FILE
        if not path.exists():
            return cls(name=folder.name)
        try:
            card = cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            known = ", ".join(f.name for f in fields(cls))
            raise CheckpointError(f"{path} is not a reasoner card: {error}", f"its fields are {known}") from error
        if card.schema_version != SCHEMA_VERSION:
            raise CheckpointError(
                f"{folder.name} speaks schema version {card.schema_version}, this program {SCHEMA_VERSION}",
                "update the older of the two",
            )
        if card.trained_with and card.trained_with != instruction_hash(card.instruction):
            raise CheckpointError(
                f"{folder.name} was trained with another instruction than this program has",
                "use the version of medreasoner that its card was written by",
            )
        return card

    def save(self, folder: Path) -> None:
        """Write the card into a folder."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def base_folder(folder: Path, card: ReasonerCard) -> Path:
    """Return the folder that holds the weights, tokenizer and processor of a checkpoint: often the folder itself.

    Raises:
        CheckpointError: the folder that the card names is not there.
    """
    if not card.base:
        return folder
    base = embedded_folder() if card.base == EMBEDDED else (folder / card.base).resolve()
    if not base.is_dir():
        raise CheckpointError(f"{folder} changes the weights in {base}, which is not there", "put that folder back")
    return base

"""Ask about one image file and write down the answer: overlay, mask, result."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from medreasoner.contract.answer import GroundingAnswer
from medreasoner.contract.errors import ImageError
from medreasoner.imaging import StoredImage, write_mask
from medreasoner.overlay import draw_overlay
from medreasoner.picture import Picture
from medreasoner.pipeline import Grounding, GroundingPipeline


@dataclass(frozen=True)
class Written:
    """Where one answer's files lie."""

    overlay: Path
    mask: Path
    result: Path


def ask(
    pipeline: GroundingPipeline, image: StoredImage, picture: Picture, question: str, out: Path, stem: str = ""
) -> tuple[Grounding, Written]:
    """Answer a question about a picture and write the answer's files; arguments and errors as in `write`.

    Raises:
        MedReasonerError: a bad question, an unusable answer, or a folder that cannot be written.
    """
    make_folder(out)  # before the slow part
    grounding = pipeline.ground(question, picture)
    return grounding, write(pipeline, image, picture, grounding, out, stem)


def write(
    pipeline: GroundingPipeline, image: StoredImage, picture: Picture, grounding: Grounding, out: Path, stem: str = ""
) -> Written:
    """Write an answer's overlay, mask and result.

    Args:
        pipeline: reasoner and expert that gave the answer.
        image: the opened file.
        picture: the slice asked about, cut from `image`.
        grounding: the answer.
        out: folder for the files, made if missing.
        stem: start of the file names; the image's own name when empty. A number is added rather than overwriting.

    Raises:
        ImageError: the folder cannot be written.
    """
    make_folder(out)
    try:
        written = _free_names(out, stem or _stem(image.path), image)
        answer = grounding.answer
        box, points = (answer.box, answer.points) if isinstance(answer, GroundingAnswer) else (None, ())
        draw_overlay(picture, grounding.mask, box, points).save(written.overlay)
        write_mask(grounding.mask, picture, image, written.mask)
        written.result.write_text(pipeline.result(grounding, picture).to_json() + "\n", encoding="utf-8")
    except OSError as error:
        raise ImageError(
            f"{out} cannot be written: {error.strerror or error}", "choose another folder with --out"
        ) from error
    return written


def make_folder(folder: Path) -> None:
    """Make the output folder; raises `ImageError` where that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise ImageError(f"{folder} cannot be made: {reason}", "choose another folder with --out") from error


def _stem(path: Path) -> str:
    endings = r"\.(nii|nii\.gz|nrrd|nhdr|dcm|png|jpe?g|bmp|tiff?|webp)$"
    return re.sub(endings, "", path.resolve().name, flags=re.IGNORECASE)


def _mask_ending(image: StoredImage) -> str:
    """Same kind of file as the input where masks can be stored that way: NRRD for NRRD, NIfTI for other volumes."""
    if image.path.name.lower().endswith((".nrrd", ".nhdr")):
        return ".nrrd"
    return ".nii.gz" if image.is_volume or image.path.name.lower().endswith((".nii", ".nii.gz")) else ".png"


def _free_names(out: Path, stem: str, image: StoredImage) -> Written:
    for number in range(1, 10_000):
        name = stem if number == 1 else f"{stem}-{number}"
        found = Written(out / f"{name}.overlay.png", out / f"{name}.mask{_mask_ending(image)}", out / f"{name}.json")
        if not (found.overlay.exists() or found.mask.exists() or found.result.exists()):
            return found
    raise ImageError(f"{out} holds 10,000 answers called {stem}", "choose another folder with --out")

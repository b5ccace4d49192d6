"""make demo: questions about real images that installed packages carry, with one hard case shown as such."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from medreasoner.asking import ask
from medreasoner.console import errors_for_people, out
from medreasoner.contract.errors import ImageError
from medreasoner.expert import load_expert
from medreasoner.imaging import open_image
from medreasoner.pipeline import GroundingPipeline
from medreasoner.reasoner.catalogue import open_reasoner

OUT = Path("demo-output")


@dataclass(frozen=True)
class Example:
    """One question of the demo.

    Attributes:
        package, file: the installed package that carries the image, and the file in it.
        look_for: what a reader of the overlay should see if the answer is right.
        hard: a case that the embedded reasoner is known to get wrong.
    """

    name: str
    package: str
    file: str
    question: str
    look_for: str
    hard: bool = False


_HEAD = "data/test_files/J2K_pixelrep_mismatch.dcm"
EXAMPLES = (
    Example(
        "fundus-disc",
        "skimage",
        "data/retina.jpg",
        "Where do the nerve fibres leave the eye as one bundle?",
        "the optic disc, the bright round spot at the left edge",
    ),
    Example(
        "fundus-cup",
        "skimage",
        "data/retina.jpg",
        "Which pale hollow grows when the pressure in the eye is too high?",
        "the optic cup, the paler middle of the optic disc",
    ),
    Example(
        "ct-polyp",
        "pydicom",
        _HEAD,
        "Outline the polyp that should be snared.",
        "nothing: a polyp of the bowel is not in a CT of the head",
    ),
    Example(
        "mr-mole",
        "pydicom",
        "data/test_files/MR_small.dcm",
        "Which skin mole looks dangerous?",
        "nothing: this is an MR image of the inside of the body",
    ),
    Example(
        "ct-bleeding",
        "pydicom",
        _HEAD,
        "Where is the bleeding inside the skull?",
        "nothing: there is no bleeding in this slice. A box here is a mistake of the embedded reasoner",
        hard=True,
    ),
)


def image_path(example: Example) -> Path:
    """Find the image inside its package without importing the package; raises `ImageError` if it is not there."""
    spec = find_spec(example.package)
    if spec is None or spec.origin is None:
        raise ImageError(f"the package {example.package}, which carries {example.file}, is missing", "run make demo")
    return Path(spec.origin).parent / example.file


def main() -> None:
    """Answer every example, print reasoning and confidence, and say where the overlays lie."""
    with errors_for_people():
        with out.status("loading models ..."):
            pipeline = GroundingPipeline(open_reasoner(), load_expert())
        table = Table("image", "answer", "confidence", "seconds", title="research use only, not a medical device")
        for example in EXAMPLES:
            for old in OUT.glob(f"{example.name}.*"):
                old.unlink()
            image = open_image(image_path(example))
            picture = image.picture()
            grounding, written = ask(pipeline, image, picture, example.question, OUT, example.name)
            label = "  [yellow]hard case, known to fail[/]" if example.hard else ""
            out.print(f"\n[bold]{escape(example.question)}[/]  [dim]{escape(Path(example.file).name)}[/]{label}")
            out.print(escape(grounding.answer.reasoning))
            out.print(f"[dim]look for: {escape(example.look_for)}\noverlay:  {escape(str(written.overlay))}[/]")
            said = "not present" if grounding.absent else "box, two points, mask"
            table.add_row(example.name, said, f"{grounding.confidence:.2f}", f"{grounding.timings['total']:.1f}")
        out.print()
        out.print(table)
        out.print(f"overlays, masks and results: {OUT}/")


if __name__ == "__main__":
    main()

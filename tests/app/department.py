"""A made department for the loop's page: images from packages, labels, scores, checkpoints and a training under way.

python -m tests.app.department     makes docs/pictures/loop.png; look at it before committing it
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image
from pydicom.data import get_testdata_file

from medreasoner.contract.label import LabelRecord
from medreasoner.reasoner.champions import Champions, Lineage
from monailabel_app.lib.datastore import open_datastore
from monailabel_app.lib.datastore.label_shelf import FOLDER
from monailabel_app.lib.datastore.shelved import ShelvedDatastore
from monailabel_app.lib.settings import Settings
from monailabel_app.lib.trainers.run_folder import LOCK, STATE, RunFolder
from tests.app.server import ROOT, data_folder
from tests.app.small import SmallApplication, served
from tests.browser import Browser
from tests.collection import retina

PICTURE = ROOT / "docs" / "pictures" / "loop.png"
FIRST_DAY, DAYS, LABELS = date(2026, 10, 5), 52, 140
QUESTIONS = {
    "fundus-a": "Where do the nerve fibres leave the eye?",
    "fundus-b": "Which vessel is the widest?",
    "fundus-c": "Which dark spot has no vessels?",
    "brain-a": "Where is the fluid in the middle of the brain?",
    "brain-b": "Which part is bright on both sides?",
}
DICOM = {
    "CT_small.dcm": "Which bone surrounds the spinal cord?",
    "J2K_pixelrep_mismatch.dcm": "Where is the blood?",
    "MR_small.dcm": "Which structure is round and bright?",
    "JPEG2000.dcm": "Which joint takes up most tracer?",
    "693_J2KI.dcm": "Where does the skull end?",
}
MEASURED = (  # box IoU, Dice, failures of MR, CT, fundus, US: the shipped reasoner, then four that were trained
    (0.583, 0.661, (9, 7, 3, 5)),
    (0.631, 0.702, (8, 5, 2, 5)),
    (0.604, 0.684, (9, 6, 2, 4)),
    (0.672, 0.741, (6, 5, 1, 4)),
    (0.701, 0.762, (5, 4, 1, 4)),
)
CASES = (22, 20, 14, 8)


class StoredApplication(SmallApplication):
    """Real images and labels; models that are not there."""

    def __init__(self, store: ShelvedDatastore) -> None:
        super().__init__()
        self.store = store


@dataclass(frozen=True)
class Department:
    """Where everything lies."""

    studies: Path
    registry: Path
    store: ShelvedDatastore
    scores: dict[str, float]

    @property
    def champions(self) -> Champions:
        return Champions(self.registry)

    @contextlib.contextmanager
    def served(self, tokens: Path | None = None) -> Iterator[str]:
        settings = Settings(registry=str(self.registry), tokens=str(tokens or ""))
        with served(StoredApplication(self.store), settings) as url:
            yield url


def make_department(folder: Path) -> Department:
    """Fill an empty folder; the same figures every time."""
    studies, registry, chance = folder / "studies", folder / "registry", random.Random(7)
    studies.mkdir(parents=True)
    _add_images(studies)
    _add_labels(studies, chance)
    _add_checkpoints(Champions(registry), folder)
    _begin_training(registry)
    store = open_datastore(str(studies), Settings())
    assert isinstance(store, ShelvedDatastore)
    scores = _add_scores(store, chance)
    return Department(studies, registry, store, scores)


def _add_images(studies: Path) -> None:
    photograph = retina()
    crops = {"a": (0, 0, 1411, 1411), "b": (60, 460, 560, 960), "c": (480, 440, 980, 940)}
    for name, crop in crops.items():
        photograph.crop(crop).resize((400, 400)).save(studies / f"fundus-{name}.jpg")
    anatomical = nibabel.load(data_folder("nibabel") / "tests" / "data" / "anatomical.nii")
    nibabel.save(anatomical, studies / "brain-a.nii")
    nibabel.save(anatomical.slicer[:, :, :15], studies / "brain-b.nii")
    for name in DICOM:
        shutil.copy(get_testdata_file(name), studies / name)
    for number in range(LABELS):
        photograph.crop((5 * number, 400, 5 * number + 64, 464)).save(studies / f"visit-{number:03d}.png")


def _add_labels(studies: Path, chance: random.Random) -> None:
    """As the server saves them, on days that a department works."""
    days = [FIRST_DAY + timedelta(n) for n in range(DAYS) if (FIRST_DAY + timedelta(n)).weekday() < 5]
    shelf = studies / FOLDER / "final"
    shelf.mkdir(parents=True)
    for number in range(LABELS):
        image, mask = f"visit-{number:03d}", f"visit-{number:03d}.0000000a.mask.png"
        saved = f"{chance.choice(days)}T{chance.randint(7, 17):02d}:30:00.000+00:00"
        record = LabelRecord("Where is the vessel?", absent=False, axis="stored", slice_index=0, saved_at=saved)
        Image.fromarray(np.eye(64, dtype=np.uint8)).save(shelf / mask)
        entry = {"files": {"mask": mask}, "info": {"medreasoner": asdict(record)}}
        (shelf / f"{image}.json").write_text(json.dumps(entry))


def _add_checkpoints(champions: Champions, folder: Path) -> None:
    """Four of them, of which the second is refused."""
    adapter = folder / "adapter"
    adapter.mkdir()
    (adapter / "medreasoner.json").write_text("{}")
    for number, after in enumerate(MEASURED[1:], 1):
        before = champions.number()
        mean = after[0] - MEASURED[before][0]
        champions.propose(
            adapter,
            Lineage(
                made_at=f"{FIRST_DAY + timedelta(12 * number)}T02:10:00+00:00",
                parent=str(before) * 64,
                parent_number=before,
                data_sha256=str(number) * 64,
                labels=35 * number,
                champion=_metrics(MEASURED[before]),
                challenger=_metrics(after),
                difference={"mean": round(mean, 3), "low": round(mean - 0.025, 3), "high": round(mean + 0.025, 3)},
            ),
        )


def _begin_training(registry: Path) -> None:
    run = RunFolder(registry)
    run.make_ready(anew=True)
    state = {"status": "training", "progress": 0.4, "step": 48, "of": 120, "message": ""}
    (run.path / STATE).write_text(json.dumps(state))


@contextlib.contextmanager
def at_work(registry: Path) -> Iterator[None]:
    """Hold the lock that a living training holds."""
    with (RunFolder(registry).path / LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _metrics(measured: tuple[float, float, tuple[int, ...]]) -> dict:
    iou, dice, failures = measured
    kinds = zip(("MR", "CT", "fundus", "US"), CASES, failures, strict=True)
    by_modality = {kind: {"n": n, "box_iou": iou, "failures": failed} for kind, n, failed in kinds}
    return {"n": sum(CASES), "box_iou": iou, "dice": dice, "false_absent": 0.03, "by_modality": by_modality}


def _add_scores(store: ShelvedDatastore, chance: random.Random) -> dict[str, float]:
    """Every image that nobody has labelled, and half of the others, which must not be proposed."""
    asked = {**QUESTIONS, **{_series(name): question for name, question in DICOM.items()}}
    others = {f"visit-{number:03d}": "Where is the vessel?" for number in range(0, LABELS, 2)}
    scores = {image: round(chance.betavariate(1.6, 3.2), 3) for image in {**asked, **others}}
    for image, question in {**asked, **others}.items():
        note = {"scores": {"disagreement": scores[image], "low_confidence": 0.5}, "question": question}
        store.update_image_info(image, {"medreasoner": note})
    return scores


def _series(name: str) -> str:
    from pydicom import dcmread

    return str(dcmread(get_testdata_file(name), stop_before_pixels=True).SeriesInstanceUID)


def show(browser: Browser, url: str, scheme: str = "light", width: int = 1180, height: int = 0) -> None:
    """Open the page in a colour scheme and wait for its pictures; without a height, as high as it is."""
    browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    for tall in (900, height):
        tall = tall or browser.run("document.documentElement.scrollHeight")
        size = {"width": width, "height": tall, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.send("Emulation.setDeviceMetricsOverride", **size)
        if tall == 900:
            browser.open(url)
            browser.wait("document.readyState === 'complete'")
    browser.wait("[...document.images].every(i => i.complete && i.naturalWidth)")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        made = make_department(Path(place) / "department")
        with at_work(made.registry), made.served() as address, Browser(Path(place) / "profile") as page:
            show(page, f"{address}/loop")
            page.screenshot(PICTURE)
    Image.open(PICTURE).quantize(256).save(PICTURE, optimize=True)  # a third of the size

"""What every datastore here has in common: labels lie on a shelf, and of images only notes are kept beside them."""

from __future__ import annotations

import logging
import tempfile
import zipfile
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from medreasoner.contract.errors import ImageError, MedReasonerError
from medreasoner.contract.label import LabelRecord, now
from medreasoner.durable import PARTIAL
from monailabel_app.lib.datastore.image_notes import ImageNotes
from monailabel_app.lib.datastore.label_shelf import LabelShelf
from monailabel_app.lib.dicom_output import record_of

log = logging.getLogger(__name__)
FINAL = DefaultLabelTag.FINAL.value
NOTES = ".notes"  # folder on the shelf of what is noted of images; no tag begins with a dot
MASK_ENDINGS = (".nii.gz", ".nii", ".nrrd")


class UnknownImage(ImageError):
    """The datastore has no such image."""

    status = 404


class StudiesAway(MedReasonerError):
    """The folder of the studies is gone, as that of a network drive at times is."""

    status = 503

    @classmethod
    def because(cls, error: OSError) -> StudiesAway:
        """Say what the operating system said."""
        said = error.strerror or error
        return cls(f"the studies cannot be listed: {said}", "ask again when their folder is there")


class ShelvedDatastore(Datastore):
    """A `Datastore` of MONAI Label less its images, which a subclass lists and finds.

    A label keeps the mask as it came and the record of question, answer, author and edits.
    """

    def __init__(self, name: str, description: str, labels: LabelShelf) -> None:
        self._name, self._description, self._labels = name, description, labels
        self._notes = ImageNotes(labels.folder / NOTES)

    @abstractmethod
    def list_images(self) -> list[str]:
        """Return the images one can ask about."""

    @abstractmethod
    def get_image_uri(self, image_id: str) -> str:
        """Return the path of an image, a file or a folder; raises `UnknownImage`."""

    @abstractmethod
    def image_facts(self, image_id: str) -> dict[str, Any]:
        """Return what the image's files say; nothing that names the patient. Raises `UnknownImage`."""

    def files_of(self, image_id: str) -> Iterable[Path]:
        """Return the files of an image."""
        path = Path(self.get_image_uri(image_id))
        return sorted(path.iterdir()) if path.is_dir() else [path]

    def close(self) -> None:
        """Remove what lies on the disk for this server alone; called once, at its end."""
        return

    def name(self) -> str:
        return self._name

    def set_name(self, name: str) -> None:
        self._name = name

    def description(self) -> str:
        return self._description

    def set_description(self, description: str) -> None:
        self._description = description

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        return {**self.image_facts(image_id), **self._notes.of(image_id)}

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        self._notes.add(image_id, info)

    def notes(self) -> dict[str, dict[str, Any]]:
        """Return what was noted of images (`update_image_info`), by image; opens none of their files."""
        return self._notes.all()

    def subject_of(self, image_id: str) -> str:
        """Return an id that an image shares with others of the same patient, as far as its files name one."""
        return image_id

    def labelled(self, tag: str) -> set[str]:
        """Return the images that have a label with this tag."""
        return self._labels.labelled(tag)

    def label_stamps(self, tag: str) -> dict[str, int]:
        """Return the images that were labelled here with this tag, and when each label last changed, in ns."""
        return self._labels.stamps(tag)

    # One target a label here, so MONAI Label's third argument, names of segments, chooses nothing.
    def get_labeled_images(self, label_tag: str | None = None, labels: Any = None) -> list[str]:  # noqa: ARG002
        labelled = self.labelled(label_tag or FINAL)
        return [image for image in self.list_images() if image in labelled]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: Any = None) -> list[str]:  # noqa: ARG002
        labelled = self.labelled(label_tag or FINAL)
        return [image for image in self.list_images() if image not in labelled]

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        return dict.fromkeys(self._labels.tags_of(image_id), image_id)

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        return self.get_labels_by_image_id(image_id).get(tag, "")

    def get_label(self, label_id: str, label_tag: str, params: Any = None) -> Any:  # noqa: ARG002
        return self.label_content(label_id, label_tag)[1]

    def label_content(self, label_id: str, label_tag: str) -> tuple[str, bytes]:
        """Return a label's mask file by name and content; errors as those of `LabelShelf.content`."""
        return self._labels.content(label_id, label_tag)

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        return str(self._labels.file(label_id, label_tag))

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        return self._labels.info(label_id, label_tag)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        self._labels.update_info(label_id, label_tag, info)

    def remove_label(self, label_id: str, label_tag: str) -> None:
        self._labels.remove(label_id, label_tag)

    def refresh(self) -> None:
        """Nothing is remembered that could be stale."""

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:  # noqa: ARG002
        labelled = self._labels.labelled(FINAL)
        return [
            {"image": self.get_image_uri(image), "label": self.get_label_uri(image, FINAL)}
            for image in self.list_images()
            if image in labelled
        ]

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """Pack labelled images and their final masks; the caller removes the file."""
        cases = sorted(self._labels.labelled(FINAL).intersection(self.list_images()))[:limit_cases]
        with tempfile.NamedTemporaryFile(suffix=".zip", delete=False) as target, zipfile.ZipFile(target, "w") as pack:
            for image in cases:
                for file in self.files_of(image):
                    pack.write(file, f"images/{image}/{file.name}")
                name, content = self._labels.content(image, FINAL)
                pack.writestr(f"labels/{name}", content)
        return target.name

    def status(self) -> dict[str, Any]:
        return {
            "total": len(self.list_images()),
            "completed": len(self.get_labeled_images()),
            "label_tags": {tag: len(self.labelled(tag)) for tag in self._labels.tags()},
        }

    def json(self) -> dict[str, Any]:
        objects = {
            image: {"image": self.get_image_info(image), "labels": self.get_labels_by_image_id(image)}
            for image in self.list_images()
        }
        return {"name": self.name(), "description": self.description(), "objects": objects}


def remove_unfinished(folder: Path) -> None:
    """Remove from a folder of images, which need not exist, the uploads that a server did not live to finish."""
    for partial in folder.glob(f"{PARTIAL}*"):
        log.warning("removing %s, which an interrupted upload left behind", partial.name)
        partial.unlink()


def mask_ending(label_filename: str, allowed: tuple[str, ...] = MASK_ENDINGS) -> str:
    """Return the ending of a label's file; raises `ImageError` where labels are not kept as such files."""
    name = Path(label_filename).name.lower()
    ending = next((e for e in allowed if name.endswith(e)), None)
    if ending is None:
        raise ImageError(f"a label cannot be the file {name[-60:]!r}", f"send one of {', '.join(allowed)}")
    return ending


def signed_record(info: Mapping[str, Any]) -> LabelRecord:
    """The record that came with a label, with its author and this moment; raises `MedReasonerError` as `record_of`."""
    record = record_of(info)
    author = info.get("author") or info.get("user") or record.author
    return replace(record, author=str(author), saved_at=now())


def with_record(info: Mapping[str, Any], record: LabelRecord) -> dict[str, Any]:
    """What is kept of a label beside its mask."""
    return {**info, "medreasoner": asdict(record)}

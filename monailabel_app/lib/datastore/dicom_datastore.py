"""What an archive and a folder of DICOM have in common: images are series, labels are Segmentations and Reports."""

from __future__ import annotations

import tempfile
import threading
import zipfile
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from pydicom.dataset import Dataset

from medreasoner.contract.errors import ImageError, MedReasonerError
from medreasoner.contract.label import LabelRecord, now
from medreasoner.imaging import open_image
from monailabel_app.lib.datastore.label_shelf import LabelShelf
from monailabel_app.lib.dicom_output import file_bytes, record_of, results

FINAL = DefaultLabelTag.FINAL.value
MASK_ENDINGS = (".nii.gz", ".nii", ".nrrd")


class UnknownSeries(ImageError):
    """There is no such series, or it holds no images one can ask about."""

    status = 404


class DicomDatastore(Datastore):
    """Series by their SeriesInstanceUID, as MONAI Label asks for them; an image's path is a folder of its files.

    A label keeps the mask as it came, its Segmentation, the Report and the record of question and answer.
    """

    def __init__(self, name: str, labels: LabelShelf) -> None:
        self._name, self._description, self._labels = name, "DICOM series", labels
        self._notes: dict[str, dict[str, Any]] = {}  # what strategies and scores say of images; not kept
        self._noting = threading.Lock()

    @abstractmethod
    def list_images(self) -> list[str]:
        """Return the series one can ask about."""

    @abstractmethod
    def get_image_uri(self, image_id: str) -> str:
        """Return a folder that holds this series and nothing else; raises `UnknownSeries`."""

    @abstractmethod
    def series_info(self, image_id: str) -> dict[str, Any]:
        """Return modality, description and the like; nothing that names the patient. Raises `UnknownSeries`."""

    def publish(self, datasets: list[Dataset]) -> None:
        """Make a final label known outside; a folder has nobody to tell."""

    def name(self) -> str:
        return self._name

    def set_name(self, name: str) -> None:
        self._name = name

    def description(self) -> str:
        return self._description

    def set_description(self, description: str) -> None:
        self._description = description

    def get_image(self, image_id: str, params: Any = None) -> Any:  # noqa: ARG002
        raise MedReasonerError(f"{image_id} is a series of files", "ask for its path, or for one instance")

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        return {**self.series_info(image_id), **self._notes.get(image_id, {})}

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        with self._noting:
            self._notes[image_id] = {**self._notes.get(image_id, {}), **info}

    def labelled(self, tag: str) -> set[str]:
        """Return the series that have a label with this tag."""
        return self._labels.labelled(tag)

    # One target a label here, so MONAI Label's third argument, names of segments, chooses nothing.
    def get_labeled_images(self, label_tag: str | None = None, labels: Any = None) -> list[str]:  # noqa: ARG002
        labelled = self.labelled(label_tag or FINAL)
        return [image for image in self.list_images() if image in labelled]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: Any = None) -> list[str]:  # noqa: ARG002
        labelled = self.labelled(label_tag or FINAL)
        return [image for image in self.list_images() if image not in labelled]

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: Mapping[str, Any]) -> str:
        """Keep a label in all its forms; a final one is published first, so that what is acknowledged is everywhere.

        Raises:
            UnknownSeries: there is no such series.
            MedReasonerError: the mask or its record cannot be used, or the label cannot be written or published.
        """
        mask = Path(label_filename)
        ending = next((e for e in MASK_ENDINGS if mask.name.lower().endswith(e)), None)
        if ending is None:
            raise ImageError(f"a label cannot be a {mask.suffix or 'file without ending'}", "send .nii.gz or .nrrd")
        record = self._signed(record_of(label_info), label_info)
        image = open_image(Path(self.get_image_uri(image_id)))
        made = results(image, mask, record, (label_info.get("params") or {}).get("confidence"))
        files = {f"mask{ending}": mask.read_bytes()}
        files |= {f"{name}.dcm": file_bytes(dataset) for name, dataset in made.files.items()}
        if label_tag == FINAL:
            self.publish(list(made.files.values()))
        self._labels.put(image_id, label_tag, files, {**label_info, "medreasoner": asdict(record)})
        return image_id

    @staticmethod
    def _signed(record: LabelRecord, info: Mapping[str, Any]) -> LabelRecord:
        author = info.get("author") or info.get("user") or record.author
        return replace(record, author=str(author), saved_at=now())

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        return dict.fromkeys(self._labels.tags_of(image_id), image_id)

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        return self.get_labels_by_image_id(image_id).get(tag, "")

    def get_label(self, label_id: str, label_tag: str, params: Any = None) -> Any:  # noqa: ARG002
        return self._labels.file(label_id, label_tag).read_bytes()

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        return str(self._labels.file(label_id, label_tag))

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        return self._labels.info(label_id, label_tag)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        self._labels.update_info(label_id, label_tag, info)

    def remove_label(self, label_id: str, label_tag: str) -> None:
        self._labels.remove(label_id, label_tag)

    def remove_image(self, image_id: str) -> None:
        raise MedReasonerError(
            f"{image_id} stays: this server deletes no studies", "delete it in the archive or folder"
        )

    def refresh(self) -> None:
        """Nothing is remembered that could be stale."""

    def datalist(self) -> list[dict[str, Any]]:
        kept = self._labels.labelled(FINAL)
        return [
            {"image": self.get_image_uri(image), "label": self.get_label_uri(image, FINAL)}
            for image in self.list_images()
            if image in kept
        ]

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """Pack labelled series and their final masks; the caller removes the file."""
        with tempfile.NamedTemporaryFile(suffix=".zip", delete=False) as target, zipfile.ZipFile(target, "w") as pack:
            for pair in self.datalist()[:limit_cases]:
                folder, label = Path(pair["image"]), Path(pair["label"])
                for file in sorted(folder.iterdir()):
                    pack.write(file, f"{folder.name}/{file.name}")
                pack.write(label, f"labels/{label.name}")
        return target.name

    def status(self) -> dict[str, Any]:
        tags = self._labels.tags()
        return {
            "total": len(self.list_images()),
            "completed": len(self.get_labeled_images()),
            "label_tags": {tag: len(self._labels.labelled(tag)) for tag in tags},
        }

    def json(self) -> dict[str, Any]:
        objects = {
            image: {"image": self.get_image_info(image), "labels": self.get_labels_by_image_id(image)}
            for image in self.list_images()
        }
        return {"name": self.name(), "description": self.description(), "objects": objects}

"""What an archive and a folder of DICOM have in common: images are series, labels are Segmentations and Reports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from medreasoner.contract.errors import MedReasonerError
from medreasoner.imaging import open_image
from monailabel_app.lib.datastore.label_shelf import LabelShelf
from monailabel_app.lib.datastore.shelved import (
    FINAL,
    MASK_ENDINGS,
    ShelvedDatastore,
    UnknownImage,
    mask_ending,
    signed_record,
    with_record,
)
from monailabel_app.lib.dicom_output import file_bytes, names_of, results


class UnknownSeries(UnknownImage):
    """There is no such series, or it holds no images one can ask about."""


class DicomDatastore(ShelvedDatastore):
    """Series by their SeriesInstanceUID; an image's path is a folder of its files and nothing else.

    A label keeps, beside mask and record, its Segmentation and the Report.
    """

    def __init__(self, name: str, labels: LabelShelf) -> None:
        super().__init__(name, "DICOM series", labels)

    def publish(self, datasets: list[Dataset]) -> None:
        """Make a final label known outside; a folder has nobody to tell."""

    def get_image(self, image_id: str, params: Any = None) -> Any:  # noqa: ARG002
        raise MedReasonerError(f"{image_id} is a series of files", "ask for its path, or for one instance")

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: Mapping[str, Any]) -> str:
        """Keep a label in all its forms; a final one is published first, so that what is acknowledged is everywhere.

        Raises:
            UnknownSeries: there is no such series.
            MedReasonerError: the mask or its record cannot be used, or the label cannot be written or published.
        """
        mask, ending = Path(label_filename), mask_ending(label_filename, (*MASK_ENDINGS, ".png"))
        record = signed_record(label_info)
        image = open_image(Path(self.get_image_uri(image_id)))
        sure = (label_info.get("params") or {}).get("confidence")
        made = results(image, mask, record, sure, names_of(label_info))
        files = {f"mask{ending}": mask.read_bytes()}
        files |= {f"{name}.dcm": file_bytes(dataset) for name, dataset in made.files.items()}
        if label_tag == FINAL:
            self.publish(list(made.files.values()))
        self._labels.put(image_id, label_tag, files, with_record(label_info, record))
        return image_id

    def remove_image(self, image_id: str) -> None:
        raise MedReasonerError(
            f"{image_id} stays: this server deletes no studies", "delete it in the archive or folder"
        )

"""A folder of studies of any kind: images by the names of their files, DICOM series by their identifiers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel_app.lib.datastore.dicom_folder import DicomFolderDatastore, is_dicom
from monailabel_app.lib.datastore.local import LocalDatastore


class MixedFolderDatastore(LocalDatastore):
    """A `LocalDatastore` that also knows the DICOM series in its folder and below. Labels lie on one shelf."""

    def __init__(self, studies: Path) -> None:
        self._series = DicomFolderDatastore(studies)  # first, for the parent lists the images as it opens
        super().__init__(studies)

    def list_images(self) -> list[str]:
        return sorted([*super().list_images(), *self._series.list_images()])

    def get_image_uri(self, image_id: str) -> str:
        return self._series.get_image_uri(image_id) if image_id in self._series else super().get_image_uri(image_id)

    def get_image(self, image_id: str, params: Any = None) -> Any:
        return self._series.get_image(image_id) if image_id in self._series else super().get_image(image_id, params)

    def image_facts(self, image_id: str) -> dict[str, Any]:
        return self._series.image_facts(image_id) if image_id in self._series else super().image_facts(image_id)

    def subject_of(self, image_id: str) -> str:
        return self._series.subject_of(image_id) if image_id in self._series else super().subject_of(image_id)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        if is_dicom(Path(image_filename)):
            return self._series.add_image(image_id, image_filename, image_info)
        return super().add_image(image_id, image_filename, image_info)

    def remove_image(self, image_id: str) -> None:
        if image_id in self._series:
            self._series.remove_image(image_id)
        else:
            super().remove_image(image_id)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: Mapping[str, Any]) -> str:
        if image_id in self._series:
            return self._series.save_label(image_id, label_filename, label_tag, label_info)
        return super().save_label(image_id, label_filename, label_tag, label_info)

    def refresh(self) -> None:
        self._series.refresh()

    def close(self) -> None:
        self._series.close()

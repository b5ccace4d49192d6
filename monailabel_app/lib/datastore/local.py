"""A folder of NIfTI, NRRD and ordinary pictures; an image's id is its file's name without the ending."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medreasoner.contract.errors import ImageError, MedReasonerError
from medreasoner.durable import copy_durably
from medreasoner.imaging import open_image
from monailabel_app.lib.datastore.label_shelf import FOLDER, LabelShelf
from monailabel_app.lib.datastore.shelved import (
    MASK_ENDINGS,
    ShelvedDatastore,
    StudiesAway,
    UnknownImage,
    mask_ending,
    remove_unfinished,
    signed_record,
    with_record,
)
from monailabel_app.lib.dicom_output import mask_on_grid

log = logging.getLogger(__name__)
IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
LABEL_ENDINGS = (*MASK_ENDINGS, ".png")
MONAI_LABELS_INDEX = "datastore_v2.json"
_SETTLED_NS = 10**9  # two changes within a tick of the file system's clock have one time


class LocalDatastore(ShelvedDatastore):
    """The images that lie directly in one folder, listed anew whenever it has changed.

    Where two files differ by their ending only, the first of `IMAGE_ENDINGS` keeps the short id and the others are
    known by their whole name. Images and labels are whole on the disk before anyone is told that they are saved.
    """

    def __init__(self, studies: Path) -> None:
        """Open a folder, with the labels that are in it.

        Labels that MONAI Label's own datastore has saved there are taken over at the first start.
        """
        shelf = studies / FOLDER
        first_start = not shelf.is_dir()
        super().__init__(studies.name, "Images in a folder", LabelShelf(shelf))
        self._studies, self._adding = studies, threading.Lock()
        self._listing: tuple[int, dict[str, Path]] = -1, {}  # when the folder had changed, in ns; images by id
        remove_unfinished(studies)
        if first_start:
            self._take_over()

    def list_images(self) -> list[str]:
        return sorted(self._files())

    def get_image_uri(self, image_id: str) -> str:
        found = self._files().get(image_id)
        if found is None:
            raise UnknownImage(f"there is no image {image_id[:64]!r}", "ask for one of the listed images")
        return str(found)

    def get_image(self, image_id: str, params: Any = None) -> Any:  # noqa: ARG002
        return Path(self.get_image_uri(image_id)).read_bytes()

    def image_facts(self, image_id: str) -> dict[str, Any]:
        path = Path(self.get_image_uri(image_id))
        return {"name": path.name, "ts": int(path.stat().st_mtime), "path": str(path)}

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Take in an image, once it could be opened; returns its id.

        Raises:
            ImageError: it cannot be opened, there is one of this id already, or the id cannot be a file's name.
            NotWritten: there is no room for what is noted of it; then the image is not kept either.
            OSError: there is no room for the image.
        """
        source = Path(image_filename)
        ending = _ending(source.name)
        name = image_id or source.name.removesuffix(ending)
        if not ending or not name or Path(name).name != name or name.startswith("."):
            raise ImageError(f"an image cannot be called {name[:64]!r}", f"send a file as {', '.join(IMAGE_ENDINGS)}")
        open_image(source)
        with self._adding:
            if name in self._files():
                raise ImageError(f"there is an image {name} already", "store it under another id")
            path = self._studies / f"{name}{ending}"
            copy_durably(source, path)
            try:
                self.update_image_info(name, image_info or {})
            except BaseException:
                path.unlink()
                raise
        return name

    def remove_image(self, image_id: str) -> None:
        path = Path(self.get_image_uri(image_id))
        for tag in self._labels.tags_of(image_id):
            self._labels.remove(image_id, tag)
        self._notes.remove(image_id)
        path.unlink()

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: Mapping[str, Any]) -> str:
        """Keep a mask and its record, both whole or neither; returns the label's id, which is the image's.

        Raises:
            UnknownImage: there is no such image.
            MedReasonerError: the mask does not fit the image, the record cannot be used, or there is no room.
        """
        mask, ending = Path(label_filename), mask_ending(label_filename, LABEL_ENDINGS)
        record = signed_record(label_info)
        mask_on_grid(mask, open_image(Path(self.get_image_uri(image_id))))
        self._labels.put(image_id, label_tag, {f"mask{ending}": mask.read_bytes()}, with_record(label_info, record))
        return image_id

    def _files(self) -> dict[str, Path]:
        """The images by id; raises `StudiesAway`."""
        changed, files = self._listing
        try:
            now, before = time.time_ns(), self._studies.stat().st_mtime_ns
            if changed != before:
                files = self._listed()
                self._listing = (before if now - before > _SETTLED_NS else -1), files
        except OSError as error:
            raise StudiesAway.because(error) from error
        return files

    def _listed(self) -> dict[str, Path]:
        there = sorted(p for p in self._studies.iterdir() if _ending(p.name) and p.is_file() and p.name[0] != ".")
        found: dict[str, Path] = {}
        for path in sorted(there, key=lambda p: IMAGE_ENDINGS.index(_ending(p.name))):
            short = path.name[: -len(_ending(path.name))]
            found[path.name if short in found else short] = path
        return found

    def _take_over(self) -> None:
        known = _monai_labels_notes(self._studies / MONAI_LABELS_INDEX)
        for image in self.list_images():
            for mask in sorted((self._studies / "labels").glob("*/*")):
                ending = next((e for e in LABEL_ENDINGS if mask.name == f"{image}{e}"), None)
                if ending is not None:
                    info = known.get(image, {}).get("labels", {}).get(mask.parent.name, {}).get("info", {})
                    self._labels.put(image, mask.parent.name, {f"mask{ending}": mask.read_bytes()}, info)
                    log.warning("took over the label %s of %s from MONAI Label", mask.parent.name, image)


def open_local(folder: Path, kind: type[LocalDatastore] = LocalDatastore) -> LocalDatastore:
    """Open a folder of images as that kind of datastore, however an earlier server ended.

    Raises:
        MedReasonerError: it cannot be read or written.
    """
    try:
        return kind(folder)
    except OSError as error:
        raise MedReasonerError(
            f"the studies folder {folder} cannot be used: {error.strerror or error}", "check who may read and write it"
        ) from error


def _ending(name: str) -> str:
    return next((ending for ending in IMAGE_ENDINGS if name.lower().endswith(ending)), "")


def _monai_labels_notes(index: Path) -> dict[str, Any]:
    """What MONAI Label has noted of its labels; nothing, and a line in the log, where that cannot be read."""
    if not index.is_file():
        return {}
    try:
        return dict(json.loads(index.read_text(encoding="utf-8"))["objects"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.error("MONAI Label's index %s cannot be read (%s); its labels are taken over without notes", index, error)
        return {}

"""Where the studies are: a DICOMweb archive, or a folder of DICOM, NIfTI, NRRD and pictures."""

from __future__ import annotations

from pathlib import Path

from monailabel.interfaces.datastore import Datastore

from medreasoner.contract.errors import MedReasonerError
from monailabel_app.lib.settings import Settings


def open_datastore(studies: str, settings: Settings) -> Datastore:
    """Open the studies, whatever they are.

    Args:
        studies: URL of a DICOMweb service (the part before ``/studies``), or a folder.
        settings: how to speak to the archive.

    Raises:
        MedReasonerError: the folder does not exist, or cannot be read or written.
    """
    if studies.startswith(("http://", "https://")):
        from monailabel_app.lib.datastore.dicomweb import DicomWebDatastore

        return DicomWebDatastore(studies.strip().rstrip("/"), settings)
    folder = Path(studies).expanduser()
    if not folder.is_dir():
        raise MedReasonerError(f"there is no folder {folder}", "name the folder of the studies, or a DICOMweb URL")
    from monailabel_app.lib.datastore.local import open_local
    from monailabel_app.lib.datastore.mixed_folder import MixedFolderDatastore

    return open_local(folder, MixedFolderDatastore)

"""A full disk: 507 with what to do, nothing half-written, and the next smaller upload works."""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
from pathlib import Path

import httpx
import nibabel
import numpy as np
import pytest

from medreasoner.contract.errors import MedReasonerError
from monailabel_app.lib.datastore import open_datastore
from monailabel_app.lib.datastore.label_shelf import FOLDER
from monailabel_app.lib.datastore.shelved import NOTES
from monailabel_app.lib.sessions import UploadedVolumes
from monailabel_app.lib.settings import Settings
from tests.app.small import SmallApplication, served

LIMIT = 500_000  # bytes a file may have; the system then ends a write in the middle, as a full disk does


def volume(path: Path, side: int) -> Path:
    nibabel.save(nibabel.Nifti1Image(np.zeros((side, side, side), np.uint8), np.eye(4)), path)
    return path


def there(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*"))


@pytest.mark.parametrize("side", [90, 110], ids=["while it is kept", "while it is received"])  # forms spill at 1 MiB
def test_an_upload_that_finds_no_room_is_refused_and_leaves_nothing(side: int, tmp_path: Path) -> None:
    """In a child process, for the limit is a process's."""
    studies, sessions, temporary = (tmp_path / name for name in ("studies", "sessions", "temporary"))
    for folder in (studies, sessions, temporary):
        folder.mkdir()
    large, small = volume(tmp_path / "large.nii", side), volume(tmp_path / "small.nii", 20)

    def serve() -> None:
        tempfile.tempdir = str(temporary)
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
        application = SmallApplication()
        application.store = open_datastore(str(studies), Settings())
        application.sessions = lambda: UploadedVolumes(str(sessions), 60)
        with served(application) as url, httpx.Client(base_url=url) as client:
            assert client.put("/datastore/image?image=small", files={"file": small.open("rb")}).is_success
            before = there(studies, sessions, temporary)
            for address, field in (
                ("/session/", "files"),
                ("/datastore/image?image=new", "file"),
                ("/datastore/label?image=small", "label"),
            ):
                reply = client.put(address, files={field: large.open("rb")})
                assert (reply.status_code, reply.json()["kind"]) == (507, "NoRoom"), reply.text
                assert "full" in reply.json()["detail"]
                assert "make room" in reply.json()["hint"]
                assert there(studies, sessions, temporary) == before
            assert client.put("/session/", files={"files": small.open("rb")}).is_success

    child = multiprocessing.get_context("fork").Process(target=serve)
    child.start()
    child.join(60)
    assert child.exitcode == 0


def test_an_image_whose_notes_find_no_room_is_not_kept(tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    store = open_datastore(str(studies), Settings())
    (studies / FOLDER).mkdir(exist_ok=True)
    (studies / FOLDER / NOTES).touch()  # so that no file can be written below it
    with pytest.raises(MedReasonerError) as refused:
        store.add_image("case", str(volume(tmp_path / "case.nii", 20)), {})
    assert refused.value.status == 507
    assert store.list_images() == []

"""Uploaded volumes: kept as long as the setting says, and no longer, whatever an earlier server has left."""

import os
import shutil
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from monailabel.config import settings as monai_label
from monailabel.interfaces.app import MONAILabelApp

from monailabel_app.gateway.errors import NotFound
from monailabel_app.gateway.validation import session_image
from monailabel_app.lib.datastore import open_datastore
from monailabel_app.lib.datastore.shelved import UnknownImage
from monailabel_app.lib.scratch import PREFIX, remove_left_overs, scratch_file
from monailabel_app.lib.sessions import UploadedVolumes
from monailabel_app.lib.settings import Settings
from monailabel_app.main import MedReasonerApp

HOUR = 3600


@pytest.fixture
def uploads(tmp_path):
    return UploadedVolumes(str(tmp_path / "sessions"), HOUR)


def added(uploads, tmp_path, name="volume.nii"):
    (tmp_path / name).write_bytes(b"a volume")
    id, _ = uploads.add_session(str(tmp_path / name))
    return id


def age(folder, seconds):
    """Let a folder and what lies in it look so old."""
    for path in (*folder.iterdir(), folder):
        os.utime(path, (time.time() - seconds,) * 2)


def test_the_setting_and_the_client_s_wish_set_the_time(server):
    with server.client() as client:
        for wish, kept in (("", 30 * 60), ("?expiry=90", 90), ("?expiry=999999", 30 * 60)):
            session = client.put(f"/session/{wish}", files={"files": ("a.nii", b"x")}).json()
            assert session["session_info"]["expiry"] == kept
            client.delete(f"/session/{session['session_id']}")


def test_an_expired_session_is_removed_and_one_in_use_stays(uploads, tmp_path):
    over, used = added(uploads, tmp_path), added(uploads, tmp_path)
    for id in (over, used):
        uploads[id].last_access_ts -= 2 * HOUR
        uploads._write_meta_info(id, uploads[id])
    assert uploads.get_session(used)  # touches it
    assert uploads.remove_expired() == 1
    assert uploads.get_session(over) is None
    assert uploads.get_session(used)


def test_folders_without_times_neither_stay_nor_stop_the_cleaning(uploads, tmp_path):
    over = added(uploads, tmp_path)
    uploads[over].last_access_ts -= 2 * HOUR
    uploads._write_meta_info(over, uploads[over])
    store = tmp_path / "sessions"
    for name, content in (("coming", None), ("unfinished", None), ("torn", '{"last_acc'), ("other", "[1]")):
        (store / name).mkdir()
        (store / name / "image.nii").write_bytes(b"half a vol")
        if content is not None:
            (store / name / "meta.info").write_text(content)
    for name in ("unfinished", "torn", "other"):
        age(store / name, 2 * HOUR)
    uploads.remove_expired()
    assert [folder.name for folder in store.iterdir()] == ["coming"]  # which may still be on its way


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_a_session_whose_times_a_crash_has_torn_is_none(uploads, tmp_path, content):
    id = added(uploads, tmp_path)
    (tmp_path / "sessions" / id / "meta.info").write_text(content)
    with pytest.raises(NotFound, match="no session"):
        session_image(UploadedVolumes(str(tmp_path / "sessions"), HOUR), id)  # the next server


def test_a_failed_upload_leaves_nothing(uploads, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "move", full)
    with pytest.raises(OSError, match="No space"):
        added(uploads, tmp_path)
    assert not list((tmp_path / "sessions").iterdir())


def test_a_volume_that_went_while_its_question_waited_is_missed_without_its_path(uploads, tmp_path, monkeypatch):
    monkeypatch.setattr(MONAILabelApp, "__init__", lambda *_, **__: None)  # no models
    application = MedReasonerApp(str(tmp_path), str(tmp_path), {})
    application._infers = {"medreasoner": SimpleNamespace(description="")}
    application._datastore = open_datastore(str(tmp_path), Settings())
    image = uploads.get_session(added(uploads, tmp_path)).image
    uploads.remove_session(Path(image).parent.name)
    with pytest.raises(UnknownImage) as caught:
        application.infer({"model": "medreasoner", "image": image})
    assert "/" not in caught.value.what


def test_a_new_server_removes_what_expired_under_the_one_before(tmp_path, monkeypatch):
    """MONAI Label's application cleans nothing until it has got a session of its own."""
    monkeypatch.setattr(monai_label, "MONAI_LABEL_SESSION_PATH", str(tmp_path / "sessions"))
    monkeypatch.setattr(MONAILabelApp, "__init__", lambda *_, **__: None)  # no models
    before = UploadedVolumes(str(tmp_path / "sessions"), HOUR)
    left = added(before, tmp_path)
    before[left].last_access_ts -= 2 * HOUR
    before._write_meta_info(left, before[left])
    application = MedReasonerApp(str(tmp_path), str(tmp_path), {})
    application.cleanup_sessions()
    assert not list((tmp_path / "sessions").iterdir())


def test_what_killed_servers_have_left_of_requests_is_removed_after_a_day(tmp_path, monkeypatch):
    """An upload that was being taken in, a mask that was not yet sent; never what is no server's, or not ours."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").touch()
    for name, hours in (("old", 25), ("young", 23)):
        folder = tmp_path / "temporary" / f"{PREFIX}{name}"
        folder.mkdir()
        (folder / "label.nrrd").write_bytes(b"a mask")
        with scratch_file(f"-{name}.nrrd") as mask:
            age(folder, hours * HOUR)
            os.utime(mask, (time.time() - hours * HOUR,) * 2)
    link = tmp_path / "temporary" / f"{PREFIX}old-link"
    link.symlink_to(tmp_path / "elsewhere")
    os.utime(link, (time.time() - 25 * HOUR,) * 2, follow_symlinks=False)
    with monkeypatch.context() as patched:
        patched.setattr(os, "getuid", lambda: os.geteuid() + 1)
        remove_left_overs()
    assert len(list((tmp_path / "temporary").iterdir())) == 5
    remove_left_overs()
    left = sorted(path.name for path in (tmp_path / "temporary").iterdir())
    assert len(left) == 2
    assert not any("old" in name for name in left)
    assert (tmp_path / "elsewhere" / "kept").exists()

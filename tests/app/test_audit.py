"""The audit log: what it keeps, who may read it, and that no answer leaves without its record."""

import io
import json
import multiprocessing
import resource
import threading

import httpx
import pytest
from PIL import Image

from monailabel_app.gateway.audit import AuditLog
from monailabel_app.gateway.errors import Unavailable
from monailabel_app.lib.datastore import open_datastore
from monailabel_app.lib.settings import Settings, SettingsError
from tests.app.small import SmallApplication, served

ASKED = {"params": (None, json.dumps({"question": "Where is the heart?\nIs it «large»?"}))}


def test_records_are_whole_lines_however_many_threads_write(tmp_path):
    path = tmp_path / "audit.jsonl"
    log = AuditLog(str(path))

    def write(who):
        for n in range(20):
            log.write("answer", who, number=n, text="line\nbreak " + "x" * 5000)

    threads = [threading.Thread(target=write, args=(f"user{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert sorted((r["who"], r["number"]) for r in records) == [(f"user{u}", n) for u in range(4) for n in range(20)]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_record_that_the_disk_took_in_part_is_taken_back(tmp_path):
    """Else the next one would stand on the same line. The limit is for this process, so a child of ours has it."""
    path = tmp_path / "audit.jsonl"

    def fill():
        log = AuditLog(str(path))
        log.write("answer", "ann")
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, resource.RLIM_INFINITY))
        with pytest.raises(Unavailable):
            log.write("answer", "bob", text="x" * 1000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        log.write("answer", "eve")

    child = multiprocessing.get_context("fork").Process(target=fill)
    child.start()
    child.join(20)
    assert child.exitcode == 0
    assert [json.loads(line)["who"] for line in path.read_text().splitlines()] == ["ann", "eve"]


def test_what_is_added_and_deleted_is_recorded(tmp_path):
    (tmp_path / "studies").mkdir()
    application = SmallApplication()
    application.store = open_datastore(str(tmp_path / "studies"), Settings())
    application.on_save_label = lambda *_: None
    picture = io.BytesIO()
    Image.new("L", (8, 8)).save(picture, "PNG")
    path = tmp_path / "audit.jsonl"
    with served(application, Settings(audit_log=str(path))) as url, httpx.Client(base_url=url) as client:
        assert client.put("/datastore/image?image=case", files={"file": ("a.png", picture.getvalue())}).is_success
        label = {"label": ("m.png", picture.getvalue())}
        assert client.put("/datastore/label?image=case&tag=final", files=label).is_success
        assert client.delete("/datastore/label?id=case&tag=final").is_success
        assert client.delete("/datastore/image?id=case").is_success
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(r["what"], r["image"], r.get("tag")) for r in records] == [
        ("image", "case", None),
        ("label", "case", "final"),
        ("removal", "case", "final"),
        ("removal", "case", None),
    ]


def test_nothing_is_deleted_without_a_record(tmp_path):
    (tmp_path / "studies").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "studies" / "case.png")
    application = SmallApplication()
    application.store = open_datastore(str(tmp_path / "studies"), Settings())
    with served(application, Settings(audit_log="/dev/full")) as url:
        assert httpx.delete(f"{url}/datastore/image?id=case").status_code == 503
    assert application.store.list_images() == ["case"]


def test_an_existing_log_is_continued(tmp_path):
    path = tmp_path / "audit.jsonl"
    for who in ("ann", "bob"):
        AuditLog(str(path)).write("answer", who)
    assert [json.loads(line)["who"] for line in path.read_text().splitlines()] == ["ann", "bob"]


def test_without_a_path_nothing_is_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    AuditLog("").write("answer", "ann")
    assert not list(tmp_path.iterdir())


def test_a_log_that_cannot_be_written_ends_the_start(tmp_path):
    with pytest.raises(SettingsError, match="audit log"):
        AuditLog(str(tmp_path / "missing" / "audit.jsonl"))


def test_an_answer_without_its_record_does_not_leave():
    """/dev/full can be opened, and every write to it fails as on a full disk."""
    with pytest.raises(Unavailable):
        AuditLog("/dev/full").write("answer", "ann")
    with served(SmallApplication(), Settings(audit_log="/dev/full")) as url:
        reply = httpx.post(f"{url}/infer/medreasoner?image=case", files=ASKED)
    assert reply.status_code == 503
    assert "heart" not in reply.text


def test_what_was_asked_and_answered_is_recorded_word_for_word(tmp_path):
    path = tmp_path / "audit.jsonl"
    with served(SmallApplication(), Settings(audit_log=str(path))) as url:
        reply = httpx.post(f"{url}/infer/medreasoner?image=case", files=ASKED, headers={"X-Request-ID": "q1"})
    assert reply.is_success
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["request_id"] == "q1"
    assert record["asked"] == {"question": "Where is the heart?\nIs it «large»?"}
    assert record["answer"]["absent"] is False
    assert (record["model"], record["image"], record["who"]) == ("medreasoner", "case", "")

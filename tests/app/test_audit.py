"""The audit log: what it keeps, who may read it, and that no answer leaves without its record."""

import json
import threading

import httpx
import pytest

from monailabel_app.gateway.audit import AuditLog
from monailabel_app.gateway.errors import Unavailable
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

"""Labels on a real server: saved by MONAI Label's own client with what our clients add, and read back."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import httpx
import nibabel
import numpy as np
import pytest
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException

from medreasoner.contract.label import LabelRecord
from medreasoner.contract.wire import GroundingResult
from monailabel_app.lib.datastore.label_shelf import FOLDER
from monailabel_app.lib.datastore.local import open_local
from tests.app.server import RunningServer, running

SHAPE = (20, 18, 6)


@pytest.fixture(scope="module")
def client(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> MONAILabelClient:
    return MONAILabelClient(server.url, tmpdir=str(tmp_path_factory.mktemp("labels")))


def volume(path: Path, value: int = 1) -> Path:
    nibabel.save(nibabel.Nifti1Image(np.full(SHAPE, value, np.uint8), np.diag([1, 1, 2, 1])), path)
    return path


def test_an_answer_about_an_uploaded_volume_becomes_knowledge(
    server: RunningServer, client: MONAILabelClient, tmp_path: Path
) -> None:
    """Upload a case, segment a box, correct it, save it; the record says all that."""
    assert client.upload_image(str(volume(tmp_path / "case.nii.gz", 90)), "knowledge")["image"] == "knowledge"
    before = client.datastore()["objects"]["knowledge"]
    assert before["labels"] == {}
    box = {"box": [3, 4, 12, 14], "axis": "axial", "slice_index": 2, "result_extension": ".nii.gz"}
    mask, reply = client.infer("medreasoner_refine", "knowledge", {**box, "question": "Where is the cyst?"})
    record = LabelRecord.of(GroundingResult.from_reply(reply)).edited("box").edited("mask")
    params = {"label_info": [{"name": "cyst", "idx": 1}], "medreasoner": json.loads(record.to_json())}
    assert client.save_label("knowledge", mask, "final", params) == {"image": "knowledge", "label": "knowledge"}

    with server.client() as http:
        info = http.get("/datastore/label/info?label=knowledge&tag=final").json()
    kept = LabelRecord.from_json(json.dumps(info["medreasoner"]))
    assert (kept.question, kept.box, kept.slice_index) == ("Where is the cyst?", [3, 4, 12, 14], 2)
    assert [edit.what for edit in kept.edits] == ["box", "mask"]
    assert kept.expert == reply["expert"]
    assert kept.saved_at
    downloaded = nibabel.load(client.download_label("knowledge", "final"))
    np.testing.assert_array_equal(downloaded.dataobj, nibabel.load(mask).dataobj)
    assert client.datastore()["objects"]["knowledge"]["labels"] == {"final": "knowledge"}

    again = open_local(Path(server.studies))  # another process sees the same, for training
    assert LabelRecord.from_json(json.dumps(again.get_label_info("knowledge", "final")["medreasoner"])) == kept


def test_what_is_labelled_is_no_longer_proposed(client: MONAILabelClient, tmp_path: Path) -> None:
    # by name, before the other tests' cases and the series, whose UIDs begin with 1
    client.upload_image(str(volume(tmp_path / "case.nii.gz", 90)), "0-first")
    assert client.next_sample("first", {})["id"] == "0-first"
    client.save_label("0-first", str(volume(tmp_path / "mask.nii.gz")), "final", {})
    assert client.next_sample("first", {})["id"] != "0-first"


def test_what_cannot_be_saved_is_said_and_the_label_before_stays(
    server: RunningServer, client: MONAILabelClient, tmp_path: Path
) -> None:
    client.upload_image(str(volume(tmp_path / "case.nii.gz", 90)), "kept")
    good = volume(tmp_path / "mask.nii.gz")
    client.save_label("kept", str(good), "final", {})
    nibabel.save(nibabel.Nifti1Image(np.ones((5, 5, 5), np.uint8), None), tmp_path / "other.nii.gz")
    before = sorted(Path(server.studies).rglob("*"))
    for file, params, why in [
        (tmp_path / "other.nii.gz", {}, "5 x 5 x 5 does not fit"),
        (good, {"medreasoner": {"question": "Where?"}}, "without absent"),
        (good, {"medreasoner": {**json.loads(RECORD), "box": [1, 1, 1, 1]}}, "no area"),
    ]:
        with pytest.raises(MONAILabelClientException, match=r"Status: 4\d\d") as caught:
            client.save_label("kept", str(file), "final", params)
        assert why in caught.value.msg
    assert sorted(Path(server.studies).rglob("*")) == before


RECORD = LabelRecord("Where?", False, "stored", 1, box=[1.0, 1.0, 5.0, 5.0]).to_json()


@pytest.mark.nightly
def test_a_server_killed_twenty_times_while_it_saves_loses_no_acknowledged_label(tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    volume(studies / "case.nii.gz", 90)
    masks = [volume(tmp_path / f"{value}.nii.gz", value).read_bytes() for value in range(1, 6)]
    acknowledged = 0
    for kill in range(20):
        with running(studies, tmp_path / f"run-{kill}") as server, server.client() as http:
            _save(http, acknowledged + 1, masks)
            threading.Timer(0.05 * kill, os.kill, (server.process.pid, signal.SIGKILL)).start()
            acknowledged = _save_until_it_dies(http, acknowledged + 1, masks)
        info = open_local(studies).get_label_info("case", "final")
        number = int(LabelRecord.from_json(json.dumps(info["medreasoner"])).question)
        assert number >= acknowledged
        kept = np.asarray(nibabel.load(open_local(studies).get_label_uri("case", "final")).dataobj)
        assert (kept == number % 5 + 1).all()
        assert len(list((studies / FOLDER / "final").iterdir())) == 2
        acknowledged = number


def _save_until_it_dies(http: httpx.Client, number: int, masks: list[bytes]) -> int:
    """Save labels that carry a growing number; return the last one that was acknowledged."""
    while True:
        try:
            _save(http, number + 1, masks)
        except httpx.TransportError:
            return number
        number += 1


def _save(http: httpx.Client, number: int, masks: list[bytes]) -> None:
    record = json.loads(LabelRecord(str(number), False, "stored", 0).to_json())
    reply = http.put(
        "/datastore/label?image=case&tag=final",
        files={"label": ("label.nii.gz", masks[number % 5])},
        data={"params": json.dumps({"medreasoner": record})},
    )
    assert reply.status_code == 200, reply.text

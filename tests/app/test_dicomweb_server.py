"""The whole way: a question about a series in Orthanc, its answer as DICOM, and the label back in the archive."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import requests
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.dataset import Dataset
from requests_toolbelt import MultipartDecoder

from medreasoner.contract.label import LabelRecord
from medreasoner.contract.wire import GroundingResult
from monailabel_app.lib.datastore.archive import Archive
from monailabel_app.lib.settings import Settings
from tests.app.orthanc import PASSWORD, USER, orthanc
from tests.app.server import RunningServer, free_port, running
from tests.dicom_files import ALIGNED, projection, series

QUESTION = "Which paired organ makes the urine of Mrs Miller?"


@dataclass
class Clinic:
    """An archive, a server that works on it, and the series in the archive."""

    url: str
    server: RunningServer
    series: dict[str, str]
    files: dict[str, list[Path]]

    def instances(self, modality: str, image_id: str) -> list[Dataset]:
        """What the archive holds about a series, through Orthanc's own interface."""
        rest, auth = self.url.removesuffix("/dicom-web"), (USER, PASSWORD)
        query = {"Level": "Instance", "Query": {"Modality": modality}}
        ids = requests.post(f"{rest}/tools/find", json=query, auth=auth, timeout=10).json()
        files = [requests.get(f"{rest}/instances/{one}/file", auth=auth, timeout=10).content for one in ids]
        return [dcmread(BytesIO(file)) for file in files if image_id.encode() in file]


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    work = tmp_path_factory.mktemp("clinic")
    files = {
        "CT": sorted(series(work / "ct").iterdir()),
        "MR": sorted(series(work / "mr", "MR_small.dcm", ALIGNED).iterdir()),
        "MR single": sorted(series(work / "single", "MR_small.dcm", count=1).iterdir()),
        **{kind: [projection(work, kind)] for kind in ("CR", "MG", "US")},
    }
    settings = Settings(dicomweb_user=USER, dicomweb_password=PASSWORD)
    with orthanc(work / "orthanc") as url:
        for paths in files.values():
            Archive(url, settings).store([dcmread(path) for path in paths])
        conf = (f"dicomweb_user={USER}", "dicomweb_timeout=10")
        own = {
            "XDG_DATA_HOME": str(work / "data"),
            "XDG_CACHE_HOME": str(work / "cache"),
            "MEDREASONER_DICOMWEB_PASSWORD": PASSWORD,
        }
        with running(url, work / "run", *conf, environment=own) as server:
            uids = {kind: str(dcmread(paths[0]).SeriesInstanceUID) for kind, paths in files.items()}
            yield Clinic(url, server, uids, files)


def ask(clinic: Clinic, model: str, image_id: str, output: str, **params: Any) -> httpx.Response:
    with clinic.server.client() as client:
        return client.post(
            f"/infer/{model}", params={"image": image_id, "output": output}, data={"params": json.dumps(params)}
        )


def as_itk(content: bytes, path: Path) -> sitk.Image:
    path.write_bytes(content)
    return sitk.ReadImage(str(path))


@pytest.mark.parametrize("kind", ["CT", "CR"])
def test_a_question_is_answered_as_dicom(clinic: Clinic, kind: str, tmp_path: Path) -> None:
    image_id = clinic.series[kind]
    parts = MultipartDecoder(
        *_of(ask(clinic, "medreasoner", image_id, "all", question=QUESTION, result_extension=".nrrd"))
    ).parts
    answer = GroundingResult.from_reply(json.loads(parts[0].text))
    mask = sitk.GetArrayFromImage(as_itk(parts[1].content, tmp_path / "mask.nrrd"))

    report = ask(clinic, "medreasoner", image_id, "dicom_sr", question=QUESTION).content
    assert dcmread(BytesIO(report)).Modality == "SR"
    assert QUESTION.encode() in report and image_id.encode() in report
    assert (b"Image Region" in report) != answer.absent

    seg = ask(clinic, "medreasoner", image_id, "dicom_seg", question=QUESTION)
    if answer.absent:
        assert (seg.status_code, seg.content, mask.any()) == (204, b"", False)
    else:
        pixels = dcmread(BytesIO(seg.content)).pixel_array
        np.testing.assert_array_equal(pixels.reshape(mask.shape[1:]), mask[answer.slice_index])


def _of(reply: httpx.Response) -> tuple[bytes, str]:
    assert reply.status_code == 200, reply.text
    return reply.content, reply.headers["content-type"]


@pytest.mark.parametrize("kind", ["MR", "MR single", "MG", "US"])
def test_a_refined_box_becomes_a_label_in_the_archive(clinic: Clinic, kind: str, tmp_path: Path) -> None:
    image_id = clinic.series[kind]
    last = len(clinic.files[kind]) - 1
    region = {"box": [5, 8, 25, 30], "axis": "stored", "slice_index": last, "result_extension": ".nrrd"}
    parts = MultipartDecoder(*_of(ask(clinic, "medreasoner_refine", image_id, "all", **region))).parts
    params, mask_bytes = json.loads(parts[0].text), parts[1].content
    mask = sitk.GetArrayFromImage(as_itk(mask_bytes, tmp_path / "mask.nrrd"))
    assert mask[last].any() and not mask[:last].any()

    record = LabelRecord.of(GroundingResult.from_reply(params)).edited("box")
    form = {
        "params": json.dumps(
            {"medreasoner": {**json.loads(record.to_json()), "question": QUESTION, "target": "left kidney"}}
        )
    }
    with clinic.server.client() as client:
        saved = client.put(
            "/datastore/label",
            params={"image": image_id, "tag": "final"},
            data=form,
            files={"label": ("mask.nrrd", mask_bytes)},
        )
    assert saved.status_code == 200, saved.text

    (seg,) = clinic.instances("SEG", image_id)
    (report,) = clinic.instances("SR", image_id)
    np.testing.assert_array_equal(seg.pixel_array.reshape(mask.shape[1:]), mask[last])
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == image_id
    assert seg.SegmentSequence[0].SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert "Miller" not in str(seg)
    assert report.StudyInstanceUID == seg.StudyInstanceUID
    with clinic.server.client() as client:
        proposed = client.post("/activelearning/first", json={}).json()
        assert proposed.get("id") != image_id
        listed = client.get("/datastore/", params={"output": "all"}).json()
        assert listed["objects"][image_id]["labels"] == {"final": image_id}


@pytest.mark.parametrize("image_id", ["1.2.3.4", "../../etc/passwd"])
def test_unknown_series_are_refused(clinic: Clinic, image_id: str) -> None:
    reply = ask(clinic, "medreasoner", image_id, "json", question=QUESTION)
    assert reply.status_code == 404
    assert reply.json()["hint"]


def test_the_log_names_neither_patient_nor_question(clinic: Clinic) -> None:
    assert "CompressedSamples" not in clinic.server.log
    assert "Miller" not in clinic.server.log
    assert PASSWORD not in clinic.server.log


@pytest.mark.nightly  # one more server
def test_a_server_starts_while_its_archive_is_away(tmp_path: Path) -> None:
    folders = {"XDG_DATA_HOME": str(tmp_path / "data"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    url = f"http://127.0.0.1:{free_port()}/dicom-web"
    with running(url, tmp_path / "run", "dicomweb_timeout=3", environment=folders) as server, server.client() as client:
        assert "cannot be reached" in client.get("/info/").json()["datastore"]["unreachable"]
        params = {"params": json.dumps({"question": QUESTION})}
        reply = client.post("/infer/medreasoner", params={"image": "1.2.3", "output": "json"}, data=params)
        assert (reply.status_code, reply.json()["kind"]) == (502, "ArchiveError")

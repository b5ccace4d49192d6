"""The real server as its clients see it: MONAI Label's own client, curl's view, metrics, the audit log, and the end."""

import gzip
import io
import json
import re

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from monailabel.client import MONAILabelClient
from pydicom.data import get_testdata_file
from requests_toolbelt import MultipartDecoder

from monailabel_app.lib.scratch import PREFIX

NERVE = "Where do the nerve fibres leave the eye as one bundle?"
BOX = {"box": [40, 190, 125, 280], "result_extension": ".nrrd"}


def test_monai_label_s_client_asks_labels_and_reads_back(server, tmp_path):
    client = MONAILabelClient(server.url, tmpdir=str(tmp_path))
    assert not client.auth_enabled()
    assert {"medreasoner", "medreasoner_refine", "medreasoner_volume"} <= client.info()["models"].keys()
    session = client.create_session(str(server.studies / "oblique.nii.gz"))["session_id"]
    assert client.get_session(session)["name"] == session
    mask, params = client.infer(
        "medreasoner_refine",
        "",
        {"box": [5, 5, 20, 25], "slice": "3", "result_extension": ".nii.gz"},
        session_id=session,
    )
    assert params["slice_index"] == 3
    assert params["label_names"]
    found, asked = nibabel.load(mask), nibabel.load(server.studies / "oblique.nii.gz")
    assert found.shape == asked.shape
    np.testing.assert_allclose(found.affine, asked.affine, atol=1e-5)
    drawn = np.flatnonzero(np.asarray(found.dataobj).any((0, 1)))
    assert drawn.tolist() in ([3], [])
    client.remove_session(session)
    assert client.upload_image(str(server.studies / "oblique.nii.gz"), "from-client") == {"image": "from-client"}
    saved = client.save_label("from-client", mask, "final", {"label_info": [{"name": "brain", "idx": 1}]})
    assert saved["image"] == "from-client"
    assert client.datastore()["objects"]["from-client"]["labels"]["final"]
    sample = client.next_sample("first", {})
    assert sample["id"] in client.datastore()["objects"]
    assert "/" not in sample["path"]


def test_an_answer_comes_as_two_parts_with_every_field_of_the_contract(server):
    with server.client() as client:
        reply = client.post("/infer/medreasoner_refine?image=retina", files={"params": (None, json.dumps(BOX))})
    assert reply.headers["content-type"].startswith("multipart/form-data")
    parts = {
        re.search(rb'name="(\w+)"', part.headers[b"Content-Disposition"])[1]: part
        for part in MultipartDecoder(reply.content, reply.headers["content-type"]).parts
    }
    params = json.loads(parts[b"params"].content)
    assert params["picture_size"] == [512, 512]
    assert params["box"] == BOX["box"]
    assert {"expert", "timings", "schema_version", "target", "label_names", "latencies"} <= params.keys()
    assert parts[b"image"].content.startswith(b"NRRD")
    assert not list(server.temporary.glob(f"{PREFIX}*"))  # the file of the mask has gone


def test_a_series_of_the_folder_is_answered_in_dicom(server):
    source = pydicom.dcmread(server.studies / "slice.dcm")
    with server.client() as client:
        address = f"/infer/medreasoner_refine?image={source.SeriesInstanceUID}"
        form = {"params": json.dumps({"box": [20, 20, 100, 110]})}
        found = pydicom.dcmread(io.BytesIO(client.post(f"{address}&output=dicom_seg", data=form).content))
        mask = client.post(f"{address}&output=image", data={"params": json.dumps({"box": [20, 20, 100, 110]})})
    assert found.SOPClassUID == pydicom.uid.SegmentationStorage
    assert found.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    drawn = nibabel.Nifti1Image.from_bytes(gzip.decompress(mask.content))
    assert int(found.pixel_array.sum()) == int(np.asarray(drawn.dataobj).sum()) > 0


def counted(client, sample):
    """The value of one of the metrics; 0 where it was never counted."""
    found = re.search(re.escape(sample) + r" (\S+)", client.get("/metrics").text)
    return float(found[1]) if found else 0.0


def test_a_series_is_handed_out_as_one_file(server, tmp_path):
    file = get_testdata_file("CT_small.dcm")
    uid = pydicom.dcmread(file, stop_before_pixels=True).SeriesInstanceUID
    with server.client() as client:
        assert client.head(f"/datastore/image?image={uid}").is_success
        reply = client.get(f"/datastore/image?image={uid}")
    assert f'filename="{uid}.nrrd"' in reply.headers["content-disposition"]
    (tmp_path / "case.nrrd").write_bytes(reply.content)
    volume = sitk.ReadImage(str(tmp_path / "case.nrrd"))
    expected = sitk.ReadImage(file)
    assert (sitk.GetArrayFromImage(volume) == sitk.GetArrayFromImage(expected)).all()
    assert volume.GetOrigin() == pytest.approx(expected.GetOrigin())
    assert volume.GetSpacing()[:2] == pytest.approx(expected.GetSpacing()[:2])


def test_answers_metrics_audit_log_and_ordinary_log(server):
    samples = (
        'medreasoner_failures_total{kind="NotFound"}',
        'medreasoner_stage_seconds_count{model="medreasoner",stage="total"}',
        'medreasoner_stage_seconds_count{model="medreasoner",stage="wait"}',
        'medreasoner_stage_seconds_count{model="medreasoner_refine",stage="segment"}',
    )
    secret = "Patient Q. Zebrafish: " + NERVE
    with server.client() as client:
        before = [counted(client, sample) for sample in samples]
        image = {"file": ("zebrafish.jpg", (server.studies / "retina.jpg").read_bytes())}
        assert client.put("/datastore/image?image=zebrafish", files=image).is_success
        answer = client.post(
            "/infer/medreasoner?image=zebrafish&output=json", data={"params": json.dumps({"question": secret})}
        )
        assert answer.status_code == 200, answer.text
        assert (
            client.post(
                "/infer/medreasoner?image=unicorn", data={"params": json.dumps({"question": secret})}
            ).status_code
            == 404
        )
        record = {
            "question": secret,
            "absent": False,
            "axis": "stored",
            "slice_index": 0,
            "box": answer.json()["box"],
            "author": "somebody else",
            "edits": [{"what": "box", "at": "2026-01-31T12:00:00Z"}],
        }
        mask = client.post(
            "/infer/medreasoner_refine?image=zebrafish&output=image",
            data={"params": json.dumps({**BOX, "result_extension": ".png"})},
        )
        label = {"label": ("mask.png", mask.content), "params": (None, json.dumps({"medreasoner": record}))}
        saved = client.put("/datastore/label?image=zebrafish&tag=final", files=label)
        assert saved.status_code == 200, saved.text
        info = client.get("/datastore/label/info?label=zebrafish&tag=final").json()
        assert [counted(client, sample) for sample in samples] == [count + 1 for count in before]
        absent = str(answer.json()["absent"]).lower()
        assert counted(client, f'medreasoner_answers_total{{absent="{absent}",model="medreasoner"}}') >= 1
        assert 'medreasoner_waiting{model="medreasoner"} 0.0' in client.get("/metrics").text
        assert "ebrafish" not in client.get("/metrics").text

    audit = server.log_file.with_name("audit.jsonl")
    answered, refined, labelled = (json.loads(line) for line in audit.read_text().splitlines()[-3:])
    assert (answered["what"], answered["image"], answered["asked"]["question"]) == ("answer", "zebrafish", secret)
    assert answered["answer"]["reasoner"]["sha256"]
    assert refined["model"] == "medreasoner_refine"
    assert labelled["record"]["edits"] == record["edits"]
    assert labelled["record"]["author"] == ""  # whatever the client wrote: there are no users here
    assert info["medreasoner"]["question"] == secret
    assert audit.stat().st_mode & 0o777 == 0o600

    for word in ("ebrafish", "nerve fibres", answer.json()["reasoning"][:30] or "none"):
        assert word not in server.log

"""What the real server refuses: each with its status, reason and hint, and nothing written outside the studies."""

import json
import os
import socket
import time
from pathlib import Path

import httpx
import pytest

QUESTION = {"question": "Where is the brain?"}
NESTED = "[" * 100_000


def infer(client, params=QUESTION, query="image=anatomical&output=json", model="medreasoner"):
    text = params if isinstance(params, str) else json.dumps(params)
    return client.post(f"/infer/{model}?{query}", files={"params": (None, text)})


def refused(reply, status, said):
    assert reply.status_code == status, reply.text
    body = reply.json()
    assert set(body) == {"detail", "hint", "kind"}
    assert said in body["detail"], body
    assert body["hint"]
    return body


@pytest.fixture(scope="module")
def client(server):
    with server.client() as found:
        yield found


@pytest.mark.parametrize(
    ("params", "status", "said"),
    [
        ({**QUESTION, "image": "/etc/passwd"}, 400, "no parameter 'image'"),  # would override the checked image
        ({**QUESTION, "model": "other"}, 400, "no parameter 'model'"),
        ({**QUESTION, "save_label": True}, 400, "no parameter 'save_label'"),
        ({**QUESTION, "device": "cuda"}, 400, "no parameter 'device'"),
        ({**QUESTION, "box": [1, 2, 3, 4]}, 400, "no parameter 'box'"),  # belongs to medreasoner_refine
        ('{"question": "Where is it?", "window": [NaN, 1]}', 400, "NaN"),
        ('{"question": "Where is it?", "window": [40, Infinity]}', 400, "Infinity"),
        ('{"question": "Where is it?", "window": [40, 1e999]}', 400, "too large"),
        ({**QUESTION, "window": [40]}, 400, "window"),
        ({**QUESTION, "window": "wide"}, 400, "window"),
        ({**QUESTION, "slice_index": -1}, 400, "slice"),
        ({**QUESTION, "slice_index": 1.5}, 400, "slice"),
        ({**QUESTION, "slice_index": True}, 400, "slice"),
        ({**QUESTION, "slice": "seven"}, 400, "slice"),
        ({**QUESTION, "slice": "9" * 5000}, 400, "5,000 characters"),  # Python refuses to read such a number
        ({**QUESTION, "slice_index": 10_000}, 422, "slice"),
        ({**QUESTION, "axis": "diagonal"}, 400, "axis"),
        ({**QUESTION, "result_extension": ".exe"}, 400, "result_extension"),
        ({**QUESTION, "result_extension": "/../x.nrrd"}, 400, "result_extension"),
        ({**QUESTION, "result_dtype": "object"}, 400, "result_dtype"),
        ({**QUESTION, "schema_version": 99}, 400, "schema version"),
        ({"question": ""}, 422, "empty"),
        ({"question": " \n "}, 422, "empty"),
        ({}, 422, "empty"),
        ({"question": "x" * 10_000}, 422, "10,000 characters"),
        ({"question": ["Where?"]}, 422, "question"),
        ({"question": None}, 422, "question"),
        ("{", 400, "not JSON"),
        ("[]", 400, "JSON list"),
        ('"text"', 400, "JSON str"),
        ("null", 400, "JSON NoneType"),
        ("", 400, "not JSON"),
        (NESTED, 400, "not JSON"),
    ],
)
def test_wrong_parameters(client, params, status, said):
    refused(infer(client, params), status, said)


@pytest.mark.parametrize(
    ("box", "status", "said"),
    [
        ([1, 2, 3], 400, "four numbers"),
        ([5, 5, 5, 9], 422, "no area"),
        ([9, 9, 1, 1], 422, "no area"),
        ([1000, 1000, 2000, 2000], 422, "no area"),  # nothing of it is on the picture
        ("1 2 3 4", 400, "four numbers"),
        (None, 400, "box"),
    ],
)
def test_wrong_boxes(client, box, status, said):
    refused(infer(client, {"box": box}, model="medreasoner_refine"), status, said)


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("output=json", 400, "names no image"),
        ("image=nobody", 404, "no image 'nobody'"),
        ("image=/etc/passwd", 404, "no image"),
        ("image=../studies/anatomical.nii", 404, "no image"),
        ("image=..%2Fstudies%2Fanatomical", 404, "no image"),
        ("image=anatomical.nii", 404, "no image"),
        ("image=.", 404, "no image"),
        ("image=anatomical%00", 404, "no image"),
        ("session_id=nobody", 404, "no session"),
        ("session_id=..", 404, "no session"),
        ("session_id=../../etc", 404, "no session"),
        ("session_id=%2Fetc", 404, "no session"),
        ("image=anatomical&output=everything", 400, "output"),
        ("image=anatomical&output=dicom_seg", 400, "DICOM"),  # a NIfTI file has no series to refer to
    ],
)
def test_wrong_images_sessions_and_outputs(client, query, status, said):
    refused(infer(client, query=query), status, said)


def test_unknown_models_and_strategies(client):
    body = refused(infer(client, model="deepedit"), 404, "no model 'deepedit'")
    assert "medreasoner_refine" in body["hint"]
    refused(client.post("/activelearning/clever", json={}), 404, "no strategy")
    refused(client.post("/train/everything", json={}), 404, "no training")
    refused(client.post("/activelearning/first", content="["), 400, "not JSON")


def test_bodies_that_are_no_form(client):
    address = "/infer/medreasoner?image=anatomical"
    refused(client.post(address, json=QUESTION), 415, "application/json")  # MONAI Label answers without the question
    refused(client.post(address, content=b"x", headers={"Content-Type": "multipart/form-data"}), 400, "boundary")
    refused(client.post(address), 415, "of no kind")
    many = {f"field{n}": "x" for n in range(50)}
    refused(client.post(address, data=many), 400, "fields")
    files = {"params": ("params.json", b"{}"), "label": ("l.nrrd", b"x")}
    refused(client.post(address, files=files), 400, "files")
    refused(client.post(address, data={"params": "x" * 3_000_000}), 413, "larger than 2 MB")


@pytest.mark.parametrize(
    "name", ["../evil", "/tmp/evil", "a/b", "..", ".hidden", "", "a\\b", "x" * 200, "a\nb", "con\0"]
)
def test_images_are_not_stored_as_paths(client, name):
    file = {"file": (".png", b"\x89PNG")}
    assert client.put("/datastore/image", params={"image": name}, files=file).status_code == 400


@pytest.mark.parametrize("tag", ["../../evil", "..", "a/b", "/tmp", ".hidden", "a" * 65, "final\n"])
def test_tags_are_not_paths(client, tag):
    label = {"label": ("mask.nrrd", b"NRRD0004\n")}
    query = {"image": "anatomical", "tag": tag}
    refused(client.put("/datastore/label", params=query, files=label), 400, "cannot be a tag")
    refused(client.get("/datastore/label", params={"label": "anatomical", "tag": tag}), 400, "cannot be a tag")


def test_labels_and_images_that_are_not_what_they_should_be(client):
    def save(name="mask.nrrd", image="anatomical", params="{}"):
        return client.put(
            "/datastore/label", params={"image": image}, files={"label": (name, b"x"), "params": (None, params)}
        )

    refused(save(image="nobody"), 404, "no image")
    for name in ("mask.exe", "mask.jpg"):  # JPEG changes values
        refused(save(name), 415, "no label file")
    refused(save(params="[]"), 400, "JSON list")
    refused(save(params='{"path": "/etc"}'), 400, "no parameter 'path'")
    refused(save(params='{"label_info": "liver"}'), 400, "label_info")
    refused(save(params='{"medreasoner": {"question": "Where?"}}'), 400, "LabelRecord")
    refused(client.put("/datastore/label?image=anatomical", files={"mask": ("m.nrrd", b"x")}), 400, "no file label")
    again = client.put("/datastore/image?image=anatomical", files={"file": ("a.nii", b"x")})
    refused(again, 409, "anatomical already")
    refused(client.put("/datastore/image?image=new", files={"file": ("a.exe", b"x")}), 415, "ending")
    for notes in ({"medreasoner": 1}, {"handed_out": "soon"}):  # which would end active learning
        form = {"file": ("a.nii", b"x"), "params": (None, json.dumps(notes))}
        refused(client.put("/datastore/image?image=new", files=form), 400, "params may not hold")
    refused(client.get("/datastore/label?label=anatomical&tag=never"), 404, "never")
    refused(client.put("/session/?uncompress=true", files={"files": ("a.zip", b"x")}), 400, "archives")
    refused(client.put("/session/?expiry=-1", files={"files": ("a.nii", b"x")}), 400, "expiry")
    refused(client.put("/session/", files={"other": ("a.nii", b"x")}), 400, "no file files")


def test_an_upload_cannot_show_a_file_of_the_server_as_an_image(client):
    """An NRRD header may say that its values lie in another file."""
    header = b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 10 10 3\nencoding: raw\ndata file: /etc/passwd\n\n"
    session = client.put("/session/", files={"files": ("a.nrrd", header)}).json()["session_id"]
    refused(infer(client, query=f"session_id={session}&output=json"), 422, "in another folder")
    refused(client.put("/datastore/image?image=new", files={"file": ("a.nrrd", header)}), 422, "in another folder")
    label = client.put("/datastore/label?image=anatomical", files={"label": ("a.nrrd", header)})
    refused(label, 422, "in another folder")


def test_a_volume_that_cannot_be_read_says_so(client):
    session = client.put("/session/", files={"files": ("../../evil.nii.gz", b"no NIfTI")}).json()
    assert "path" not in session["session_info"]
    reply = infer(client, query=f"session_id={session['session_id']}")
    assert reply.status_code == 422
    assert reply.json()["kind"] == "ImageError"
    assert client.delete(f"/session/{session['session_id']}").is_success
    refused(infer(client, query=f"session_id={session['session_id']}"), 404, "no session")


def zeros(megabytes):
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.nii"\r\n\r\n'
    yield head
    for _ in range(megabytes):
        yield bytes(10**6)
    yield b"\r\n--b--\r\n"


def test_an_upload_beyond_the_limit_is_refused_while_it_streams(server, client):
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    assert announced(server, 600 * 10**6).startswith(b"HTTP/1.1 413")  # not a byte of it is waited for
    memory = resident(server)
    start = time.monotonic()
    try:  # the server answers and closes in the middle of the upload; a client may see either first
        refused(client.put("/session/", headers=form, content=zeros(1000)), 413, "larger than")
    except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        assert time.monotonic() - start < 60
    assert resident(server) < memory + 100 * 2**20
    assert client.get("/healthz").is_success
    left = [p for p in server.temporary.rglob("*") if p.is_file() and p.stat().st_size > 10**6]
    assert not left


def test_nothing_was_written_outside_the_studies(server):
    """Runs last in this file, after every attempt above."""
    around = {p.name for p in server.studies.parent.iterdir()}
    assert around == {"studies", "run"}
    known = {"anatomical.nii", "oblique.nii.gz", "retina.jpg"}
    images = {p.name for p in server.studies.iterdir() if p.is_file() and not p.name.startswith(".")}
    assert known <= images
    assert not [name for name in images if "evil" in name or "hidden" in name]
    assert not [p for p in (server.studies / "labels").rglob("*") if "evil" in p.name or "never" in p.name]
    assert not Path("/tmp/evil").exists()


def resident(server):
    """Bytes of memory that the server has now."""
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def announced(server, size):
    """What the server says to the mere header of a large upload."""
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port), timeout=20) as line:
        head = f"PUT /session/ HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        line.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode())
        return line.recv(1000)

"""Forms against outside readers and writers: the standard library's cgi-like parser of Starlette, and requests."""

from __future__ import annotations

import numpy as np
import pytest
import requests
from MedReasonerLib.multipart import Form, Part, parse

from medreasoner.contract.errors import MedReasonerError

BINARY = np.random.default_rng(0).bytes(5000) + b"\r\n--\r\n\r\n--nearly\r\n"


def test_parse_reads_what_requests_writes() -> None:
    files = {"params": (None, '{"a": "ü"}'), "image": ("mask.nrrd", BINARY, "application/octet-stream")}
    sent = requests.Request("POST", "http://localhost", files=files).prepare()
    parts = parse(sent.body, sent.headers["Content-Type"])
    assert parts == {"params": Part('{"a": "ü"}'.encode()), "image": Part(BINARY, "mask.nrrd")}


def test_own_forms_are_read_by_requests_toolbelt() -> None:
    from requests_toolbelt.multipart.decoder import MultipartDecoder

    form = Form()
    body = form.body({"params": Part(b"{}"), "files": Part(BINARY, 'x"\r\ny.nrrd')})
    parts = MultipartDecoder(body, form.content_type).parts
    assert [p.content for p in parts] == [b"{}", BINARY]
    assert parts[1].headers[b"Content-Disposition"] == b'form-data; name="files"; filename="x___y.nrrd"'
    assert parse(body, form.content_type)["files"].content == BINARY


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (b"{}", "application/json", "not a form"),
        (b"", "", "not a form"),
        (b"--b\r\n\r\n\r\n--b--\r\n", "multipart/form-data", "not a form"),  # no boundary named
        (b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n12', "multipart/form-data; boundary=b", "cut short"),
        (b"--b\r\nX: y\r\n\r\n1\r\n--b--\r\n", "multipart/form-data; boundary=b", "no name"),
    ],
)
def test_other_replies_are_refused(body: bytes, kind: str, reason: str) -> None:
    with pytest.raises(MedReasonerError, match=reason):
        parse(body, kind)

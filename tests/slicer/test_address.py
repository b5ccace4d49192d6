"""The forms in which people type addresses; those of MONAILabel#297 and #1599 among them."""

from __future__ import annotations

import pytest
from MedReasonerLib.address import is_readable_by_others, normalised

from medreasoner.contract.errors import MedReasonerError


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("", "http://127.0.0.1:8000"),  # nothing: this machine
        ("  127.0.0.1:8000  ", "http://127.0.0.1:8000"),
        ("0.0.0.0:8000", "http://127.0.0.1:8000"),  # what the server's log prints
        ("http://0.0.0.0:8000/", "http://127.0.0.1:8000"),
        ("http://[::]:8000", "http://127.0.0.1:8000"),
        ("localhost", "http://localhost:8000"),  # no scheme: the server's own port
        ("http://localhost", "http://localhost"),  # a scheme without port: the scheme's
        ("gpu-box:9000", "http://gpu-box:9000"),
        ("http://gpu-box:8000/info/", "http://gpu-box:8000"),  # from the browser's address line
        ("http://gpu-box:8000//", "http://gpu-box:8000"),
        ("https://pacs.hospital.org/medreasoner/", "https://pacs.hospital.org/medreasoner"),
        ("HTTPS://PACS.Hospital.org", "https://pacs.hospital.org"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
    ],
)
def test_addresses_become_one_form(typed: str, address: str) -> None:
    assert normalised(typed) == address
    assert normalised(address) == address


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("ftp://host", "not the address"),
        ("http://", "not the address"),
        ("http://host name:80", "not the address"),
        ("http://host:99999", "Port out of range"),
        ("http://host:port", "could not be cast"),
        ("http://anna:secret@host", "user name or password"),
        ("http://[::1", "Invalid IPv6"),
    ],
)
def test_what_is_no_address_says_why(typed: str, reason: str) -> None:
    with pytest.raises(MedReasonerError, match=reason) as caught:
        normalised(typed)
    assert "secret" not in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("address", "readable"),
    [
        ("http://127.0.0.1:8000", False),
        ("http://127.9.9.9", False),  # the whole block is loopback
        ("http://localhost:8000", False),
        ("http://[::1]:8000", False),
        ("https://gpu-box", False),
        ("http://gpu-box:8000", True),
        ("http://10.0.0.4:8000", True),
        ("http://localhost.evil.org", True),
    ],
)
def test_plain_http_to_another_machine_is_noticed(address: str, readable: bool) -> None:
    assert is_readable_by_others(address) is readable

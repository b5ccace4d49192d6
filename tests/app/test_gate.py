"""The gate: every address with every role, machines without tokens, origins, and signing in by MONAI Label's client."""

import re
import socket
from pathlib import Path

import httpx
import pytest
from monailabel.client import MONAILabelClient

from monailabel_app.gateway.application import app
from monailabel_app.gateway.errors import NotAllowed, Unavailable
from monailabel_app.gateway.gate import NOBODY, Doorkeeper, Gate
from monailabel_app.gateway.tokens import Role, new_token
from monailabel_app.lib.settings import Settings
from tests.app.small import SmallApplication, served

HTTP = Path(__file__).parents[2] / "docs" / "http.md"
OPEN = {"/healthz", "/readyz", "/auth/", "/auth/token"}


@pytest.fixture(scope="module")
def tokens():
    return {role: new_token(role.name.lower(), role) for role in Role}


@pytest.fixture(scope="module")
def guarded(tokens, tmp_path_factory):
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    file.write_text("\n".join(line for _, line in tokens.values()))
    with served(SmallApplication(), Settings(tokens=str(file))) as url, httpx.Client(base_url=url) as client:
        yield client


def listed_routes():
    """Every address with its method and role, as the application was built."""
    found = []
    for route in app.routes:
        layer, role = route.app, None
        while layer is not None:  # the guards are wrapped around the endpoint
            role = layer._role if isinstance(layer, Gate) else role
            layer = getattr(layer, "_app", None)
        method = next(m for m in ("GET", "PUT", "POST", "DELETE") if m in route.methods)
        found.append((method, route.path, role))
    return found


def test_only_the_listed_addresses_are_open():
    assert {path for _, path, role in listed_routes() if role is None} == OPEN


@pytest.mark.parametrize(("method", "path", "role"), [r for r in listed_routes() if r[2] is not None])
def test_an_address_asks_for_its_role(guarded, tokens, method, path, role):
    address = re.sub(r"{\w+}", "nothing", path)
    assert guarded.request(method, address).status_code == 401
    assert guarded.request(method, address, headers={"Authorization": "Bearer wrong"}).status_code == 401
    for have, (token, _) in tokens.items():
        status = guarded.request(method, address, headers={"Authorization": f"Bearer {token}"}).status_code
        assert (status == 403) is (have < role), (have, status)
        assert status != 401


@pytest.mark.parametrize(
    "path",
    ["/model/medreasoner", "/model/info/medreasoner", "/reload", "/logs/", "/logs/gpu", "/docs", "/openapi.json", "/",
     "/batch/infer/medreasoner", "/proxy/dicom/", "/ohif/", "/static/", "/infer/wsi/medreasoner", "/wsi/medreasoner",
     "/scoring/", "/datastore/updatelabelinfo", "/datastore/dataset"],
)  # fmt: skip
def test_monai_label_s_other_addresses_do_not_exist(guarded, tokens, path):
    headers = {"Authorization": f"Bearer {tokens[Role.ADMIN][0]}"}
    for method in ("GET", "PUT", "POST", "DELETE"):
        assert guarded.request(method, path, headers=headers).status_code in (404, 405)


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Basic YTpi", "bearer wrong", "Bearer a b", "Bearer " + "x" * 5000],
)
def test_what_is_no_bearer_token_is_401(guarded, header):
    reply = guarded.get("/info/", headers={"Authorization": header})
    assert reply.status_code == 401
    assert set(reply.json()) == {"detail", "hint", "kind"}


def test_a_body_is_not_read_before_the_token_is(guarded):
    """A stranger's upload is refused while its body is still on its way."""
    url = httpx.URL(guarded.base_url)
    with socket.create_connection((url.host, url.port), timeout=10) as line:
        head = f"PUT /session/ HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        line.sendall(f"{head}Content-Length: 400000000\r\n\r\n--b\r\n".encode())
        assert line.recv(100).startswith(b"HTTP/1.1 401")


def test_without_tokens_only_this_machine_is_answered():
    keeper = Doorkeeper(Settings())
    for here in ("127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", None):
        assert keeper.user_of("", here) == NOBODY
    for elsewhere in ("10.0.0.7", "192.168.1.20", "::ffff:10.0.0.7", "2001:db8::1", "testclient"):
        with pytest.raises(NotAllowed, match="own machine"):
            keeper.user_of("", elsewhere)
    assert Doorkeeper(Settings(open_access=True)).user_of("", "10.0.0.7") == NOBODY


def test_web_pages_of_other_origins_get_no_permission():
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
    with served(SmallApplication()) as url:
        assert not [h for h in httpx.options(f"{url}/info/", headers=asked).headers if h.startswith("access-control")]
    with served(SmallApplication(), Settings(cors_origins=("https://viewer.example",))) as url:
        assert "access-control-allow-origin" not in httpx.get(f"{url}/info/", headers=asked).headers
        ours = {**asked, "Origin": "https://viewer.example"}
        assert httpx.options(f"{url}/info/", headers=ours).status_code == 200
        reply = httpx.get(f"{url}/infer/none", headers=ours)  # errors too: the page has to read them
        assert reply.headers["access-control-allow-origin"] == "https://viewer.example"
        assert "access-control-allow-credentials" not in reply.headers


@pytest.mark.parametrize(
    ("headers", "settings", "status"),
    [
        ({}, {}, 200),  # no browser
        ({"Origin": "OWN"}, {}, 200),  # a page of this server
        ({"Origin": "https://evil.example"}, {}, 403),
        ({"Origin": "null"}, {}, 403),  # a file, or a frame that hides where it comes from
        ({"Origin": "http://[broken"}, {}, 403),
        ({"Origin": "https://viewer.example"}, {"cors_origins": ("https://viewer.example",)}, 200),
        ({"Host": "evil.example"}, {}, 403),  # a name that has been made to mean this machine
        ({"Host": "evil.example", "Origin": "http://evil.example"}, {}, 403),
        ({"Host": "localhost:8000"}, {}, 200),
        ({"Host": "[::1]:8000"}, {}, 200),
        ({"Host": "0.0.0.0:8000"}, {}, 200),  # as MONAI Label's own server prints its address
        ({"Host": "[broken"}, {}, 403),
        ({"Host": "lab.example"}, {"open_access": True}, 200),
        ({"Host": "lab.example", "Origin": "https://evil.example"}, {"open_access": True}, 403),
        ({"Origin": "https://evil.example", "Authorization": "Bearer TOKEN"}, {"tokens": "FILE"}, 200),
    ],
)
def test_without_tokens_pages_of_other_sites_can_make_a_browser_do_nothing(headers, settings, status, tmp_path):
    """A POST that a form could send needs no permission of the browser's; this one asks a question."""
    token, line = new_token("ann", Role.ANNOTATOR)
    (tmp_path / "tokens").write_text(line)
    settings = {name: str(tmp_path / "tokens") if value == "FILE" else value for name, value in settings.items()}
    application = SmallApplication()
    with served(application, Settings(**settings)) as url:
        filled = {name: value.replace("OWN", url).replace("TOKEN", token) for name, value in headers.items()}
        form = {"params": (None, '{"question": "Where is the liver?"}')}
        reply = httpx.post(f"{url}/infer/medreasoner?image=case&output=json", files=form, headers=filled)
        assert reply.status_code == status, reply.text
        assert len(application.asked) == (status == 200)


def test_a_token_file_that_goes_wrong_under_way_lets_nobody_in_and_is_not_the_sender_s_fault(tmp_path):
    token, line = new_token("ann", Role.READER)
    file = tmp_path / "tokens"
    file.write_text(line)
    keeper = Doorkeeper(Settings(tokens=str(file)))
    assert keeper.user_of(f"Bearer {token}", None).name == "ann"
    for spoil in (lambda: file.write_text(f"{line}\nbob"), file.unlink):
        spoil()
        with pytest.raises(Unavailable, match="token file"):
            keeper.user_of(f"Bearer {token}", None)
    file.write_text(line)
    assert keeper.user_of(f"Bearer {token}", None).name == "ann"


def test_monai_label_s_client_signs_in_with_a_token_as_its_password(guarded, tokens):
    client = MONAILabelClient(str(guarded.base_url))
    assert client.auth_enabled()
    assert not client.auth_valid_token()
    client.update_auth(client.auth_token("whoever", tokens[Role.ANNOTATOR][0]))
    assert client.auth_valid_token()
    assert "medreasoner" in client.info()["models"]
    wrong = guarded.post("/auth/token", data={"username": "ann", "password": "guess"})
    assert wrong.status_code == 401


def test_the_documented_roles_are_the_code_s():
    rows = re.findall(r"^\| `(\w+) (\S+)` \| (\w+) \|", HTTP.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [(m, p, r.name.lower() if r is not None else "anyone") for m, p, r in listed_routes()]

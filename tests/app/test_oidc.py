"""JSON web tokens against an issuer on loopback, with keys made here: what holds, and every way not to."""

import base64
import http.server
import json
import threading
import time

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from monailabel_app.gateway import oidc
from monailabel_app.gateway.errors import NotSignedIn, Unavailable
from monailabel_app.gateway.oidc import Issuer
from monailabel_app.gateway.tokens import Role, User
from monailabel_app.lib.settings import Settings
from tests.app.small import SmallApplication, served

RSA = rsa.generate_private_key(65537, 2048)
ELLIPTIC = ec.generate_private_key(ec.SECP256R1())
OTHER = rsa.generate_private_key(65537, 2048)


def public(key, kid):
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig"}


@pytest.fixture
def realm():
    """An issuer with a discovery document and two keys; `realm.fetched` counts how often the keys were read."""

    class Realm(http.server.BaseHTTPRequestHandler):
        fetched = 0
        keys = [public(RSA, "rsa"), public(ELLIPTIC, "elliptic")]  # noqa: RUF012
        status = 200

        def do_GET(self):
            if self.path.endswith("openid-configuration"):
                answer = {"jwks_uri": f"{Realm.url}/certs"}
            else:
                Realm.fetched += 1
                answer = {"keys": Realm.keys}
            self.send_response(Realm.status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Realm)
    Realm.url = f"http://127.0.0.1:{server.server_port}/realms/clinic"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield Realm
    server.shutdown()
    server.server_close()


def settings_of(realm, **more):
    return Settings(oidc_issuer=realm.url, oidc_audience="medreasoner", **more)


def claims(realm, **changed):
    all_of_them = {
        "iss": realm.url,
        "aud": "medreasoner",
        "sub": "f:1234",
        "exp": time.time() + 60,
        "preferred_username": "ann",
        "realm_access": {"roles": ["offline_access", "medreasoner-annotator", "medreasoner-reader"]},
        **changed,
    }
    return {key: value for key, value in all_of_them.items() if value is not None}


def signed(realm, key=RSA, algorithm="RS256", kid="rsa", **changed):
    return jwt.encode(claims(realm, **changed), key, algorithm, headers={"kid": kid})


def test_a_token_of_the_issuer_names_its_user_and_highest_role(realm):
    issuer = Issuer(settings_of(realm))
    assert issuer.user_of(signed(realm)) == User("ann", Role.ANNOTATOR)
    assert issuer.user_of(signed(realm, ELLIPTIC, "ES256", "elliptic")) == User("ann", Role.ANNOTATOR)
    assert issuer.user_of(signed(realm, aud=["account", "medreasoner"])) == User("ann", Role.ANNOTATOR)
    assert issuer.user_of(signed(realm, preferred_username=None)) == User("f:1234", Role.ANNOTATOR)
    assert realm.fetched == 1  # the keys are remembered
    elsewhere = settings_of(realm, oidc_roles="resource_access.mr.roles", oidc_role_prefix="")
    token = signed(realm, resource_access={"mr": {"roles": ["admin"]}})
    assert Issuer(elsewhere).user_of(token).role is Role.ADMIN


def without_signature(realm):
    head, body = ({"alg": "none", "kid": "rsa"}, claims(realm))
    return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in (head, body)) + "."


def with_the_public_key_as_secret(realm):
    """The classic confusion: HMAC keyed with the text of the public key (CVE-2016-10555); PyJWT refuses to make one."""
    import hashlib
    import hmac

    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    parts = [{"alg": "HS256", "kid": "rsa"}, claims(realm)]
    text = ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts)
    mac = hmac.new(pem, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


REFUSED = [
    ("expired", lambda r: signed(r, exp=time.time() - 60), "expired"),
    ("not yet valid", lambda r: signed(r, nbf=time.time() + 600), "not yet valid"),
    ("without expiry", lambda r: signed(r, exp=None), "exp"),
    ("another audience", lambda r: signed(r, aud="account"), "audience"),
    ("without audience", lambda r: signed(r, aud=None), "aud"),
    ("another issuer", lambda r: signed(r, iss="https://elsewhere.example"), "issuer"),
    ("another key", lambda r: signed(r, OTHER), "signature"),
    ("unknown key id", lambda r: signed(r, OTHER, kid="other"), "key id"),
    ("a key of the other kind", lambda r: signed(r, kid="elliptic"), "key"),
    ("shared secret", lambda r: signed(r, "s" * 64, "HS256"), "alg"),
    ("public key as shared secret", with_the_public_key_as_secret, "alg"),
    ("no signature", without_signature, "alg"),
    ("not listed algorithm", lambda r: signed(r, algorithm="PS256"), "alg"),
    ("no role of ours", lambda r: signed(r, realm_access={"roles": ["admin"]}), "role"),
    ("roles of another shape", lambda r: signed(r, realm_access="medreasoner-admin"), "role"),
    ("not a token", lambda _: "a.b.c", "does not hold"),
    ("cut off", lambda r: signed(r)[:-10], "signature"),
]


@pytest.mark.parametrize(("make", "said"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refused_with_a_reason(realm, make, said):
    with pytest.raises(NotSignedIn) as caught:
        Issuer(settings_of(realm)).user_of(make(realm))
    assert said in caught.value.what


def test_unknown_key_ids_do_not_make_the_server_hammer_the_issuer(realm, monkeypatch):
    issuer = Issuer(settings_of(realm))
    for n in range(20):
        with pytest.raises(NotSignedIn):
            issuer.user_of(signed(realm, OTHER, kid=f"guess-{n}"))
    assert realm.fetched == 1
    realm.keys = [public(OTHER, "new")]  # the issuer has changed its key
    monkeypatch.setattr(oidc, "_PAUSE_S", 0.0)
    assert issuer.user_of(signed(realm, OTHER, kid="new")).name == "ann"


def test_while_the_issuer_is_away_nobody_comes_in_and_the_status_says_why(realm):
    realm.status = 500
    with pytest.raises(Unavailable):
        Issuer(settings_of(realm)).user_of(signed(realm))


def test_over_http_the_reason_arrives_with_401(realm):
    with served(SmallApplication(), settings_of(realm)) as url, httpx.Client(base_url=url) as client:
        for token, status in (
            (signed(realm), 200),
            (signed(realm, exp=time.time() - 60), 401),
            (signed(realm, aud="account"), 401),
            (without_signature(realm), 401),
            ("abc", 401),
        ):
            reply = client.get("/info/", headers={"Authorization": f"Bearer {token}"})
            assert reply.status_code == status, reply.text
        assert reply.headers["www-authenticate"] == "Bearer"
        expired = client.get("/info/", headers={"Authorization": f"Bearer {signed(realm, exp=time.time() - 60)}"})
        assert "expired" in expired.json()["detail"]
        assert client.delete("/datastore/image?id=case", headers=bearer(realm)).status_code == 403


def bearer(realm):
    return {"Authorization": f"Bearer {signed(realm)}"}

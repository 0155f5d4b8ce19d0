"""examples/jwt-guard.py: who gets in, who does not, and what the service is told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any, Callable

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from kong_pdk.testing import Gateway, Result

GUARD = "examples/jwt-guard.py"
SECRET = "a secret of at least thirty-two bytes"
CONFIG = {"key": SECRET, "issuer": "https://id.example", "audience": "shop"}
NOW = int(time.time())
GOOD = {"sub": "alice", "iss": "https://id.example", "aud": "shop", "exp": NOW + 3600}

Make = Callable[..., Gateway]


def token(key: Any = SECRET, algorithm: str = "HS256", kid: str = "", **claims: Any) -> str:
    """A signed token with the good claims but for those given; None leaves one out."""
    chosen = {name: value for name, value in {**GOOD, **claims}.items() if value is not None}
    return jwt.encode(chosen, key, algorithm, {"kid": kid} if kid else None)


def signed(header: bytes, payload: bytes) -> str:
    """A token of these bytes, whatever they are, with a right signature."""
    parts = [base64.urlsafe_b64encode(each).rstrip(b"=") for each in (header, payload)]
    signature = hmac.digest(SECRET.encode(), b".".join(parts), hashlib.sha256)
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def ask(gateway: Gateway, token: str, **headers: str) -> Result:
    return gateway.get("/orders", headers={"Authorization": f"Bearer {token}", **headers})


def is_refused(result: Result, message: str = "the token is not valid") -> bool:
    assert result.service_request is None, result
    assert (result.status, result.json()) == (401, {"message": message}), result
    challenge = f'Bearer realm="api", error="invalid_token", error_description="{message}"'
    assert result.headers.get_all("WWW-Authenticate") == [challenge]
    return True


@pytest.fixture(scope="module")
def rsa_keys() -> list[rsa.RSAPrivateKey]:
    return [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]


def pem(key: rsa.RSAPrivateKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def jwks(keys: list[rsa.RSAPrivateKey]) -> str:
    public = [jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) for key in keys]
    return json.dumps({"keys": [{**key, "kid": f"key-{n}"} for n, key in enumerate(public)]})


@pytest.mark.kong_modes("all")
def test_a_good_token_gets_in_and_others_do_not(kong_gateway: Make) -> None:
    gateway = kong_gateway(GUARD, CONFIG)
    result = ask(gateway, token())
    assert (result.status, result.ended, result.failures) == (200, None, [])
    assert result.service_request is not None
    assert result.service_request.headers.get_all("x-credential-identifier") == ["alice"]
    assert "authorization" not in result.service_request.headers
    assert is_refused(ask(gateway, token(key="another secret of thirty-two bytes")))


def test_no_token(kong_gateway: Make) -> None:
    result = kong_gateway(GUARD, {**CONFIG, "realm": "my shop"}).get("/")
    assert (result.status, result.ended, result.service_request) == (401, "access", None)
    # Without a token there is no error to speak of (RFC 6750, section 3.1).
    assert result.headers.get_all("WWW-Authenticate") == ['Bearer realm="my shop"']


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None}, {"exp": "soon"}, {"exp": float("inf")}, {"nbf": NOW + 3600},
        {"iss": None}, {"iss": "https://id.evil"}, {"iss": ["https://id.example"]},
        {"aud": None}, {"aud": "bank"}, {"aud": []},
        {"sub": None}, {"sub": 7}, {"sub": "a\r\nX-Admin: yes"}, {"sub": "\ud800"}, {"sub": ""},
    ],
    ids=str,
)  # fmt: skip
def test_claims_that_are_not_right(kong_gateway: Make, claims: dict[str, Any]) -> None:
    gateway = kong_gateway(GUARD, CONFIG)
    payload = {name: value for name, value in {**GOOD, **claims}.items() if value is not None}
    bad = signed(b'{"alg": "HS256"}', json.dumps(payload).encode())
    result = ask(gateway, bad)
    assert is_refused(result)
    assert len(result.messages("info")) == 1  # why, for those who run the gateway


def test_an_expired_token_and_the_leeway(kong_gateway: Make) -> None:
    late = token(exp=int(time.time()) - 60)  # not NOW: a whole run may take longer than the leeway
    assert is_refused(ask(kong_gateway(GUARD, CONFIG), late), "the token has expired")
    assert ask(kong_gateway(GUARD, {**CONFIG, "leeway": 300}), late).status == 200


def test_the_token_does_not_choose_the_algorithm(
    kong_gateway: Make, rsa_keys: list[rsa.RSAPrivateKey]
) -> None:
    gateway = kong_gateway(GUARD, CONFIG)
    payload = json.dumps(GOOD).encode()
    unsigned = signed(b'{"alg": "none"}', payload)
    for bad in (
        unsigned,
        unsigned.rpartition(".")[0] + ".",
        token(algorithm="HS512", key=SECRET * 2),
    ):
        assert is_refused(ask(gateway, bad))
    # The public key, which everybody has, as if it were a secret.
    public = pem(rsa_keys[0])
    gateway = kong_gateway(GUARD, {**CONFIG, "key": public, "algorithms": ["RS256"]})
    header, claims, _ = signed(b'{"alg": "HS256"}', payload).split(".")
    mac = hmac.digest(public.encode(), f"{header}.{claims}".encode(), hashlib.sha256)
    forged = f"{header}.{claims}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    assert is_refused(ask(gateway, forged))
    assert ask(gateway, token(rsa_keys[0], "RS256")).status == 200
    assert is_refused(ask(gateway, token(rsa_keys[1], "RS256")))


def test_a_key_set(kong_gateway: Make, rsa_keys: list[rsa.RSAPrivateKey]) -> None:
    gateway = kong_gateway(GUARD, {**CONFIG, "key": jwks(rsa_keys), "algorithms": ["RS256"]})
    for n, key in enumerate(rsa_keys):
        assert ask(gateway, token(key, "RS256", kid=f"key-{n}")).status == 200
    for kid in ("key-1", "key-2", "../key-0", ""):
        assert is_refused(ask(gateway, token(rsa_keys[0], "RS256", kid=kid)))


def garbage() -> Iterator[str]:
    good = token()
    header, payload, signature = good.split(".")
    yield from (
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        f"{header}.{payload}",
        f"{good}.{signature}",
        good + "x",
    )
    yield from (good[:-2], f"{good} {good}", f"{good}, Bearer {good}", f"{good}\udcff", good[1:])
    deep = b"[" * 100_000 + b"]" * 100_000
    for odd in (
        b"",
        b"[]",
        b"1",
        b"null",
        b"{",
        b"\xff",
        b'{"alg": ["HS256"]}',
        b'{"alg": ' + deep + b"}",
    ):
        yield signed(odd, json.dumps(GOOD).encode())
    for odd in (b"", b"[]", b"1", b"null", b"{", b"\xff", deep, b'{"exp": 1e999}', b'{"exp": NaN}'):
        yield signed(b'{"alg": "HS256"}', odd)
    yield signed(b'{"alg": "HS256", "kid": [1]}', json.dumps(GOOD).encode())
    yield signed(b'{"alg": "HS256", "crit": ["b64"], "b64": false}', json.dumps(GOOD).encode())


def test_whatever_a_client_sends_is_refused_and_nothing_raises(kong_gateway: Make) -> None:
    gateway = kong_gateway(GUARD, CONFIG)
    for bad in garbage():
        result = ask(gateway, bad)
        assert is_refused(result), bad
        assert result.failures == [], bad
    for scheme in ("Basic", "Bearerx", ""):
        assert is_refused(gateway.get("/", headers={"Authorization": f"{scheme} {token()}"}))


def test_two_tokens_are_none(kong_gateway: Make) -> None:
    lines = [("Authorization", f"Bearer {token()}"), ("Authorization", "Bearer x")]
    for headers in (lines, lines[::-1]):
        assert is_refused(kong_gateway(GUARD, CONFIG).get("/", headers=headers))


def test_headers_that_only_look_like_ours_do_not_reach_the_service(kong_gateway: Make) -> None:
    config = {**CONFIG, "headers": {"sub": "X-User", "roles": "X-Roles", "tenant": "X-Tenant"}}
    gateway = kong_gateway(GUARD, config)
    spoofed = {
        "X-User": "admin", "x_user": "admin", "X-Consumer-Username": "admin",
        "x-consumer_id": "1", "X-Roles": "root", "X-Other": "mine",
    }  # fmt: skip
    result = ask(gateway, token(roles=["buyer", "reader"], tenant=7), **spoofed)
    assert result.service_request is not None
    got = list(result.service_request.headers)
    assert sorted(line for line in got if line[0].lower() in ("x-user", "x-roles", "x-tenant")) == [
        ("X-Roles", "buyer"), ("X-Roles", "reader"), ("X-Tenant", "7"), ("X-User", "alice"),
    ]  # fmt: skip
    assert "admin" not in str(got) and "root" not in str(got)
    assert not [name for name, _ in got if "consumer" in name.lower() or "_" in name]
    assert ("X-Other", "mine") in got
    # A claim that is not there must not be left to the client to fill in.
    assert is_refused(ask(gateway, token(tenant=7), **spoofed))


def test_a_forged_header_cannot_hide_behind_a_thousand_others(kong_gateway: Make) -> None:
    lines = [("Authorization", f"Bearer {token()}"), *((f"A{n}", "") for n in range(1000))]
    result = kong_gateway(GUARD, CONFIG).get("/", headers=[*lines, ("x_consumer_id", "1")])
    assert (result.status, result.service_request) == (431, None)


def test_kong_knows_who_it_is(kong_gateway: Make) -> None:
    result = ask(kong_gateway(GUARD, CONFIG), token())
    (call,) = result.calls_of("kong.client.authenticate")
    assert call.args == [None, {"id": "alice"}]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"key": "short"}, "32 bytes"),
        ({"algorithms": ["HS512"]}, "64 bytes"),
        ({"algorithms": ["HS256", "RS256"]}, "together"),
        ({"algorithms": ["RS256"]}, "key"),
        ({"algorithms": ["RS256"], "key": '{"keys": []}'}, "key"),
        (
            {"algorithms": ["RS256"], "key": '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}'},
            "must be a public one",
        ),
    ],
    ids=str,
)
def test_a_key_that_does_not_fit_lets_nobody_in(
    kong_gateway: Make, changes: dict[str, Any], reason: str
) -> None:
    result = ask(kong_gateway(GUARD, {**CONFIG, **changes}), token())
    assert (result.status, result.service_request) == (500, None)
    assert reason in str(result.failures)


def test_an_error_of_any_kind_lets_nobody_in(kong_gateway: Make) -> None:
    """Whatever the server is told."""
    gateway = kong_gateway(GUARD, CONFIG, on_error="open")
    with gateway.fake("kong.request.get_headers", returns=None):
        result = ask(gateway, token())
    assert (result.status, result.service_request) == (500, None)
    assert ask(gateway, token()).status == 200

"""examples/transform-response.py: what clients get of the service's answers, and what not."""

from __future__ import annotations

import gzip
import json
from typing import Any, Callable

import pytest

from kong_pdk.testing import Gateway

TRANSFORM = "examples/transform-response.py"
CONFIG = {
    "remove": ["password", "customer.card.cvc", "orders.internal"],
    "rename": {"customer.nm": "name"},
    "mask": ["customer.card.number", "customer.name"],
}
ANSWER = {
    "id": 12345678901234567890,
    "password": "secret",
    "customer": {"nm": "Ann", "card": {"number": "4111111111111111", "cvc": "123"}, "\u00fc": None},
    "orders": [{"total": 1.5, "internal": {}}, {"total": 2}, [{"internal": 1}], "internal"],
}
CHANGED = {
    "id": 12345678901234567890,
    "customer": {"name": "****", "card": {"number": "****1111"}, "\u00fc": None},
    "orders": [{"total": 1.5}, {"total": 2}, [{}], "internal"],
}
Make = Callable[..., Gateway]


@pytest.mark.kong_modes("all")
def test_fields_are_removed_renamed_and_masked(kong_gateway: Make) -> None:
    gateway = kong_gateway(TRANSFORM, CONFIG)
    gateway.respond(201, json=ANSWER, headers={"X-Request": "7", "ETag": '"of the service"'})
    result = gateway.get("/orders")
    assert (result.status, result.json(), result.failures) == (201, CHANGED, [])
    assert result.headers.get("x-request") == "7"
    assert result.headers.get("content-length") == str(len(result.body))
    assert result.headers.get("content-type") == "application/json"
    # Caches must not take it for the body that the service has sent.
    etag = result.headers.get_all("etag")
    assert len(etag) == 1 and etag != ['"of the service"']
    assert gateway.get("/orders").headers.get_all("etag") == etag


def test_a_list_at_the_top(kong_gateway: Make) -> None:
    gateway = kong_gateway(TRANSFORM, {"remove": ["a"]})
    gateway.respond(json=[{"a": 1, "b": {"a": 2}}, {"a": None}, 3])
    result = gateway.get("/")
    assert result.json() == [{"b": {"a": 2}}, {}, 3]
    assert "etag" not in result.headers


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("123456789012", "****9012"), ("12345678901", "****"), ("", "****"),
        (4111111111111111, "****"), (None, "****"), ({"a": "b"}, "****"),
    ],
    ids=str,
)  # fmt: skip
def test_of_a_short_value_nothing_is_shown(kong_gateway: Make, value: Any, shown: str) -> None:
    gateway = kong_gateway(TRANSFORM, {"mask": ["v"]})
    gateway.respond(json={"v": value})
    assert gateway.get("/").json() == {"v": shown}


def test_masks_may_hide_everything(kong_gateway: Make) -> None:
    gateway = kong_gateway(TRANSFORM, {"mask": ["v"], "shown": 0})
    gateway.respond(json={"v": "4111111111111111"})
    assert gateway.get("/").json() == {"v": "****"}


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"other": 1.10, "\\u00e9": "x"}'),
        ("application/json", b"[1, 2]"),
        ("application/json", b""),
        ("text/plain", b'{"password": "1"}'),
        ("image/png", b"\x89PNG\xff\x00"),
    ],
)
def test_what_has_nothing_to_hide_arrives_byte_by_byte(
    kong_gateway: Make, content_type: str, body: bytes
) -> None:
    gateway = kong_gateway(TRANSFORM, CONFIG)
    headers = {"Content-Type": content_type, "ETag": '"e"'}
    gateway.respond(headers=headers, body=body)
    result = gateway.get("/")
    assert (result.status, result.body) == (200, body)
    assert result.headers.get_all("etag") == ['"e"']


@pytest.mark.parametrize("kind", ["application/problem+json", "Application/JSON; charset=utf-8"])
def test_json_by_other_names(kong_gateway: Make, kind: str) -> None:
    gateway = kong_gateway(TRANSFORM, CONFIG)
    gateway.respond(404, headers={"Content-Type": kind}, body='{"password": "1", "title": "no"}')
    result = gateway.get("/")
    assert (result.status, result.json()) == (404, {"title": "no"})
    assert result.headers.get("content-type") == kind


@pytest.mark.parametrize(
    "body",
    [
        b'{"password": "secret"',
        gzip.compress(json.dumps(ANSWER).encode()),
        b'{"password": "\xff"}',
        b'{"password": "secret", "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=["broken", "compressed", "not UTF-8", "deep"],
)
def test_what_cannot_be_read_does_not_get_out(kong_gateway: Make, body: bytes) -> None:
    gateway = kong_gateway(TRANSFORM, CONFIG)
    gateway.respond(headers={"Content-Type": "application/json"}, body=body)
    result = gateway.get("/")
    assert (result.status, result.failures) == (502, [])
    assert b"secret" not in result.body and not result.body.startswith(b"\x1f\x8b")
    assert len(result.messages("err")) == 1


def test_the_service_is_asked_not_to_compress(kong_gateway: Make) -> None:
    result = kong_gateway(TRANSFORM, CONFIG).get("/", headers={"Accept-Encoding": "gzip, br"})
    assert result.service_request is not None
    assert "accept-encoding" not in result.service_request.headers


@pytest.mark.parametrize("body", [ANSWER, {"other": 1}], ids=["changed", "unchanged"])
def test_headers_are_added_to_all_answers(kong_gateway: Make, body: Any) -> None:
    headers = {"Cache-Control": "no-store", "X-Frame-Options": "DENY"}
    gateway = kong_gateway(TRANSFORM, {**CONFIG, "headers": headers})
    gateway.respond(json=body, headers={"Cache-Control": "public"})
    result = gateway.get("/")
    for name, value in headers.items():
        assert result.headers.get_all(name) == [value]

"""What a session is made of, without its processes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kong_pdk.gateway import GatewayError
from kong_pdk.gateway.plugin import PluginInfo
from kong_pdk.gateway.surroundings import parse_upstream, surroundings

pytest.importorskip("aiohttp")

from kong_pdk.gateway.session import compare


def plugin(*fields: dict[str, object]) -> PluginInfo:
    schema = {"name": "p", "fields": [{"config": {"type": "record", "fields": list(fields)}}]}
    return PluginInfo("p", "1.0.0", 1, ("access", "log"), schema)


def test_what_kong_must_be_told_of() -> None:
    old = plugin({"a": {"type": "string"}}, {"b": {"type": "string"}})
    assert compare(old, plugin({"b": {"type": "string"}}, {"a": {"type": "string"}})) == []
    new = plugin({"a": {"type": "number"}}, {"c": {"type": "string"}})
    changed = replace(new, name="q", version="1.1.0", priority=2, phases=("rewrite", "log"))
    assert compare(old, changed) == [
        "name p -> q",
        "version 1.0.0 -> 1.1.0",
        "priority 1 -> 2",
        "phases +rewrite -access",
        "Schema +c -b ~a",
    ]


def test_what_is_not_given_is_as_in_a_fresh_kong() -> None:
    around = surroundings("https://up.example/base?x")
    service = around.service
    assert (service.scheme, service.host, service.port) == ("https", "up.example", 443)
    assert around.service_entity["path"] == "/base"
    assert around.route["service"] == {"id": around.service_entity["id"]}
    assert around.consumer is None and around.consumers == ()


def test_what_is_given_holds() -> None:
    around = surroundings(
        "http://up.example:81",
        consumer={"username": "ann"},
        credential={"id": "c"},
        route={"name": "r", "service": {"id": "other"}},
        service={"id": "s", "read_timeout": 7},
    )
    assert around.service.read_timeout == 7 and around.service.port == 81
    assert around.service_entity["id"] == "s" and around.service_entity["port"] == 81
    assert around.route["name"] == "r" and around.route["service"] == {"id": "other"}
    assert around.consumer is not None and around.consumer["id"]
    assert around.consumers == (around.consumer,)


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x:port", "up.example"])
def test_what_is_no_upstream(url: str) -> None:
    with pytest.raises(GatewayError, match="upstream"):
        parse_upstream(url)

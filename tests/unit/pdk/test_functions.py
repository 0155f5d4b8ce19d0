"""What comes back: an empty table is what its declared type says, in both styles."""

from __future__ import annotations

from typing import Any

import pytest
from pdkcalls import Pdk, right_arguments

from kong_pdk.pdk._table import FUNCTIONS, RECORDS
from kong_pdk.pdk.functions import restorer

every = pytest.mark.parametrize("spec", FUNCTIONS, ids=lambda spec: spec.name)


def results(pdk: Pdk, name: str, answer: Any) -> Any:
    """What a function makes of an answer; the same in both styles."""
    spec = pdk.proxy.SPECS[name]
    found = []
    for lua_style in (True, False):
        caller = pdk.caller(lua_style=lua_style)
        caller.answer = answer
        found.append(pdk.method(name, caller)(*right_arguments(spec)))
    data, err = found[0]
    assert err is None
    assert repr(data) == repr(found[1])
    return found[1]


@every
def test_empty_tables(pdk: Pdk, spec: Any) -> None:
    for empty in ([], {}):
        got = results(pdk, spec.name, empty)
        if spec.shape == "list":
            assert got == []
        elif spec.shape == "map" or spec.shape in RECORDS:
            assert got == {}
        else:
            assert got is empty


@every
def test_other_results_are_left_alone(pdk: Pdk, spec: Any) -> None:
    for answer in (None, 5, 1.5, True, False, b"bytes", ["a"], {"a": []}, {"a": {}}, [[]]):
        assert results(pdk, spec.name, answer) is answer
    if spec.shape != "bytes":
        assert results(pdk, spec.name, "text") == "text"


@every
def test_a_failed_call_in_lua_style(pdk: Pdk, spec: Any) -> None:
    caller = pdk.caller(lua_style=True)
    caller.error = "went wrong"
    got = pdk.method(spec.name, caller)(*right_arguments(spec))
    assert got == (None, "went wrong")
    caller.answer = []
    data, err = pdk.method(spec.name, caller)(*right_arguments(spec))
    assert err == "went wrong" and data in ([], {})


def test_nested_fields(pdk: Pdk) -> None:
    assert results(pdk, "kong.request.get_uri_captures", {"unnamed": [], "named": []}) == {
        "unnamed": {}, "named": {},
    }  # fmt: skip
    assert results(pdk, "kong.request.get_uri_captures", {"named": ["x"]}) == {"named": ["x"]}
    route = {"id": "r", "service": [], "headers": [], "paths": []}
    assert results(pdk, "kong.router.get_route", dict(route)) == {
        **route, "service": {}, "headers": {},
    }  # fmt: skip
    stats = {
        "workers_lua_vms": {},
        "lua_shared_dicts": {"kong": [], "other": {"capacity": 1}},
    }
    assert results(pdk, "kong.node.get_memory_stats", stats) == {
        "workers_lua_vms": [], "lua_shared_dicts": {"kong": {}, "other": {"capacity": 1}},
    }  # fmt: skip
    stats = {"workers_lua_vms": [[], {"pid": 1}], "lua_shared_dicts": []}
    assert results(pdk, "kong.node.get_memory_stats", stats) == {
        "workers_lua_vms": [{}, {"pid": 1}], "lua_shared_dicts": {},
    }  # fmt: skip


@pytest.mark.parametrize("value", [None, 5, "x", b"x", True, [1], 1.5], ids=repr)
@pytest.mark.parametrize("shape", [*RECORDS, "map", "list", "list of Route", "map of Route"])
def test_fields_of_other_types_do_no_harm(shape: str, value: Any) -> None:
    restore = restorer(shape, RECORDS)
    assert restore(value) == value
    for field in RECORDS.get(shape, {}):
        assert restore({field: value})[field] == value


@pytest.mark.parametrize(
    "name",
    ["kong.request.get_raw_body", "kong.service.response.get_raw_body"],
)
def test_raw_bodies_are_bytes(pdk: Pdk, name: str) -> None:
    """Kong 2.8 sends them as strings, of whatever bytes."""
    assert results(pdk, name, b"\xff\x00") == b"\xff\x00"
    assert results(pdk, name, "caf\udce9\udcff\x00ä") == b"caf\xe9\xff\x00\xc3\xa4"
    assert results(pdk, name, "") == b""
    assert results(pdk, name, None) is None

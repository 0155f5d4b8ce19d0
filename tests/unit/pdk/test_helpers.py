"""The helpers of plugins, in both styles, over a stand-in for Kong."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from kong_pdk.exception import PDKException, ResponseSent
from kong_pdk.pdk import helpers
from kong_pdk.pdk.proxy import root_class


class Caller:
    """Answers PDK calls from a dict, in one of the styles."""

    def __init__(self, lua_style: bool, answers: dict[str, Any], err: Optional[str] = None) -> None:
        self.lua_style = lua_style
        self.answers = answers
        self.err = err
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def call(self, function: str, args: tuple[Any, ...]) -> Any:
        self.calls.append((function, args))
        if function == "kong.response.exit":
            raise ResponseSent(function)
        data = self.answers.get(function)
        return (data, self.err) if self.lua_style else data


@pytest.fixture(params=[True, False], ids=["lua_style", "python_style"])
def lua_style(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def kong(caller: Caller) -> Any:
    return root_class()(caller)


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (None, None),
        ("", None),
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        ("BEARER  abc  ", "abc"),
        ("Bearer eyJ0.eyJz.sig-_~+/==", "eyJ0.eyJz.sig-_~+/=="),
        ("Bearer", None),
        ("Bearer ", None),
        ("Bearerabc", None),
        ("Bearer a b", None),
        ("Bearer a=b", None),
        ("Bearer \udcff", None),
        ("Bearer abc\n", None),
        ("Basic dXNlcjpwYXNz", None),
        ("xBearer abc", None),
    ],
)
def test_a_bearer_token(lua_style: bool, header: Optional[str], token: Optional[str]) -> None:
    caller = Caller(lua_style, {"kong.request.get_header": header})
    assert helpers.bearer_token(kong(caller)) == token
    assert caller.calls == [("kong.request.get_header", ("authorization",))]


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"", None),
        (b"null", None),
        (b'{"a": null, "b": [], "c": {}}', {"a": None, "b": [], "c": {}}),
        (b"[]", []),
        (b"12345678901234567890123", 12345678901234567890123),
        ('{"name": "Jos\u00e9"}'.encode(), {"name": "Jos\u00e9"}),
    ],
)
def test_a_json_body(lua_style: bool, body: bytes, value: Any) -> None:
    caller = Caller(lua_style, {"kong.request.get_raw_body": body})
    assert helpers.json_body(kong(caller)) == value
    assert caller.calls == [("kong.request.get_raw_body", ())]


@pytest.mark.parametrize("body", [b"{", b"\xff", b"{'a': 1}", b"1 2", b"[" * 100_000])
def test_what_is_no_json(lua_style: bool, body: bytes) -> None:
    caller = Caller(lua_style, {"kong.request.get_raw_body": body})
    with pytest.raises(ValueError):
        helpers.json_body(kong(caller))


def test_a_body_on_disk(lua_style: bool) -> None:
    caller = Caller(lua_style, {"kong.request.get_raw_body": b"1"})
    assert helpers.json_body(kong(caller), max_allowed_file_size=0) == 1
    assert caller.calls == [("kong.request.get_raw_body", (0,))]


@pytest.mark.parametrize("headers", [None, {"ETag": '"2"'}])
def test_another_body(lua_style: bool, headers: Any) -> None:
    caller = Caller(lua_style, {"kong.response.get_status": 201})
    with pytest.raises(ResponseSent):
        helpers.replace_response_body(kong(caller), {"a": 1}, headers)
    assert caller.calls == [
        ("kong.response.get_status", ()),
        ("kong.response.clear_header", ("content-encoding",)),
        ("kong.response.exit", (201, {"a": 1}, headers)),
    ]


def test_a_failure_that_kong_reports() -> None:
    caller = Caller(True, {}, err="no such thing")
    for helper in (helpers.bearer_token, helpers.json_body):
        with pytest.raises(PDKException, match="no such thing"):
            helper(kong(caller))

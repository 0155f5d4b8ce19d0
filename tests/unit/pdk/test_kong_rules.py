"""Where Kong takes more, or less, than the declared type of an argument says."""

from __future__ import annotations

import math
from typing import Any, Optional

import pytest

from kong_pdk.exception import ArgumentError, ArgumentValueError, CallError, PhaseError
from kong_pdk.pdk.proxy import root_class


class Caller:
    """Notes the PDK calls of an event in some phase."""

    def __init__(self, phase: Optional[str]) -> None:
        self.phase = phase
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def call(self, function: str, args: tuple[Any, ...]) -> Any:
        self.calls.append((function, args))


def sent(name: str, *args: Any, phase: Optional[str] = "access") -> tuple[Any, ...]:
    """The arguments that go to Kong for a call."""
    caller = Caller(phase)
    kong = root_class()(caller)
    for part in name.split(".")[1:]:
        kong = getattr(kong, part)
    kong(*args)
    [(function, values)] = caller.calls
    assert function == name
    return values


REQUEST = "kong.service.request."


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("kong.ctx.shared.get", (1,), (1,)),
        ("kong.ctx.shared.set", (True, "x"), (True, "x")),
        ("kong.nginx.get_ctx", (1.5,), (1.5,)),
        ("kong.client.load_consumer", ("ann", 1), ("ann", True)),
        ("kong.client.get_protocol", ("yes",), (True,)),
        ("kong.service.set_target", ("up", 0), ("up", 0)),
        ("kong.service.set_target", ("up", 8080.0), ("up", 8080)),
        ("kong.service.set_tls_verify_depth", (1.5,), (1.5,)),
        ("kong.vault.is_reference", (None,), (None,)),
        ("kong.vault.is_reference", (5,), (5,)),
        (REQUEST + "set_query", ({"id": [1, "b", True, 2.5]},), ({"id": [1, "b", True, 2.5]},)),
        (REQUEST + "set_query", ({"a": None, "b": "c"},), ({"b": "c"},)),
        (REQUEST + "set_headers", ({"a": None, "b": "c"},), ({"b": "c"},)),
        (REQUEST + "set_header", ("a", ["x", None, "y"]), ("a", ["x", "y"])),
        (REQUEST + "set_header", ("a", []), ("a", [])),
        (REQUEST + "set_body", ({"a": [1, True]}, "application/x-www-form-urlencoded"), None),
        (REQUEST + "set_body", ({"a": "b", "n": 1}, 'multipart/form-data; boundary="x"'), None),
        (REQUEST + "set_body", ([1], "application/json; charset=utf-8"), None),
        (REQUEST + "set_body", ([1], None), None),
        ("kong.response.exit", (200, None, {"a": None}), (200, None, {})),
        ("kong.response.error", (400, "x", {"Content-Type": "text/html"}), None),
        ("kong.response.error", (400, "x", {"Content-Type": ["text/html", "a"]}), None),
        ("kong.response.error", (400, "x", {"content-type": "text/csv"}), None),
        ("kong.response.error", (400,), None),
    ],
)
def test_what_kong_takes_is_sent(
    name: str, args: tuple[Any, ...], expected: Optional[tuple[Any, ...]]
) -> None:
    assert sent(name, *args) == (args if expected is None else expected)


@pytest.mark.parametrize(
    ("name", "args", "error"),
    [
        ("kong.ctx.shared.set", (None, 1), ArgumentError),
        ("kong.ctx.shared.get", (["k"],), ArgumentError),
        ("kong.service.set_target", ("up", 80.5), ArgumentError),
        ("kong.service.set_target", ("up", math.nan), ArgumentError),
        ("kong.service.set_tls_verify", (1,), ArgumentError),
        ("kong.service.set_tls_verify_depth", (-1,), ArgumentValueError),
        (REQUEST + "set_query", ({"a": [["b"]]},), ArgumentError),
        (REQUEST + "set_query", ({"a": [{}]},), ArgumentError),
        (REQUEST + "set_header", ("a", None), ArgumentError),
        (REQUEST + "set_header", ("a", [1]), ArgumentError),
        (REQUEST + "set_header", ("a", ("x", None)), ArgumentError),  # data and error of a call
        (REQUEST + "set_headers", ({"a": [1]},), ArgumentError),
        (REQUEST + "set_body", ({}, "application/json ; charset=utf-8"), ArgumentValueError),
        (REQUEST + "set_body", ({}, "Application/JSON"), ArgumentValueError),
        (REQUEST + "set_body", (["a"], "application/x-www-form-urlencoded"), ArgumentError),
        (REQUEST + "set_body", ({1: "a"}, "application/x-www-form-urlencoded"), ArgumentError),
        (REQUEST + "set_body", ({"a": {"b": 1}}, "multipart/form-data"), ArgumentError),
        (REQUEST + "set_body", ({"a": True}, "multipart/form-data"), ArgumentError),
        (REQUEST + "set_body", ({"a": ["b"]}, "multipart/form-data"), ArgumentError),
        ("kong.response.error", (400, "x", {"Content-Type": "text/csv"}), ArgumentValueError),
        ("kong.response.error", (400, "x", {"Content-Type": 5}), ArgumentValueError),
        ("kong.response.error", (400, "x", {"Content-Type": []}), ArgumentValueError),
    ],
)
def test_what_raises_in_kong_raises_here(
    name: str, args: tuple[Any, ...], error: type[CallError]
) -> None:
    with pytest.raises(error) as caught:
        sent(name, *args)
    assert str(caught.value).startswith(name)


@pytest.mark.parametrize("phase", ["certificate", "preread", "log"])
def test_nginx_answers_in_every_phase(phase: str) -> None:
    assert sent("kong.nginx.get_tls1_version_str", phase=phase) == ()
    assert sent("kong.nginx.req_start_time", phase=phase) == ()


def test_an_error_needs_a_phase_all_the_same() -> None:
    with pytest.raises(PhaseError):
        sent("kong.response.error", 400, phase="log")

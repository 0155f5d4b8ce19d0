"""Log functions: any object as its text, and lines below the level without a call."""

from __future__ import annotations

from typing import Any

import pytest
from pdkcalls import Caller, Pdk, reach

from kong_pdk.config import LEVELS
from kong_pdk.exception import ArgumentError
from kong_pdk.pdk._table import FUNCTIONS

LOGS = [spec for spec in FUNCTIONS if spec.variadic]
logs = pytest.mark.parametrize("spec", LOGS, ids=lambda spec: spec.name)

#: The lines that the functions write, where their name is not that of the level.
OTHER_LEVELS = {
    "kong.log": "notice", "kong.log.inspect": "notice", "kong.log.deprecation": "warn",
    "kong.log.trace": "debug",
}  # fmt: skip

#: These write no line of their own.
NO_LINES = [
    "kong.log.set_format", "kong.log.serialize", "kong.log.set_serialize_value",
    "kong.log.inspect.on", "kong.log.inspect.off",
]  # fmt: skip


def test_levels() -> None:
    assert {spec.name: spec.level for spec in FUNCTIONS if spec.level >= 0} == {
        spec.name: LEVELS.index(OTHER_LEVELS.get(spec.name, spec.name.rpartition(".")[2]))
        for spec in LOGS
    }
    assert len(LOGS) == 12


@logs
@pytest.mark.parametrize("checks", [True, False], ids=["checks", "no_checks"])
def test_what_is_logged_may_be_anything(pdk: Pdk, spec: Any, checks: bool) -> None:
    class Odd:
        def __str__(self) -> str:
            return "odd"

    caller = pdk.caller("access", checks=checks)
    log = reach(pdk.kong(caller), spec.name)
    log(
        "a", 1, 1.5, True, b"x", bytearray(b"y"), None, ["l"], {"k": 1}, Odd(), {1},
        ValueError("v"), 2**70, "z",
    )  # fmt: skip
    assert caller.sent == (
        "a", "1", "1.5", "True", b"x", b"y", "None", "['l']", "{'k': 1}", "odd", "{1}", "v",
        str(2**70), "z",
    )  # fmt: skip
    assert all(type(arg) in (str, bytes, bytearray) for arg in caller.sent)


@logs
def test_nothing_to_log(caller: Caller, kong: Any, spec: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"^{spec.name}: there is nothing to log"):
        reach(kong, spec.name)()
    with pytest.raises(ArgumentError, match=rf"^{spec.name} takes no keyword arguments, got end"):
        reach(kong, spec.name)("a", end="")
    assert caller.calls == []


@logs
@pytest.mark.parametrize("lua_style", [True, False], ids=["lua_style", "python_style"])
def test_lines_below_the_level_are_dropped(pdk: Pdk, spec: Any, lua_style: bool) -> None:
    for level in range(len(LEVELS)):
        caller = pdk.caller("log", lua_style=lua_style, log_level=level)
        log = reach(pdk.kong(caller), spec.name)
        assert log("line", 5) == ((None, None) if lua_style else None)
        expected = [(spec.name, ("line", "5"))] if spec.level <= level else []
        assert caller.calls == expected


def test_the_text_of_what_is_dropped_is_not_made(pdk: Pdk) -> None:
    class Expensive:
        def __str__(self) -> str:
            raise AssertionError("it was asked")

    caller = pdk.caller(log_level=LEVELS.index("err"))
    pdk.kong(caller).log.debug(Expensive())
    pdk.kong(caller).log.debug()
    assert caller.calls == []


@pytest.mark.parametrize("checks", [True, False], ids=["checks", "no_checks"])
def test_what_writes_no_line_is_never_dropped(pdk: Pdk, checks: bool) -> None:
    assert [spec.name for spec in FUNCTIONS if spec.name in NO_LINES] == sorted(NO_LINES)
    caller = pdk.caller("log", log_level=0, checks=checks)
    kong = pdk.kong(caller)
    for name in NO_LINES:
        reach(kong, name)(*(("a",) if "set_" in name else ()))
    assert [name for name, _ in caller.calls] == NO_LINES


def test_other_calls_have_no_level(pdk: Pdk) -> None:
    caller = pdk.caller("access", log_level=0)
    assert pdk.kong(caller).request.get_header("x") is None
    assert len(caller.calls) == 1

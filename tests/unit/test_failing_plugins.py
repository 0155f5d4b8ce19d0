"""A plugin that fails: the request is refused where it can be, and Kong always gets its answer."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from kong_pdk import _wire
from kong_pdk._codec import Request
from kong_pdk.exception import EventAbandoned
from kong_pdk.refusals import FAILURE_BODY, FAILURE_STATUS

GONE = EventAbandoned("Kong is gone")


class Mute(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Exits(BaseException):
    """No Exception."""


FAILURES = {
    "exception": ValueError("secret"),
    "system_exit": SystemExit(1),
    "keyboard_interrupt": KeyboardInterrupt(),
    "base_exception": Exits("out"),
    "generator_exit": GeneratorExit(),
    "not_utf8": ValueError("caf\udce9"),
    "phrase": ValueError("No Plugin Instance"),
    "lone_surrogate": ValueError("from a client's JSON: \ud800"),
    "mute": Mute(),
}


@pytest.fixture(params=FAILURES.values(), ids=FAILURES)
def failure(request: pytest.FixtureRequest) -> Iterator[BaseException]:
    yield request.param


def fail_with(failure: BaseException) -> Callable[[Any], None]:
    def body(kong: Any) -> None:
        raise failure

    return body


@pytest.mark.parametrize("phase", sorted(_wire.CLOSABLE))
def test_a_failing_plugin_refuses_the_request(
    either: Any, failure: BaseException, phase: str
) -> None:
    """Whatever was raised: what the plugin guards must not be open because of it."""
    assert either.run(fail_with(failure), phase) == (None, None, None)
    (line,) = either.mode.calls
    assert line[:2] == (10, "kong.log.err")
    assert line[2][0].startswith(f"{phase} failed, the request is refused: ")
    assert "no plugin instance" not in line[2][0].lower()
    (last,) = either.mode.last
    assert last[:2] == (11, "kong.response.exit")
    assert last[2][:2] == [FAILURE_STATUS, FAILURE_BODY]
    assert "secret" not in str(last[2])


@pytest.mark.parametrize("phase", ["certificate", "log"])
def test_where_there_is_no_client_kong_gets_an_error(
    either: Any, failure: BaseException, phase: str
) -> None:
    msgid, error, data = either.run(fail_with(failure), phase)
    assert (msgid, data) == (10, None)
    assert error.startswith(f"plugin mine: {phase} raised ")
    assert "no plugin instance" not in error.lower()
    assert either.mode.calls == either.mode.last == []


def test_a_failure_is_logged_with_its_traceback(
    bench: Any, caplog: pytest.LogCaptureFixture
) -> None:
    failure = FAILURES["exception"]
    with caplog.at_level(logging.ERROR, "kong_pdk.plugin"):
        bench.run(fail_with(failure))
    (record,) = caplog.records
    assert record.exc_info is not None and record.exc_info[1] is failure
    assert f"plugin mine: access raised ValueError (instance {bench.instance.id}, event " in (
        record.getMessage()
    )


def test_a_failure_while_kong_goes_away(bench: Any) -> None:
    bench.mode.answers = [GONE]
    assert bench.run(fail_with(ValueError("x"))) == (None, None, None)
    assert len(bench.mode.calls) == 1 and bench.mode.last == []


def test_a_line_that_kong_does_not_take_keeps_nothing_open(plain: Any) -> None:
    """Kong 2.x may answer kong.log.err with an error, which is raised without Lua's style."""
    plain.mode.answers = [Request(_wire.STEP_ERROR, 11, 0, "no log today")]
    assert plain.run(fail_with(ValueError("x"))) == (None, None, None)
    assert [call[1] for call in plain.mode.last] == ["kong.response.exit"]


def test_a_failure_after_the_end_of_the_request(bench: Any) -> None:
    def body(kong: Any) -> None:
        try:
            kong.response.exit(200)
        finally:
            raise ValueError("in a finally")

    assert bench.run(body) == (None, None, None)
    assert bench.mode.calls == [] and len(bench.mode.last) == 1

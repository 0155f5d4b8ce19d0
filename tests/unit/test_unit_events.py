"""Events: a handler from HandleEvent to its end, with a mode that answers from a list."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from kong_pdk import _wire
from kong_pdk._codec import Request
from kong_pdk.config import ServerConfig
from kong_pdk.exception import (
    ArgumentError,
    EventAbandoned,
    EventEnded,
    HandlerExit,
    PDKException,
    ResponseSent,
)
from kong_pdk.runtime.events import Event, new_events

GONE = EventAbandoned("Kong is gone")


RETURN = (10, None, "ret")

# --- calls and answers ----------------------------------------------------------------------------


def test_a_handler_without_calls(either: Any) -> None:
    assert either.run(lambda kong: "whatever it returns") == RETURN
    assert either.mode.calls == either.mode.last == []
    assert either.event.over
    assert (either.event.connection, either.event.runner) == (either, "runner")


def test_calls_in_lua_style(bench: Any) -> None:
    bench.mode.answers = ["example.com", None, {"a": ["b"]}]
    seen: list[Any] = []

    def body(kong: Any) -> None:
        seen.append(kong.request.get_header("host"))
        seen.append(kong.response.set_header("x", "y"))
        seen.append(kong.request.get_headers())

    assert bench.run(body) == (13, None, "ret")
    assert seen == [("example.com", None), (None, None), ({"a": ["b"]}, None)]
    assert bench.mode.calls == [
        (10, "kong.request.get_header", ["host"]),
        (11, "kong.response.set_header", ["x", "y"]),
        (12, "kong.request.get_headers", []),
    ]


def test_calls_without_lua_style(plain: Any) -> None:
    plain.mode.answers = ["example.com", None]
    seen: list[Any] = []
    plain.run(lambda kong: seen.extend([kong.request.get_host(), kong.log.info("x")]))
    assert seen == ["example.com", None]


def test_a_failed_call_in_lua_style(bench: Any) -> None:
    bench.mode.answers = [Request(_wire.STEP_ERROR, 11, 0, "no such header")]
    seen: list[Any] = []
    assert bench.run(lambda kong: seen.append(kong.request.get_header("x")))[2] == "ret"
    assert seen == [(None, "no such header")]


def test_a_failed_call_without_lua_style(plain: Any) -> None:
    plain.mode.answers = [Request(_wire.STEP_ERROR, 11, 0, "no such header")]

    def body(kong: Any) -> None:
        with pytest.raises(PDKException, match=r"^kong\.request\.get_header: no such header$"):
            kong.request.get_header("x")

    assert plain.run(body) == (11, None, "ret")


def test_an_argument_that_cannot_be_sent(either: Any) -> None:
    def body(kong: Any) -> None:
        with pytest.raises(ArgumentError, match=r"^kong\.ctx\.shared\.set: v, of type set, cannot"):
            kong.ctx.shared.set("x", {1})
        kong.ctx.shared.set("x", "fine")

    assert either.run(body)[2] == "ret"
    assert [call[2] for call in either.mode.calls] == [["x", "fine"]]


def test_holes_are_padded(bench: Any) -> None:
    bench.run(lambda kong: kong.request.get_body(None, 5))
    (call,) = bench.mode.calls
    assert call[2] == [None, 5, *[False] * (_wire.HOLE_PADDED_LENGTH - 2)]


def test_what_a_log_function_gets_is_never_padded(bench: Any) -> None:
    bench.run(lambda kong: kong.log("a", None, "b"))
    assert bench.mode.calls[0][2] == ["a", "None", "b"]


def test_an_argument_that_cannot_be_compared(bench: Any) -> None:
    """As arrays of numbers cannot: they are refused as what they are."""

    class Array:
        def __eq__(self, other: object) -> bool:
            raise ValueError("the truth value of an array is ambiguous")

        __hash__ = object.__hash__

    def body(kong: Any) -> None:
        with pytest.raises(ArgumentError, match="args must be a dict or list, got an object of"):
            kong.service.request.set_body(Array())
        with pytest.raises(ArgumentError, match="v, of type Array, cannot be sent"):
            kong.ctx.shared.set("k", Array())

    assert bench.run(body) == RETURN


# --- ways to end ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["exit", "error"])
def test_a_call_that_ends_the_request_ends_the_handler(either: Any, name: str) -> None:
    after: list[str] = []

    def body(kong: Any) -> None:
        try:
            getattr(kong.response, name)(403, None, {"X": "y"})
        except Exception:
            after.append("except Exception")
        finally:
            after.append("finally")
        after.append("next line")

    assert either.run(body) == (None, None, None)
    assert after == ["finally"]
    (last,) = either.mode.last
    assert (last[:2], last[2][:3]) == ((10, f"kong.response.{name}"), [403, None, {"X": "y"}])
    assert len(last[2]) == _wire.HOLE_PADDED_LENGTH
    assert either.event.over


def test_a_call_after_the_end(either: Any) -> None:
    errors: list[BaseException] = []

    def body(kong: Any) -> None:
        try:
            kong.response.exit(200)
        except ResponseSent:
            pass
        for call, args in ((kong.request.get_host, ()), (kong.response.exit, (200,))):
            try:
                call(*args)
            except EventEnded as exc:
                errors.append(exc)

    assert either.run(body) == (None, None, None)
    assert len(errors) == 2
    assert str(errors[0]).startswith("kong.request.get_host: this event is over")
    assert isinstance(errors[0], PDKException) and isinstance(errors[0], RuntimeError)
    assert either.mode.calls == []


def test_a_kong_object_kept_after_its_event(either: Any) -> None:
    kept: list[Any] = []
    either.run(kept.append)
    with pytest.raises(EventEnded):
        kept[0].log.info("too late")
    assert either.mode.calls == []


def test_an_event_that_kong_abandons(either: Any) -> None:
    either.mode.answers = [GONE]
    after: list[str] = []

    def body(kong: Any) -> None:
        try:
            kong.request.get_host()
        except Exception:
            after.append("except Exception")
        finally:
            after.append("finally")

    assert either.run(body) == (None, None, None)
    assert after == ["finally"]
    assert not issubclass(EventAbandoned, Exception) and issubclass(EventAbandoned, HandlerExit)


def test_an_unknown_instance(bench: Any) -> None:
    msgid, error, _ = bench.run(lambda kong: None, instance_id=4711)
    assert (msgid, error) == (10, "no plugin instance 4711")
    assert bench.event is None


@pytest.mark.parametrize("phase", ["", "init_worker", "__init__", "config", "no plugin instance"])
def test_a_phase_that_the_plugin_does_not_have(bench: Any, phase: str) -> None:
    msgid, error, _ = bench.run(lambda kong: None, phase=phase)
    assert msgid == 10
    assert error == f"plugin mine has no phase {phase.replace(' ', '_')!r}"
    assert bench.event is None


# --- threads of the plugin's own, ids -------------------------------------------------------------


def test_a_plugins_threads_call_one_at_a_time(bench: Any) -> None:
    inside, most = [0], [0]
    exchange = bench.mode.exchange

    def counting(event: Event, frame: bytes) -> Request:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        try:
            return exchange(event, frame)
        finally:
            inside[0] -= 1

    bench.mode.exchange = counting  # type: ignore[method-assign]

    def body(kong: Any) -> None:
        barrier = threading.Barrier(4)

        def work() -> None:
            barrier.wait(30)
            for _ in range(50):
                kong.request.get_host()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

    assert bench.run(body) == (210, None, "ret")
    assert len(bench.mode.calls) == 200
    assert [call[0] for call in bench.mode.calls] == list(range(10, 210))
    assert most == [1]


def test_ids_of_events_are_never_met_again() -> None:
    seen: set[int] = set()
    for _ in range(50):
        events = new_events(ServerConfig())
        ids = {events.next_id() for _ in range(100)}
        assert len(ids) == 100 and max(ids) < 2**53 and min(ids) > 0
        assert not ids & seen
        seen |= ids
    assert events.waiting == {}

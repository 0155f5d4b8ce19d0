"""Limits of time in the codec's events, on both codecs; the servers' are integration tests."""

from __future__ import annotations

import time
from types import ModuleType
from typing import Any

import pytest

from kong_pdk import _codec, _fallback, _wire
from kong_pdk.exception import EventAbandoned, EventEnded, HandlerTimeout


@pytest.fixture(params=["compiled", "pure"])
def codec(request: pytest.FixtureRequest) -> ModuleType:
    if request.param == "pure":
        return _fallback
    if not _codec.is_compiled():
        pytest.skip("the compiled codec is not in use")
    return _codec.codec


class Mode:
    """Answers each call at once, after doing what a test wants."""

    def __init__(self, codec: ModuleType, meanwhile: Any = None) -> None:
        self.codec = codec
        self.meanwhile = meanwhile
        self.calls = 0

    def exchange(self, event: Any, frame: bytes) -> Any:
        self.calls += 1
        if self.meanwhile is not None:
            self.meanwhile(event)
        return self.codec.Request(_wire.STEP, 2, event.id, "data")

    def too_late(self, event: Any) -> None:
        event.over = True
        raise EventAbandoned("too late")


def new_event(codec: ModuleType, mode: Mode, connection: Any = None, **limits: Any) -> Any:
    return codec.Event(codec.Events(1, **limits), None, "access", connection, 1, mode, None)


def test_when_a_request_was_read(codec: ModuleType) -> None:
    before = time.monotonic()
    request = codec.Request(_wire.CALL, 1, "x", [])
    assert before - 0.1 <= request.at <= time.monotonic() + 0.1


def test_an_answer_in_time(codec: ModuleType) -> None:
    mode = Mode(codec)
    event = new_event(codec, mode, late=30)
    event.at = time.monotonic() - 20
    assert event.call("kong.request.get_method", ()) == ("data", None)
    assert event.at > time.monotonic() - 10, "the next one counts from the step"


def test_an_answer_that_is_late(codec: ModuleType) -> None:
    mode = Mode(codec)
    event = new_event(codec, mode, late=30)
    event.at = time.monotonic() - 31
    with pytest.raises(EventAbandoned):
        event.call("kong.request.get_method", ())
    assert mode.calls == 0
    with pytest.raises(EventEnded):
        event.call("kong.request.get_method", ())


def test_no_answer_is_late_without_a_limit(codec: ModuleType) -> None:
    event = new_event(codec, Mode(codec))
    event.at = 0.0
    assert event.call("kong.request.get_method", ()) == ("data", None)


def test_a_handler_that_has_had_its_time(codec: ModuleType) -> None:
    mode = Mode(codec)
    event = new_event(codec, mode, connection := object())
    assert event.expire() is connection, "it was at no call, so this has ended it"
    assert event.connection is None, "its thread must not use it any more"
    assert event.over and event.expired
    for _ in range(2):
        with pytest.raises(HandlerTimeout):
            event.call("kong.request.get_method", ())
    assert mode.calls == 0
    assert not event.end()
    assert event.expire() is None, "it is over already"


def test_a_handler_that_has_had_its_time_in_a_call(codec: ModuleType) -> None:
    ended = []
    mode = Mode(codec, lambda event: ended.append(event.expire()))
    event = new_event(codec, mode, connection := object())
    with pytest.raises(HandlerTimeout):
        event.call("kong.request.get_method", ())
    assert ended == [None] and event.connection is connection
    assert not event.over, "its request can still be closed"
    assert event.expire() is connection, "also by the next look at it"


@pytest.mark.parametrize("track", [True, False])
def test_handlers_that_run_are_tracked_if_that_is_wanted(codec: ModuleType, track: bool) -> None:
    events, seen = codec.Events(1, track=track), []

    instance = codec.BaseInstance({"access": lambda _: seen.append(dict(events.running or {}))})
    run = codec.Dispatcher(
        events, {7: instance}, lambda event: event, lambda _: None, lambda *_: b"", lambda *_: "",
        lambda _: None,
    ).run  # fmt: skip
    _, event = run(codec.Request(_wire.HANDLE_EVENT, 1, 7, "access"), None, Mode(codec), None)
    assert seen == [{event.id: event} if track else {}]
    assert events.running == ({} if track else None)

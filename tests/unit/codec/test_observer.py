"""What an observer is told of events by the dispatcher, the same from both codecs."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from kong_pdk import _wire
from kong_pdk.exception import EventAbandoned, HandlerExit, HandlerTimeout, ResponseSent


class Observer:
    """Notes what it is told, and may make calls or raise at the beginning."""

    def __init__(self, begin: Callable[[Any], Any] = lambda event: None) -> None:
        self.told: list[Any] = []
        self._begin = begin

    def begin(self, event: Any) -> None:
        self.told.append(("begin", event.id))
        self._begin(event)

    def end(self, event: Any, seconds: float, failed: bool) -> None:
        assert 0 < seconds < 10
        self.told.append(("end", event.id, failed, event.over))


class Mode:
    """Answers PDK calls."""

    def __init__(self, codec: Any) -> None:
        self._codec = codec
        self.sent: list[bytes] = []

    def exchange(self, event: Any, frame: bytes) -> Any:
        self.sent.append(frame)
        return self._codec.Request(_wire.STEP, 6, event.id, "x")

    def send_last(self, event: Any, frame: bytes) -> None:
        self.sent.append(frame)

    def drop_late(self, event: Any) -> None:
        event.abandoned = True


def dispatch(codec: Any, observer: Any, handler: Any, closing: bool = False, **more: Any) -> Any:
    """Run an event; its reply, and the event if it has begun."""
    instance = codec.BaseInstance({"access": handler})
    instance.closing = closing
    one = codec.Dispatcher(
        codec.Events(2, **more),
        {8: instance},
        lambda event: event,
        lambda number: None,
        lambda request, instance: b"refused",
        lambda event, exc: f"failed: {type(exc).__name__}",
        lambda instance: None,
        observer=observer,
    )
    request = codec.Request(_wire.HANDLE_EVENT, 5, 8, "access")
    return one.run(request, None, Mode(codec), "runner")


def test_before_and_after_a_handler(codec: Any) -> None:
    observer = Observer()

    def handler(event: Any) -> None:
        observer.told.append("handler")

    _, event = dispatch(codec, observer, handler)
    assert observer.told == [("begin", event.id), "handler", ("end", event.id, False, True)]


def test_a_call_of_the_observer_is_one_of_the_event(codec: Any) -> None:
    observer = Observer(lambda event: event.call("kong.request.get_header", ("traceparent",)))
    _, event = dispatch(codec, observer, lambda event: event.call("kong.f", ()))
    assert event.calls == 2
    assert [b"get_header" in frame for frame in event.mode.sent] == [True, False]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(), HandlerTimeout("no")], ids=repr)
def test_a_handler_that_fails(codec: Any, error: BaseException) -> None:
    def handler(event: Any) -> None:
        raise error

    observer = Observer()
    reply, event = dispatch(codec, observer, handler)
    assert f"failed: {type(error).__name__}".encode() in reply
    assert observer.told[1:] == [("end", event.id, True, True)]


def test_a_handler_that_has_had_its_time(codec: Any) -> None:
    def handler(event: Any) -> None:
        assert event.expire() is None  # without a connection
        assert event.expired

    observer = Observer()
    dispatch(codec, observer, handler)
    assert observer.told[1][2] is True


@pytest.mark.parametrize("error", [EventAbandoned("gone"), ValueError("a bug")], ids=repr)
def test_a_beginning_that_raises_keeps_the_handler_from_running(codec: Any, error: Any) -> None:
    def begin(event: Any) -> None:
        event.over = isinstance(error, HandlerExit)
        raise error

    ran: list[Any] = []
    observer = Observer(begin)
    reply, event = dispatch(codec, observer, ran.append)
    assert not ran
    assert observer.told == [
        ("begin", event.id), ("end", event.id, isinstance(error, ValueError), True),
    ]  # fmt: skip
    assert bool(reply) is isinstance(error, ValueError)


@pytest.mark.parametrize(
    ("function", "args", "exited"),
    [
        ("kong.response.exit", (401, "no"), 401),
        ("kong.response.error", (503,), 503),
        ("kong.response.exit", (), None),
    ],
)
def test_the_status_with_which_a_handler_has_answered(
    codec: Any, function: str, args: Any, exited: Any
) -> None:
    def handler(event: Any) -> None:
        assert event.exited is None
        with pytest.raises(ResponseSent):
            event.call(function, args)
        raise ResponseSent(function)

    observer = Observer()
    _, event = dispatch(codec, observer, handler)
    assert event.exited == exited
    assert observer.told[1:] == [("end", event.id, False, True)]


def test_an_event_that_is_late_is_told_as_abandoned(codec: Any) -> None:
    class Late(Observer):
        def end(self, event: Any, seconds: float, failed: bool) -> None:
            self.told.append(event.abandoned)

    observer = Late()
    dispatch(codec, observer, lambda event: None, late=-1.0)
    assert observer.told[1:] == [True]


def test_what_does_not_begin_is_not_told_of(codec: Any) -> None:
    observer = Observer()
    assert dispatch(codec, observer, lambda event: None, closing=True)[0] == b"refused"
    assert observer.told == []


def test_an_event_has_room_for_what_an_observer_keeps(codec: Any) -> None:
    event = codec.Event(codec.Events(2), None, "access", None, 1, None, None)
    assert (event.record, event.exited) == (None, None)
    event.record = kept = object()
    assert event.record is kept

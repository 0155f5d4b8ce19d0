"""Events on the hot path: their calls, their dispatch, and how threads and greenlets sleep."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, Callable

import msgpack
import pytest

from kong_pdk import _wire
from kong_pdk.exception import (
    EventAbandoned,
    EventEnded,
    HandlerExit,
    PDKException,
    ReplyLost,
    ResponseSent,
)

GET_HOST = "kong.request.get_host"
PATIENCE = 30.0


def step(event: Any, value: Any = "x", method: str = "plugin.Step", msgid: int = 6) -> bytes:
    """The bytes of a step of an event."""
    return msgpack.packb([0, msgid, method, [{"EventId": event.id, "Data": value}]])


class Mode:
    """What a mode is asked for in the rare cases; notes it."""

    def __init__(self, codec: Any) -> None:
        self.codec = codec
        self.asked: list[Any] = []

    def exchange(self, event: Any, frame: bytes) -> Any:
        self.asked.append(frame)
        return self.codec.Request(_wire.STEP, 6, event.id, "from the mode")

    def converse(self, event: Any, frame: bytes, arrived: Any) -> Any:
        event.events.waiting.pop(event.id, None)
        self.asked.append((frame, arrived))
        return self.codec.Request(_wire.STEP, 6, event.id, "from converse")

    def send_last(self, event: Any, frame: bytes) -> None:
        self.asked.append(frame)

    def send_rest(self, event: Any, frame: bytes, sent: int) -> None:
        self.asked.append((len(frame), sent))

    def lose(self, connection: Any, exc: Exception) -> None:
        self.asked.append(type(exc))

    def abandon(self, event: Any, why: str) -> None:
        event.over = True
        raise EventAbandoned(why)

    def end_given_up(self, event: Any) -> None:
        self.abandon(event, "given up")


class Bench:
    """An event on a connection."""

    def __init__(self, codec: Any, pair: Any, lua_style: bool = True) -> None:
        self.codec, self.pair, self.mode = codec, pair, Mode(codec)
        self.events = codec.Events(100, 1, lua_style)

    def event(self, runner: Any = None, connection: Any = "its own") -> Any:
        if connection == "its own":
            connection = self.pair.connection
        return self.codec.Event(self.events, None, "access", connection, 5, self.mode, runner)


@pytest.fixture
def bench(codec: Any, pair: Any) -> Bench:
    return Bench(codec, pair)


@pytest.fixture
def plain(codec: Any, pair: Any) -> Bench:
    """Without Lua's style."""
    return Bench(codec, pair, lua_style=False)


# --- ids, calls -----------------------------------------------------------------------------------


def test_ids_and_their_distance(codec: Any) -> None:
    events = codec.Events(7, 1024)
    assert [events.next_id() for _ in range(3)] == [7, 1031, 2055]
    assert events.started == 3
    assert (events.lua_style, events.ticks, events.waiting) == (True, 0, {})


def test_a_call_through_the_mode(bench: Bench) -> None:
    event = bench.event("a runner of the mode's own")
    assert event.call(GET_HOST, ()) == ("from the mode", None)
    assert bench.mode.asked == [bench.codec.encode_call(5, event.id, GET_HOST, ())]


@pytest.mark.parametrize("msgid", [6, 70_000, 2**40])
def test_an_argument_that_makes_calls_itself(bench: Bench, spawn: Any, msgid: int) -> None:
    """A mapping that gets its values from Kong when it is sent."""
    event, frames = bench.event(), []

    class Lazy(dict):  # type: ignore[type-arg]
        def items(self) -> Any:
            return [("host", event.call(GET_HOST, ())[0])]

    def exchange(event: Any, frame: bytes) -> Any:
        frames.append(frame)
        event.msgid = msgid
        return bench.codec.Request(_wire.STEP, msgid, event.id, "a.example")

    bench.mode.exchange = exchange  # type: ignore[method-assign]
    assert spawn(event.call, "kong.f", ("x", [Lazy(a=1)])).result() == ("a.example", None)
    assert frames == [
        bench.codec.encode_call(5, event.id, GET_HOST, ()),
        bench.codec.encode_call(msgid, event.id, "kong.f", ("x", [{"host": "a.example"}])),
    ]


def test_an_argument_that_ends_the_event(bench: Bench) -> None:
    event = bench.event()

    class Ends(dict):  # type: ignore[type-arg]
        def items(self) -> Any:
            event.end()
            return []

    with pytest.raises(EventEnded):
        event.call("kong.f", (Ends(a=1),))
    assert bench.mode.asked == []


@pytest.mark.parametrize("function", sorted(_wire.TERMINAL))
def test_a_call_that_ends_the_request(bench: Bench, function: str) -> None:
    event = bench.event()
    with pytest.raises(ResponseSent, match=function):
        event.call(function, (200,))
    assert bench.mode.asked == [bench.codec.encode_call(5, event.id, function, (200,))]
    with pytest.raises(EventEnded, match=r"^kong\.request\.get_host: this event is over"):
        event.call(GET_HOST, ())
    assert not event.end()


def test_an_event_ends_once(bench: Bench) -> None:
    event = bench.event()
    assert event.end() is True
    assert event.over is True
    assert event.end() is False


def test_calls_of_several_threads_take_turns(bench: Bench) -> None:
    event, inside, most = bench.event(), [0], [0]
    barrier = threading.Barrier(4)

    def exchange(event: Any, frame: bytes) -> Any:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        threading.Event().wait(0.0005)  # lets the others try
        inside[0] -= 1
        return bench.codec.Request(_wire.STEP, 6, event.id, None)

    bench.mode.exchange = exchange  # type: ignore[method-assign]

    def work() -> None:
        barrier.wait(PATIENCE)
        for _ in range(25):
            event.call(GET_HOST, ())

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    assert most == [1] and inside == [0]
    assert event.end()


def test_a_call_that_fails_gives_its_turn_back(bench: Bench) -> None:
    event = bench.event()
    for _ in range(3):
        with pytest.raises(PDKException):
            event.call(GET_HOST, ({1},))
    assert event.call(GET_HOST, ()) == ("from the mode", None)


# --- a thread that sleeps -------------------------------------------------------------------------


@pytest.mark.parametrize("lua_style", [True, False])
def test_a_step_on_the_same_connection(codec: Any, pair: Any, lua_style: bool, spawn: Any) -> None:
    bench = Bench(codec, pair, lua_style)
    event = bench.event(bench.pair.waiter)
    call = bench.codec.encode_call(5, event.id, GET_HOST, ())
    task = spawn(event.call, GET_HOST, ())
    assert bench.pair.read(len(call)) == call
    assert bench.events.waiting == {event.id: event}
    bench.pair.peer.sendall(step(event))
    assert task.result() == (("x", None) if lua_style else "x")
    assert event.msgid == 6
    assert bench.events.waiting == {} and bench.mode.asked == []


def test_a_step_that_says_error(bench: Bench, plain: Bench) -> None:
    for one in (bench, plain):
        event = one.event(one.pair.waiter)
        one.pair.peer.sendall(step(event, "no such thing", _wire.METHOD_STEP_ERROR))
        if one is bench:
            assert event.call(GET_HOST, ()) == (None, "no such thing")
        else:
            with pytest.raises(PDKException, match=r"^kong\.request\.get_host: no such thing$"):
                event.call(GET_HOST, ())


def test_another_events_step_is_the_modes_business(bench: Bench) -> None:
    event, other = bench.event(bench.pair.waiter), bench.event()
    bench.pair.peer.sendall(step(other))
    assert event.call(GET_HOST, ()) == ("from converse", None)
    ((frame, arrived),) = bench.mode.asked
    assert frame == b"" and [one.target for one in arrived] == [other.id]


def test_an_event_that_somebody_else_resumes(bench: Bench) -> None:
    """The thread is woken by that one, whatever has arrived here."""
    event = bench.event(bench.pair.waiter)
    bench.pair.waiter.wake()
    assert event.call(GET_HOST, ()) == ("from converse", None)
    assert bench.mode.asked == [(b"", None)]


def test_a_lost_connection_is_the_modes_business(bench: Bench) -> None:
    event = bench.event(bench.pair.waiter)
    bench.pair.peer.close()
    assert event.call(GET_HOST, ()) == ("from converse", None)
    ((frame, arrived),) = bench.mode.asked
    assert frame == b"" and isinstance(arrived, ReplyLost)


def test_a_borrowed_connection_is_the_modes_business(bench: Bench) -> None:
    event = bench.event(bench.pair.waiter)
    assert bench.pair.connection.borrowed is False
    bench.pair.connection.borrowed = True
    assert event.call(GET_HOST, ()) == ("from converse", None)
    ((frame, arrived),) = bench.mode.asked
    assert frame == bench.codec.encode_call(5, event.id, GET_HOST, ()) and arrived is None
    assert bench.pair.has_sent() == b""


# --- a greenlet that sleeps -----------------------------------------------------------------------


@pytest.fixture
def switching(bench: Bench) -> Iterator[Callable[..., Any]]:
    """A function: an event whose greenlet is switched back with what is given, in turn."""
    answers: list[Any] = []

    def switch() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def make(*given: Any, ident: Callable[[], int] = lambda: 1) -> Any:
        answers[:] = given
        return bench.event(
            bench.codec.Switch(bench.mode, switch, lambda: "greenlet", ident, None, 8)
        )

    yield make


def test_a_greenlet_sends_and_switches(bench: Bench, switching: Any) -> None:
    request = bench.codec.Request(_wire.STEP, 6, 100, "x")
    bench.events.ticks = 77
    event = switching(request)
    assert event.call(GET_HOST, ()) == ("x", None)
    assert bench.pair.has_sent() == bench.codec.encode_call(5, event.id, GET_HOST, ())
    assert (event.sleeper, event.waiting_since) == ("greenlet", 77)
    assert bench.events.waiting == {event.id: event}
    assert bench.mode.asked == []


def test_what_interrupts_a_greenlet_takes_effect_after_the_step(
    bench: Bench, switching: Any
) -> None:
    request = bench.codec.Request(_wire.STEP, 6, 100, "x")
    event = switching(TimeoutError("first"), TimeoutError("second"), request)
    with pytest.raises(TimeoutError, match="first"):
        event.call(GET_HOST, ())


def test_a_greenlet_that_is_given_up(switching: Any) -> None:
    with pytest.raises(EventAbandoned, match="given up"):
        switching(None).call(GET_HOST, ())


def test_a_greenlets_peer_that_is_gone(bench: Bench, switching: Any) -> None:
    event = switching()
    bench.pair.peer.close()
    with pytest.raises(EventAbandoned, match="Kong is gone"):
        event.call(GET_HOST, ())
    assert bench.mode.asked == [ReplyLost]
    assert bench.events.waiting == {}


@pytest.mark.parametrize("why", ["stuck", "opening", "borrowed"])
def test_what_cannot_be_sent_at_once_is_the_modes_business(
    bench: Bench, switching: Any, why: str
) -> None:
    event = switching(bench.codec.Request(_wire.STEP, 6, 100, "x"))
    setattr(bench.pair.connection, why, b"x" if why == "opening" else True)
    assert event.call(GET_HOST, ()) == ("x", None)
    assert bench.mode.asked == [(len(bench.codec.encode_call(5, event.id, GET_HOST, ())), 0)]


def test_calls_of_another_thread_are_refused(bench: Bench, switching: Any) -> None:
    idents = iter([1, 2])
    event = switching(ident=lambda: next(idents))
    with pytest.raises(PDKException, match="cannot be made from other threads"):
        event.call(GET_HOST, ())
    assert bench.pair.has_sent() == b""


class Greenlet:
    """Runs what it is made for when it is switched to, as far as that goes."""

    def __init__(self, body: Callable[[Any], None]) -> None:
        self.switch = body


class Working(Mode):
    """A mode whose events end as the test says, in greenlets that are never switched back."""

    def __init__(self, codec: Any, outcome: Any) -> None:
        super().__init__(codec)
        self.service = self
        self.outcome = outcome

    def run_event(self, request: Any, connection: Any, mode: Any, runner: Any) -> Any:
        assert mode is self and runner.running == 1
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome, None

    def answer(self, connection: Any, request: Any) -> None:
        self.asked.append(request.msgid)

    def send(self, connection: Any, frame: bytes, sent: int) -> None:
        self.asked.append((frame, sent))

    def fail(self, connection: Any) -> None:
        self.asked.append("failed")


def work(codec: Any, pair: Any, outcome: Any, kind: int = _wire.HANDLE_EVENT) -> Any:
    """The mode after a greenlet has answered one request."""
    mode = Working(codec, outcome)
    switch = codec.Switch(mode, lambda: None, lambda: "me", lambda: 1, Greenlet, 8)
    switch.begin(pair.connection, codec.Request(kind, 5, 8, "access"))
    assert (switch.idle, switch.running) == (["me"], 0)
    return mode


def test_a_greenlet_answers_and_is_idle(codec: Any, pair: Any) -> None:
    assert work(codec, pair, b"reply").asked == []
    assert pair.has_sent() == b"reply"


def test_an_event_without_a_last_reply(codec: Any, pair: Any) -> None:
    assert work(codec, pair, b"").asked == []
    assert pair.has_sent() == b""


def test_other_requests_are_answered_by_the_mode(codec: Any, pair: Any) -> None:
    assert work(codec, pair, b"", kind=_wire.CALL).asked == [5]


@pytest.mark.parametrize("error", [RuntimeError("a bug"), SystemExit(), GeneratorExit()])
def test_a_greenlet_that_fails_goes_on(codec: Any, pair: Any, error: BaseException) -> None:
    assert work(codec, pair, error).asked == ["failed"]


def test_a_peer_that_is_gone_before_the_last_reply(codec: Any, pair: Any) -> None:
    pair.peer.close()
    assert work(codec, pair, b"reply").asked == [ReplyLost]


def test_a_last_reply_that_has_to_wait(codec: Any, pair: Any) -> None:
    pair.connection.opening = b"first"
    assert work(codec, pair, b"reply").asked == [(b"reply", 0)]


def test_no_more_idle_greenlets_are_kept_than_wanted(codec: Any, pair: Any) -> None:
    switch = codec.Switch(Working(codec, b"x"), lambda: None, lambda: "me", lambda: 1, Greenlet, 1)
    for _ in range(3):
        switch.work((pair.connection, codec.Request(_wire.HANDLE_EVENT, 5, 8, "access")))
    assert switch.idle == ["me"]


# --- dispatch -------------------------------------------------------------------------------------


def instance_of(bench: Bench, handler: Callable[[Any], Any]) -> Any:
    """One whose ``access`` phase is the function that the test gives."""
    return bench.codec.BaseInstance({"access": handler})


def dispatcher(
    bench: Bench,
    instances: dict[int, Any],
    found: Any = None,
    left: Callable[[Any], Any] = lambda instance: None,
) -> Any:
    return bench.codec.Dispatcher(
        bench.events,
        instances,
        lambda event: event,
        lambda number: found,
        lambda request, instance: f"{request.target} {instance is None}".encode(),
        lambda event, exc: f"failed: {exc}",
        left,
    )


def run(bench: Bench, one: Any, phase: str = "access") -> tuple[bytes, Any]:
    request = bench.codec.Request(_wire.HANDLE_EVENT, 5, 8, phase)
    reply, event = one.run(request, bench.pair.connection, bench.mode, "runner")
    return reply, event


def test_a_handler_runs_with_what_root_makes_of_its_event(bench: Bench) -> None:
    seen: list[Any] = []
    reply, event = run(bench, dispatcher(bench, {8: instance_of(bench, seen.append)}))
    assert seen == [event]
    assert reply == bench.codec.encode_return(5, event.id)
    assert (event.connection, event.mode, event.runner) == (
        bench.pair.connection, bench.mode, "runner",
    )  # fmt: skip
    assert (event.phase, event.msgid, event.over) == ("access", 5, True)


def test_an_instance_that_is_found_elsewhere(bench: Bench) -> None:
    seen: list[Any] = []
    _, event = run(bench, dispatcher(bench, {}, found=instance_of(bench, seen.append)))
    assert seen == [event]


@pytest.mark.parametrize(("phase", "text"), [("access", b"8 True"), ("log", b"8 False")])
def test_what_cannot_begin_is_refused(bench: Bench, phase: str, text: bytes) -> None:
    instances = {} if phase == "access" else {8: instance_of(bench, lambda event: None)}
    assert run(bench, dispatcher(bench, instances), phase) == (text, None)
    assert bench.events.started == 0


def test_an_instance_that_cannot_be_looked_for(bench: Bench) -> None:
    def fail(number: int) -> None:
        raise OSError(f"no {number}")

    one = bench.codec.Dispatcher(
        bench.events, {}, None, fail, lambda request, exc: str(exc).encode(), None, None
    )
    assert run(bench, one) == (b"no 8", None)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit("no"), KeyboardInterrupt("no")])
def test_a_handler_that_raises(bench: Bench, error: BaseException) -> None:
    def handler(event: Any) -> None:
        raise error

    reply, event = run(bench, dispatcher(bench, {8: instance_of(bench, handler)}))
    assert reply == bench.codec.encode_error(5, "failed: no")
    assert event.over


def test_a_handler_that_has_ended_its_event(bench: Bench) -> None:
    def exits(event: Any) -> None:
        event.over = True
        raise HandlerExit

    reply, event = run(bench, dispatcher(bench, {8: instance_of(bench, exits)}))
    assert (reply, event.over) == (b"", True)


@pytest.mark.parametrize("error", [None, ValueError("no"), HandlerExit()])
def test_events_under_way_are_counted(bench: Bench, error: Any) -> None:
    seen: list[int] = []

    def handler(event: Any) -> None:
        seen.append(event.instance.running)
        if len(seen) == 1:
            run(bench, one)  # another one, meanwhile
            seen.append(event.instance.running)
        if error is not None:
            raise error

    instance = instance_of(bench, handler)
    one = dispatcher(bench, {8: instance})
    assert (instance.running, instance.used, instance.closing) == (0, 0, False)
    bench.events.ticks = 7
    run(bench, one)
    assert seen == [1, 2, 1]
    assert (instance.running, instance.used) == (0, 7)


@pytest.mark.parametrize("error", [None, ValueError("no"), HandlerExit()])
def test_the_last_event_on_a_closing_instance_tells(bench: Bench, error: Any) -> None:
    left: list[tuple[Any, int]] = []

    def handler(event: Any) -> None:
        if not begun:
            begun.append(event)
            run(bench, one)  # another event, which begins before it is closed
            event.instance.closing = True
        if error is not None:
            raise error

    begun: list[Any] = []
    instance = instance_of(bench, handler)
    one = dispatcher(bench, {8: instance}, left=lambda each: left.append((each, each.running)))
    run(bench, one)
    assert left == [(instance, 0)]


def test_no_event_begins_on_a_closing_instance(bench: Bench) -> None:
    """Whoever has found it before it was forgotten is told that there is none."""
    seen: list[Any] = []
    instance = instance_of(bench, seen.append)
    instance.closing = True
    left: list[Any] = []
    assert run(bench, dispatcher(bench, {8: instance}, left=left.append)) == (b"8 True", None)
    assert (seen, left, instance.running) == ([], [instance], 0)


def test_only_what_is_an_instance_has_events(bench: Bench) -> None:
    with pytest.raises((TypeError, AttributeError)):
        run(bench, dispatcher(bench, {8: object()}))

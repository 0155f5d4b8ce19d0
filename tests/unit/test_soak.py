"""The soak itself: it finds what lets requests through, what does not answer, and what grows."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Optional

import msgpack
import native
import pytest
from kongwire import pack
from servers import short_directory
from soaking import actors, load, observing, outcomes, report, run
from soaking.client import Client
from soaking.kills import Tally
from soaking.outcomes import (
    CUT,
    ENDED,
    LATE,
    LEFT,
    NEEDLESS,
    PASSED,
    REFUSED,
    RESTARTED,
    UNANSWERED,
    WRONG,
    Account,
    Result,
)

#: Makes the bytes that answer a request, None: it is not answered and the connection closed.
Behave = Callable[[int, str, Any], Optional[bytes]]


@contextlib.contextmanager
def fake_server(behave: Behave) -> Iterator[str]:
    """A server that answers instances, and the rest as it is told; gives its path."""

    def serve(connection: socket.socket) -> None:
        unpacker = msgpack.Unpacker(raw=False)
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                unpacker.feed(data)
                for _, msgid, method, (argument, *_) in unpacker:
                    reply: Optional[bytes] = result(msgid, {"Id": 7})
                    if method in ("plugin.HandleEvent", "plugin.Step"):
                        reply = behave(msgid, method, argument)
                    if reply is None:
                        return
                    connection.sendall(reply)
                    if reply.endswith(HALF):
                        return

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with short_directory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = str(folder / "fake.sock")
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield path
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


HALF = b"\x94\x01"


def result(msgid: int, value: Any, event: Any = None) -> bytes:
    return pack([1, msgid, None, value])


def turn(msgid: int, data: Any, event_id: int = 5) -> bytes:
    return pack([1, msgid, None, {"Data": data, "EventId": event_id}])


def call(msgid: int, function: str, *args: Any, event_id: int = 5) -> bytes:
    return turn(msgid, {"Method": function, "Args": list(args)}, event_id)


def at_step(behave: Behave) -> Behave:
    """The same, but for a sound beginning of the event."""

    def then(msgid: int, method: str, argument: Any) -> Optional[bytes]:
        if method == "plugin.HandleEvent":
            return call(msgid, "kong.request.get_header", "host")
        return behave(msgid, method, argument)

    return then


ANSWERS: dict[str, tuple[Behave, str]] = {
    "return": (lambda msgid, *_: turn(msgid, "ret"), ENDED),
    "exit": (lambda msgid, *_: call(msgid, "kong.response.exit", 403, "no"), ENDED),
    "refusal": (lambda msgid, *_: call(msgid, "kong.response.exit", 500, "no"), REFUSED),
    "busy": (lambda msgid, *_: call(msgid, "kong.response.exit", 503, "no"), REFUSED),
    "error": (lambda msgid, *_: pack([1, msgid, "it failed", None]), PASSED),
    "closed": (lambda *_: None, PASSED),
    "restart": (lambda msgid, *_: pack([1, msgid, "no plugin instance 7", None]), RESTARTED),
    "silence": (lambda *_: b"", UNANSWERED),
    "half a reply": (lambda *_: HALF, CUT),
    "another's reply": (lambda msgid, *_: turn(msgid + 1, "ret"), CUT),
    "no reply": (lambda *_: pack([0, 1, "x", []]), WRONG),
    "no MessagePack": (lambda *_: b"\xc1", WRONG),
    "neither error nor result": (lambda msgid, *_: pack([1, msgid, None, None]), WRONG),
    "no turn": (lambda msgid, *_: result(msgid, {"Data": "ret"}), WRONG),
    "error of another type": (lambda msgid, *_: pack([1, msgid, 3, None]), WRONG),
}


@pytest.mark.parametrize("when", ["first", "step"])
@pytest.mark.parametrize("name", ANSWERS)
def test_what_kong_makes_of_an_answer(name: str, when: str) -> None:
    behave, outcome = ANSWERS[name]
    with fake_server(behave if when == "first" else at_step(behave)) as path:
        client = Client(path, Account(), bound=0.5)
        assert client.event(client.start_instance(act="calls")).outcome == outcome
        client.close()


def test_a_step_that_continues_another_event_is_found() -> None:
    with fake_server(at_step(lambda msgid, *_: turn(msgid, "ret", event_id=6))) as path:
        client = Client(path, Account())
        assert client.event(7).outcome == WRONG
        client.close()


def test_a_server_that_is_not_there_lets_requests_through(tmp_path: Path) -> None:
    assert Client(str(tmp_path / "none"), Account()).event(7).outcome == PASSED


def test_a_reply_on_an_idle_connection_is_found() -> None:
    with fake_server(lambda msgid, *_: turn(msgid, "ret") * 2) as path:
        client = Client(path, Account(), bound=0.5)
        assert [client.event(7).outcome for _ in range(2)] == [ENDED, CUT]
        client.close()


def test_a_connection_that_was_closed_while_idle_is_not_used() -> None:
    """nginx looks, too."""
    with fake_server(lambda msgid, *_: turn(msgid, "ret")) as path:
        client = Client(path, Account(), bound=0.5)
        assert client.event(7).outcome == ENDED
        client._idle[0].sock.shutdown(socket.SHUT_RDWR)
        assert client.event(7).outcome == ENDED
        client.close()


def scene(path: str, stop: Optional[threading.Event] = None) -> actors.Scene:
    server: Any = SimpleNamespace(paths=[path])
    return actors.Scene(server, Account(), "1", stop or threading.Event(), (3,))


@pytest.mark.parametrize(
    ("kind", "behave", "outcome"),
    [
        (actors.Scattered, lambda *_: None, PASSED),
        (actors.Scattered, lambda msgid, *_: turn(msgid, "ret"), PASSED),
        (actors.Scattered, lambda msgid, *_: call(msgid, "kong.response.exit", 500, ""), NEEDLESS),
        (actors.Hangs, lambda msgid, *_: turn(msgid, "ret"), PASSED),
        (actors.Raises, lambda msgid, *_: turn(msgid, "ret"), WRONG),
        (actors.Leaves, lambda *_: None, PASSED),
        (actors.Leaves, lambda *_: HALF, CUT),
        (actors.Abandons, lambda *_: None, PASSED),
        (actors.Bodies, lambda msgid, *_: call(msgid, "kong.response.exit", 200, {"size": 1}),
         WRONG),
        (actors.Sips, lambda *_: None, PASSED),
        (actors.Churns, lambda *_: None, PASSED),
        (actors.Stale, lambda msgid, *_: turn(msgid, "ret"), WRONG),
        (actors.Breaks, lambda *_: b"\xc1", WRONG),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)  # fmt: skip
def test_an_actor_finds_a_bad_server(
    monkeypatch: pytest.MonkeyPatch,
    kind: Callable[[actors.Scene], actors.Actor], behave: Behave, outcome: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(actors, "BODY", 1000)
    frame = pack([0, 1, "plugin.HandleEvent", [{}]])
    monkeypatch.setattr(actors.corpus, "mutate", lambda *_: frame)
    with fake_server(behave) as path:
        actor = kind(scene(path))
        for _ in range(60):
            actor.act()
            if actor.scene.account.total(outcome):
                break
        actor.client.close()
    account = actor.scene.account
    assert account.total(outcome), account.counts
    if outcome != NEEDLESS:
        assert account.failures()


def test_an_event_that_goes_on_after_it_was_given_up_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(actors, "EVENT_TIMEOUT", -4)
    with fake_server(lambda msgid, *_: call(msgid, "kong.log", "x")) as path:
        actor = actors.Abandons(scene(path))
        for _ in range(60):
            actor.act()
        actor.client.close()
    assert actor.scene.account.total(WRONG)


def test_an_actor_that_breaks_or_stays_is_told_of() -> None:
    class Breaks(actors.Actor):
        def act(self) -> None:
            raise LookupError("a bug")

    stop, hold = threading.Event(), threading.Event()

    class Stays(actors.Actor):
        def act(self) -> None:
            hold.wait()

    where = scene("nowhere", stop)
    both: list[actors.Actor] = [Breaks(where), Stays(where)]
    for one in both:
        one.start()
    both[0].join()
    wrong = actors.stop(where, both, patience=0.1)
    hold.set()
    assert "LookupError: a bug" in wrong[0]
    assert "has not come to an end" in wrong[1]


def test_an_actor_that_does_nothing_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    class Idle(actors.Actor):
        def act(self) -> None:
            pass

    class Load(threading.Thread):
        broken = ""

        def __init__(self, path: str, account: Account, stop: threading.Event) -> None:
            super().__init__(name="load")

    monkeypatch.setattr(actors, "CAST", ((actors.Stale, 1), (Idle, 2)))
    monkeypatch.setattr(run, "Load", Load)
    with fake_server(lambda msgid, *_: pack([1, msgid, "no plugin instance 3", None])) as path:
        process = SimpleNamespace(poll=lambda: None)
        server: Any = SimpleNamespace(paths=[path], process=process)
        stage, wrong = run.play("x", server, run.Plan(1, 1, 1), (3,), 1, events=1)
    assert stage.account.failures() == []
    assert wrong == ["idle has done nothing", "load has done nothing"]


# --- accounts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [PASSED, UNANSWERED, WRONG])
def test_one_bad_outcome_fails_all(outcome: str) -> None:
    account = Account()
    account.add("a", Result(ENDED), 1_000_000)
    assert account.failures() == []
    account.add("b", Result(outcome, "the reason"))
    for killing in (False, True):
        assert account.failures(killing) == [f"1 requests {outcome}", f"  b: {outcome}: the reason"]


def test_what_is_right_only_while_processes_are_killed() -> None:
    for outcome, count in ((CUT, 1), (NEEDLESS, 50), (LATE, 50)):
        account = Account()
        account.add("a", Result(ENDED), 1000)
        account.add("a", Result(outcome), count)
        assert account.failures(killing=True) == []
        assert account.failures()[0] == f"{count} requests {outcome}"


def test_every_outcome_is_shown() -> None:
    account = Account()
    for number, outcome in enumerate(outcomes.OUTCOMES):
        account.add("a", Result(outcome), 10**number)
    assert account.total() == 1_111_111_111
    shown = report.of_kills([Tally("supervised", account)], 1)
    row = next(line for line in shown.splitlines() if line.startswith("| supervised"))
    cells = [cell.strip().replace(",", "") for cell in row.split("|")]
    # All but those to whom nothing was owed, who are not there.
    parts = sum(int(cell) for cell in cells[6:12])
    assert parts == account.total() - account.total(LEFT)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        ("load: first error: no reply within 65 s", UNANSWERED),
        ("load: first error: an event under way at the end has had no answer", UNANSWERED),
        ("load: first error: the server has closed a connection that waited", PASSED),
        ("load: first error: the server answers: no", PASSED),
        ("load: first error: cannot send a request: Broken pipe", PASSED),
        ("load: first error: a reply to message 3, where 4 was asked", WRONG),
        ("", WRONG),
    ],
)
def test_errors_of_the_load_client(error: str, outcome: str) -> None:
    figures = {
        "all_events": 10, "all_exits": 2, "errors": 3, "first_error": error, "strays": 0,
    }  # fmt: skip
    assert load.judge("exits", figures) == [(Result(ENDED), 10), (Result(outcome, error), 3)]
    assert load.judge("calls", {**figures, "errors": 0}) == [
        (Result(ENDED), 8), (Result(NEEDLESS), 2),
    ]  # fmt: skip
    stray = load.judge("exits", {**figures, "errors": 0, "strays": 1})
    assert [(result.outcome, count) for result, count in stray] == [(ENDED, 10), (CUT, 1)]


@pytest.mark.skipif(native.compiler() is None, reason="there is no C compiler")
def test_the_load_client_tells_of_requests_that_are_refused() -> None:
    for name, refused in (("refusal", True), ("return", False)):
        with fake_server(ANSWERS[name][0]) as path:
            figures = native.load(path, "--seconds", "0.05", "--warmup", "0")
        assert figures["all_events"] > 0
        assert figures["all_exits"] == (figures["all_events"] if refused else 0)


# --- growth ---------------------------------------------------------------------------------------

SAMPLE = observing.Sample(
    processes=2, memory=100.0, most=200.0, threads=10, descriptors=50, sockets=4
)


def test_growth_is_found() -> None:
    assert observing.growth(SAMPLE, SAMPLE) == []
    slack = {
        "memory": 2 * observing.MEMORY_SLACK, "threads": observing.THREAD_SLACK,
        "descriptors": observing.DESCRIPTOR_SLACK, "sockets": 0,
    }  # fmt: skip
    for what, more in slack.items():
        most = getattr(SAMPLE, what) + more
        at_bound = dataclasses.replace(SAMPLE, **{what: most})
        above = dataclasses.replace(SAMPLE, **{what: most + 1})
        assert observing.growth(SAMPLE, at_bound) == []
        assert [text.split(":")[0] for text in observing.growth(SAMPLE, above)] == [what]
    assert observing.growth(SAMPLE, dataclasses.replace(SAMPLE, processes=1))


def test_bodies_that_are_kept_are_found() -> None:
    bound = SAMPLE.memory + observing.PEAK_SLACK  # one of the two processes runs handlers
    assert observing.too_much(SAMPLE, bound) == []
    assert observing.too_much(SAMPLE, bound + 1)


def test_what_does_not_calm_down_is_looked_at_for_long_enough() -> None:
    grown = dataclasses.replace(SAMPLE, threads=1000)
    samples = iter([None, grown, None, SAMPLE])

    def fine(sample: observing.Sample) -> bool:
        return not observing.growth(SAMPLE, sample)

    assert observing.wait_for(lambda: next(samples), fine) == SAMPLE
    assert observing.wait_for(lambda: grown, fine, limit=0) == grown
    with pytest.raises(RuntimeError):
        observing.wait_for(lambda: None, fine, limit=0)


def test_a_failure_is_in_the_report() -> None:
    sound = run.Outcome("threads", [run.Stage("flat", Account(), 1.0)], SAMPLE, SAMPLE)
    failed = run.Outcome("gevent", failures=["flat: growth in threads: 1 before, 2 after"])
    text = report.of_soak([sound, failed], 42)
    assert "seed 42" in text
    rows = [line for line in text.splitlines() if line.endswith(("sound |", "FAILED |"))]
    assert [row.split()[1] + row.split()[-2] for row in rows] == ["threadssound", "geventFAILED"]
    assert "gevent:\n  flat: growth in threads: 1 before, 2 after" in text
    assert report.as_json([sound, failed], [], 42)["soak"][1]["failures"] == failed.failures


def test_a_server_that_does_not_start_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(run.MODES, "threads", ("--no-such-flag",))
    outcome = run.soak("threads", run.Plan(1.0, None, 1))
    assert "no-such-flag" in outcome.failures[0]

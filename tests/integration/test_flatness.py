"""Memory, threads and descriptors do not grow with the number of events."""

from __future__ import annotations

import pytest
from kongwire import Connection, Kong
from servers import Server, Start, wait_until

EVENTS = 3_000
SLACK = 3 * 1024  # KiB; what the published server keeps of so many events is ten times as much

EXIT_FIRST = "def access(self, kong): kong.response.exit(403, 'no')"
RETURNS = "def access(self, kong): kong.log('x')"
RAISES = "def log(self, kong): raise ValueError('x')"
CYCLES = """
def access(self, kong):
    self.last = [kong]
    self.last.append(self.last)
    kong.log('x')
"""


def run_events(connections: list[Connection], instance: int, count: int, phase: str) -> None:
    """Run events; steps alternate between the connections."""
    for number in range(count):
        connection = connections[number % len(connections)]
        msgid = connection.send_event(instance, phase)
        if phase == "log":
            assert connection.reply().error
            continue
        turn = connection.turn(msgid)
        while not turn.is_terminal:
            number += 1
            turn = connections[number % len(connections)].step(turn.event_id)


def settle(server: Server, kong: Kong) -> tuple[int, int]:
    kong.call("plugin.GetPluginNames")
    return server.threads(), server.descriptors()


@pytest.mark.parametrize(
    ("source", "phase"),
    [
        (EXIT_FIRST, "access"), (RETURNS, "access"), (CYCLES, "access"),
        (RAISES, "log"),
    ],
    ids=["exit first", "return", "cycles", "raise"],
)  # fmt: skip
def test_events_leave_nothing_behind(start: Start, source: str, phase: str) -> None:
    server = start()
    count = EVENTS // 3 if phase == "log" else EVENTS  # each writes a traceback to the log
    with server.kong() as kong:
        instance = kong.start_author(source)
        connections = [kong.connect() for _ in range(3)]
        run_events(connections, instance, 500, phase)
        threads, descriptors = settle(server, kong)
        memory = server.memory()
        run_events(connections, instance, count, phase)
        # On a busy machine a few more handlers may have been under way at once; a leak is hundreds.
        more_threads, more_descriptors = settle(server, kong)
        assert more_threads <= threads + 8
        assert more_descriptors <= descriptors + 12
        assert server.memory() < memory + SLACK


def test_instances_leave_nothing_behind(start: Start) -> None:
    server = start()
    with server.kong() as kong:

        def run(count: int) -> None:
            for _ in range(count):
                instance = kong.start_instance("hello", {"message": "x" * 20_000})
                kong.run_event(instance)
                kong.close_instance(instance)

        run(200)
        memory = server.memory()
        run(1000)  # 20 MB, were they kept
        assert server.memory() < memory + SLACK
        assert kong.call("plugin.GetStatus")["Plugins"]["hello"]["Instances"] == []


def test_connections_leave_nothing_behind(start: Start) -> None:
    server = start()
    with server.kong() as kong:
        instance = kong.start_author(RETURNS)

        def run(count: int) -> None:
            for _ in range(count):
                with Connection(server.paths[0]) as connection:
                    turn = connection.handle_event(instance)
                    assert connection.step(turn.event_id).is_return

        run(200)
        threads, descriptors = settle(server, kong)
        memory, sockets = server.memory(), server.sockets()
        run(1000)
        wait_until(lambda: server.sockets() <= sockets, "connections are closed")
        # A few more where a connection came before the thread of the last had noticed its end.
        more = server.threads() - threads
        assert more <= 16
        assert server.descriptors() <= descriptors + 2 * max(0, more) + 2  # what each is woken by
        assert server.memory() < memory + SLACK


def test_abandoned_connections_leave_no_descriptors(start: Start) -> None:
    """The events go on waiting for their step until the time-out, but not the sockets."""
    server = start()
    with server.kong() as kong:
        instance = kong.start_author(RETURNS)
        kong.call("plugin.GetPluginNames")
        before, sockets = server.descriptors(), server.sockets()
        turns = []
        for _ in range(100):
            with Connection(server.paths[0]) as connection:
                turns.append(connection.handle_event(instance))
        # A thread that waits has a descriptor or two of its own.
        wait_until(lambda: server.sockets() <= sockets, "connections are closed")
        for turn in turns:
            assert kong.step(turn.event_id).is_return
        assert server.descriptors() <= before + 2 * server.threads()


@pytest.mark.parametrize("by", ["idle", "waiting"])
def test_who_passes_a_step_on_does_not_keep_it(start: Start, by: str) -> None:
    """A large body, say, in the hands of a thread that is idle, or waits for a step of its own."""
    size, count = 32 << 20, 4
    server = start()
    with server.kong() as kong:
        reads = kong.start_author("def access(self, kong): kong.request.get_raw_body()")
        returns = kong.start_author(RETURNS)
        pairs = [(kong.connect(), kong.connect()) for _ in range(count)]

        def pass_on(data: bytes) -> list[int]:
            waiting = []
            for one, other in pairs:
                turn = other.handle_event(returns)  # a thread reads this connection from now on
                if by == "idle":
                    assert other.step(turn.event_id).is_return
                else:
                    waiting.append(turn.event_id)
                turn = one.handle_event(reads)
                assert other.step(turn.event_id, data).is_return
            return waiting

        for event_id in pass_on(b"small"):
            assert kong.step(event_id).is_return
        memory = server.memory()
        waiting = pass_on(b"x" * size)
        most = memory + (size >> 10)
        # Sooner than idle threads end, which forget everything.
        wait_until(lambda: server.memory() < most, "the bodies are forgotten", 10)
        for event_id in waiting:
            assert kong.step(event_id).is_return

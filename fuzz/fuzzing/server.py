"""A target with a real server: mutated frames on several connections, and then a sound event."""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path
from random import Random
from typing import Any

import msgpack
from kongwire import ABSENT, LIMIT, TERMINAL, Connection, Kong, RemoteError, pack, turn_of
from servers import directory_command, running, short_directory, state_of, wait_until

from . import corpus
from .codecs import Finding

PLUGINS = Path(__file__).resolve().parents[1] / "plugins"

#: Connections of one burst.
CONNECTIONS = 4

#: What the sound event calls.
CALLS = ["kong.request.get_headers", "kong.response.set_header"]


def own_seeds() -> tuple[bytes, ...]:
    """Requests that mean something to the server, beside the golden ones."""
    event = {"InstanceId": corpus.INSTANCE_ID, "EventName": "access"}
    step = {"EventId": corpus.EVENT_ID, "Data": {"host": "x"}}
    config = '{"message": "x"}'
    return (
        pack([0, 1, "plugin.HandleEvent", [event]]),
        pack([0, 2, "plugin.Step", [step]]),
        pack([0, 3, "plugin.StepError", [{"EventId": corpus.EVENT_ID, "Data": "no"}]]),
        pack([0, 4, "plugin.StartInstance", [{"Name": "fuzzed", "Config": config}]]),
        pack([0, 5, "plugin.InstanceStatus", [corpus.INSTANCE_ID]]),
    )


class ServerTarget:
    """One server process; what it runs is one of the modes.

    Args:
        flags: of the mode.
    """

    flags: tuple[str, ...] = ()
    name = "server"

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        prefix = self._stack.enter_context(short_directory())
        command = directory_command(PLUGINS, prefix, *self.flags)
        self.server = self._stack.enter_context(running(command, prefix))
        self.kong: Kong = self._stack.enter_context(self.server.kong())
        self.instance = self.kong.start_instance("fuzzed", {})
        self.event_id = 0
        self._processes: list[int] = []
        self._sound_event()
        self._sockets = self.server.sockets()
        self._processes = self.server.processes()

    def make(self, random: Random) -> bytes:
        """A burst: pairs of a connection's number and bytes for it, as MessagePack."""
        own = own_seeds()
        seeds = own * 8 + corpus.seeds()
        burst: list[Any] = []
        for _ in range(1 + int(random.random() * 12)):
            if random.random() < 0.4:  # so that there are events and steps to go wrong
                frame = own[int(random.random() * 2)]
            else:
                frame = corpus.mutate(random, seeds)
            cut = int(random.random() * (len(frame) + 1)) if random.random() < 0.2 else len(frame)
            where = int(random.random() * CONNECTIONS)
            burst += [(where, part) for part in (frame[:cut], frame[cut:]) if part]
        return pack(burst)

    def check(self, data: bytes) -> None:
        """Each connection is answered or closed, and the server is as sound as before."""
        connections: list[Connection] = []
        waiting: set[int] = set()
        try:
            connections += [Connection(self.server.paths[0]) for _ in range(CONNECTIONS)]
            for where, part in msgpack.unpackb(data):
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connections[where].send_raw(self._with_live_ids(part))
            for connection in connections:
                with contextlib.suppress(OSError):  # the server was faster
                    connection.sock.shutdown(socket.SHUT_WR)
            for connection in connections:
                waiting |= self._read_to_end(connection)
        finally:
            for connection in connections:
                connection.close()
        for event_id in waiting:
            self._end_event(event_id)
        self._sound_event()

    def _assert_alive(self) -> None:
        """Each process is the one that it was; one that had died would have been replaced."""
        if self.server.process.poll() is not None:
            raise Finding("the server has ended")
        dead = [pid for pid in self._processes if state_of(pid) in "XZ"]
        if dead:
            raise Finding(f"worker processes have died: {dead}")

    def close(self) -> None:
        """Stop the server; it must have nothing left, and end cleanly."""
        with self._stack:
            wait_until(lambda: self.server.sockets() <= self._sockets, "all sockets are closed")
            self._assert_alive()
            self.server.check()

    def abandon(self) -> str:
        """Stop the server after a finding; returns what it has logged."""
        log = self.server.log
        with contextlib.suppress(AssertionError), self._stack:
            self.server.kill()
        return log

    def _with_live_ids(self, part: bytes) -> bytes:
        for golden, live in (
            (corpus.INSTANCE_ID, self.instance), (corpus.EVENT_ID, self.event_id),
        ):  # fmt: skip
            part = part.replace(struct.pack(">Q", golden), struct.pack(">Q", live))
        return part

    def _read_to_end(self, connection: Connection) -> set[int]:
        """Check all replies up to the end of the connection; returns events that wait."""
        waiting: set[int] = set()
        while True:
            try:
                reply = connection.reply()
            except ConnectionError:
                return waiting
            except TimeoutError as exc:
                raise Finding(f"no answer and no end within {LIMIT:.0f} s") from exc
            if isinstance(reply.result, dict) and 0 < reply.result.get("EventId", 0) < 1 << 53:
                turn = turn_of(reply.result)
                self.event_id = turn.event_id
                if not turn.is_return and turn.function not in TERMINAL:
                    waiting.add(turn.event_id)

    def _end_event(self, event_id: int) -> None:
        """Answer an event's PDK calls to its end; it may have come to that already."""
        with contextlib.suppress(RemoteError):
            turn = self.kong.step(event_id, ABSENT)
            while not turn.is_terminal:
                turn = self.kong.step(event_id, ABSENT)

    def _sound_event(self) -> None:
        try:
            run = self.kong.run_event(self.instance)
        except RemoteError as exc:  # a mutated frame has closed the instance
            if "no plugin instance" not in str(exc):
                raise
            self.instance = self.kong.start_instance("fuzzed", {})
            run = self.kong.run_event(self.instance)
        if run.functions != CALLS:
            raise Finding(f"a sound event makes the calls {run.calls}")
        self._assert_alive()


class GeventTarget(ServerTarget):
    """With greenlets."""

    flags = ("-g",)
    name = "server-gevent"


class ProcessesTarget(ServerTarget):
    """With worker processes."""

    flags = ("-m", "--workers", "2")
    name = "server-processes"


#: Those that start a server.
TARGETS: dict[str, Any] = {
    one.name: one for one in (ServerTarget, GeventTarget, ProcessesTarget)
}  # fmt: skip

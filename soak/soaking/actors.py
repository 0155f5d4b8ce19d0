"""The clients that make trouble. Each act of one is random, and accounted for."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
import traceback
from collections import deque
from random import Random
from typing import Any, Callable, NamedTuple, Optional

from fuzzing import corpus
from kongwire import Connection, RemoteError, pack, turn_of
from servers import Server, is_alive, wait_until

from .client import BOUND, BROKEN, Client, Lost, judge_end, judge_error, loss_of
from .outcomes import (
    ENDED,
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

#: The server's flags in a soak, seconds: what nobody steps is given up, what hangs is refused.
EVENT_TIMEOUT = 5
HANDLER_TIMEOUT = 4
FLAGS = ("--event-timeout", str(EVENT_TIMEOUT), "--handler-timeout", str(HANDLER_TIMEOUT))

#: What handlers of the soaked plugin do, and what must become of their requests.
ACTS = {
    "calls": ENDED, "exits": ENDED, "exits_and_calls": ENDED, "swallows": ENDED, "sleeps": ENDED,
    "locks": ENDED, "outlived": ENDED, "raises": REFUSED, "leaves": REFUSED,
}  # fmt: skip

BODY = 64 * 1024 * 1024
#: How many bytes of a reply are read at once by who is slow, and how long that reply is.
SIP, LARGE = 16, 400_000


class Scene(NamedTuple):
    """Where the actors act.

    Attributes:
        server: under test.
        account: of all.
        seed: of the run.
        stop: they are to stop.
        stale: ids of instances of a server that was there before.
        killing: processes that run handlers are killed.
    """

    server: Server
    account: Account
    seed: str
    stop: threading.Event
    stale: tuple[int, ...] = ()
    killing: bool = False


class Actor(threading.Thread):
    """Acts until it is told to stop.

    Args:
        scene: where.
        number: of this one among its kind.

    Attributes:
        pause: rest after each act, seconds; what else is there wants the processor too.
        broken: what has gone wrong in the actor itself.
    """

    pause = 0.01

    def __init__(self, scene: Scene, number: int = 0) -> None:
        self.who = type(self).__name__.lower()
        super().__init__(name=f"{self.who}-{number}", daemon=True)
        self.scene = scene
        self.random = Random(f"{scene.seed} {self.name}")
        self.broken = ""
        self._instances: dict[str, int] = {}
        self.client = self.new_client()

    def new_client(self) -> Client:
        """The client that it uses."""
        return Client(self.scene.server.paths[0], self.scene.account)

    def run(self) -> None:
        try:
            while not self.scene.stop.is_set():
                self.act()
                self.scene.stop.wait(self.pause * 2 * self.random.random())
        except BaseException:
            self.broken = traceback.format_exc()
        finally:
            self.client.close()

    def act(self) -> None:
        """Do one thing."""
        raise NotImplementedError

    def note(self, result: Result) -> None:
        """Count an outcome."""
        self.scene.account.add(self.who, result)

    def instance(self, act: str, **config: Any) -> Optional[int]:
        """An instance whose handlers behave so; None if there is none to be had now."""
        if act not in self._instances:
            try:
                self._instances[act] = self.client.start_instance(act=act, **config)
            except Lost as exc:
                self.note(exc.result)
                return None
        return self._instances[act]

    def event(self, act: str, wanted: str, phase: str = "access", **config: Any) -> Result:
        """Run an event and count what becomes of it.

        Args:
            act: what its handler does.
            wanted: the outcome that is right, beside a refusal.
            phase: of the request.
            config: more of the instance's configuration.
        """
        for _ in range(3):
            instance = self.instance(act, **config)
            if instance is None:
                return Result(REFUSED)
            result = self.client.event(instance, phase)
            if result.outcome == ENDED and wanted == REFUSED:
                result = Result(PASSED, f"{act}: its handler failed, and let the request through")
            elif result.outcome == REFUSED and wanted == ENDED:
                result = result._replace(outcome=NEEDLESS, note=act)
            self.note(result)
            if result.outcome != RESTARTED:
                return result
            del self._instances[act]  # as Kong does
        return result


class Scattered(Actor):
    """Handlers of all kinds; each step on any connection."""

    def new_client(self) -> Client:
        """One that chooses."""
        return Client(self.scene.server.paths[0], self.scene.account, random=self.random)

    def act(self) -> None:
        """An event of any kind."""
        act = self.random.choice(list(ACTS))
        self.event(act, ACTS[act])


class Raises(Actor):
    """Handlers of the log phase that raise: the error is the right answer."""

    pause = 0.05

    def act(self) -> None:
        """An event that fails."""
        instance = self.instance("raises")
        if instance is None:
            return
        result = self.client.event(instance, "log")
        if result.outcome == PASSED and "raised ValueError" in result.note:
            result = Result(ENDED)
        elif result.outcome == ENDED:
            result = Result(WRONG, "a log handler has raised, and there was no error")
        elif result.outcome == PASSED:  # there is no request that could pass
            result = Result(LEFT, result.note)
        self.note(result)


class Hangs(Actor):
    """Handlers that block for longer than they may."""

    pause = 1.0

    def act(self) -> None:
        """An event that takes too long."""
        self.event("hangs", REFUSED)


class Leaves(Actor):
    """Clients that disconnect at any point."""

    pause = 0.03

    def act(self) -> None:
        """Begin an event, and go away."""
        instance = self.instance("calls")
        if instance is None:
            return
        try:
            with Connection(self.client.path, BOUND) as connection:
                self._talk(connection, instance)
        except RemoteError as exc:
            self.note(judge_error(exc))
        except (OSError, *BROKEN) as exc:
            self.note(loss_of(exc).result)
        else:
            self.note(Result(LEFT))

    def _talk(self, connection: Connection, instance: int) -> None:
        random = self.random
        event = {"InstanceId": instance, "EventName": "access"}
        frame = pack([0, 1, "plugin.HandleEvent", [event]])
        for msgid in range(1, 5):
            kind = random.randrange(6)
            if kind == 0:  # before it says anything, or in the middle
                connection.send_raw(frame[: random.randrange(len(frame))])
                return
            connection.send_raw(frame)
            if kind == 1:  # before the reply
                return
            if kind == 2:  # within it
                connection.sock.recv(random.randrange(1, 12))
                return
            reply = connection.reply()
            assert reply.msgid == msgid, f"a reply to {reply.msgid}, where {msgid} was asked"
            turn = turn_of(reply.unwrap())
            if kind == 3 or turn.is_terminal:  # while a step is owed
                return
            step = {"EventId": turn.event_id, "Data": "x" * random.choice((1, 100_000))}
            frame = pack([0, msgid + 1, "plugin.Step", [step]])


class Abandons(Actor):
    """Events that are never stepped, or when they have been given up."""

    pause = 0.1

    def __init__(self, scene: Scene, number: int = 0) -> None:
        super().__init__(scene, number)
        self._left: deque[tuple[float, int]] = deque()

    def act(self) -> None:
        """Begin an event, and look what has become of an old one."""
        instance = self.instance("calls")
        if instance is None:
            return
        try:
            turn = self.client.begin(instance)
            if not turn.is_terminal:
                self._left.append((time.monotonic(), turn.event_id))
            self.note(Result(LEFT))
            if self._left and time.monotonic() > self._left[0][0] + EVENT_TIMEOUT + 3:
                _, event_id = self._left.popleft()
                if self.random.random() < 0.5:
                    turn = self.client.step(event_id, "too late")
                    if not turn.is_terminal or judge_end(turn).outcome != REFUSED:
                        self.note(Result(WRONG, "an event goes on that had been given up"))
        except Lost as exc:
            self.note(exc.result)
        except RemoteError as exc:
            self.note(Result(PASSED, str(exc)))


class Sips(Actor):
    """A slow reader of large replies."""

    pause = 0.2

    def new_client(self) -> Client:
        """One that reads a few bytes at a time."""
        return Client(self.scene.server.paths[0], self.scene.account, chunk=SIP)

    def act(self) -> None:
        """An event with a large call."""
        self.event("large", ENDED, size=LARGE)


class Bodies(Actor):
    """Huge bodies, one at a time."""

    pause = 2.0

    def new_client(self) -> Client:
        """One that has such a body."""
        client = Client(self.scene.server.paths[0], self.scene.account, random=self.random)
        client.answers["kong.request.get_raw_body"] = b"b" * BODY
        return client

    def act(self) -> None:
        """An event that reads the body, and says how large it is."""
        result = self.event("body", ENDED)
        told = result.args[1] if len(result.args) > 1 else None
        if result.outcome == ENDED and told != {"size": BODY, "error": None}:
            self.note(Result(WRONG, f"of the body has arrived: {told}"))


class Churns(Actor):
    """Instances that come and go."""

    pause = 0.1

    def act(self) -> None:
        """Start one, use it, close it, and use it again."""
        try:
            instance = self.client.start_instance(act="calls", size=1, more="x" * 20_000)
        except Lost as exc:
            self.note(exc.result)
            return
        for _ in range(self.random.randrange(3)):
            self.note(self.client.event(instance))
        try:
            self.client.ask("plugin.CloseInstance", instance)
            self.note(Result(LEFT))
        except Lost as exc:
            # Kong does not look at this reply, nor has it a request of a client's in hand.
            passed = exc.result.outcome == PASSED
            self.note(Result(LEFT) if passed else exc.result)
            return
        except RemoteError as exc:
            # Who would have closed it may be dead; Kong does not mind.
            self.note(Result(LEFT if self.scene.killing else WRONG, f"CloseInstance: {exc}"))
            return
        self.note(self.client.event(instance))  # ended: another worker has not heard of it yet


class Stale(Actor):
    """Kong after a restart of the server: with the ids of the one before."""

    pause = 0.1

    def act(self) -> None:
        """An event of an instance that is no more."""
        result = self.client.event(self.random.choice(self.scene.stale))
        if result.outcome == ENDED:
            result = Result(WRONG, "an event of an instance of an earlier server")
        self.note(result)


class Breaks(Actor):
    """Frames that are none."""

    pause = 0.05

    def act(self) -> None:
        """Send a few, and wait for the end of the connection; nothing else is owed."""
        seeds = corpus.seeds()
        try:
            with Connection(self.client.path, BOUND) as connection:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    for _ in range(self.random.randrange(1, 4)):
                        connection.send_raw(corpus.mutate(self.random, seeds))
                with contextlib.suppress(OSError):  # the server was faster
                    connection.sock.shutdown(socket.SHUT_WR)
                while True:
                    connection.reply()
        except socket.timeout:
            self.note(Result(UNANSWERED, "broken frames: neither a reply nor the end"))
        except OSError:
            self.note(Result(LEFT))
        except BROKEN as exc:
            self.note(Result(WRONG, f"to broken frames: {type(exc).__name__}: {exc}"))


def kill(process: int) -> None:
    """End a process at once; it may have ended already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


class Kills(Actor):
    """Ends worker processes, from outside and from within."""

    pause = 2.0

    def __init__(self, scene: Scene, number: int = 0) -> None:
        super().__init__(scene, number)
        self._workers = len(scene.server.workers())
        self.kills = 0

    def act(self) -> None:
        """End one, and wait until there is another in its place."""
        before = self.scene.server.workers()
        way = self.random.choice(("kill", "exits_the_process", "segfaults"))
        if way == "kill":
            kill(self.random.choice(before))
        elif self.instance(way) is None:
            return
        else:
            self.event(way, REFUSED)
        self.kills += 1
        wait_for_workers(self.scene.server, before)


def wait_for_workers(server: Server, before: list[int], limit: float = 60.0) -> None:
    """Wait until one of the workers has ended, and there are as many as before."""
    wait_until(lambda: not all(map(is_alive, before)), "a worker has ended", limit)
    wait_until(lambda: len(server.workers()) == len(before), "there is another one", limit)


#: Who is there, and how many of each.
CAST: tuple[tuple[Callable[[Scene, int], Actor], int], ...] = (
    (Scattered, 4), (Raises, 1), (Hangs, 1), (Leaves, 2), (Abandons, 1), (Sips, 1), (Bodies, 1),
    (Churns, 1), (Stale, 1), (Breaks, 1),
)  # fmt: skip


def cast(scene: Scene) -> list[Actor]:
    """All actors but the one that kills."""
    return [
        kind(scene, number)
        for kind, count in CAST
        for number in range(count)
        if scene.stale or kind is not Stale
    ]


def stop(scene: Scene, actors: list[Actor], patience: float = BOUND + 10) -> list[str]:
    """Stop actors, each after its act; returns what was wrong with them."""
    scene.stop.set()
    deadline = time.monotonic() + patience
    wrong = []
    for actor in actors:
        actor.join(max(0.0, deadline - time.monotonic()))
        if actor.is_alive():
            wrong.append(f"{actor.name} has not come to an end")
        elif actor.broken:
            wrong.append(f"{actor.name} is broken:\n{actor.broken}")
    return wrong

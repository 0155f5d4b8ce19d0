"""A soak of one mode: the server, the actors, the load, and what is left afterwards."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple, Optional

from kongwire import LIMIT
from servers import Server, directory_command, is_alive, running, short_directory, wait_until

from . import actors
from .client import Client
from .load import Load
from .observing import Recorder, Sample, growth, observe, too_much, wait_calm, wait_for
from .outcomes import Account

PLUGINS = Path(__file__).resolve().parents[1] / "plugins"

#: The flags of each mode.
MODES: dict[str, tuple[str, ...]] = {
    "threads": (),
    "gevent": ("-g",),
    "processes": ("-m", "--workers", "2"),
    "supervised": ("--supervise",),
    "supervised-gevent": ("--supervise", "-g"),
}

#: Those whose processes are killed: others are there to answer for them.
KILLED = ("processes", "supervised", "supervised-gevent")

#: Shares of a mode's time: until what is used is first looked at, until it is looked at again; the
#: rest is for kills. What they kill is new and small, so growth is looked for before.
WARM, FLAT = 0.25, 0.5

#: Where a number of events is given: the times of the other two parts, seconds.
WARM_SECONDS, KILLS_SECONDS = 20.0, 60.0


class Plan(NamedTuple):
    """How long a soak is: by time, or by the events of its middle part."""

    seconds: float
    events: Optional[int]
    seed: int


@dataclasses.dataclass
class Stage:
    """A part of a soak: what became of its requests."""

    name: str
    account: Account
    seconds: float
    kills: int = 0


@dataclasses.dataclass
class Outcome:
    """What a soak of one mode has come to.

    Attributes:
        mode: its name.
        stages: its parts.
        before: what the server used after the warm-up.
        after: at the end.
        peaks: the most that it used in between.
        failures: what must not be; empty if all is well.
        series: what it used, each second.
    """

    mode: str
    stages: list[Stage] = dataclasses.field(default_factory=list)
    before: Optional[Sample] = None
    after: Optional[Sample] = None
    peaks: dict[str, float] = dataclasses.field(default_factory=dict)
    failures: list[str] = dataclasses.field(default_factory=list)
    series: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def total(self, *outcomes: str) -> int:
        """How many requests had one of these outcomes, of all parts."""
        return sum(stage.account.total(*outcomes) for stage in self.stages)

    @property
    def kills(self) -> int:
        """How many processes were killed."""
        return sum(stage.kills for stage in self.stages)


def stale_ids(command: list[str], prefix: Path) -> tuple[int, ...]:
    """Start a server, instances in it, and kill it: its ids, which the next one must not know."""
    server = Server(command, prefix)
    try:
        server.wait_ready()
        processes = server.processes()
        client = Client(server.paths[0], Account(), bound=LIMIT)
        ids = tuple(client.start_instance(act="calls", number=number) for number in range(8))
        for instance in ids:
            client.event(instance)
        client.close()
        server.process.send_signal(signal.SIGKILL)
        server.wait()
        wait_until(lambda: not any(map(is_alive, processes)), "its workers have ended, too")
        return ids
    finally:
        server.kill()


def play(
    name: str, server: Server, plan: Plan, stale: tuple[int, ...], seconds: float,
    events: Optional[int] = None, kill: bool = False,
) -> tuple[Stage, list[str]]:  # fmt: skip
    """Let all actors and the load client loose for a while.

    Args:
        name: of this part.
        server: under test.
        plan: of the soak.
        stale: ids of instances that are no more.
        seconds: how long; of no account if ``events`` is given.
        events: until so many requests have come to an end.
        kill: processes that run handlers, too.

    Returns:
        The part, and what was wrong with those who acted.
    """
    account, begun = Account(), time.monotonic()
    stop = threading.Event()
    scene = actors.Scene(server, account, f"{plan.seed} {name}", stop, stale, kill)
    cast = actors.cast(scene)
    killer = actors.Kills(scene) if kill else None
    load = Load(server.paths[0], account, stop)
    everybody = [*cast, killer] if killer is not None else cast
    for one in (*everybody, load):
        one.start()
    while server.process.poll() is None and not any(one.broken for one in everybody):
        if load.broken:
            break
        if events is None:
            if time.monotonic() >= begun + seconds:
                break
        elif account.total() >= events:
            break
        time.sleep(0.1)
    wrong = actors.stop(scene, everybody)
    load.join(300)
    if load.is_alive() or load.broken:
        wrong.append(f"the load client: {load.broken or 'it has not come to an end'}")
    if server.process.poll() is not None:
        wrong.append(f"the server has ended, status {server.process.poll()}")
    idle = {one.who for one in everybody} | {load.name}
    wrong += [f"{who} has done nothing" for who in sorted(idle - set(account.by_actor()))]
    kills = 0 if killer is None else killer.kills
    return Stage(name, account, time.monotonic() - begun, kills), wrong


def soak(mode: str, plan: Plan) -> Outcome:
    """Soak the server in one mode."""
    outcome = Outcome(mode)
    log = ""
    with short_directory() as prefix:
        command = directory_command(PLUGINS, prefix, *MODES[mode], *actors.FLAGS)
        try:
            stale = stale_ids(command, prefix)
            with running(command, prefix) as server:
                try:
                    _soak(server, outcome, plan, stale)
                    server.check()
                finally:
                    log = server.log[-3000:]
        except (AssertionError, RuntimeError, OSError) as exc:  # it did not start, or end
            outcome.failures.append(f"{type(exc).__name__}: {exc}")
    if outcome.failures and log and os.environ.get("SOAK_LOG"):
        outcome.failures.append(f"the end of the server's log:\n{log}")
    return outcome


def _soak(server: Server, outcome: Outcome, plan: Plan, stale: tuple[int, ...]) -> None:
    def look() -> Optional[Sample]:
        return observe(server)

    kills = outcome.mode in KILLED
    fresh = wait_calm(look, 1 << 30)
    by_time = plan.events is None
    warm = plan.seconds * WARM if by_time else WARM_SECONDS
    flat = plan.seconds * (FLAT if kills else 1 - WARM)
    with Recorder(server).recording() as recorder:

        def part(name: str, seconds: float, events: Optional[int] = None) -> bool:
            killing = name == "kills"
            stage, wrong = play(name, server, plan, stale, seconds, events, killing)
            outcome.stages.append(stage)
            outcome.failures += [
                f"{name}: {one}" for one in (*wrong, *stage.account.failures(killing))
            ]
            return not wrong

        def compare(where: str) -> None:
            assert outcome.before is not None
            before = outcome.before
            outcome.after = wait_for(look, lambda sample: not growth(before, sample))
            grown = growth(before, outcome.after)
            outcome.failures += [f"{where}: growth in {one}" for one in grown]

        if part("warm-up", warm):
            outcome.before = wait_calm(look, fresh.sockets)
            if part("flat", flat, plan.events):
                compare("flat")
                last = plan.seconds - warm - flat if by_time else KILLS_SECONDS
                if kills and part("kills", last):
                    compare("kills")
    for what in ("most", "threads", "descriptors"):
        outcome.peaks[what] = recorder.peak(what)
    outcome.series = recorder.rows()
    if outcome.before is not None:
        outcome.failures += too_much(outcome.before, outcome.peaks["most"])

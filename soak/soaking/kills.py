"""Kills under load: does any request pass without the plugin? Growths: is any refused, even?"""

from __future__ import annotations

import dataclasses
import threading
import traceback
from random import Random
from typing import Optional

from servers import Server, directory_command, running, short_directory, wait_until

from .actors import FLAGS, kill, wait_for_workers
from .client import Client, Lost
from .outcomes import CUT, ENDED, NEEDLESS, PASSED, REFUSED, RESTARTED, Account, Result
from .run import MODES, PLUGINS

#: Clients in a closed loop.
CLIENTS = 12

#: So many requests of theirs come to their end before the next kill.
BETWEEN = 10 * CLIENTS

#: What a worker may use, and what one takes that is to be replaced, MiB.
MEMORY, GROWTH = 200, 250


@dataclasses.dataclass
class Tally:
    """What the kills of one mode have come to.

    Attributes:
        mode: its name.
        account: of all requests.
        killed: processes that were ended by kill -9.
        crashed: processes that a handler has taken along by a segfault.
        grown: processes that have used too much, and were replaced (``--worker-memory``).
        failures: what must not be.
    """

    mode: str
    account: Account = dataclasses.field(default_factory=Account)
    killed: int = 0
    crashed: int = 0
    grown: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)


class ClosedLoop(threading.Thread):
    """One request after the other, as fast as they are answered.

    Args:
        path: of the server's socket.
        account: to count in.
        stop: ends it.
        random: chooses the connection of each call, for some; None: the last used.
    """

    def __init__(
        self, path: str, account: Account, stop: threading.Event, random: Optional[Random] = None
    ) -> None:
        super().__init__(daemon=True)
        self._client = Client(path, account, random=random)
        self._account = account
        self._stop_event = stop
        self.broken = ""

    def run(self) -> None:
        instance = None
        try:
            while not self._stop_event.is_set():
                if instance is None:
                    try:
                        instance = self._client.start_instance(act="calls")
                    except Lost as exc:
                        self._account.add("client", exc.result)
                        continue
                result = self._client.event(instance)
                self._account.add("client", result)
                if result.outcome == RESTARTED:
                    instance = None
        except BaseException:
            self.broken = traceback.format_exc()
        finally:
            self._client.close()


def crash(client: Client, account: Account) -> bool:
    """Have a handler end its process; its own request is to be refused.

    Returns:
        Whether it was begun; False if there was no instance to be had.
    """
    try:
        instance = client.start_instance(act="segfaults")
    except Lost as exc:
        account.add("crash", exc.result)
        return False
    result = client.event(instance)
    if result.outcome == ENDED:
        result = Result(PASSED, "a handler that crashes has let the request through")
    account.add("crash", result)
    return True


def grow(client: Client, account: Account) -> None:
    """Have a handler use more memory than its process may."""
    try:
        instance = client.start_instance(act="grows", size=GROWTH)
    except Lost as exc:
        account.add("grow", exc.result)
    else:
        account.add("grow", client.event(instance))


def measure(mode: str, count: int, seed: int, growths: bool = False) -> Tally:
    """End the process that runs handlers, again and again, under load.

    Args:
        mode: of the server.
        count: how often.
        seed: what choices are made of.
        growths: nobody is killed, but workers use too much memory, and are replaced.
    """
    tally = Tally(mode)
    flags = (*FLAGS, "--worker-memory", str(MEMORY)) if growths else FLAGS
    try:
        with short_directory() as prefix:
            command = directory_command(PLUGINS, prefix, *MODES[mode], *flags)
            with running(command, prefix) as server:
                _measure(server, tally, count, seed, growths)
    except (AssertionError, RuntimeError, OSError) as exc:  # it did not start, or end
        tally.failures.append(f"{type(exc).__name__}: {exc}")
    tally.failures += tally.account.failures(killing=not growths)
    refused = tally.account.total(REFUSED, NEEDLESS, CUT)
    if growths and refused:
        tally.failures.append(f"{refused} requests refused, although nobody was killed")
    done = tally.killed + tally.crashed + tally.grown
    if done < count:
        tally.failures.append(f"of {count} ends of processes there were only {done}")
    return tally


def _measure(server: Server, tally: Tally, count: int, seed: int, growths: bool) -> None:
    random, stop = Random(f"{seed} {tally.mode}"), threading.Event()
    account, path = tally.account, server.paths[0]
    clients = [
        ClosedLoop(path, account, stop, Random(f"{seed} {number}") if number % 2 else None)
        for number in range(CLIENTS)
    ]
    for one in clients:
        one.start()
    own = Client(path, account)
    try:
        for number in range(count):
            wait_to_serve(account)
            before = server.workers()
            if growths:
                grow(own, account)
                tally.grown += 1
            elif number % 2:
                wait_until(lambda: crash(own, account), "an instance that crashes", 60)
                tally.crashed += 1
            else:
                kill(random.choice(before))
                tally.killed += 1
            wait_for_workers(server, before)
        wait_to_serve(account)
    finally:
        stop.set()
        own.close()
        for one in clients:
            one.join(90)
            if one.broken or one.is_alive():
                tally.failures.append(f"a client: {one.broken or 'it has not come to an end'}")


def wait_to_serve(account: Account) -> None:
    """Wait until requests come to their ends again."""
    since = account.total(ENDED)
    wait_until(lambda: account.total(ENDED) >= since + BETWEEN, "requests are served", 90)

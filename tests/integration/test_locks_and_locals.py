"""Locks, thread-local variables and threads of a plugin's own, across PDK calls: in each mode."""

from __future__ import annotations

import collections
import select

import pytest
from kongwire import LIMIT, Kong
from servers import wait_until

#: Holds a lock while Kong works; ``rewrite`` does not want it.
LOCKED = """
import threading

def start(self, config):
    self.lock, self.notes = getattr(threading, config["lock"])(), []

def access(self, kong):
    with self.lock:
        self.notes.append("in")
        kong.log("holds it")
        if config_reenters:
            with self.lock:
                kong.log("twice")
        self.notes.append("out")

def rewrite(self, kong): kong.log("passes by")

def log(self, kong): kong.log(*self.notes)
"""
#: Thread-local variables, and what the thread is, before and after each call.
LOCALS = """
import threading

def start(self, config): self.local = threading.local()

def here(): return threading.get_ident(), threading.current_thread()

def access(self, kong):
    before = here()
    kong.ctx.shared.get(str(threading.get_ident()))
    self.local.name = kong.ctx.shared.get("name")[0]
    seen = []
    for number in range(4):
        kong.ctx.shared.get(self.local.name)
        seen.append(here() == before and here()[1] is before[1])
    kong.response.exit(200, [self.local.name, seen])
"""
#: A pool that belongs to the instance makes the calls of many events.
POOLED = """
from concurrent.futures import ThreadPoolExecutor

def start(self, config): self.pool = ThreadPoolExecutor(4)

def access(self, kong):
    name = kong.ctx.shared.get("name")[0]
    def ask(number):
        return kong.ctx.shared.get(f"{name}-{number}")[0]
    answers = self.pool.map(ask, range(8))
    mine = [ask(number) for number in range(8, 16)]  # at the same time
    kong.response.exit(200, [*answers, *mine])

def log(self, kong): self.pool.shutdown()
"""


def run_all(kong: Kong, instance: int, count: int, answer: str = "{0}") -> dict[str, list[object]]:
    """Run events at the same time, to their ends, with each step on another connection.

    Args:
        kong: the client.
        instance: of the plugin.
        count: of events; they are called n0, n1, …
        answer: made of a call's argument; who asks for "name" gets the event's name.

    Returns:
        The arguments of what ended each event.
    """
    under_way, ended, free = {}, {}, collections.deque([kong.connect()])
    for number in range(count):
        connection = kong.connect()
        under_way[connection] = (f"n{number}", connection.send_event(instance))
    while under_way:
        ready, _, _ = select.select([one.sock for one in under_way], [], [], LIMIT)
        assert ready, f"no answer for {sorted(name for name, _ in under_way.values())}"
        for connection in [one for one in under_way if one.sock in ready]:
            name, msgid = under_way.pop(connection)
            turn = connection.turn(msgid)
            free.append(connection)
            if turn.is_terminal:
                ended[name] = turn.args
            else:
                value = name if turn.args == ["name"] else answer.format(turn.args[0])
                other = free.popleft()  # there is one that has been free for longer
                under_way[other] = (name, other.send_step(turn.event_id, value))
    return ended


@pytest.mark.one_process
@pytest.mark.parametrize(("lock", "reenters"), [("Lock", False), ("RLock", False), ("RLock", True)])
def test_a_lock_is_held_across_calls(kong: Kong, lock: str, reenters: bool) -> None:
    instance = kong.start_author(LOCKED.replace("config_reenters", str(reenters)), lock=lock)
    connections = [kong.connect() for _ in range(8)]
    waiting = {one: one.send_event(instance) for one in connections}
    for _ in connections:
        wait_until(lambda: any(one.has_data() for one in waiting), "one of them has the lock")
        (holder,) = (one for one in waiting if one.has_data())
        turn = holder.turn(waiting.pop(holder))
        assert turn.args == ["holds it"]
        for _ in range(3):  # those that do not want it are not held up
            assert kong.run_event(instance, "rewrite").calls == [("kong.log", ["passes by"])]
        assert not any(one.has_data() for one in waiting)
        if reenters:
            turn = kong.step(turn.event_id)
            assert turn.args == ["twice"]
        assert holder.step(turn.event_id).is_return
    notes = ["in", "out"] * len(connections)
    assert kong.run_event(instance, "log").calls == [("kong.log", notes)]


def test_thread_local_variables_and_identity_last_across_calls(kong: Kong) -> None:
    instance = kong.start_author(LOCALS)
    for _ in range(2):  # the second time on threads that have been used
        ended = run_all(kong, instance, 16)
        assert ended == {f"n{number}": [200, [f"n{number}", [True] * 4]] for number in range(16)}


@pytest.mark.one_process
def test_handlers_at_the_same_time_are_different_threads_to_python(kong: Kong) -> None:
    instance = kong.start_author(LOCALS)
    turns = [kong.connect().handle_event(instance) for _ in range(16)]
    assert len({turn.args[0] for turn in turns}) == 16


def test_a_thread_pool_of_a_plugin_makes_the_calls_of_many_events(kong: Kong) -> None:
    instance = kong.start_author(POOLED)
    assert run_all(kong, instance, 6, "{0}!") == {
        f"n{event}": [200, [f"n{event}-{number}!" for number in range(16)]] for event in range(6)
    }
    assert kong.handle_event(instance, "log").is_return


def test_a_thread_of_a_plugin_makes_the_only_calls(kong: Kong) -> None:
    """While the handler does nothing but wait for it, with steps on other connections."""
    source = """
import threading

def access(self, kong):
    got = []
    def work():
        name = kong.ctx.shared.get("name")[0]
        for number in range(8):
            got.append(kong.ctx.shared.get(f"{name}-{number}")[0])
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    kong.response.exit(200, got)
"""
    instance = kong.start_author(source)
    for _ in range(3):
        assert run_all(kong, instance, 6) == {
            f"n{event}": [200, [f"n{event}-{number}" for number in range(8)]] for event in range(6)
        }

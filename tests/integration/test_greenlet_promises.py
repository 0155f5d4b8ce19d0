"""gevent: whatever waits in Python's library waits for itself alone, in thousands of handlers."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest
from failures import failure, still_works
from kongwire import Kong
from servers import Start

pytestmark = pytest.mark.modes("gevent")

#: How a handler waits, and how another one ends that.
WAITS = {
    "sleep": ("while not self.go: sleep(0.001)", "self.go = True"),
    "recv": ("assert self.a.recv(1) == b'x'", "self.b.sendall(b'x')"),
    "select": ("assert select([self.a], [], [])[0]", "self.b.sendall(b'x')"),
    "queue": ("self.queue.get()", "self.queue.put(1)"),
    "lock": ("self.lock.acquire()", "self.lock.release()"),
    "child": ("run(['cat'], stdin=self.a, check=True)", "self.b.close()"),
    "thread": ("t = Thread(target=self.queue.get); t.start(); t.join()", "self.queue.put(1)"),
    "pool": ("self.pool.submit(self.queue.get).result()", "self.queue.put(1)"),
}
WAITING = """
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from select import select
from socket import socketpair
from subprocess import run
from threading import Lock, Thread
from time import sleep

def start(self, config):
    self.go, self.queue, self.lock, self.pool = False, Queue(), Lock(), ThreadPoolExecutor(1)
    self.a, self.b = socketpair()
    self.lock.acquire()

def access(self, kong):
    WAIT
    kong.log("on")

def response(self, kong):
    END

def log(self, kong):
    for one in (self.a, self.b):
        one.close()
    self.pool.shutdown()
"""


@pytest.mark.parametrize("how", WAITS)
def test_a_handler_that_waits_holds_nobody_up(kong: Kong, how: str) -> None:
    wait, end = WAITS[how]
    instance = kong.start_author(WAITING.replace("WAIT", wait).replace("END", end))
    with kong.connect() as connection:
        msgid = connection.send_event(instance)
        for _ in range(20):
            assert kong.call("plugin.GetPluginNames") == ["author", "hello"]
        assert not connection.has_data()
        assert kong.handle_event(instance, "response").is_return
        turn = connection.turn(msgid)
        assert turn.args == ["on"]
        assert connection.step(turn.event_id).is_return
    assert kong.handle_event(instance, "log").is_return


SLEEPERS = 5_000
SLEEPING = """
from time import sleep

def start(self, config): self.asleep, self.go = 0, False

def access(self, kong):
    name = kong.ctx.shared.get("name")[0]
    self.asleep += 1
    while not self.go:
        sleep(0.5)
    kong.log(name)

def rewrite(self, kong): kong.log(self.asleep)

def response(self, kong): self.go = True
"""


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Let tests and the servers that they start have a connection for each sleeper."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = SLEEPERS + 500
    if hard not in (-1, resource.RLIM_INFINITY) and hard < wanted:
        pytest.skip(f"needs {wanted} descriptors, and {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_thousands_of_handlers_sleep_at_the_same_time(many_descriptors: None, start: Start) -> None:
    server = start()
    with server.kong() as kong:
        instance = kong.start_author(SLEEPING)
        sent = []
        for number in range(SLEEPERS):
            connection = kong.connect()
            turn = connection.handle_event(instance)
            sent.append((connection, connection.send_step(turn.event_id, f"n{number}")))
        assert kong.run_event(instance, "rewrite").calls == [("kong.log", [str(SLEEPERS)])]
        assert server.threads() < 10
        assert not any(connection.has_data() for connection, _ in sent)
        assert kong.handle_event(instance, "response").is_return
        for number, (connection, msgid) in enumerate(sent):
            turn = connection.turn(msgid)
            assert turn.args == [f"n{number}"]
            assert connection.step(turn.event_id).is_return


# --- a plugin's own -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spawn",
    [
        "jobs = [gevent.spawn(ask, n) for n in range(8)]; answers = [j.get() for j in jobs]",
        "answers = gevent.pool.Pool(3).map(ask, range(8))",
        "answers = []; gevent.spawn(lambda: answers.extend(map(ask, range(8)))).join()",
    ],
)
def test_greenlets_of_a_plugin_make_calls(kong: Kong, spawn: str) -> None:
    source = f"""
import gevent, gevent.pool

def access(self, kong):
    def ask(number):
        return kong.ctx.shared.get(f"x{{number}}")[0]
    {spawn}
    kong.response.exit(200, answers)
"""
    instance = kong.start_author(source)
    for _ in range(5):
        run = kong.run_event(instance, answers={"kong.ctx.shared.get": lambda name: name * 2})
        assert run.calls[-1] == ("kong.response.exit", [200, [f"x{n}" * 2 for n in range(8)]])


def test_a_call_from_a_native_thread_says_that_it_cannot_be(kong: Kong) -> None:
    source = """
import gevent

def access(self, kong):
    job = gevent.get_hub().threadpool.spawn(kong.log, "from there")
    try:
        job.get()
    except Exception as exc:
        kong.log(str(exc))
"""
    ((_, (text,)),) = kong.run_event(kong.start_author(source)).calls
    assert text == "with gevent, PDK calls cannot be made from other threads"


@pytest.mark.parametrize(
    "statement",
    ["raise gevent.GreenletExit", "gevent.getcurrent().kill()", "gevent.kill(own, Odd)"],
)
@pytest.mark.parametrize("calls", [0, 1])
def test_a_killed_handler_refuses_the_request(kong: Kong, statement: str, calls: int) -> None:
    """As of a plugin that keeps what runs its handlers in a pool of its own, and clears that."""
    source = f"""
import gevent

class Odd(BaseException): pass

def access(self, kong):
    {"kong.log('x')" if calls else "pass"}
    own = gevent.getcurrent()
    {statement}
    gevent.sleep(30)
"""
    instance = kong.start_author(source)
    with kong.connect() as connection:
        for _ in range(2):
            failure(connection, instance, calls=calls)
    still_works(kong)


def test_a_timeout_during_a_call_takes_effect_after_it(kong: Kong) -> None:
    source = """
import gevent

def access(self, kong):
    timeout = gevent.Timeout.start_new(0.01)
    try:
        kong.log("slow")
    except gevent.Timeout as exc:
        assert exc is timeout
        kong.log("timed out")

def rewrite(self, kong): gevent.sleep(0.05)
"""
    instance = kong.start_author(source)
    with kong.connect() as connection:
        turn = connection.handle_event(instance)
        assert kong.handle_event(instance, "rewrite").is_return  # meanwhile it has gone off
        turn = connection.step(turn.event_id)
        assert turn.args == ["timed out"]
        assert connection.step(turn.event_id).is_return


# --- time-outs that handlers leave behind ---------------------------------------------------------

LEAVES_TIMEOUT = """
import gevent

def access(self, kong):
    gevent.Timeout.start_new(0.02)

def rewrite(self, kong):
    gevent.sleep(0.1)
"""


def test_a_timeout_that_is_left_behind_loses_no_request(kong: Kong) -> None:
    """It goes off when its handler has ended long ago, in a greenlet that waits for work."""
    instance, other = kong.start_author(LEAVES_TIMEOUT), kong.start_author("def log(self, k): pass")
    with kong.connect() as connection:
        for _ in range(3):
            assert connection.handle_event(instance).is_return
            turn = connection.handle_event(instance, "rewrite")  # waits beyond that time-out
            while not turn.is_terminal:  # which may hit this one
                turn = connection.step(turn.event_id)
            assert connection.handle_event(other, "log").is_return


FAILS_WITH_TIMEOUT = """
import gevent

def access(self, kong):
    gevent.Timeout.start_new(0.02)
    raise ValueError("on purpose")

def rewrite(self, kong):
    gevent.sleep(0.1)
"""


def test_a_request_is_refused_although_a_timeout_goes_off_meanwhile(kong: Kong) -> None:
    instance = kong.start_author(FAILS_WITH_TIMEOUT)
    with kong.connect() as one, kong.connect() as other:
        turn = one.handle_event(instance)
        assert turn.function == "kong.log.err"
        assert other.handle_event(instance, "rewrite").is_return  # beyond the time-out
        turn = other.step(turn.event_id)
        assert (turn.function, turn.args[0]) == ("kong.response.exit", 500)
        assert one.call("plugin.GetPluginNames")

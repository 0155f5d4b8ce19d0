"""How instances end: closed by Kong, unused for too long, with the server; and those never made."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from kongwire import Kong, RemoteError
from servers import Server, Start, wait_until

#: Says in a file what happens to it; its handler waits for a step.
ONE_CODEC = True  # tests/unit/codec holds what the codecs count

TELLS = """
import os, time

def say(self, what):
    with open(self.config["told"], "a") as file:
        file.write(f"{os.getpid()} {what}\\n")

def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.005)

def start(self, config):
    say(self, "made")

def access(self, kong):
    kong.log("x")
    say(self, "ran")

def close(self):
    say(self, "closed")
"""

BLOCKS = """
def start(self, config):
    say(self, "making")
    wait_for(config["gate"])
"""
CLOSE_BLOCKS = """
def close(self):
    wait_for(self.config["gate"])
    say(self, "closed")
"""
CLOSE_RAISES = """
def close(self):
    say(self, "closed")
    raise {error}
"""


class Told:
    """What instances have said in their file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def by_process(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for line in self.path.read_text().splitlines():
            pid, what = line.split()
            found.setdefault(pid, []).append(what)
        return found

    def count(self, what: str) -> int:
        return sum(said.count(what) for said in self.by_process().values())

    def wait(self, what: str, count: int) -> None:
        wait_until(lambda: self.count(what) >= count, f"{count} times {what!r}")
        assert self.count(what) == count


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path / "told")


def start_telling(kong: Kong, told: Told, source: str = "", **config: Any) -> int:
    return kong.start_author(TELLS + source, told=str(told.path), **config)


def is_known(kong: Kong, instance: int) -> bool:
    """Whether the server knows an instance; does not count as use."""
    try:
        kong.call("plugin.InstanceStatus", instance)
    except RemoteError as exc:
        assert "no plugin instance" in str(exc)
        return False
    return True


# --- close ----------------------------------------------------------------------------------------


def test_each_object_is_closed_once(kong: Kong, told: Told) -> None:
    """In worker processes each has one of its own."""
    instance, other = start_telling(kong, told), start_telling(kong, told)
    for connection in [kong.connect() for _ in range(4)]:
        connection.step(connection.handle_event(instance).event_id)
    made = told.count("made") - 1
    kong.close_instance(instance)
    told.wait("closed", made)
    with pytest.raises(RemoteError, match="no plugin instance"):
        kong.close_instance(instance)
    kong.run_event(other)
    kong.close_instance(other)
    told.wait("closed", told.count("made"))


def test_an_event_under_way_ends_first(kong: Kong, told: Told) -> None:
    instance = start_telling(kong, told)
    turns = [kong.connect().handle_event(instance) for _ in range(2)]
    kong.close_instance(instance)
    for turn in turns:
        assert kong.step(turn.event_id).is_return
    told.wait("closed", told.count("made"))
    for said in told.by_process().values():
        assert said[-1] == "closed"
    assert told.count("ran") == 2


def test_a_close_that_blocks_harms_nobody(kong: Kong, told: Told, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    blocking = [start_telling(kong, told, CLOSE_BLOCKS, gate=str(gate)) for _ in range(20)]
    for instance in blocking:
        assert kong.close_instance(instance)["Id"] == instance
    hello = kong.start_instance("hello", {})
    assert kong.run_event(hello).functions
    kong.close_instance(hello)
    assert kong.run_event(start_telling(kong, told)).functions
    assert told.count("closed") == 0
    gate.touch()
    told.wait("closed", 20)


@pytest.mark.parametrize("error", ["KeyError('x')", "SystemExit(3)"])
def test_a_close_that_raises_is_logged(kong: Kong, server: Server, told: Told, error: str) -> None:
    instance = start_telling(kong, told, CLOSE_RAISES.format(error=error))
    kong.close_instance(instance)
    name = error.partition("(")[0]
    server.wait_log(f"plugin author: close raised {name} (instance {instance})")
    other = start_telling(kong, told)
    kong.close_instance(other)
    told.wait("closed", 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_are_closed_at_the_stop(start: Start, told: Told, number: int) -> None:
    server = start()
    with server.kong() as kong:
        raises = CLOSE_RAISES.format(error="ValueError('x')")
        instances = [start_telling(kong, told, source) for source in ("", raises, "")]
        for connection in [kong.connect() for _ in range(4)]:
            connection.step(connection.handle_event(instances[0]).event_id)
        turn = kong.handle_event(instances[2])
        server.send_signal(number)
        wait_until(lambda: not any(map(os.path.lexists, server.paths)), "it stops")
        assert told.count("closed") == 0
        assert kong.step(turn.event_id).is_return
        assert server.wait() == 0
    told.wait("closed", told.count("made"))
    assert server.log.count("close raised ValueError") == 1
    server.check()


# --- unused for too long --------------------------------------------------------------------------


def test_an_unused_one_is_dropped_and_one_in_use_is_not(start: Start, told: Told) -> None:
    server = start("--instance-ttl", "1")
    with server.kong() as kong:
        busy = start_telling(kong, told)
        turn = kong.handle_event(busy)
        unused = start_telling(kong, told)
        wait_until(lambda: not is_known(kong, unused), "it is dropped")
        with pytest.raises(RemoteError, match=f"no plugin instance {unused}"):
            kong.handle_event(unused)
        # The other one began earlier, and has been waiting for its step all the time.
        assert is_known(kong, busy)
        status = kong.call("plugin.GetStatus")["Plugins"]["author"]
        assert [each["Id"] for each in status["Instances"]] == [busy]
        assert status["LastCloseInstance"] >= status["LastStartInstance"] > 0
        assert kong.step(turn.event_id).is_return
        assert kong.handle_event(busy).function == "kong.log"
        assert kong.run_event(start_telling(kong, told)).functions  # as Kong does next
        server.wait_log(f"plugin author: dropped instance {unused}: no event for 1 s")
    wait_until(lambda: told.count("closed"), "it is closed")


# --- those that cannot be made --------------------------------------------------------------------


@pytest.mark.one_process
def test_an_init_that_blocks_harms_nobody(start: Start, told: Told, tmp_path: Path) -> None:
    server = start("--max-starts", "2")
    gate = tmp_path / "gate"
    config = {"source": TELLS + BLOCKS, "told": str(told.path), "gate": str(gate)}
    argument = {"Name": "author", "Config": json.dumps(config)}
    with server.kong() as kong:
        running, hello = start_telling(kong, told), kong.start_instance("hello", {})
        blocked = [kong.connect() for _ in range(2)]
        sent = [one.request("plugin.StartInstance", argument) for one in blocked]
        told.wait("making", 2)
        with pytest.raises(
            RemoteError, match=r"author: 2 of its instances .* limit \(--max-starts\)"
        ):
            start_telling(kong, told)
        for instance in (running, hello, kong.start_instance("hello", {})):
            assert kong.run_event(instance).functions
        gate.touch()
        started = [one.result(msgid)["Id"] for one, msgid in zip(blocked, sent)]
        for instance in (*started, start_telling(kong, told)):
            assert kong.run_event(instance).functions


def test_an_init_that_raises_leaves_nothing_behind(start: Start) -> None:
    server = start()
    source = "def start(self, config): raise ValueError('not this one')\ndef close(self): 1 / 0"

    with server.kong() as kong:
        hello = kong.start_instance("hello", {})

        def fail(count: int) -> None:
            for _ in range(count):
                with pytest.raises(RemoteError, match="not this one"):
                    kong.start_author(source, filler="x" * 20_000)

        fail(200)
        memory = server.memory()
        fail(1000)  # 20 MB, were they kept
        assert server.memory() < memory + 3 * 1024
        assert kong.call("plugin.GetStatus")["Plugins"]["author"]["Instances"] == []
        assert kong.run_event(hello).functions
    assert "ZeroDivisionError" not in server.log  # what was not made is not closed

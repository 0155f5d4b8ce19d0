"""Events that Kong never steps again: their handlers are told, after a time or at the end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from kong_pdk import _wire
from kong_pdk._codec import Connection, Event, Request
from kong_pdk.config import ServerConfig
from kong_pdk.exception import EventAbandoned, EventEnded
from kong_pdk.modes.threads import Mode, Runner
from kong_pdk.plugins import define_plugin
from kong_pdk.runtime.service import Service
from kong_pdk.server.loop import Loop

PATIENCE = 30  # seconds; only a failure takes as long


class Plugin:
    """Waits for an answer, and notes how that ended."""

    told: Any = None
    unwound = threading.Event()

    def __init__(self, config: Any) -> None:
        pass

    def access(self, kong: Any) -> None:
        try:
            kong.request.get_header("host")
        except Exception:
            Plugin.told = "an exception that plugins catch"
        except BaseException as exc:
            Plugin.told = exc
            with pytest.raises(EventEnded):
                kong.log("too late")
            raise
        finally:
            Plugin.unwound.set()


@pytest.fixture
def waiting() -> Iterator[Mode]:
    """A mode with one handler that waits for a step."""
    Plugin.told = None
    Plugin.unwound.clear()
    config = ServerConfig(event_timeout=5)
    plugin = define_plugin("mine", Plugin, "1.0.0", 1, (), "here")
    service = Service({"mine": plugin}, config)
    mode = Mode(service, Loop(config), config)
    instance = service.instances.start("mine", "{}")
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.settimeout(PATIENCE)
        begin = Request(_wire.HANDLE_EVENT, 1, instance.id, "access")
        mode.route(Connection(ours), begin)
        reply = msgpack.unpackb(theirs.recv(4096))
        assert reply[3]["Data"]["Method"] == "kong.request.get_header"
        yield mode
        mode.stop()
    ours.close()


def test_an_event_is_given_up_after_its_time(waiting: Mode) -> None:
    waiting.tick(5)
    assert len(waiting.waiting) == 1, "it still has time"
    waiting.tick(6)
    assert not waiting.waiting
    assert Plugin.unwound.wait(PATIENCE)
    assert isinstance(Plugin.told, EventAbandoned)
    assert "in time" in str(Plugin.told)


def test_an_event_is_given_up_after_its_time_while_others_are_waited_for(waiting: Mode) -> None:
    """It is Kong that has not answered, whatever the server is about to do."""
    waiting.loop.stopping = True
    waiting.tick(6)
    assert Plugin.unwound.wait(PATIENCE)
    assert isinstance(Plugin.told, EventAbandoned)
    assert "in time" in str(Plugin.told)


def test_an_event_is_given_up_when_the_server_stops(waiting: Mode) -> None:
    assert waiting.is_busy(connected=True)
    assert not waiting.is_busy(connected=False), "no step can come any more"
    waiting.loop.stop()
    waiting.stop()
    assert Plugin.unwound.wait(PATIENCE)
    assert isinstance(Plugin.told, EventAbandoned)
    assert "stops" in str(Plugin.told)


def test_a_request_that_waits_for_a_thread_gets_one_when_another_has_ended() -> None:
    """The last thread may be on its way out, and count still, when the request is put there."""
    config = ServerConfig(threads=1)
    plugin = define_plugin("mine", Plugin, "1.0.0", 1, (), "here")
    mode = Mode(Service({"mine": plugin}, config), Loop(config), config)
    leaving = Runner(mode, 0)
    mode._runners.add(leaving)
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.settimeout(PATIENCE)
        connection = Connection(ours)
        mode.route(connection, Request(_wire.CALL, 7, "plugin.GetPluginNames", []))
        assert len(mode._queue) == 1
        mode.ended(leaving)
        assert msgpack.unpackb(theirs.recv(4096)) == [1, 7, None, ["mine"]]
        mode.stop()
        connection.close()
    leaving.close()


def test_a_handler_that_cannot_be_told_keeps_no_other_from_it(waiting: Mode) -> None:
    class Broken:
        def hand_over(self, *_: object) -> None:
            raise OSError("no descriptor")

    event = next(iter(waiting.waiting.values()))
    others = {
        number: Event(waiting.events, None, "access", None, 1, waiting, Broken())
        for number in (1, 2)
    }
    waiting.waiting.clear()
    waiting.waiting.update({1: others[1], event.id: event, 2: others[2]})
    waiting.stop()
    assert Plugin.unwound.wait(PATIENCE)
    assert not waiting.waiting

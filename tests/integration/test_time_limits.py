"""Handlers that take too long, Kongs that never answer, and answers that would come too late."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from failures import refused
from kongwire import RemoteError
from servers import SERVER, Flavour, Start, run_command, wait_until

PLUGINS = Path(__file__).parent / "plugins"
ONE_CODEC = True  # tests/unit/test_limits.py holds both

#: Waits for a PDK call, and writes to a file how that ended.
WAITS = """
def access(self, kong):
    try:
        kong.request.get_method()
    except Exception:
        how = "caught"
        raise
    except BaseException as exc:
        how = type(exc).__name__
        raise
    else:
        how = "answered"
    finally:
        with open(self.config["path"], "a") as file:
            file.write(how + "\\n")
"""
#: Sleeps before, and writes to a file how its PDK call ended.
SLEEPS = """
import time
def access(self, kong):
    how = "undone"
    try:
        time.sleep(self.config["sleep"])
        kong.request.get_method()
        how = "done"
    except BaseException as exc:
        how = type(exc).__name__
        raise
    finally:
        with open(self.config["path"], "a") as file:
            file.write(how + "\\n")
"""


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def test_an_abandoned_event_ends(start: Start, tmp_path: Path) -> None:
    server = start("--event-timeout", "1")
    path = tmp_path / "how"
    with server.kong() as kong:
        instance = kong.start_author(WAITS, path=str(path))
        turn = kong.handle_event(instance)
        wait_until(lambda: lines(path) == ["EventAbandoned"], "the handler to end")
        # Kong's answer comes after all: nobody runs the handler to its end.
        assert refused(kong.step(turn.event_id, "GET"))
        turn = kong.handle_event(instance)  # another one is as ever
        assert kong.step(turn.event_id, "GET").is_return
        assert lines(path) == ["EventAbandoned", "answered"]


def test_many_abandoned_events_leave_nothing(
    start: Start, flavour: Flavour, tmp_path: Path
) -> None:
    limit = () if flavour.mode == "gevent" else ("--threads", "64")
    server = start("--event-timeout", "1", *limit)
    path, many = tmp_path / "how", 256
    with server.kong() as kong:
        instance = kong.start_author(WAITS, path=str(path))
        turn = kong.handle_event(instance)
        assert kong.step(turn.event_id, "GET").is_return
        # An idle thread keeps what it is woken by for a while: a pipe, on Python 3.9.
        most = server.descriptors() + 2 * 64 * max(1, len(server.workers())) + 16
        for begun in (1, many + 1):
            connections = [kong.connect() for _ in range(many)]
            for connection in connections:
                connection.send_event(instance)
            wait_until(lambda n=begun: len(lines(path)) - n >= many - 64, "most handlers to end")
            for connection in connections:
                connection.close()
            wait_until(lambda: server.descriptors() <= most, "the descriptors to be free")
        turn = kong.handle_event(instance)
        assert kong.step(turn.event_id, "GET").is_return


def test_a_handler_has_its_time(start: Start, tmp_path: Path) -> None:
    server = start("--handler-timeout", "1")
    path = tmp_path / "how"
    with server.kong() as kong:
        instance = kong.start_author(SLEEPS, path=str(path), sleep=3)
        with kong.connect() as connection:
            turn = connection.handle_event(instance)  # answered long before the handler ends
            assert refused(turn)
            # The connection is free for the next request, although the handler still runs.
            assert connection.call("plugin.GetPluginNames") == ["author", "hello"]
        wait_until(lambda: lines(path) == ["HandlerTimeout"], "the handler to end")
        assert "access has taken too long" in server.log


def test_a_handler_that_waits_for_kong_has_its_time_too(start: Start, tmp_path: Path) -> None:
    server = start("--handler-timeout", "1")
    path = tmp_path / "how"
    with server.kong() as kong, kong.connect() as connection:
        instance = kong.start_author(WAITS, path=str(path))
        turn = connection.handle_event(instance)
        time.sleep(2.2)  # what is looked for is that nothing happens
        assert lines(path) == []
        turn = connection.step(turn.event_id, "GET")
        assert turn.function == "kong.log.err"
        turn = connection.step(turn.event_id)
        assert refused(turn)
        assert lines(path) == ["HandlerTimeout"]


@pytest.mark.modes("gevent")
def test_the_handler_is_interrupted_and_not_its_thread(start: Start) -> None:
    server = start("--handler-timeout", "1")
    source = """
import threading, time
def access(self, kong):
    caller = threading.Thread(target=kong.request.get_method)
    caller.start()
    caller.join()
    time.sleep(30)
"""
    with server.kong() as kong, kong.connect() as connection:
        turn = connection.handle_event(kong.start_author(source))
        assert refused(connection.step(turn.event_id, "GET"))
        server.wait_log("access raised HandlerTimeout")


def test_a_handler_whose_thread_is_in_a_pdk_call(start: Start) -> None:
    """The thread has the error, and nobody tells the handler: its request is closed anyway."""
    server = start("--handler-timeout", "1")
    source = """
import threading, time
def call(kong):
    try:
        kong.request.get_method()
    except BaseException:
        pass
def access(self, kong):
    threading.Thread(target=call, args=(kong,)).start()
    time.sleep(5)
"""
    with server.kong() as kong, kong.connect() as connection:
        turn = connection.handle_event(kong.start_author(source))
        time.sleep(2.2)  # its time is over
        assert refused(connection.step(turn.event_id, "GET"))


def test_a_handler_that_catches_its_end(start: Start) -> None:
    server = start("--handler-timeout", "1")
    source = """
def access(self, kong):
    try:
        while True:
            kong.request.get_method()
    except:
        pass
"""
    with server.kong() as kong, kong.connect() as connection:
        turn = connection.handle_event(kong.start_author(source))
        while turn.function == "kong.request.get_method":
            time.sleep(0.05)  # most of the time is in a call
            turn = connection.step(turn.event_id, "GET")
        if turn.function == "kong.log.err":
            turn = connection.step(turn.event_id)
        assert refused(turn)


def test_a_failed_handler_has_all_the_time_to_refuse_its_request(start: Start) -> None:
    server = start("--handler-timeout", "1")
    with server.kong() as kong, kong.connect() as connection:
        turn = connection.handle_event(kong.start_author("def access(self, kong): 1 / 0\n"))
        assert turn.function == "kong.log.err"
        time.sleep(2.2)
        assert refused(connection.step(turn.event_id))


@pytest.mark.parametrize("call", ["kong.request.get_method()", "pass", "raise ValueError",
                                  "kong.response.exit(200)"])  # fmt: skip
def test_no_answer_comes_late(start: Start, call: str) -> None:
    """Kong would let the request go on, and take a later reply for another request's."""
    server = start("--answer-timeout", "0.5")
    source = f"import time\ndef access(self, kong):\n    time.sleep(3)\n    {call}\n"
    source += source.replace("access", "log")
    with server.kong() as kong:
        instance = kong.start_author(source)
        with kong.connect() as connection:
            assert refused(connection.handle_event(instance)), "before Kong gives up"
            with pytest.raises(RemoteError, match="log has taken too long"):
                connection.handle_event(instance, "log")
            # The handlers come to their end, and have nothing to say any more.
            for _ in range(20):
                assert connection.call("plugin.GetPluginNames") == ["author", "hello"]
                time.sleep(0.1)
            assert not connection.has_data()


def test_no_started_instance_is_told_late(start: Start) -> None:
    server = start("--answer-timeout", "0.5")
    source = "import time\ndef start(self, config):\n    time.sleep(1.2)\n"
    with server.kong() as kong:
        with kong.connect() as connection:
            connection.request(
                "plugin.StartInstance", {"Name": "author", "Config": json.dumps({"source": source})}
            )
            assert connection.is_closed_by_server(), "a late answer"
        assert kong.call("plugin.GetPluginNames") == ["author", "hello"]


def test_a_second_pdk_call_counts_from_its_step(start: Start) -> None:
    """What counts is the time of each answer, not that of the whole event."""
    server = start("--answer-timeout", "1")
    source = (
        "import time\ndef access(self, kong):\n"
        "    for _ in range(3):\n        time.sleep(0.5)\n        kong.request.get_method()\n"
    )
    with server.kong() as kong:
        assert len(kong.run_event(kong.start_author(source)).calls) == 3


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--event-timeout", "-1"), ("--handler-timeout", "-0.5"), ("--graceful-timeout", "nan"),
     ("--max-events", "0"), ("--max-connections", "-1"), ("--max-message", "0"),
     ("--max-depth", "5000")],
)  # fmt: skip
def test_limits_that_are_none(flag: str, value: str) -> None:
    done = run_command(SERVER, "-d", str(PLUGINS), "-p", "/tmp", f"{flag}={value}")
    assert done.returncode == 1
    assert flag[2:].replace("-", "_") in done.stderr and value.lstrip("-0") in done.stderr

"""The event log: a line for each event, in each mode."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from failures import ARGS, failure, indented
from kongwire import Kong
from servers import SERVER, Server, Start, directory_command, run_command, wait_until

ONE_CODEC = True  # what the codecs tell an observer is compared by unit tests

EXIT = "def access(self, kong):\n    kong.response.exit(401, 'no')\n"


def greet(kong: Kong, instance: int) -> bool:
    """Run an event of the plugin hello."""
    return bool(kong.run_event(instance, answers={"kong.request.get_header": "host"}).calls)


def lines(path: Path) -> list[dict[str, Any]]:
    """What the JSON event log says so far; a line that is being written is none yet."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if "\n" in line]


def wait_lines(path: Path, count: int) -> list[dict[str, Any]]:
    wait_until(lambda: len(lines(path)) >= count, f"{count} lines in {path}")
    return lines(path)


@pytest.fixture
def kong(start: Start, prefix: Path) -> Iterator[Kong]:
    server: Server = start("--log-format", "json", "--event-log", str(prefix / "events"))
    with server.kong() as kong:
        yield kong
    server.check()


def test_each_event_has_a_line(kong: Kong, prefix: Path) -> None:
    hello = kong.start_instance("hello", {"message": "hi"})
    greet(kong, hello)
    leaving = kong.start_author(EXIT)
    assert kong.run_event(leaving).functions == ["kong.response.exit"]
    failing = kong.start_author(indented("raise ValueError('secret')"))
    with kong.connect() as connection:
        failure(connection, failing)
    found = {line["outcome"]: line for line in wait_lines(prefix / "events", 3)}
    ok, left, failed = found["ok"], found["exit"], found["error"]
    assert (ok["plugin"], ok["phase"], ok["outcome"], ok["calls"]) == ("hello", "access", "ok", 2)
    assert ok["instance"] == hello and ok["event"] and ok["pid"] and 0 < ok["seconds"] < 60
    assert not {"status", "error", "request", "trace"} & set(ok)
    assert (left["plugin"], left["outcome"], left["status"]) == ("author", "exit", 401)
    assert (failed["outcome"], failed["status"], failed["error"]) == ("error", 500, "ValueError")
    assert "secret" not in (prefix / "events").read_text()


def test_a_handler_that_has_had_its_time(start: Start, prefix: Path) -> None:
    path = prefix / "events"
    server = start("--log-format", "json", "--event-log", str(path), "--handler-timeout", "0.2")
    with server.kong() as kong:
        source = "import time\ndef access(self, kong):\n    time.sleep(1.6)\n"
        turn = kong.handle_event(kong.start_author(source))
        while turn.function == "kong.log.err":  # where the handler could be interrupted
            turn = kong.step(turn.event_id)
        assert (turn.function, turn.args) == ("kong.response.exit", ARGS)
        (line,) = wait_lines(path, 1)
    assert (line["outcome"], line["status"]) == ("timeout", 500)


def test_a_handler_that_raises_something_else_when_it_has_had_its_time(
    start: Start, prefix: Path
) -> None:
    path = prefix / "events"
    server = start("--log-format", "json", "--event-log", str(path), "--handler-timeout", "0.2")
    source = """\
import time
def access(self, kong):
    try:
        time.sleep(2.2)
        kong.request.get_host()
    finally:
        raise ValueError("in its place")
"""
    with server.kong() as kong:
        turn = kong.handle_event(kong.start_author(source))
        while turn.function == "kong.log.err":  # where the handler could be interrupted
            turn = kong.step(turn.event_id)
        assert (turn.function, turn.args) == ("kong.response.exit", ARGS)
        (line,) = wait_lines(path, 1)
    assert (line["outcome"], line["error"], line["status"]) == ("timeout", "ValueError", 500)


def test_an_event_that_kong_gives_up(start: Start, prefix: Path) -> None:
    path = prefix / "events"
    server = start("--log-format", "json", "--event-log", str(path), "--event-timeout", "0")
    with server.kong() as kong:
        turn = kong.handle_event(kong.start_instance("hello", {"message": "hi"}))
        assert turn.function == "kong.request.get_header"
        (line,) = wait_lines(path, 1)
    assert (line["outcome"], line["calls"]) == ("abandoned", 1)


def test_an_event_for_which_there_is_no_room(start: Start, prefix: Path) -> None:
    path = prefix / "events"
    flags = ("--log-format", "json", "--event-log", str(path), "--max-events", "1")
    server = start(*flags)
    with server.kong() as kong:
        instance = kong.start_instance("hello", {"message": "hi"})

        def shed() -> bool:
            turns.append(kong.handle_event(instance))
            return turns[-1].function == "kong.response.exit"

        turns: list[Any] = []
        wait_until(shed, "a worker without room")
        for turn in turns[:-1]:
            while not turn.is_return:
                turn = kong.step(turn.event_id, "host")
        found = wait_lines(path, len(turns))
    (line,) = [line for line in found if line["outcome"] == "shed"]
    assert (line["phase"], line["instance"], line["calls"]) == ("access", instance, 0)


def test_the_id_of_the_request_is_asked_for(start: Start, prefix: Path) -> None:
    path = prefix / "events"
    flags = ("--log-format", "json", "--event-log", str(path), "--event-log-request-id")
    server = start(*flags)
    with server.kong() as kong:
        instance = kong.start_author("def access(self, kong): pass\ndef log(self, kong): pass\n")
        answers = {"kong.nginx.get_var": lambda name: f"id of {name}"}
        assert kong.run_event(instance, answers=answers).functions == ["kong.nginx.get_var"]
        assert kong.run_event(instance, "log").functions == []
        first, second = sorted(wait_lines(path, 2), key=lambda line: line["phase"])
    assert first["request"] == "id of kong_request_id"
    assert "request" not in second


def test_a_request_whose_id_never_comes(start: Start, prefix: Path) -> None:
    """The question is a PDK call, and ends as one of the plugin's does."""
    path = prefix / "events"
    server = start(
        "--log-format", "json", "--event-log", str(path), "--event-log-request-id",
        "--event-timeout", "0",
    )  # fmt: skip
    with server.kong() as kong:
        instance = kong.start_author(EXIT)
        assert kong.handle_event(instance).function == "kong.nginx.get_var"
        (line,) = wait_lines(path, 1)
        assert (line["outcome"], line["calls"]) == ("abandoned", 1)


def test_slow_ones_as_text_on_standard_output(start: Start) -> None:
    server = start("--event-log", "-", "--event-log-slow", "30")
    with server.kong() as kong:
        greet(kong, kong.start_instance("hello", {"message": "hi"}))
        with kong.connect() as connection:
            failure(connection, kong.start_author(indented("raise KeyError")))
        wait_until(lambda: "error=KeyError" in server.log, "the line")
    assert "outcome=ok" not in server.log
    assert " plugin=author phase=access outcome=error " in server.log


def test_the_last_lines_are_written_at_the_end(start: Start, prefix: Path) -> None:
    path = prefix / "events"
    server = start("--log-format", "json", "--event-log", str(path))
    with server.kong() as kong:
        instance = kong.start_instance("hello", {"message": "hi"})
        for _ in range(50):
            greet(kong, instance)
    server.stop()
    assert len(lines(path)) == 50


def test_a_log_that_is_rotated_under_load(start: Start, prefix: Path) -> None:
    path, old = prefix / "events", prefix / "events.1"
    server = start("--log-format", "json", "--event-log", str(path))
    with server.kong() as first:
        instance = first.start_instance("hello", {"message": "hi"})
        stop = threading.Event()
        counts: list[int] = []

        def drive() -> None:
            count = 0
            with server.kong() as kong:
                while not stop.is_set():
                    greet(kong, instance)
                    count += 1
            counts.append(count)

        threads = [threading.Thread(target=drive) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            wait_lines(path, 20)
            path.rename(old)
            before = len(lines(path))
            wait_lines(path, before + 20)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    server.stop()
    assert len(lines(path)) + len(lines(old)) == sum(counts)


@pytest.mark.modes("processes")
def test_an_instance_that_cannot_be_had_in_a_worker(start: Start, prefix: Path) -> None:
    path = prefix / "events"
    source = """\
import os
def start(self, config):
    os.mkdir(config["once"])
def access(self, kong):
    pass
"""
    server = start("--log-format", "json", "--event-log", str(path))
    with server.kong() as kong:
        instance = kong.start_author(source, once=str(prefix / "once"))

        def refused() -> bool:
            with kong.connect() as connection:  # each is for some worker
                turn = connection.handle_event(instance)
                if turn.is_return:
                    return False
                return connection.step(turn.event_id).function == "kong.response.exit"

        wait_until(refused, "the other worker")
        wait_until(lambda: "outcome" in path.read_text() and "RPCError" in path.read_text(), "it")
    (line,) = [line for line in lines(path) if line["outcome"] == "error"]
    assert (line["instance"], line["status"], line["error"]) == (instance, 500, "RPCError")


@pytest.mark.modes("processes")
def test_workers_that_die_leave_whole_lines(start: Start, prefix: Path) -> None:
    path = prefix / "events"
    server = start("--log-format", "json", "--event-log", str(path))
    with server.kong() as kong:
        instance = kong.start_instance("hello", {"message": "hi"})
        greet(kong, instance)
        (line,) = wait_lines(path, 1)
        os.kill(line["pid"], signal.SIGKILL)
        wait_until(lambda: line["pid"] not in server.workers() or greet(kong, instance), "another")
        wait_until(lambda: greet(kong, instance) and len(lines(path)) > 3, "further lines")


@pytest.mark.modes("processes")
@pytest.mark.one_process
def test_a_log_that_is_away_keeps_no_worker_from_being_replaced(start: Start, prefix: Path) -> None:
    folder = prefix / "folder"
    folder.mkdir()
    server = start("--event-log", str(folder / "events"))
    with server.kong() as kong:
        instance = kong.start_instance("hello", {"message": "hi"})
        assert greet(kong, instance)
        folder.rename(prefix / "moved")
        (worker,) = server.workers()
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: worker not in server.workers(), "its end")
        server.wait_log("is ready again")
        assert (
            "kong.response.set_header"
            in kong.run_event(instance, answers={"kong.request.get_header": "host"}).functions
        )
        server.wait_log("its lines are lost until that works")
    assert "cannot be written" in server.log


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--event-log", "/proc/nothing/here"), "the event log /proc/nothing/here cannot be"),
        (("--event-log", ""), "--event-log wants the path of a file"),
        (("--event-log-slow", "1"), "--event-log-slow is of use with --event-log only"),
        (("--event-log-request-id",), "--event-log-request-id is of use with --event-log only"),
        (("--event-log", "-", "--event-log-slow", "-1"), "event_log_slow must be 0 s or more"),
    ],
)
@pytest.mark.parametrize("mode", [(), ("-m", "--workers", "2")], ids=["threads", "processes"])
def test_what_cannot_be_done_ends_the_start(
    prefix: Path, flags: tuple[str, ...], text: str, mode: tuple[str, ...]
) -> None:
    plugins = Path(__file__).parent / "plugins"
    done = run_command(SERVER, "-d", str(plugins), "-p", str(prefix), *mode, *flags)
    assert done.returncode == 1
    assert text in done.stderr and "Traceback" not in done.stderr


def test_standard_output_that_is_closed_ends_the_start(prefix: Path) -> None:
    """Else lines would go into whatever has its descriptor by then."""
    plugins = Path(__file__).parent / "plugins"
    command = directory_command(plugins, prefix, "--event-log", "-")
    done = run_command("sh", "-c", 'exec "$@" >&-', "sh", *command)
    assert done.returncode == 1
    assert "the event log standard output cannot be written" in done.stderr

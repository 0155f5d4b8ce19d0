"""The event log without a server: where lines go, what is in them, and what becomes of trouble."""

from __future__ import annotations

import datetime
import json
import logging
import os
import stat
import threading
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from observed import ended
from servers import wait_until

from kong_pdk.config import ServerConfig
from kong_pdk.exception import ConfigError
from kong_pdk.observing import eventlog
from kong_pdk.observing.base import Record
from kong_pdk.observing.eventlog import EventLog, Line, Target, format_json, format_text

LINE = Line(
    time=1_700_000_000.25, plugin="auth", phase="access", outcome="ok", seconds=0.0012345, calls=3,
    instance=7, event=12, status=None, error="", request="", trace="",
)  # fmt: skip


def start_thread(function: Callable[[], None]) -> None:
    threading.Thread(target=function, daemon=True).start()


def open_log(path: Any, **settings: Any) -> EventLog:
    config = ServerConfig(event_log=str(path), **settings)
    return EventLog(Target(str(path)), config, start_thread, time.sleep)


# --- lines ----------------------------------------------------------------------------------------


def test_text() -> None:
    assert format_text(LINE).decode() == (
        "time=2023-11-14T22:13:20.250Z plugin=auth phase=access outcome=ok seconds=0.001234 "
        f"calls=3 instance=7 event=12 pid={os.getpid()}\n"
    )


def test_json() -> None:
    line = LINE._replace(status=401, error="ValueError", request="ab", trace="cd", event=0)
    raw = format_json(line)
    assert raw.endswith(b"}\n") and raw.count(b"\n") == 1
    assert json.loads(raw) == {
        "time": "2023-11-14T22:13:20.250Z", "plugin": "auth", "phase": "access", "outcome": "ok",
        "seconds": 0.001234, "calls": 3, "instance": 7, "status": 401, "error": "ValueError",
        "request": "ab", "trace": "cd", "pid": os.getpid(),
    }  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        LINE,
        LINE._replace(plugin="", event=0, outcome="shed"),
        LINE._replace(status=401, error="E", request="r", trace="t", seconds=12.5),
        LINE._replace(time=1_700_000_000.9999),
    ],
)
def test_both_forms_say_the_same(line: Line) -> None:
    text = dict(pair.split("=") for pair in format_text(line).decode().split())
    fields = json.loads(format_json(line))
    assert list(text) == list(fields)
    assert float(text.pop("seconds")) == fields.pop("seconds")
    assert text == {name: str(value) for name, value in fields.items()}


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain-1.2_x", "plain-1.2_x"),
        ("two words", '"two words"'),
        ('a"b', '"a\\"b"'),
        ("a=b", '"a=b"'),
        ("line\nbreak", '"line\\nbreak"'),
        ("tab\x1b[31m", '"tab\\u001b[31m"'),
        ("\udc80", '"\\udc80"'),
        ("é", '"\\u00e9"'),
    ],
)
def test_no_value_can_forge_another_one(value: str, written: str) -> None:
    line = format_text(LINE._replace(request=value))
    assert f" request={written} " in line.decode()
    assert line.count(b"\n") == 1
    assert json.loads(format_json(LINE._replace(request=value)))["request"] == value


# --- where they go --------------------------------------------------------------------------------


def test_a_file_is_appended_to_and_is_not_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "events"
    former = os.umask(0)
    try:
        Target(str(path)).write([b"one\n"])
    finally:
        os.umask(former)
    Target(str(path)).write([b"two\n", b"three\n"])
    assert path.read_text() == "one\ntwo\nthree\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("deleted", [False, True])
def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path, deleted: bool) -> None:
    path, old = tmp_path / "events", tmp_path / "old"
    target = Target(str(path))
    target.write([b"one\n"])
    path.rename(old)
    if deleted:
        old.unlink()
    target.reopen_if_moved()
    target.write([b"two\n"])
    target.reopen_if_moved()
    assert path.read_text() == "two\n"


def test_a_file_that_cannot_be_opened_anew_is_written_on(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    target = Target(str(folder / "events"))
    folder.rename(tmp_path / "moved")
    with pytest.raises(OSError):
        target.reopen_if_moved()
    target.write([b"still\n"])
    assert (tmp_path / "moved" / "events").read_text() == "still\n"


def test_what_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path / "missing" / "events", tmp_path, fifo):
        with pytest.raises(ConfigError, match=r"--event-log") as caught:
            Target(str(path))
        assert str(path) in str(caught.value)


def test_a_log_that_need_not_be_there_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a worker that takes the place of another: requests wait for it."""
    folder = tmp_path / "folder"
    path = folder / "events"
    log = EventLog(Target(str(path), False), ServerConfig(), start_thread, time.sleep)
    log.end(ended(), 0.1, False)
    wait_until(lambda: log._trouble, "the failure")
    log.tick()
    folder.mkdir()
    log.end(ended(), 0.1, False)
    wait_until(lambda: not log._trouble, "the end of the trouble")
    log.close()
    assert path.read_text().count("\n") == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"the event log: {path} cannot be written: No such file or directory: its lines are lost "
        f"until that works",
        "the event log is written again",
    ]


def test_a_pipe_gets_whole_lines_in_pieces_that_the_kernel_does_not_mix(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        target = Target(str(fifo))
        sizes: list[int] = []
        write = os.write
        lines = [b"%0300d\n" % number for number in range(60)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                eventlog.os, "write", lambda fd, data: sizes.append(len(data)) or write(fd, data)
            )
            target.write(lines)
        target.reopen_if_moved()
        assert max(sizes) <= 4096 and sum(sizes) == 60 * 301 and all(n % 301 == 0 for n in sizes)
        assert os.read(reader, 1 << 20) == b"".join(lines)
    finally:
        os.close(reader)


def test_half_a_line_does_not_spoil_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events"
    target = Target(str(path))
    write = os.write
    room = [5]

    def full(fd: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        size, room[0] = min(room[0], len(data)), 0
        return write(fd, data[:size])

    monkeypatch.setattr(eventlog.os, "write", full)
    with pytest.raises(OSError, match="No space"):
        target.write([b"one\n", b"two\n"])
    monkeypatch.setattr(eventlog.os, "write", write)
    target.write([b"three\n"])
    assert path.read_text() == "one\nt\nthree\n"


# --- the observer ---------------------------------------------------------------------------------


def test_lines_are_written_by_another_thread(tmp_path: Path) -> None:
    path = tmp_path / "events"
    log = open_log(path, event_log_format="json")
    log.end(ended(exited=401, calls=2), 0.5, False)
    wait_until(path.read_text, "the first line")
    log.end(ended(error="ValueError", exited=500), 0.25, True)
    log.turn_away("", "access", 9, "shed")
    log.close()
    first, second, third = [json.loads(line) for line in path.read_text().splitlines()]
    assert (first["outcome"], first["status"], first["calls"]) == ("exit", 401, 2)
    assert (first["plugin"], first["event"]) == ("auth", 12)
    noted = datetime.datetime.fromisoformat(first["time"].replace("Z", "+00:00"))
    assert abs(time.time() - noted.timestamp()) < 600
    assert (second["outcome"], second["error"], second["seconds"]) == ("error", "ValueError", 0.25)
    assert (third["outcome"], third["instance"]) == ("shed", 9)
    assert "plugin" not in third and "event" not in third


def test_slow_ones_only(tmp_path: Path) -> None:
    path = tmp_path / "events"
    log = open_log(path, event_log_slow=0.5)
    log.end(ended(), 0.49, False)
    log.end(ended(exited=403), 0.1, False)
    log.end(ended(), 0.5, False)
    log.end(ended(abandoned=True), 0.1, False)
    log.close()
    outcomes = [line.split("outcome=")[1].split()[0] for line in path.read_text().splitlines()]
    assert outcomes == ["ok", "abandoned"]


@pytest.mark.parametrize("status", ["401", 4.5, None, True])
def test_a_status_that_is_none_is_left_out(tmp_path: Path, status: Any) -> None:
    path = tmp_path / "events"
    log = open_log(path)
    log.end(ended(exited=status), 0.1, False)
    log.close()
    assert "status" not in path.read_text()


def test_the_id_of_the_request(tmp_path: Path) -> None:
    asked: list[Any] = []

    class Asked:
        phase = "access"
        record = Record()

        def call(self, function: str, args: Any) -> Any:
            asked.append((function, args))
            return "f00", None

    event: Any = Asked()
    log = open_log(tmp_path / "events", event_log_request_id=True)
    log.begin(event)
    assert asked == [("kong.nginx.get_var", ("kong_request_id",))]
    assert event.record.request == "f00"
    event.phase = "log"  # the variable is out of reach there
    log.begin(event)
    assert len(asked) == 1
    log.close()
    quiet = open_log(tmp_path / "events")
    event.phase = "access"
    quiet.begin(event)
    assert len(asked) == 1
    quiet.close()


def test_lines_that_are_not_taken_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(eventlog, "MAX_WAITING", 3)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        log = open_log(fifo)
        entered, leave = threading.Event(), threading.Event()

        def write(lines: list[bytes]) -> None:
            entered.set()
            leave.wait(60)

        monkeypatch.setattr(log._target, "write", write)
        log.end(ended(), 0.1, False)
        assert entered.wait(60)
        with caplog.at_level(logging.WARNING):
            for _ in range(5):
                log.end(ended(), 0.1, False)
            log.tick()
        assert [record.getMessage() for record in caplog.records] == [
            f"the event log: 2 lines are lost, because {fifo} takes them too slowly"
        ]
        leave.set()
        log.close()
    finally:
        os.close(reader)


def test_trouble_and_its_end_are_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = open_log(tmp_path / "events")
    written: list[bytes] = []
    broken = [True]

    def write(lines: list[bytes]) -> None:
        if broken[0]:
            raise OSError(28, "No space left on device")
        written.extend(lines)

    monkeypatch.setattr(log._target, "write", write)
    with caplog.at_level(logging.WARNING):
        log.end(ended(), 0.1, False)
        wait_until(lambda: log._trouble, "the failure")
        log.tick()
        log.tick()
        broken[0] = False
        log.end(ended(), 0.1, False)
        wait_until(lambda: written, "a line")
        wait_until(lambda: not log._trouble, "the end of the trouble")
        log.tick()
        log.close()
    assert [record.getMessage() for record in caplog.records] == [
        f"the event log: {tmp_path}/events cannot be written: No space left on device: its lines "
        f"are lost until that works",
        "the event log is written again",
    ]


def test_a_log_that_goes_on_in_the_file_that_was_moved_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not said that lines are lost which are not."""
    folder, moved = tmp_path / "folder", tmp_path / "moved"
    folder.mkdir()
    log = open_log(folder / "events")
    folder.rename(moved)
    log.end(ended(), 0.1, False)
    wait_until(lambda: log._trouble, "the failure")
    log.tick()
    log.close()
    assert (moved / "events").read_text().count("\n") == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"the event log: {folder}/events was moved away, and there cannot be another one: No such "
        f"file or directory: lines go into the old one until that works"
    ]


def test_a_line_that_cannot_be_made_does_not_end_the_log(tmp_path: Path) -> None:
    path = tmp_path / "events"
    log = open_log(path)
    broken: Any = "no number"
    log._note(LINE._replace(time=broken))
    wait_until(lambda: log._trouble, "the failure")
    log.end(ended(), 0.1, False)
    wait_until(path.read_text, "a line")
    log.close()


def test_many_threads(tmp_path: Path) -> None:
    path = tmp_path / "events"
    log = open_log(path)

    def note() -> None:
        for _ in range(2000):
            log.end(ended(), 0.1, False)

    threads = [threading.Thread(target=note) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    lines = path.read_text().splitlines()
    assert len(lines) == 8000
    assert all(line.startswith("time=") and " pid=" in line for line in lines)

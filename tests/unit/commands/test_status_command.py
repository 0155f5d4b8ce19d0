"""``kong-pdk status``: what it makes of what answers, and of what does not."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import msgpack
import pytest
from servers import short_directory

from kong_pdk import _wire
from kong_pdk._codec import Request
from kong_pdk.commands import status
from kong_pdk.commands.main import main
from kong_pdk.config import ServerConfig
from kong_pdk.plugins import define_plugin
from kong_pdk.runtime.service import Service

#: A peer gets what was asked and returns what to send, None to close, "wait" to say nothing.
Peer = Callable[[bytes], Any]


class Handling:
    def __init__(self, config: Any) -> None: ...
    def access(self, kong: Any) -> None: ...
    def log(self, kong: Any) -> None: ...


def real_status(*names: str) -> dict[str, Any]:
    """What a server says of itself."""
    plugins = {name: define_plugin(name, Handling, "1.2.3", 5, (), where="test") for name in names}
    service = Service(plugins, ServerConfig())
    rows = service.table.rows(0, names)
    tally = service.table.tally()
    for seconds in (0.0004, 0.0008, 2.0):
        tally.begin(rows[names[0]]["access"])
        tally.end(rows[names[0]]["access"], seconds, 3, seconds > 1, False)
    tally.begin(rows[names[0]]["access"])
    reply = service.answer(Request(_wire.CALL, 1, "plugin.GetStatus", []))
    found = msgpack.unpackb(reply)[3]
    assert isinstance(found, dict)
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_directory() as path:
        yield path


@pytest.fixture
def listen(folder: Path) -> Iterator[Callable[[str, Peer], str]]:
    """Have somebody listen at a name; returns the path."""
    ends = threading.Event()
    with contextlib.ExitStack() as stack:
        stack.callback(ends.set)

        def listen(name: str, peer: Peer) -> str:
            path = str(folder / name)
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(path)
            listener.listen()

            def serve() -> None:
                while True:
                    try:
                        sock, _ = listener.accept()
                    except OSError:
                        return
                    with sock:
                        answer = peer(sock.recv(1000))
                        if answer == "wait":
                            ends.wait(30)
                        elif answer is not None:
                            with contextlib.suppress(OSError):
                                sock.sendall(answer)

            threading.Thread(target=serve, daemon=True).start()
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            return path

        yield listen


def answering(result: Any, error: Optional[str] = None, before: bytes = b"") -> Peer:
    def peer(asked: bytes) -> bytes:
        assert msgpack.unpackb(asked) == [0, 1, "plugin.GetStatus", []]
        return before + msgpack.packb([1, 1, error, result])

    return peer


def test_a_table(listen: Any, capsys: Any) -> None:
    told = real_status("my-plugin", "other")
    path = listen("one.sock", answering(told))
    assert main(["status", "--socket", path]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].startswith(f"{path}: kong-pdk {told['Version']}, pid {os.getpid()}, threads, ")
    table = [line.split() for line in lines]
    columns = "PLUGIN VERSION INSTANCES PHASE EVENTS IN FLIGHT ERRORS REFUSED ABANDONED CALLS"
    assert f"{columns} P50 ms P90 ms P99 ms".split() in table
    # One event is under way, one has failed; the median is in the bucket that ends at 1 ms.
    (row,) = [row for row in table if row[:1] == ["my-plugin"]]
    assert row[:10] == ["my-plugin", "1.2.3", "0", "access", "4", "1", "1", "0", "0", "9"]
    assert 0.5 < float(row[10]) <= 1 and 1000 < float(row[12]) <= 2500
    assert ["log", *["0", "0", "0", "0", "0", "0", "-", "-", "-"]] in table
    assert ["0", str(os.getpid()), "ready", "-", *["0"] * 7] in table
    positions = {line.index("access") for line in lines if "access" in line}
    assert len(positions) == 1  # it is aligned


def test_json(listen: Any, capsys: Any) -> None:
    told = real_status("one")
    path = listen("one.sock", answering(told))
    assert main(["status", "--socket", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == told


def test_what_a_server_says_before_is_passed_over(listen: Any, capsys: Any) -> None:
    """With --announce-pid its pid comes first."""
    before = msgpack.packb([2, "serverPid", 77])
    path = listen("one.sock", answering(real_status("one"), before=before))
    assert main(["status", "--socket", path]) == 0
    assert "one" in capsys.readouterr().out


def test_an_answer_in_pieces(listen: Any, capsys: Any) -> None:
    told = {**real_status("one"), "More": "x" * 1_000_000}
    path = listen("one.sock", answering(told))
    assert main(["status", "--socket", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == told


def test_by_name(listen: Any, folder: Path, capsys: Any) -> None:
    listen("one.socket", answering(real_status("one")))
    listen("two.sock", answering(real_status("two")))
    prefix = ["--kong-prefix", str(folder)]
    assert main(["status", "one", "two.sock", *prefix]) == 0
    out = capsys.readouterr().out
    assert str(folder / "one.socket") in out and str(folder / "two.sock") in out
    assert main(["status", "one", "three", *prefix]) == 1
    out, err = capsys.readouterr()
    assert str(folder / "one.socket") in out
    assert err.startswith(f"kong-pdk status: {folder}/three.socket: is not there: ")


def test_a_name_with_one_dead_socket(listen: Any, folder: Path, capsys: Any) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "one.socket"))
    listen("one.sock", answering(real_status("one")))
    assert main(["status", "one", "-p", str(folder)]) == 0
    assert "one.sock" in capsys.readouterr().out


def test_all_under_a_prefix(listen: Any, folder: Path, capsys: Any) -> None:
    """Each server once, and nothing of what is no server."""
    first, second = real_status("first"), {**real_status("second"), "Pid": 77}
    for name in ("a.sock", "a.socket"):
        listen(name, answering(first))
    listen("b.sock", answering(second))
    listen("kong.sock", lambda asked: b"HTTP/1.1 400 Bad Request\r\n\r\n")
    (folder / "file.sock").write_text("no socket")
    listen("c.other", answering(second))
    assert main(["status", "-p", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {str(folder / "a.sock"): first, str(folder / "b.sock"): second}


def test_nothing_under_a_prefix(folder: Path, listen: Any, capsys: Any) -> None:
    assert main(["status", "-p", str(folder)]) == 1
    assert f"no socket in {folder}: is the server running?" in capsys.readouterr().err
    assert main(["status", "-p", str(folder / "absent")]) == 1
    assert "cannot look into" in capsys.readouterr().err
    listen("kong.sock", lambda asked: None)
    assert main(["status", "-p", str(folder)]) == 1
    assert "kong.sock: the connection was closed: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("peer", "text"),
    [
        (lambda asked: None, "the connection was closed: this user is not among those"),
        (lambda asked: b"HTTP/1.1 400 Bad Request\r\n\r\n", "listens there is no plugin server"),
        (lambda asked: b"\xc1", "listens there is no plugin server"),
        (lambda asked: b"\x93\x01\x01\xc0", "listens there is no plugin server"),
        (answering(None, "too much to do"), "the server says: too much to do"),
        (answering({"Pid": 1, "Plugins": {}}), "is none of kong-pdk, or an older one"),
        (answering([1]), "is none of kong-pdk, or an older one"),
        (lambda asked: "wait", "no answer within 0.2 s (--timeout)"),
    ],
    ids=["closed", "http", "garbage", "short", "error", "another", "list", "silent"],
)
def test_what_is_wrong_at_a_socket(listen: Any, capsys: Any, peer: Peer, text: str) -> None:
    path = listen("one.sock", peer)
    assert main(["status", "--socket", path, "--timeout", "0.2"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"kong-pdk status: {path}: ") and text in err


def test_a_trickle_does_not_hold_it_up(folder: Path, capsys: Any) -> None:
    """The time-out is for all of the answer."""
    path, stop = str(folder / "one.sock"), threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def trickle() -> None:
            sock, _ = listener.accept()
            with sock, contextlib.suppress(OSError):
                while not stop.wait(0.02):
                    sock.send(b"\xdc" if not stop.is_set() else b"")

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        assert main(["status", "--socket", path, "--timeout", "0.3"]) == 1
        stop.set()
        thread.join(30)
    assert "one.sock: " in capsys.readouterr().err


def test_sockets_that_are_not_served(folder: Path, capsys: Any) -> None:
    path = str(folder / "one.sock")
    assert main(["status", "--socket", path]) == 1
    assert f"{path}: is not there: " in capsys.readouterr().err
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    assert main(["status", "--socket", path]) == 1
    assert f"{path}: nobody listens: " in capsys.readouterr().err
    assert main(["status", "--socket", path + "x" * 200]) == 1
    assert "too long" in capsys.readouterr().err


def test_a_user_who_may_not() -> None:
    """As root nothing is forbidden, so only the words are looked at."""
    text = status._explain(PermissionError(13, "Permission denied"), 2.0)
    assert "run this as the server's user" in text and "--socket-mode" in text


def test_what_a_plugin_says_does_nothing_to_the_terminal(listen: Any, capsys: Any) -> None:
    told = {**real_status("one"), "Version": "1\x1b[2J\r"}
    path = listen("one.sock", answering(told))
    assert main(["status", "--socket", path]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--timeout", "--watch"])
@pytest.mark.parametrize("value", ["0", "-1", "x", "nan", "inf"])
def test_times_that_are_none(flag: str, value: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["status", f"{flag}={value}"])
    assert exit.value.code == 2
    assert "no number of seconds above 0" in capsys.readouterr().err


def test_names_and_a_socket(capsys: Any) -> None:
    assert main(["status", "one", "--socket", "/x"]) == 1
    assert "not both" in capsys.readouterr().err


def test_watching(listen: Any, capsys: Any, monkeypatch: Any) -> None:
    """Until it is interrupted; a server that does not answer once is no reason to end."""
    peer = answering(real_status("one"))
    turns = iter([peer, lambda asked: None, peer])
    path = listen("one.sock", lambda asked: next(turns)(asked))
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(status.time, "sleep", sleep)
    assert main(["status", "--socket", path, "--watch", "5"]) == 0
    out, err = capsys.readouterr()
    assert slept == [5.0, 5.0, 5.0]
    assert out.count("kong-pdk ") == 2 and err.count("closed") == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h"), (90061, "1 d 1 h")],
)
def test_times_for_people(seconds: float, text: str) -> None:
    assert status._time(seconds) == text

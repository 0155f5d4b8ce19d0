"""The server's sockets: which ones, what may lie in their place, and who removes them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from kongwire import Connection, Kong
from servers import (
    DIRECTORY_SOCKETS,
    EXAMPLES,
    Flavour,
    Server,
    Start,
    accepts,
    directory_command,
    run_command,
    wait_until,
)

PLUGINS = Path(__file__).parent / "plugins"
ONE_CODEC = True
HELLO = EXAMPLES / "py-hello.py"


def pid_behind(path: Path) -> int:
    with Kong(str(path)) as kong:
        return int(kong.call("plugin.GetStatus")["Pid"])


@contextlib.contextmanager
def live_socket(path: Path) -> Iterator[socket.socket]:
    """A socket on which somebody listens who is no server of ours."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen(5)
        yield sock


def stale_socket(path: Path) -> None:
    """What a server leaves behind that was killed."""
    with live_socket(path):
        pass
    assert path.is_socket()
    assert not accepts(str(path))


def test_the_directory_server_serves_both(start: Start) -> None:
    server = start()
    assert {Path(path).name for path in server.paths} == set(DIRECTORY_SOCKETS)
    assert [pid_behind(Path(path)) for path in server.paths] == [server.pid] * 2


def test_the_embedded_server_serves_both(start_embedded: Start) -> None:
    server = start_embedded(HELLO, sockets=("py-hello.sock", "py-hello.socket"))
    assert [pid_behind(Path(path)) for path in server.paths] == [server.pid] * 2


def test_both_sockets_are_one_server(start: Start) -> None:
    server = start()
    with Kong(server.paths[0]) as first, Kong(server.paths[1]) as second:
        instance = first.start_author("def access(self, kong): kong.log('x')")
        turn = second.handle_event(instance)
        assert first.step(turn.event_id).is_return


def test_stale_sockets_are_replaced(start: Start, prefix: Path) -> None:
    for name in DIRECTORY_SOCKETS:
        stale_socket(prefix / name)
    server = start()
    assert [pid_behind(Path(path)) for path in server.paths] == [server.pid] * 2


def test_what_a_killed_server_has_left_is_replaced(start: Start) -> None:
    first = start()
    first.kill()
    assert all(Path(path).is_socket() for path in first.paths)
    second = start()
    assert pid_behind(Path(second.paths[0])) == second.pid


@pytest.mark.parametrize("name", DIRECTORY_SOCKETS)
def test_a_live_socket_is_refused_and_unharmed(prefix: Path, name: str) -> None:
    with live_socket(prefix / name):
        done = run_command(*directory_command(PLUGINS, prefix))
        assert (done.returncode, done.stdout) == (1, "")
        assert f"{prefix / name} is in use" in done.stderr
        assert "--socket-name" in done.stderr
        assert "Traceback" not in done.stderr
        assert accepts(str(prefix / name))
        assert [path.name for path in prefix.iterdir()] == [name]  # the other one is not left


def test_a_live_server_is_refused_and_unharmed(
    start: Start, prefix: Path, flavour: Flavour
) -> None:
    server = start()
    with server.kong() as kong:
        turn = kong.handle_event(kong.start_author("def access(self, kong): kong.log('x')"))
        for _ in range(3):
            done = run_command(*directory_command(PLUGINS, prefix, *flavour.flags))
            assert (done.returncode, done.stdout) == (1, "")
            assert "in use" in done.stderr
        assert kong.step(turn.event_id).is_return
    assert [pid_behind(Path(path)) for path in server.paths] == [server.pid] * 2


def test_a_server_that_does_not_accept_is_refused(start: Start, prefix: Path) -> None:
    server = start("--listen-queue-size", "1", "--socket-name", "a.socket", sockets=("a.socket",))
    assert pid_behind(Path(server.paths[0])) == server.pid
    server.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: server.state() == "T", "the server is stopped")
        with Connection(server.paths[0]) as first, Connection(server.paths[0]) as second:
            # Its queue is full now.
            done = run_command(*directory_command(PLUGINS, prefix, "--socket-name", "a.socket"))
            assert (done.returncode, done.stdout) == (1, "")
            assert "in use" in done.stderr
            server.send_signal(signal.SIGCONT)
            for connection in (first, second):
                assert connection.call("plugin.GetStatus")["Pid"] == server.pid
    finally:
        server.send_signal(signal.SIGCONT)


def regular(path: Path) -> None:
    path.write_text("precious")


def empty(path: Path) -> None:
    path.touch()


def folder(path: Path) -> None:
    path.mkdir()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link_to_file(path: Path) -> None:
    path.symlink_to(__file__)


def dangling_link(path: Path) -> None:
    path.symlink_to("/nonexistent/file")


def link_to_stale_socket(path: Path) -> None:
    stale_socket(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize(
    "make", [regular, empty, folder, fifo, link_to_file, dangling_link, link_to_stale_socket]
)
@pytest.mark.parametrize("name", DIRECTORY_SOCKETS)
def test_whatever_is_no_socket_is_left_alone(
    prefix: Path, flavour: Flavour, make: object, name: str
) -> None:
    path = prefix / name
    make(path)  # type: ignore[operator]
    before, names = os.lstat(path), sorted(prefix.iterdir())
    done = run_command(*directory_command(PLUGINS, prefix, *flavour.flags))
    assert (done.returncode, done.stdout) == (1, "")
    assert str(path) in done.stderr
    assert "no socket" in done.stderr
    assert "Traceback" not in done.stderr
    after = os.lstat(path)
    assert (after.st_ino, after.st_mode, after.st_size) == (
        before.st_ino, before.st_mode, before.st_size,
    )  # fmt: skip
    assert sorted(prefix.iterdir()) == names


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_prefix_that_cannot_be_written(prefix: Path) -> None:
    prefix.chmod(0o500)
    done = run_command(*directory_command(PLUGINS, prefix))
    assert (done.returncode, done.stdout) == (1, "")
    assert "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr


def test_only_what_is_still_ones_own_is_removed(start: Start) -> None:
    """The Docker image's entry point deletes sockets, and a new server may have come."""
    server = start()
    first, second = map(Path, server.paths)
    first.unlink()
    second.unlink()
    with live_socket(second):
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert accepts(str(second))
    assert not first.exists()
    second.unlink()


def test_a_file_in_the_place_of_the_socket_is_not_removed(start: Start) -> None:
    server = start()
    first, second = map(Path, server.paths)
    first.unlink()
    first.write_text("precious")
    server.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    assert first.read_text() == "precious"
    assert not second.exists()
    first.unlink()


def test_a_deleted_socket_does_not_stop_the_server(start: Start) -> None:
    server = start()
    with server.kong() as kong:
        kong.call("plugin.GetPluginNames")
        for path in server.paths:
            Path(path).unlink()
        kong.call("plugin.GetPluginNames")
        server.stop()


def test_connections_in_the_queue_at_the_end_are_served(start: Start) -> None:
    """They were accepted by the kernel, so Kong has sent its request already."""
    server = start()
    with server.kong() as kong, server.kong() as waiting:
        instance = kong.start_author("def access(self, kong): kong.log('x')")
        server.send_signal(signal.SIGSTOP)
        wait_until(lambda: server.state() == "T", "the server is stopped")
        connection = waiting.connect()
        msgid = connection.send_event(instance)
        server.send_signal(signal.SIGTERM)
        server.send_signal(signal.SIGCONT)
        turn = connection.turn(msgid)
        assert connection.step(turn.event_id).is_return
    assert server.wait() == 0


def test_the_log_names_both_sockets(start: Start) -> None:
    server: Server = start()
    server.wait_log(" and ".join(server.paths))
    assert all(stat.S_ISSOCK(os.lstat(path).st_mode) for path in server.paths)

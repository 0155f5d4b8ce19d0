"""Listener: stale sockets are replaced, live ones and other files are left alone."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kong_pdk.exception import ListenError
from kong_pdk.server import listener as module
from kong_pdk.server.listener import Listener, open_listeners


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: the kernel takes 107 bytes for a socket's path."""
    path = Path(tempfile.mkdtemp(prefix="kp-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def path(folder: Path) -> str:
    return str(folder / "a.sock")


def leave_stale(path: str) -> None:
    """A socket that nobody serves any more, as after a crash."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(path)


def can_connect(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(path)
        except OSError:
            return False
        return True


def test_listen_and_close(path: str) -> None:
    one = Listener(path, 16)
    assert stat.S_ISSOCK(os.lstat(path).st_mode)
    assert one.path == path and one.fileno() >= 0
    assert one.sock.getblocking() is False
    with pytest.raises(BlockingIOError):
        one.sock.accept()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(path)
        accepted, _ = one.sock.accept()
        accepted.close()
    one.close()
    assert not os.path.lexists(path)
    assert one.fileno() == -1
    one.close()


def test_a_stale_socket_is_replaced(path: str) -> None:
    leave_stale(path)
    assert not can_connect(path)
    one = Listener(path, 16)
    assert can_connect(path)
    one.close()


def test_a_live_socket_is_refused(path: str) -> None:
    live = Listener(path, 16)
    before = os.lstat(path).st_ino
    with pytest.raises(ListenError, match=r"in use by another server.*--socket-name") as caught:
        Listener(path, 16)
    assert path in str(caught.value)
    assert isinstance(caught.value, OSError)
    assert os.lstat(path).st_ino == before
    assert can_connect(path)
    live.close()


def test_a_full_queue_is_a_live_socket(path: str) -> None:
    live = Listener(path, 0)
    waiting = []
    while len(waiting) < 10:  # until the kernel takes no more of them
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.setblocking(False)
        waiting.append(client)
        try:
            client.connect(path)
        except BlockingIOError:
            break
    else:
        pytest.fail("the queue is never full")
    try:
        with pytest.raises(ListenError, match="is in use"):
            Listener(path, 16)
        assert os.path.lexists(path)
    finally:
        for client in waiting:
            client.close()
        live.close()


@pytest.mark.parametrize("what", ["file", "folder", "link_to_file", "dangling_link", "fifo"])
def test_what_is_no_socket_is_left_alone(folder: Path, path: str, what: str) -> None:
    if what == "file":
        Path(path).write_text("precious")
    elif what == "folder":
        os.mkdir(path)
    elif what == "link_to_file":
        folder.joinpath("target").write_text("precious")
        os.symlink(folder / "target", path)
    elif what == "dangling_link":
        os.symlink(folder / "nothing", path)
    else:
        os.mkfifo(path)
    before = os.lstat(path)
    with pytest.raises(ListenError, match="there is something that is no socket") as caught:
        Listener(path, 16)
    assert path in str(caught.value)
    assert os.lstat(path) == before


def test_a_missing_folder_is_named(folder: Path) -> None:
    path = str(folder / "missing" / "a.sock")
    with pytest.raises(ListenError, match=r"folder .*/missing does not exist.*--kong-prefix"):
        Listener(path, 16)


def test_a_folder_that_is_a_file(folder: Path) -> None:
    folder.joinpath("file").write_text("")
    with pytest.raises(ListenError, match="Not a directory"):
        Listener(str(folder / "file" / "a.sock"), 16)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(folder: Path, path: str) -> None:
    folder.chmod(0o500)
    with pytest.raises(ListenError, match="Permission denied"):
        Listener(path, 16)
    folder.chmod(0o700)


def test_a_path_that_is_somebody_elses_by_now_is_left(path: str) -> None:
    """At `kong reload` the new server has taken over the path before the old one ends."""
    old = Listener(path, 16)
    os.unlink(path)
    new = Listener(path, 16)
    old.close()
    assert can_connect(path)
    new.close()
    assert not os.path.lexists(path)


def test_a_path_that_is_gone_already(path: str) -> None:
    one = Listener(path, 16)
    os.unlink(path)
    one.close()
    assert not os.path.lexists(path)


def test_removing_the_path_keeps_the_connections_in_the_queue(path: str) -> None:
    one = Listener(path, 16)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(path)
        one.remove_path()
        assert not os.path.lexists(path)
        accepted, _ = one.sock.accept()
        accepted.close()
        leave_stale(path)
        one.remove_path()  # once is enough: what is there now is not ours
        assert os.path.lexists(path)
    one.close()
    assert os.path.lexists(path)


def test_all_sockets_or_none(folder: Path) -> None:
    paths = tuple(str(folder / name) for name in ("a.sock", "b.sock", "c.sock"))
    listeners = open_listeners(paths, 16)
    assert [one.path for one in listeners] == list(paths)
    for one in listeners:
        one.close()
    Path(paths[2]).write_text("in the way")
    with pytest.raises(ListenError, match=r"c\.sock"):
        open_listeners(paths, 16)
    assert sorted(os.listdir(folder)) == ["c.sock"]


# --- kong reload ----------------------------------------------------------------------------------


def processes(monkeypatch: pytest.MonkeyPatch, **parents: tuple[int, str]) -> None:
    """Pretend that each process, by ``p<id>``, has that parent and name; this one is a child of 10.

    It has to be told: no test can be a child of nginx.
    """
    monkeypatch.setattr(os, "getppid", lambda: 10)
    monkeypatch.setattr(module, "_parent", lambda pid: parents.get(f"p{pid}", (0, "")))


NGINX = {"p10": (1, "nginx"), "p20": (1, "nginx"), "p21": (20, "python3")}


@pytest.mark.parametrize(
    ("changes", "is_former"),
    [
        ({}, True),
        ({"p21": (10, "python3")}, False),  # a sibling: two servers of one worker
        ({"p20": (2, "nginx")}, False),  # another Kong's
        ({"p20": (1, "bash")}, False),  # started by hand
        ({"p10": (1, "bash")}, False),
        ({"p10": (0, ""), "p20": (0, "")}, False),  # no /proc: nothing is known
    ],
)
def test_the_server_before_kong_reload(
    monkeypatch: pytest.MonkeyPatch, path: str, changes: dict[str, tuple[int, str]], is_former: bool
) -> None:
    former = Listener(path, 16)
    processes(monkeypatch, **{**NGINX, **changes})
    monkeypatch.setattr(module, "_peer_pid", lambda probe: 21)
    if is_former:
        new = Listener(path, 16)
        former.close()
        assert can_connect(path)
        new.close()
    else:
        with pytest.raises(ListenError, match="in use by another server"):
            Listener(path, 16)
        former.close()


def test_a_peer_that_is_not_known_is_not_kongs_former(monkeypatch: pytest.MonkeyPatch) -> None:
    processes(monkeypatch, **NGINX, p0=(20, "x"))
    assert module._is_kongs_former(21) is True
    assert module._is_kongs_former(0) is False


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc on this system")
def test_what_the_system_says_of_processes(path: str) -> None:
    parent, name = module._parent(os.getpid())
    assert parent == os.getppid()
    assert name == Path("/proc/self/comm").read_text().strip()
    assert module._parent(2**22 + 1) == (0, "")
    live = Listener(path, 16)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.connect(path)
        assert module._peer_pid(probe) == os.getpid()
    live.close()

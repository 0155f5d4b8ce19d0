"""Listener: stale sockets are replaced, live ones and other files are left alone."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest

from kong_pdk.config import MAX_SOCKET_PATH
from kong_pdk.exception import ListenError
from kong_pdk.server import listener as module
from kong_pdk.server.listener import Listener, Permissions, open_listeners


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


# --- permissions ----------------------------------------------------------------------------------


@pytest.fixture
def no_umask() -> Iterator[None]:
    """What nginx as a daemon leaves to those that it starts."""
    before = os.umask(0)
    yield
    os.umask(before)


def permissions_of(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def identity_of(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


@pytest.mark.parametrize(
    ("umask", "mode"), [(0, 0o770), (0o002, 0o770), (0o022, 0o750), (0o077, 0o700)]
)
def test_others_may_nothing_unless_that_is_asked_for(path: str, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        one = Listener(path, 16)
    finally:
        os.umask(before)
    assert permissions_of(path) == mode
    one.close()


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o777, 0o000, 0o020])
@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_permissions_are_what_was_asked_for(path: str, mode: int, umask: int) -> None:
    before = os.umask(umask)
    try:
        one = Listener(path, 16, Permissions(mode))
    except ListenError:
        assert umask == 0o777 and os.geteuid()  # the folder is closed to its owner too
        return
    finally:
        os.umask(before)
    assert permissions_of(path) == mode
    one.close()


@pytest.mark.usefixtures("no_umask")
@pytest.mark.parametrize("before", ["nothing", "stale", "former"])
def test_the_path_is_right_from_the_first_moment(
    monkeypatch: pytest.MonkeyPatch, folder: Path, path: str, before: str
) -> None:
    """Nobody sees it with other permissions, and nobody finds no one listening there."""
    former = None
    if before == "stale":
        leave_stale(path)
    elif before == "former":
        former = Listener(path, 16)
        processes(monkeypatch, **NGINX)
        monkeypatch.setattr(module, "_peer_pid", lambda probe: 21)
    there = identity_of(path) if before != "nothing" else None
    put_in_place, seen = module._put_in_place, []

    def look(new: module._Folder, where: str, found: Optional[module.Identity]) -> None:
        assert found == there
        assert there is None or identity_of(path) == there
        assert os.path.lexists(path) is (there is not None)
        assert permissions_of(new.path) == 0o700
        seen.append(permissions_of(os.path.join(new.path, "a.sock")))
        assert can_connect(os.path.join(new.path, "a.sock"))
        put_in_place(new, where, found)

    monkeypatch.setattr(module, "_put_in_place", look)
    new = Listener(path, 16, Permissions(0o640))
    assert seen == [permissions_of(path)] == [0o640]
    assert os.listdir(folder) == ["a.sock"]
    assert identity_of(path) != there
    if former is not None:
        former.close()
    assert can_connect(path)
    new.close()
    assert os.listdir(folder) == []


def test_one_who_was_faster_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, folder: Path, path: str
) -> None:
    """Two servers that start at the same moment, and find the same: nothing, or a stale socket."""
    find = module._find_replaceable
    for stale in (False, True):
        if stale:
            leave_stale(path)
        faster: list[Listener] = []

        def find_first(where: str, faster: list[Listener] = faster) -> Optional[module.Identity]:
            found = find(where)
            if not faster:
                monkeypatch.setattr(module, "_find_replaceable", find)
                faster.append(Listener(path, 16))
            return found

        monkeypatch.setattr(module, "_find_replaceable", find_first)
        with pytest.raises(ListenError, match="in use by another server"):
            Listener(path, 16)
        (other,) = faster
        assert can_connect(path)
        assert os.listdir(folder) == ["a.sock"]
        other.close()


def test_sockets_that_come_and_go(monkeypatch: pytest.MonkeyPatch, folder: Path, path: str) -> None:
    leave_stale(path)
    monkeypatch.setattr(module, "_find_replaceable", lambda _: (0, 0))
    with pytest.raises(ListenError, match="others keep putting theirs there; stop them"):
        Listener(path, 16)
    assert os.listdir(folder) == ["a.sock"]


def test_a_file_system_without_links_to_sockets(
    monkeypatch: pytest.MonkeyPatch, folder: Path, path: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not here")

    monkeypatch.setattr(os, "link", refuse)
    one = Listener(path, 16)
    assert can_connect(path)
    assert os.listdir(folder) == ["a.sock"]
    one.close()


@pytest.mark.parametrize("deep", [0, 80], ids=["long name", "long folder"])
def test_the_longest_path(folder: Path, monkeypatch: pytest.MonkeyPatch, deep: int) -> None:
    if deep:
        folder = folder / ("d" * (deep - len(str(folder)) - 1))
        folder.mkdir()
        path = str(folder / ("x" * (MAX_SOCKET_PATH - deep - 1)))
    else:  # without its folder it is still too long for some paths that stand for that
        monkeypatch.chdir(folder)
        path = "x" * MAX_SOCKET_PATH
    one = Listener(path, 16, Permissions(0o600))
    assert can_connect(path) and permissions_of(path) == 0o600
    one.close()
    assert os.listdir(folder) == []


def test_a_folder_that_is_not_private(
    monkeypatch: pytest.MonkeyPatch, folder: Path, path: str
) -> None:
    make = os.mkdir

    def make_open(where: str, mode: int) -> None:
        make(where, mode)
        os.chmod(where, 0o777)

    monkeypatch.setattr(os, "mkdir", make_open)
    with pytest.raises(ListenError, match=r"a folder made beside it is not private"):
        Listener(path, 16)
    assert os.listdir(folder) == []


def test_an_own_group_may_be_given(path: str) -> None:
    for group in os.getgroups() or [os.getegid()]:
        one = Listener(path, 16, Permissions(0o660, os.geteuid(), group))
        status = os.lstat(path)
        assert (status.st_uid, status.st_gid) == (os.geteuid(), group)
        one.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_root_may_give_it_to_anybody(path: str) -> None:
    one = Listener(path, 16, Permissions(0o600, 4711, 4712))
    status = os.lstat(path)
    assert (status.st_uid, status.st_gid, permissions_of(path)) == (4711, 4712, 0o600)
    one.close()
    assert not os.path.lexists(path)


@pytest.mark.parametrize(
    ("permissions", "text"),
    [
        (Permissions(None, 4711), "to user 4711: .*; only root may.* leave --socket-user out"),
        (Permissions(0o660, None, 4712), "to group 4712: .*root and.* leave --socket-group out"),
    ],
)
def test_what_the_system_does_not_allow(
    monkeypatch: pytest.MonkeyPatch, folder: Path, permissions: Permissions, text: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chown", refuse)
    paths = (str(folder / "a.sock"), str(folder / "b.sock"))
    with pytest.raises(ListenError, match=rf"^cannot give socket \S*a\.sock {text}"):
        open_listeners(paths, 16, permissions)
    assert os.listdir(folder) == []

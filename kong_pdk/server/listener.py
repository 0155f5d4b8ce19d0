"""The server's Unix sockets: stale ones are replaced, live ones and other files left alone."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from typing import Optional

from ..exception import ListenError


class Listener:
    """A listening Unix socket at a path.

    Args:
        path: of the socket, at most 107 bytes.
        backlog: connections that the kernel holds until they are accepted.

    Raises:
        ListenError: a live server, or something that is no socket, is there; or the folder is
            missing or not writable.
    """

    def __init__(self, path: str, backlog: int) -> None:
        self.path = path
        _make_way(path)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.bind(path)
            status = os.lstat(path)
            self._identity: Optional[tuple[int, int]] = (status.st_dev, status.st_ino)
            self.sock.listen(backlog)
            self.sock.setblocking(False)
        except OSError as exc:
            self.sock.close()
            raise ListenError(_bind_text(path, exc)) from exc

    def fileno(self) -> int:
        """The descriptor."""
        return self.sock.fileno()

    def remove_path(self) -> None:
        """Remove the path if it is still this socket's; connections in the queue are not lost."""
        identity, self._identity = self._identity, None
        try:
            status = os.lstat(self.path)
            if (status.st_dev, status.st_ino) == identity:
                os.unlink(self.path)
        except OSError:
            pass  # somebody else has cleaned up: nothing of ours is left

    def close(self) -> None:
        """Stop listening, and remove the path. May be called again."""
        self.remove_path()
        self.sock.close()


def open_listeners(paths: tuple[str, ...], backlog: int) -> list[Listener]:
    """Open all sockets, or none.

    Raises:
        ListenError: as :class:`Listener`; those opened before are closed and removed.
    """
    listeners: list[Listener] = []
    try:
        for path in paths:
            listeners.append(Listener(path, backlog))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _bind_text(path: str, exc: OSError) -> str:
    if exc.errno == errno.ENOENT:
        return (
            f"cannot create socket {path}: folder {os.path.dirname(path)} does not exist; "
            f"create it, or name Kong's prefix with --kong-prefix"
        )
    return f"cannot create socket {path}: {exc.strerror}"


def _make_way(path: str) -> None:
    """Remove a stale socket; raise ListenError for anything else."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise ListenError(f"cannot create socket {path}: {exc.strerror}") from exc
    if not stat.S_ISSOCK(status.st_mode):
        raise ListenError(f"cannot create socket {path}: there is something that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            pass  # nobody listens
        except OSError as exc:  # a full queue or a foreign owner: somebody may live there
            raise ListenError(f"socket {path} is in use: {exc}") from exc
        else:
            if not _is_kongs_former(_peer_pid(probe)):
                raise ListenError(
                    f"socket {path} is in use by another server: stop that one, or choose another "
                    f"name with --socket-name or another prefix with --kong-prefix"
                )
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as exc:
        raise ListenError(f"cannot replace socket {path}: {exc.strerror}") from exc


def _peer_pid(sock: socket.socket) -> int:
    """The process that listens at the other end, 0 where the system does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return 0
    size = struct.calcsize("3i")
    pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(pid)


def _is_kongs_former(pid: int) -> bool:
    """Whether process ``pid`` is the server that this one takes over from at ``kong reload``.

    Kong's new nginx worker starts a new server some seconds before the old worker stops its own.
    Both workers are children of one nginx master.
    """
    ours, theirs = os.getppid(), _parent(pid)[0]
    if not pid or ours == theirs:
        return False
    our_master, our_name = _parent(ours)
    their_master, their_name = _parent(theirs)
    return our_master == their_master != 0 and our_name == their_name == "nginx"


def _parent(pid: int) -> tuple[int, str]:
    """The parent of a process and the process's own name; (0, "") where that cannot be told."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            name, _, rest = file.read().partition("(")[2].rpartition(")")
        return int(rest.split()[1]), name
    except (OSError, ValueError, IndexError):
        return 0, ""

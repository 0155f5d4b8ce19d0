"""The server's Unix sockets: stale ones are replaced, live ones and other files left alone."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional

from ..config import MAX_SOCKET_PATH
from ..exception import ListenError
from .peers import credentials

#: Whom the umask may let in where nobody has said who shall be.
DEFAULT_MODE = 0o770
#: How often a socket is put in its place that somebody else puts one in too.
PLACE_TRIES = 5

#: How long a server may take to let it be seen whether it is there, seconds.
PROBE_PATIENCE = 2.0

#: A socket's name for a moment, where its own is too long.
SHORT_NAME = "s"

#: What tells one file from all others: device and inode.
Identity = tuple[int, int]


class Permissions(NamedTuple):
    """Who may connect to a socket.

    Attributes:
        mode: its permissions; None: those that the umask leaves to owner and group, none to others.
        user: its owner; None: the server's user.
        group: its group; None: the one that the system gives it.
    """

    mode: Optional[int] = None
    user: Optional[int] = None
    group: Optional[int] = None


#: Where nothing else is asked for.
USUAL = Permissions()


class Listener:
    """A listening Unix socket at a path.

    The path appears at once with its final permissions, and with somebody who listens there. At
    ``kong reload`` it is one server's until it is the other's.

    Args:
        path: of the socket, at most 107 bytes.
        backlog: connections that the kernel holds until they are accepted.
        permissions: of the socket.

    Raises:
        ListenError: a live server, or something that is no socket, is there; the folder is missing
            or not writable; or the system does not let this process give those permissions.
    """

    def __init__(self, path: str, backlog: int, permissions: Permissions = USUAL) -> None:
        self.path = path
        self._identity: Optional[Identity] = None
        found = _find_replaceable(path)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _private_folder(path) as folder:
                self._identity = _bind(self.sock, folder, path, permissions)
                self.sock.listen(backlog)
                self.sock.setblocking(False)
                _put_in_place(folder, path, found)
        except OSError as exc:
            self.sock.close()
            if isinstance(exc, ListenError):
                raise
            raise ListenError(_bind_text(path, exc)) from exc

    def fileno(self) -> int:
        """The descriptor."""
        return self.sock.fileno()

    def remove_path(self) -> None:
        """Remove the path if it is still this socket's; connections in the queue are not lost."""
        identity, self._identity = self._identity, None
        try:
            if _identity(os.lstat(self.path)) == identity:
                os.unlink(self.path)
        except OSError:
            pass  # somebody else has cleaned up: nothing of ours is left

    def close(self) -> None:
        """Stop listening, and remove the path. May be called again."""
        self.remove_path()
        self.sock.close()


def open_listeners(
    paths: tuple[str, ...], backlog: int, permissions: Permissions = USUAL
) -> list[Listener]:
    """Open all sockets, or none.

    Raises:
        ListenError: as :class:`Listener`; those opened before are closed and removed.
    """
    listeners: list[Listener] = []
    try:
        for path in paths:
            listeners.append(Listener(path, backlog, permissions))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


# --- a new socket, made where nobody sees it ------------------------------------------------------


class _Folder(NamedTuple):
    path: str
    fd: int


@contextlib.contextmanager
def _private_folder(path: str) -> Iterator[_Folder]:
    """A folder beside a socket's path that only this user can enter.

    Whoever may write beside it could put something else in place of a path that is being changed.
    In here, and by its descriptor, what is changed is what was made.
    """
    folder = os.path.join(os.path.dirname(path), f".new-{secrets.token_hex(4)}")
    os.mkdir(folder, 0o700)
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            status = os.fstat(fd)
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
                raise ListenError(
                    f"cannot create socket {path}: a folder made beside it is not private; see who "
                    f"else can write there, or whether that file system keeps owners"
                )
            yield _Folder(folder, fd)
        finally:
            with contextlib.suppress(OSError):  # it is in its place
                os.unlink(os.path.basename(path), dir_fd=fd)
            os.close(fd)
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def _bind(sock: socket.socket, folder: _Folder, path: str, permissions: Permissions) -> Identity:
    """Make the socket's file in the folder, with its permissions."""
    name = os.path.basename(path)
    where = os.path.join(folder.path, name)
    if len(os.fsencode(where)) <= MAX_SOCKET_PATH:
        sock.bind(where)
    else:  # the path itself is not too long, but may be nearly all name
        sock.bind(f"/proc/self/fd/{folder.fd}/{SHORT_NAME}")
        os.rename(SHORT_NAME, name, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
    status = os.stat(name, dir_fd=folder.fd, follow_symlinks=False)
    mode = permissions.mode
    if mode is None:
        # nginx as a daemon has no umask, and what Kong starts inherits that.
        mode = stat.S_IMODE(status.st_mode) & DEFAULT_MODE
    os.chmod(name, mode, dir_fd=folder.fd)
    for flag, user, group in (
        ("--socket-user", permissions.user, None),
        ("--socket-group", None, permissions.group),
    ):
        if user is None and group is None:
            continue
        ids = (-1 if user is None else user, -1 if group is None else group)
        try:
            os.chown(name, *ids, dir_fd=folder.fd, follow_symlinks=False)
        except OSError as exc:
            whom = f"user {user}" if group is None else f"group {group}"
            remedy = "only root may" if group is None else "only root and the group's members may"
            raise ListenError(
                f"cannot give socket {path} to {whom}: {exc.strerror}; {remedy}, so start the "
                f"server as such, or leave {flag} out"
            ) from exc
    return _identity(status)


def _put_in_place(folder: _Folder, path: str, found: Optional[Identity]) -> None:
    """Move the new socket to its path.

    Args:
        folder: where it is.
        path: where it is to be.
        found: the socket there that is to be replaced, None if there was nothing.

    Raises:
        ListenError: somebody else was faster.
        OSError: the system does not let it.
    """
    name = os.path.basename(path)
    for _ in range(PLACE_TRIES):
        if found is None:
            try:
                os.link(name, path, src_dir_fd=folder.fd)
                return
            except FileExistsError:
                pass
            except OSError:  # not with sockets on this file system
                os.rename(name, path, src_dir_fd=folder.fd)
                return
        elif _identity_at(path) == found:
            os.rename(name, path, src_dir_fd=folder.fd)
            return
        found = _find_replaceable(path)  # another one, or none any more
    raise ListenError(
        f"socket {path} is in use: others keep putting theirs there; stop them, or choose another "
        f"name with --socket-name or another prefix with --kong-prefix"
    )


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


def _identity_at(path: str) -> Optional[Identity]:
    try:
        return _identity(os.lstat(path))
    except FileNotFoundError:
        return None


def _bind_text(path: str, exc: OSError) -> str:
    if exc.errno == errno.ENOENT:
        return (
            f"cannot create socket {path}: folder {os.path.dirname(path)} does not exist; "
            f"create it, or name Kong's prefix with --kong-prefix"
        )
    return f"cannot create socket {path}: {exc.strerror or exc}"


# --- what is at the path already ------------------------------------------------------------------


def _find_replaceable(path: str) -> Optional[Identity]:
    """The socket at the path, None if nothing is there; ListenError if it is not to be replaced."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ListenError(f"cannot create socket {path}: {exc.strerror}") from exc
    if not stat.S_ISSOCK(status.st_mode):
        raise ListenError(f"cannot create socket {path}: there is something that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_PATIENCE)
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
    return _identity(status)


def takes_over(paths: Iterable[str]) -> bool:
    """Whether a server that this one takes over from at ``kong reload`` listens at a path."""
    for path in paths:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(PROBE_PATIENCE)
            try:
                probe.connect(path)
            except OSError:
                continue
            if _is_kongs_former(_peer_pid(probe)):
                return True
    return False


def _peer_pid(sock: socket.socket) -> int:
    """The process that listens at the other end, 0 where the system does not tell."""
    peer = credentials(sock)
    return 0 if peer is None else peer.pid


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

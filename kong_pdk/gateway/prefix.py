"""A prefix for a plugin server that is started here: a folder for its socket, as Kong has one."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..config import MAX_SOCKET_PATH


def make_prefix(socket: str) -> Path:
    """Return a new folder whose name leaves room for a socket's.

    Args:
        socket: the socket's path below it.
    """
    path = Path(tempfile.mkdtemp(prefix="kong-pdk-"))
    if len(bytes(path / socket)) > MAX_SOCKET_PATH:
        path.rmdir()
        path = Path(tempfile.mkdtemp(prefix="kong-pdk-", dir="/tmp"))
    return path


@contextlib.contextmanager
def temporary_prefix(socket: str) -> Iterator[Path]:
    """Yield such a folder, and remove it after that with all that is in it."""
    path = make_prefix(socket)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)

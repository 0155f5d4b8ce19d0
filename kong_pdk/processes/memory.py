"""Memory that the processes of one server share: a file without a name, mapped by each of them."""

from __future__ import annotations

import mmap
import os
import tempfile


def open_nameless() -> int:
    """A descriptor of an empty file that has no name.

    Raises:
        OSError: the system gives none.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create("kong-pdk")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def allocate(size: int) -> int:
    """A descriptor of so many bytes, all zero; pages that nobody touches take no room.

    Args:
        size: bytes.

    Raises:
        OSError: the system gives none.
    """
    fd = open_nameless()
    try:
        os.ftruncate(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return fd


def attach(fd: int) -> mmap.mmap:
    """Map all of the memory behind a descriptor, which may be closed afterwards.

    Raises:
        OSError: the system gives no room.
    """
    return mmap.mmap(fd, 0)

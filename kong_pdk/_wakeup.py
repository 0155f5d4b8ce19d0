"""A descriptor that one thread waits on and another makes readable."""

from __future__ import annotations

import os

_ONE = (1).to_bytes(8, "little")  # an eventfd wants eight bytes; a pipe does not mind


def open_wakeup() -> tuple[int, int]:
    """Open a wake-up; returns the descriptors to wait on and to write to, perhaps the same."""
    if hasattr(os, "eventfd"):  # Linux, Python 3.10: one descriptor in place of two
        fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        return fd, fd
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    os.set_blocking(write_fd, False)
    return read_fd, write_fd


def send_wakeup(fd: int) -> None:
    """Make the other end readable."""
    try:
        os.write(fd, _ONE)
    except BlockingIOError:
        pass  # full of wake-ups already


def drain_wakeup(fd: int) -> None:
    """Take back all wake-ups so far."""
    try:
        os.read(fd, 4096)
    except BlockingIOError:
        pass

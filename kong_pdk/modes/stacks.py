"""How much room threads have for calls within calls."""

from __future__ import annotations

import os
import sys
import threading

#: Of a thread, bytes: what glibc gives by default. Only what is used of it takes memory.
STACK = 8 << 20


def make_room() -> None:
    """Have threads get as large a stack as under glibc, where the C library gives a small one.

    musl gives 128 KiB, and some Pythons for it ask for 1 MiB. Calls through C that nest some
    hundred deep (a value that is encoded, a key function that sorts) need more, and then the
    process ends by a signal, before Python's own limit of recursion makes an error of it. Holds for
    the threads of plugins too. A size that was set with ``threading.stack_size`` before is left as
    it is.
    """
    if sys.platform.startswith("linux") and not _is_glibc():
        former = threading.stack_size(STACK)  # without an argument it would set the default
        if former:
            threading.stack_size(former)


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (OSError, ValueError):  # a C library that does not know the question
        return False

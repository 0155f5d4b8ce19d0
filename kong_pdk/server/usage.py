"""How much memory a process uses."""

from __future__ import annotations

import os

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def resident_memory(pid: int) -> int:
    """What a process has in memory, as ``ps`` shows it (RSS), bytes; 0 where that cannot be told.

    Args:
        pid: of the process.
    """
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):  # no Linux, or the process has just ended
        return 0

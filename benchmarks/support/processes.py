"""What a server and the processes that it has started use."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def members(leader: int) -> list[int]:
    """The processes of a group, by the leader's id."""
    found = []
    for entry in os.listdir("/proc"):
        stat = _stat(entry) if entry.isdigit() else []
        if stat and stat[0] != "Z" and int(stat[2]) == leader:
            found.append(int(entry))
    return found


def family(parent: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {int(e): int(s[1]) for e in os.listdir("/proc") if e.isdigit() and (s := _stat(e))}
    found = [parent]
    for pid in found:
        found += [child for child, of in parents.items() if of == pid]
    return found


def _stat(pid: object) -> list[str]:
    """The fields of a process's stat from its state on; none if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def cpu_seconds(pids: list[int]) -> float:
    """CPU time that the processes, and their children that have ended, have used."""
    return sum(sum(map(int, stat[11:15])) for pid in pids if (stat := _stat(pid))) / TICKS


def peak_memory(pids: list[int]) -> int:
    """The sum of the processes' largest resident sizes, KiB. What they share counts for each."""
    total = 0
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        total += sum(
            int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")
        )
    return total


def reset_peak_memory(pids: list[int]) -> None:
    """Let :func:`peak_memory` begin anew."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def end(process: subprocess.Popen[bytes], patience: float = 5.0) -> None:
    """End the leader of a process group, and then whatever is left of the group."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait(patience)

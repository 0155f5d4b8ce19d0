"""What the server's processes use, and whether that has grown."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Callable, Optional

from processes import peak_memory
from servers import Server

#: Memory may grow by so much in each process, MiB: what the allocator and Python keep back differs
#: by that from one moment to the next, after bodies of 64 MiB and bursts of events. In a million
#: events it is 34 bytes for each.
MEMORY_SLACK = 32

#: Threads and descriptors that may be there beyond those after the warm-up: a few more handlers
#: may have been under way at once, and a thread that is idle has two descriptors. A leak in one of
#: a thousand events is a thousand of them.
THREAD_SLACK = 32
DESCRIPTOR_SLACK = 80

#: The most memory may be so much above that, in each process that runs handlers, MiB: a body of 64
#: MiB as it is read, and as a value, takes three times its size for a moment.
PEAK_SLACK = 256

#: How long is waited for threads to end that are idle (30 s), for events that are given up, and
#: for connections to be closed, seconds.
CALM_LIMIT = 60.0


@dataclass(frozen=True)
class Sample:
    """What all processes of a server use together; memory in MiB, and the most that it was."""

    processes: int
    memory: float
    most: float
    threads: int
    descriptors: int
    sockets: int


def observe(server: Server) -> Optional[Sample]:
    """Look at a server; None if one of its processes has ended meanwhile."""
    with contextlib.suppress(OSError, ValueError):  # no such process, no line VmRSS any more
        return Sample(
            processes=len(server.processes()),
            memory=server.memory() / 1024,
            most=peak_memory(server.processes()) / 1024,
            threads=server.threads(),
            descriptors=server.descriptors(),
            sockets=server.sockets(),
        )
    return None


def growth(before: Sample, after: Sample) -> list[str]:
    """What has grown by more than it may."""
    found = []
    for what, slack in (
        ("memory", MEMORY_SLACK * after.processes), ("threads", THREAD_SLACK),
        ("descriptors", DESCRIPTOR_SLACK), ("sockets", 0),
    ):  # fmt: skip
        old, new = getattr(before, what), getattr(after, what)
        if new > old + slack:
            unit = " MiB" if what == "memory" else ""
            found.append(f"{what}: {old:.0f}{unit} before, {new:.0f}{unit} after")
    if after.processes != before.processes:
        found.append(f"processes: {before.processes} before, {after.processes} after")
    return found


def too_much(before: Sample, most: float) -> list[str]:
    """Whether the processes have used too much memory for a moment: more bodies than there were."""
    bound = before.memory + PEAK_SLACK * max(1, before.processes - 1)
    if most <= bound:
        return []
    return [f"memory, at most: {before.memory:.0f} MiB before, {most:.0f} MiB meanwhile"]


def wait_for(
    look: Callable[[], Optional[Sample]], fine: Callable[[Sample], bool], limit: float = CALM_LIMIT
) -> Sample:
    """Look until something holds; the last look if it does not come to hold.

    Args:
        look: at the server.
        fine: what is to hold.
        limit: how long to look, seconds.
    """
    deadline = time.monotonic() + limit
    last: Optional[Sample] = None
    while True:
        sample = look()
        if sample is not None:
            last = sample
            if fine(sample):
                return sample
        if time.monotonic() > deadline:
            if last is None:
                raise RuntimeError(f"the server could not be looked at for {limit:.0f} s")
            return last
        time.sleep(0.25)


def wait_calm(look: Callable[[], Optional[Sample]], sockets: int) -> Sample:
    """Wait until no connection is left, and nothing changes any more.

    Args:
        look: at the server.
        sockets: how many there are without a connection.
    """
    seen: list[tuple[int, int]] = []

    def fine(sample: Sample) -> bool:
        seen.append((sample.threads, sample.descriptors))
        return sample.sockets <= sockets and len(seen) > 8 and len(set(seen[-8:])) == 1

    return wait_for(look, fine, CALM_LIMIT / 2)


class Recorder(threading.Thread):
    """Looks at a server once a second, for the peaks.

    Args:
        server: to look at.
    """

    def __init__(self, server: Server) -> None:
        super().__init__(name="recorder", daemon=True)
        self._server = server
        self._done = threading.Event()
        self._begun = time.monotonic()
        self.series: list[tuple[float, Sample]] = []

    def run(self) -> None:
        while not self._done.wait(1.0):
            sample = observe(self._server)
            if sample is not None:
                self.series.append((time.monotonic() - self._begun, sample))

    def peak(self, what: str) -> float:
        """The highest value of a kind."""
        return max((float(getattr(sample, what)) for _, sample in self.series), default=0.0)

    def rows(self) -> list[dict[str, Any]]:
        """All that it has seen."""
        return [{"seconds": round(at, 1), **asdict(sample)} for at, sample in self.series]

    @contextlib.contextmanager
    def recording(self) -> Iterator[Recorder]:
        """Record for as long as the block takes."""
        self.start()
        try:
            yield self
        finally:
            self._done.set()
            self.join()

"""Ten thousand events that Kong has abandoned leave nothing behind, and hold up nobody."""

from __future__ import annotations

from pathlib import Path

from abandoning import ABANDONED, abandon
from servers import Flavour, Start, wait_until

ONE_CODEC = True
BATCH, WARM_UP, BATCHES = 1_000, 3, 10
SLACK = 6 * 1024  # KiB for each process; a thread for each event would be 25 times as much


def test_ten_thousand_abandoned_events(start: Start, flavour: Flavour, tmp_path: Path) -> None:
    """A thousand at once; what so many threads need may stay for a while, as they do."""
    ended = tmp_path / "ended"
    ended.touch()
    limit = () if flavour.mode == "gevent" else ("--threads", str(BATCH + 100))
    server = start("--event-timeout", "0.5", *limit)
    slack = SLACK * len(server.processes())
    most = server.descriptors() + 20
    most_threads = len(server.processes()) * (BATCH + 110)
    with server.kong() as kong:
        instance = kong.start_author(ABANDONED, ended=str(ended))
        other = kong.start_author("def access(self, kong): pass")

        def run(batches: int) -> None:
            for _ in range(batches):
                before = ended.stat().st_size
                abandon(kong, instance, BATCH)
                assert kong.handle_event(other).is_return
                wait_until(lambda n=before: ended.stat().st_size == n + BATCH, "all have ended")

        run(WARM_UP)
        sockets, memory = server.sockets(), server.memory()
        run(BATCHES)
        wait_until(lambda: server.sockets() <= sockets, "the connections are closed")
        assert server.descriptors() <= most + 2 * server.threads()  # what each is woken by
        assert server.threads() <= most_threads
        assert server.memory() < memory + slack
        assert kong.handle_event(other).is_return

"""What becomes of a request, and the accounts of it."""

from __future__ import annotations

import threading
from collections import Counter
from typing import NamedTuple

#: The plugin has had its say; or Kong got the error that it should get.
ENDED = "ended"
#: The client got an answer of the server's own: nothing has passed.
REFUSED = "refused"
#: The same, although its handler is sound: right only while the processes of handlers are killed.
NEEDLESS = "needless"
#: Kong has had half a reply, or a second one to a call before this, and answers its client with
#: status 500; right only then, too.
CUT = "cut"
#: Kong would start the instance again, and repeat the event.
RESTARTED = "restarted"
#: The client of Kong's, or of the server's, has gone: nothing was owed any more.
LEFT = "left"
#: An event was given up because this program was too slow with its step; not the server's doing.
LATE = "late"
#: Kong would let the request through without the plugin.
PASSED = "passed"
#: A call has had no reply within the bound.
UNANSWERED = "unanswered"
#: A reply that is none, to something else, or not the one that had to come.
WRONG = "wrong"

OUTCOMES = (
    ENDED, REFUSED, NEEDLESS, CUT, RESTARTED, LEFT, LATE, PASSED, UNANSWERED, WRONG,
)  # fmt: skip

#: None of them may happen, to anybody.
BAD = (PASSED, UNANSWERED, WRONG)

#: So many of a thousand may be refused although nothing is killed: a machine that does other work
#: too may let a handler wait for longer than ``--handler-timeout``. The same for late ones.
NEEDLESS_SHARE = 5

#: So many of the bad ones are kept with their reasons.
NOTES = 20


class Result(NamedTuple):
    """What became of one event.

    Attributes:
        outcome: one of the names above.
        note: why, where that is not plain.
        args: of the call that ended the event, if one did.
    """

    outcome: str
    note: str = ""
    args: tuple[object, ...] = ()


class Account:
    """Counts outcomes; used by many threads.

    Attributes:
        counts: by who made the request, and its outcome.
        notes: reasons of the first bad ones.
        longest: the longest wait for a reply, seconds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[tuple[str, str]] = Counter()
        self.notes: list[str] = []
        self.longest = 0.0

    def add(self, who: str, result: Result, count: int = 1) -> None:
        """Count what became of an event, or of several."""
        with self._lock:
            self.counts[who, result.outcome] += count
            if result.outcome in (*BAD, CUT) and len(self.notes) < NOTES:
                self.notes.append(f"{who}: {result.outcome}: {result.note}")

    def waited(self, seconds: float) -> None:
        """Note how long a reply took."""
        if seconds > self.longest:
            with self._lock:
                self.longest = max(self.longest, seconds)

    def total(self, *outcomes: str) -> int:
        """How many had one of these outcomes; of all if none is named."""
        with self._lock:
            return sum(
                count
                for (_, outcome), count in self.counts.items()
                if not outcomes or outcome in outcomes
            )

    def by_actor(self) -> dict[str, dict[str, int]]:
        """The counts, by who made the requests."""
        with self._lock:
            found: dict[str, dict[str, int]] = {}
            for (who, outcome), count in sorted(self.counts.items()):
                found.setdefault(who, {})[outcome] = count
            return found

    def failures(self, killing: bool = False) -> list[str]:
        """What of it must not be.

        Args:
            killing: processes that run handlers were killed meanwhile.
        """
        bad = list(BAD)
        if not killing:
            bad.append(CUT)
            most = 5 + self.total() * NEEDLESS_SHARE // 1000
            bad += [one for one in (NEEDLESS, LATE) if self.total(one) > most]
        found = [f"{count} requests {one}" for one in bad if (count := self.total(one))]
        return found + [f"  {note}" for note in self.notes] if found else []

"""The bulk of the events: the benchmarks' load client, in short runs of different shapes."""

from __future__ import annotations

import itertools
import threading
import time
import traceback
from typing import Any

import native

from .client import BOUND
from .outcomes import CUT, ENDED, NEEDLESS, PASSED, UNANSWERED, WRONG, Account, Result

#: What each run is like: what the handler does, and the options of the load client.
SHAPES = (
    ("calls", "--under-way", "64", "--scatter"),
    ("calls", "--under-way", "16", "--workers", "4"),
    ("exits", "--under-way", "32", "--scatter"),
    ("body", "--under-way", "4", "--body", "65536"),
    ("calls", "--under-way", "8", "--scatter"),
)

#: How long one takes, seconds.
SLICE = 4.0

#: What the load client says of an error that is none of Kong's letting a request through.
SIGNS = {
    "no reply within": UNANSWERED, "has had no answer": UNANSWERED, "cannot connect": PASSED,
    "has closed a connection": PASSED, "cannot send": PASSED, "the server answers": PASSED,
}  # fmt: skip


def judge(act: str, result: dict[str, Any]) -> list[tuple[Result, int]]:
    """What has become of a run's events. Errors are counted under the first one's reason."""
    refused = int(result["all_exits"]) if act == "calls" else 0
    found = [(Result(ENDED), int(result["all_events"]) - refused)]
    if refused:
        found.append((Result(NEEDLESS), refused))
    if result["strays"]:
        found.append((Result(CUT, "answers to calls before"), int(result["strays"])))
    if result["errors"]:
        text = result.get("first_error", "")
        outcome = next((kind for sign, kind in SIGNS.items() if sign in text), WRONG)
        found.append((Result(outcome, text), int(result["errors"])))
    return found


class Load(threading.Thread):
    """Runs the load client until it is told to stop.

    Args:
        path: of the server's socket.
        account: to count in.
        stop: ends it, after the run of the client that is under way.

    Attributes:
        broken: what has gone wrong in the client itself.
    """

    def __init__(self, path: str, account: Account, stop: threading.Event) -> None:
        super().__init__(name="load", daemon=True)
        self._path = path
        self._account = account
        self._stop_event = stop
        self.broken = ""

    def run(self) -> None:
        try:
            for shape in itertools.cycle(SHAPES):
                if self._stop_event.is_set():
                    return
                self._run_once(*shape)
        except BaseException:
            self.broken = traceback.format_exc()

    def _run_once(self, act: str, *options: str) -> None:
        begun = time.monotonic()
        try:
            result = native.load(
                self._path, "--plugin", "soaked", "--config", f'{{"act": "{act}"}}',
                "--seconds", f"{SLICE:g}", "--warmup", "0", "--timeout", f"{BOUND:g}", *options,
                patience=SLICE + 3 * BOUND,
            )  # fmt: skip
        except native.LoadError as exc:
            ended = "has not ended" not in str(exc)  # it got no instance, so Kong refuses
            self._account.add("load", Result(NEEDLESS if ended else UNANSWERED, str(exc)))
            self._stop_event.wait(0.5)
            return
        for outcome, count in judge(act, result):
            self._account.add("load", outcome, count)
        self._account.waited(result["max_us"] / 1e6)
        if result["errors"] and time.monotonic() - begun < 0.1:
            self._stop_event.wait(0.5)  # nobody is there

"""Tables of what a soak, or a series of kills, has come to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from . import observing
from .kills import Tally
from .outcomes import (
    CUT,
    ENDED,
    LATE,
    LEFT,
    NEEDLESS,
    PASSED,
    REFUSED,
    RESTARTED,
    UNANSWERED,
    WRONG,
)
from .run import Outcome


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown; numbers to the right."""
    lines = ["| " + " | ".join(head) + " |"]
    lines.append("| --- |" + " ---: |" * (len(head) - 1))
    for row in rows:
        cells = [f"{one:,}" if isinstance(one, int) else str(one) for one in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _outcomes(outcomes: Sequence[Outcome]) -> str:
    head = (
        "mode", "requests", "ended", "refused", "started again", "nothing owed", "late", "passed",
        "unanswered", "wrong", "kills", "longest wait, s",
    )  # fmt: skip
    rows = [
        (
            one.mode, one.total(), one.total(ENDED), one.total(REFUSED, NEEDLESS, CUT),
            one.total(RESTARTED), one.total(LEFT), one.total(LATE), one.total(PASSED),
            one.total(UNANSWERED), one.total(WRONG), one.kills,
            f"{max((stage.account.longest for stage in one.stages), default=0):.1f}",
        )
        for one in outcomes
    ]  # fmt: skip
    return table(head, rows)


def _use(outcomes: Sequence[Outcome]) -> str:
    head = (
        "mode", "memory, MiB", "at most", "threads", "at most", "descriptors", "at most", "result"
    )  # fmt: skip
    rows = []
    for one in outcomes:
        row: list[Any] = [one.mode]
        for what, peak in (("memory", "most"), ("threads",) * 2, ("descriptors",) * 2):
            values = (f"{getattr(sample, what):.0f}" if sample else "-"
                      for sample in (one.before, one.after))  # fmt: skip
            row += [" → ".join(values), f"{one.peaks.get(peak, 0):.0f}"]
        row.append("FAILED" if one.failures else "sound")
        rows.append(row)
    return table(head, rows)


def of_soak(outcomes: Sequence[Outcome], seed: int) -> str:
    """The report on a soak."""
    parts = [
        f"seed {seed}",
        _outcomes(outcomes),
        "What the server's processes use together, after the warm-up → at the end. Bounds: memory "
        f"+{observing.MEMORY_SLACK} MiB for each process, at most +{observing.PEAK_SLACK} MiB for "
        f"each that runs handlers, threads +{observing.THREAD_SLACK}, "
        f"descriptors +{observing.DESCRIPTOR_SLACK}, no socket and no process more.",
        _use(outcomes),
    ]
    for one in outcomes:
        if one.failures:
            parts.append("\n".join((f"{one.mode}:", *(f"  {text}" for text in one.failures))))
    return "\n\n".join(parts)


def of_kills(tallies: Sequence[Tally], seed: int) -> str:
    """The report on kills under load."""
    head = (
        "mode", "kill -9", "segfault", "replaced", "requests", "ended", "refused", "started again",
        "passed", "unanswered", "wrong", "longest wait, s", "result",
    )  # fmt: skip
    rows = [
        (
            one.mode, one.killed, one.crashed, one.grown, one.account.total(),
            one.account.total(ENDED), one.account.total(REFUSED, NEEDLESS, CUT),
            one.account.total(RESTARTED), one.account.total(PASSED),
            one.account.total(UNANSWERED), one.account.total(WRONG, LATE),
            f"{one.account.longest:.2f}", "FAILED" if one.failures else "sound",
        )
        for one in tallies
    ]  # fmt: skip
    parts = [f"seed {seed}", table(head, rows)]
    for one in tallies:
        if one.failures:
            parts.append("\n".join((f"{one.mode}:", *(f"  {text}" for text in one.failures))))
    return "\n\n".join(parts)


def as_json(outcomes: Sequence[Outcome], tallies: Sequence[Tally], seed: int) -> dict[str, Any]:
    """All of it, for programs."""
    return {
        "seed": seed,
        "soak": [
            {
                "mode": one.mode,
                "stages": [
                    {
                        "name": stage.name, "seconds": round(stage.seconds, 1),
                        "kills": stage.kills, "longest_wait": round(stage.account.longest, 3),
                        "requests": stage.account.by_actor(),
                    }
                    for stage in one.stages
                ],
                "before": one.before and dataclasses.asdict(one.before),
                "after": one.after and dataclasses.asdict(one.after),
                "peaks": one.peaks,
                "failures": one.failures,
                "series": one.series,
            }
            for one in outcomes
        ],
        "kills": [
            {
                "mode": one.mode, "killed": one.killed, "crashed": one.crashed,
                "grown": one.grown,
                "longest_wait": round(one.account.longest, 3),
                "requests": one.account.by_actor(), "failures": one.failures,
            }
            for one in tallies
        ],
    }  # fmt: skip

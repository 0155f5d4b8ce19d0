"""The commands behind ``python3 dev.py soak`` and ``kills``; see README.md beside this file."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

from soaking import report
from soaking.kills import Tally, measure
from soaking.run import KILLED, MODES, Outcome, Plan, soak

#: Those that are soaked unless others are named.
DEFAULT_MODES = ("threads", "gevent", "processes", "supervised")

#: For each mode, where neither time nor number is given, seconds.
DEFAULT_SECONDS = 120.0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="dev.py soak",
        description="Let clients and plugins make trouble, and see that all is answered and "
        "nothing is left behind; or kill processes under load, and see that no request passes; or "
        "have workers replaced, and see that none is refused.",
    )
    parser.add_argument(
        "--mode", action="append", choices=MODES, help="only this one; may be repeated"
    )
    bound = parser.add_mutually_exclusive_group()
    bound.add_argument(
        "--seconds", type=float, metavar="N",
        help=f"for so long, shared by the modes ({DEFAULT_SECONDS:.0f} for each)",
    )  # fmt: skip
    bound.add_argument(
        "--events", type=int, metavar="N", help="so many requests in each mode, after a warm-up"
    )
    bound.add_argument(
        "--kills", type=int, metavar="N", help="no soak: so many kills under load in each mode"
    )
    bound.add_argument(
        "--growths", type=int, metavar="N",
        help="no soak: so often under load in each mode a worker uses too much memory, and is "
        "replaced",
    )  # fmt: skip
    parser.add_argument("--report", type=Path, metavar="FILE", help="write all figures as JSON")
    parser.add_argument(
        "--seed", type=int, metavar="N", help="what the actors' choices are made of (the time)"
    )
    options = parser.parse_args()
    for name in ("seconds", "events", "kills", "growths"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1")
    for name in ("kills", "growths"):
        if getattr(options, name) and not set(options.mode or ()) <= set(KILLED):
            parser.error(f"--{name} needs modes of more than one process: {', '.join(KILLED)}")
    return options


def main() -> int:
    """Run what the command line says; 1 if something is not as it must be."""
    options = arguments()
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))  # some of the server's processes crash
    seed = int(time.time()) if options.seed is None else options.seed
    outcomes: list[Outcome] = []
    tallies: list[Tally] = []
    count = options.kills or options.growths
    if count:
        what = "kills" if options.kills else "growths"
        for mode in options.mode or KILLED:
            print(f"{mode}: {count} {what}", file=sys.stderr, flush=True)
            tallies.append(measure(mode, count, seed, growths=what == "growths"))
        print(report.of_kills(tallies, seed))
    else:
        modes = options.mode or DEFAULT_MODES
        total = options.seconds or DEFAULT_SECONDS * len(modes)
        plan = Plan(total / len(modes), options.events, seed)
        for mode in modes:
            print(f"{mode}: {describe(plan)}", file=sys.stderr, flush=True)
            outcomes.append(soak(mode, plan))
            print_progress(outcomes[-1])
        print(report.of_soak(outcomes, seed))
    if options.report:
        figures = report.as_json(outcomes, tallies, seed)
        options.report.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    failures = [*(one.failures for one in outcomes), *(one.failures for one in tallies)]
    return 1 if any(failures) else 0


def describe(plan: Plan) -> str:
    """How long it takes."""
    return f"{plan.seconds:.0f} s" if plan.events is None else f"{plan.events:,} requests"


def print_progress(outcome: Outcome) -> None:
    """One line on a mode that is done."""
    took = sum(stage.seconds for stage in outcome.stages)
    result = "FAILED" if outcome.failures else "sound"
    print(
        f"{outcome.mode}: {outcome.total():,} requests in {took:.0f} s, {result}",
        file=sys.stderr, flush=True,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

"""The command behind ``python3 dev.py fuzz``; see README.md beside this file."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from fuzzing import codecs
from fuzzing.runner import TARGETS, Job, run

FINDINGS = Path(__file__).resolve().parent / "findings"

#: Shares of a run's time.
SHARES = {
    "decoder": 6, "encoder": 2, "function": 3, "server": 2, "server-gevent": 2,
    "server-processes": 2,
}  # fmt: skip

#: Where neither time nor number is given, seconds.
DEFAULT_SECONDS = 60.0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="dev.py fuzz",
        description="Feed broken input to codecs and servers, until something is wrong.",
    )
    parser.add_argument(
        "--target", action="append", choices=TARGETS, help="only this one; may be repeated"
    )
    bound = parser.add_mutually_exclusive_group()
    bound.add_argument(
        "--seconds", type=float, metavar="N",
        help=f"for so long, shared by the targets ({DEFAULT_SECONDS:.0f})",
    )  # fmt: skip
    bound.add_argument("--frames", type=int, metavar="N", help="so many inputs for each target")
    parser.add_argument(
        "--seed", type=int, metavar="N", help="what makes a run repeatable (the time)"
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", default=len(os.sched_getaffinity(0)),
        help="processes side by side; a server is tried by one (the cores)",
    )  # fmt: skip
    parser.add_argument(
        "--replay", metavar="FILE", help="try this one input; needs exactly one --target"
    )
    options = parser.parse_args()
    if options.jobs < 1 or (options.frames is not None and options.frames < 1):
        parser.error("--jobs and --frames must be at least 1")
    if options.replay and len(options.target or ()) != 1:
        parser.error("--replay needs exactly one --target, that which the input was made for")
    return options


def main() -> int:
    """Run what the command line says; 1 if something was found."""
    options = arguments()
    codecs.allow_depth()
    if len(codecs.codecs()) == 1:
        print("there is no compiled codec to compare with", file=sys.stderr)
        return 1
    if options.replay:
        target = TARGETS[options.target[0]]()
        try:
            target.check(Path(options.replay).read_bytes())
        finally:
            if hasattr(target, "abandon"):
                sys.stderr.write(target.abandon()[-4000:])
        print("nothing is wrong with it")
        return 0
    names = options.target or list(TARGETS)
    seed = int(time.time()) if options.seed is None else options.seed
    total = sum(SHARES[name] for name in names)
    print(f"seed {seed}", flush=True)
    for name in names:
        count = 1 if name.startswith("server") else options.jobs
        share = (options.seconds or DEFAULT_SECONDS) * SHARES[name] / total
        begun = time.time()
        deadline = begun + share if options.frames is None else None
        jobs = []
        for index in range(count):
            frames = options.frames
            if frames is not None:
                frames = frames * (index + 1) // count - frames * index // count
            jobs.append(Job(name, seed, index, count, frames, deadline, str(FINDINGS)))
        tried, sound = run(jobs)
        took = time.time() - begun
        what = "bursts" if name.startswith("server") else "inputs"
        print(f"{name}: {tried:,} {what} in {took:.0f} s, {tried / took:,.0f} a second", flush=True)
        if not sound:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

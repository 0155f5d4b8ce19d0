"""Runs targets in processes of their own, so that a crash is a finding like any other.

Inputs are made in batches, each from a random generator that is seeded with run, target and number
of the batch. So when a process dies, its last batch is repeated with each input written to a file
before it is tried.
"""

from __future__ import annotations

import faulthandler
import hashlib
import multiprocessing
import os
import sys
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, Optional

from . import codecs, server

TARGETS: dict[str, Any] = {**codecs.TARGETS, **server.TARGETS}

#: Inputs of a batch; a server's are bursts of frames, and slower.
BATCH = {name: 20 if name in server.TARGETS else 1000 for name in TARGETS}

#: A batch that takes longer hangs, seconds; under a sanitizer one takes a few.
HANGS_AFTER = 120

#: Statuses of a job: it has found something and written it down; it has been interrupted.
FOUND = 3

_CONTEXT = multiprocessing.get_context("spawn")


class Job(NamedTuple):
    """What one process does.

    Attributes:
        target: name of the target.
        seed: of the run.
        first: number of its first batch.
        step: from one batch to the next.
        frames: most inputs; None for no bound.
        deadline: when to stop, as ``time.time()``; None for no bound.
        findings: folder for inputs that have been found.
        careful: write down each input before it is tried.
    """

    target: str
    seed: int
    first: int
    step: int
    frames: Optional[int]
    deadline: Optional[float]
    findings: str
    careful: bool = False


def batch(target: Any, job: Job, number: int) -> Any:
    """The inputs of one batch, made one after the other."""
    random = Random(f"{job.seed} {job.target} {number}")
    for _ in range(BATCH[job.target]):
        yield target.make(random)


def work(job: Job, progress: Any) -> None:
    """Run a job in this process, which is there for nothing else.

    Args:
        job: what to do.
        progress: shared with the parent: number of the batch, inputs tried.
    """
    codecs.allow_depth()
    target = TARGETS[job.target]()
    number, tried = job.first, 0
    try:
        while (job.frames is None or tried < job.frames) and (
            job.deadline is None or time.time() < job.deadline
        ):
            progress[0] = number
            faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
            for data in batch(target, job, number):
                if job.careful:
                    write_finding(job, data, "crash")
                try:
                    target.check(data)
                except BaseException:
                    report(job, target, data, traceback.format_exc())
                    os._exit(FOUND)
                tried += 1
                progress[1] = tried
                if tried == job.frames:
                    break
            number += job.step
        faulthandler.cancel_dump_traceback_later()
        if hasattr(target, "close"):
            target.close()
    except KeyboardInterrupt:
        if hasattr(target, "abandon"):
            target.abandon()
        os._exit(130)


def write_finding(job: Job, data: bytes, name: str = "") -> Path:
    """Write an input to a file of the folder for findings."""
    folder = Path(job.findings)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{job.target}-{name or hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


def report(job: Job, target: Any, data: bytes, why: str) -> None:
    """Say what was found, and how to repeat it."""
    path = write_finding(job, data)
    log = target.abandon()[-4000:] if hasattr(target, "abandon") else ""
    print(f"\n{log}{why}\n{how_to_repeat(job, path)}", file=sys.stderr, flush=True)


def how_to_repeat(job: Job, path: Path) -> str:
    """The command that tries one input again."""
    return (
        f"the input that {job.target} fails on is in {path}\n"
        f"again: python3 dev.py fuzz --target {job.target} --replay {path}"
    )


def run(jobs: list[Job]) -> tuple[int, bool]:
    """Run jobs side by side until all have ended.

    Returns:
        How many inputs were tried, and whether nothing was found.
    """
    started = [(job, _CONTEXT.RawArray("Q", 2)) for job in jobs]
    processes = [_CONTEXT.Process(target=work, args=pair) for pair in started]
    for process in processes:
        process.start()
    sound = True
    try:
        for process, (job, progress) in zip(processes, started):
            process.join()
            if process.exitcode == 0:
                continue
            sound = False
            if process.exitcode not in (FOUND, 130):
                _look_closer(job, progress[0], process.exitcode)
    finally:
        for process in processes:
            if process.is_alive():
                process.join(30)
                process.kill()
    return sum(progress[1] for _, progress in started), sound


def _look_closer(job: Job, number: int, status: Optional[int]) -> None:
    """Find the input of a batch on which a process has died."""
    print(
        f"\n{job.target}: the process has ended with status {status} (a signal if negative) in "
        f"batch {number} of seed {job.seed}; this batch again, input by input",
        file=sys.stderr, flush=True,
    )  # fmt: skip
    again = job._replace(first=number, frames=BATCH[job.target], deadline=None, careful=True)
    process = _CONTEXT.Process(target=work, args=(again, _CONTEXT.RawArray("Q", 2)))
    process.start()
    process.join()
    if process.exitcode:
        path = Path(job.findings) / f"{job.target}-crash"
        print(how_to_repeat(job, path), file=sys.stderr, flush=True)
    else:
        print("it did not happen again: what came before matters", file=sys.stderr, flush=True)

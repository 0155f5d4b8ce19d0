"""How the system shares its cores out among threads that run handlers."""

from __future__ import annotations

import os


def preempt_nobody() -> None:
    """Let this thread wait for a core when it is woken, in place of taking one from another thread.

    The step that wakes it comes from a thread that has more to do (Kong's worker, with further
    steps), and finds another one at work here; to interrupt either costs more than it gains. It
    makes half as many events again under load. A woken thread runs at once where a core is free,
    and its share of a busy core stays what it was (Linux: sched(7), SCHED_BATCH). Threads and
    processes that a plugin starts are as ever.
    """
    try:
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            policy = os.SCHED_BATCH | os.SCHED_RESET_ON_FORK
            os.sched_setscheduler(0, policy, os.sched_param(0))
    except (AttributeError, OSError):
        pass  # not Linux, or not allowed here: slower under load, and nothing else

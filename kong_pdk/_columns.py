"""What is counted of the events of a plugin in a phase, and where it stands in a row of numbers.

Both codecs write such rows, and :mod:`kong_pdk.runtime.tally` reads them.
"""

from __future__ import annotations

#: Events that have begun; handlers that have failed; requests that were refused because of that;
#: events that were abandoned; that have died with their process; PDK calls and nanoseconds of those
#: that have ended. From ``BUCKETS`` on: how many have ended within each of :data:`BOUNDS`, and, in
#: the last place, after all of them.
STARTED, ERRORS, REFUSED, ABANDONED, LOST, CALLS, NANOSECONDS, BUCKETS = range(8)

#: Upper ends of the buckets of durations, seconds: what a handler may take from no PDK call at all
#: up to what Kong waits for an answer.
BOUNDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
)  # fmt: skip

#: Numbers in a row; more than are used, so that no two rows share a line of the processor's cache.
COLUMNS = 32
assert BUCKETS + len(BOUNDS) < COLUMNS

#: What a single event is taken to last at the most, seconds: its nanoseconds fit into a number.
LONGEST = 4e9

"""Figures that the documents quote, measured on this machine; ``python3 dev.py figures``.

python3 dev.py figures abandoned   what is left of events that Kong has abandoned
python3 dev.py figures start       how long the commands and the servers take to start
python3 dev.py figures observing   what the event log and tracing cost
python3 dev.py figures gateway     what a PDK call costs in a real nginx
"""

from __future__ import annotations

import argparse
import functools
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

import contenders
import gateway_side
from abandoning import ABANDONED, abandon
from collector import collecting
from kongwire import Kong
from servers import (
    EXAMPLES,
    SCRIPTS,
    SERVER,
    Server,
    clean_environment,
    directory_command,
    embedded_command,
    running,
    short_directory,
    wait_until,
)

PLUGINS = Path(__file__).parents[2] / "tests" / "integration" / "plugins"
HELLO = EXAMPLES / "py-hello.py"
MODES: dict[str, tuple[str, ...]] = {
    "threads": (),
    "`-g`": ("-g",),
    "`-m --workers 2`": ("-m", "--workers", "2"),
}


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table as the documents have it."""
    for row in (head, ["---"] + ["---:"] * (len(head) - 1), *rows):
        print("|", " | ".join(map(str, row)), "|")


# --- abandoned events -----------------------------------------------------------------------------

EVENTS, BATCH, CALLS = 10_000, 1_000, 3_000
#: Idle threads end after this, seconds (ServerConfig.idle_timeout), and a tick or two later.
IDLE = 30.0 + 3.0


def latency(kong: Kong, instance: int) -> float:
    """The median time of an event without PDK calls, s; the time-out here would end others."""
    taken = []
    for _ in range(CALLS):
        begin = time.perf_counter()
        assert kong.handle_event(instance).is_return
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken[CALLS // 6 :])


def usage(server: Server) -> tuple[float, int, int]:
    """Memory in MiB, threads and descriptors."""
    return server.memory() / 1024, server.threads(), server.descriptors()


def wait_for_size(path: Path, size: int) -> None:
    """Wait until a file is as large, and empty it."""
    wait_until(lambda: path.stat().st_size == size, "all events have ended")
    path.write_bytes(b"")


def abandoned() -> None:
    """Measure a server before and after ten thousand abandoned events, and after as many again."""
    rows = []
    for mode, flags in MODES.items():
        with short_directory() as prefix:
            ended = prefix / "ended"
            ended.touch()
            more = () if "-g" in flags else ("--threads", str(BATCH + 100))
            command = directory_command(PLUGINS, prefix, *flags, *more, "--event-timeout", "0.5")
            with running(command, prefix) as server, server.kong() as kong:
                instance = kong.start_author(ABANDONED, ended=str(ended))
                other = kong.start_author("def access(self, kong): pass")
                found = [(*usage(server), latency(kong, other))]
                for _ in range(2):
                    for _ in range(EVENTS // BATCH):
                        abandon(kong, instance, BATCH)
                        wait_for_size(ended, BATCH)
                    time.sleep(IDLE)
                    found.append((*usage(server), latency(kong, other)))
        base = found[0][3]
        cells = [
            f"{memory:.0f} MiB, {threads}, {files}, {taken / base:.2f}"
            for memory, threads, files, taken in found
        ]
        rows.append([mode, *cells])
    print("memory, threads, descriptors, and the median of an event's time, before as 1\n")
    table(["", "before", f"after {EVENTS:,}", f"after {2 * EVENTS:,}"], rows)


# --- start ----------------------------------------------------------------------------------------

RUNS = 20


def run_time(*command: str) -> float:
    """How long a command takes from its start to its end, seconds."""
    begin = time.perf_counter()
    subprocess.run(
        command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        env=clean_environment(), cwd="/",
    )  # fmt: skip
    return time.perf_counter() - begin


def serving_time(flags: Sequence[str]) -> float:
    """How long a server takes from its start to its first answer, seconds."""
    with short_directory() as prefix:
        begin = time.perf_counter()
        server = Server(embedded_command(HELLO, prefix, *flags), prefix, ["py-hello.sock"])
        try:
            while True:
                try:
                    with server.kong() as kong:
                        kong.call("plugin.GetPluginNames")
                    return time.perf_counter() - begin
                except OSError:
                    assert server.process.poll() is None, server.log
                    time.sleep(0.001)
        finally:
            server.process.terminate()
            server.wait()


def start() -> None:
    """Measure the commands, beside an empty Python."""
    python, hello = sys.executable, str(HELLO)
    commands: dict[str, Callable[[], float]] = {
        "`python3 -c pass`": lambda: run_time(python, "-c", "pass"),
        "`kong-python-pluginserver --version`": lambda: run_time(SERVER, "--version"),
        "`my-plugin.py --version`": lambda: run_time(python, hello, "--version"),
        "`kong-pdk --version`": lambda: run_time(str(SCRIPTS / "kong-pdk"), "--version"),
        "`my-plugin.py --dump`": lambda: run_time(python, hello, "--dump"),
    }
    for mode, flags in MODES.items():
        commands[f"`my-plugin.py`, {mode}: first answer"] = functools.partial(serving_time, flags)
    # Round by round, and ratios within one: the machine may have more to do in some than in others.
    rounds = [[measure() for measure in commands.values()] for _ in range(RUNS + 1)][1:]
    rows = []
    for name, taken in zip(commands, zip(*rounds)):
        ratio = statistics.median(one / all_[0] for one, all_ in zip(taken, rounds))
        rows.append([name, f"{statistics.median(taken) * 1000:.0f} ms", f"{ratio:.1f}"])
    table(["", "median", "empty Pythons"], rows)


# --- observing ------------------------------------------------------------------------------------

ROUNDS, SECONDS, UNDER_WAY = 5, 1.5, 64
#: A name, flags, and environment; the collector's address is put in.
OBSERVERS: tuple[tuple[str, tuple[str, ...], dict[str, str]], ...] = (
    ("nothing", (), {}),
    ("`--event-log`", ("--event-log", "events"), {}),
    ("`--event-log-slow`, none slow", ("--event-log", "events", "--event-log-slow", "60"), {}),
    ("`--event-log-request-id`", ("--event-log", "events", "--event-log-request-id"), {}),
    ("`--tracing`, none recorded", ("--tracing", "URL"), {"OTEL_TRACES_SAMPLER": "always_off"}),
    (
        "`--tracing`, 1 in 100 recorded",
        ("--tracing", "URL"),
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"},
    ),
    ("`--tracing`, all recorded", ("--tracing", "URL"), {"OTEL_TRACES_SAMPLER": "always_on"}),
)


def observing() -> None:
    """Measure servers under load that tell of their events; ratios within a round."""
    with collecting(keep=False) as collector:
        for mode, flags in MODES.items():
            found: dict[str, list[dict[str, float]]] = {}
            for _ in range(ROUNDS):
                for name, more, env in OBSERVERS:
                    given = [collector.url if flag == "URL" else flag for flag in more]
                    one = contenders.Contender(
                        name, "ours", mode, sys.executable, (*flags, *given), env
                    )
                    options = ["--under-way", str(UNDER_WAY)]
                    result = contenders.measure(one, HELLO, options, SECONDS)
                    found.setdefault(name, []).append(result)
            base, rows = found["nothing"], []
            for name, results in found.items():
                row = [name]
                for key, places in (("events_per_s", 2), ("server_cpu_us_per_event", 2)):
                    ratio = statistics.median(
                        one[key] / other[key] for one, other in zip(results, base)
                    )
                    row.append(f"{ratio:.{places}f}")
                cpu = statistics.median(one["server_cpu_us_per_event"] for one in results)
                rows.append([*row, f"{cpu:.0f}"])
            print(f"\n{mode}\n")
            table(["told of", "events/s", "CPU an event", "CPU, µs"], rows)


# --- the gateway's side ---------------------------------------------------------------------------

REQUESTS = 4_000


def gateway() -> None:
    """Measure a PDK call in nginx, beside a whole event in a C server, within a round."""
    lacks = gateway_side.missing()
    if lacks is not None:
        sys.exit(f"figures: {lacks}")
    floor = next(one for one in contenders.contenders() if one.project == "floor")
    options = ["--under-way", str(UNDER_WAY)]
    calls, events = [], []
    with gateway_side.front() as front:
        for _ in range(ROUNDS):
            calls.append(front.call(REQUESTS))
            result = contenders.measure(floor, HELLO, options, SECONDS)
            events.append(result["server_cpu_us_per_event"])
    rows = [
        [name, f"{statistics.median(found):.1f}", ", ".join(f"{one:.1f}" for one in found)]
        for name, found in (
            ("nginx, one more PDK call", calls),
            ("C server, a whole event", events),
        )
    ]
    ratio = statistics.median(one / other for one, other in zip(calls, events))
    table(["", "CPU, µs", "rounds"], [*rows, ["the one beside the other", f"{ratio:.1f}", ""]])


FIGURES = {"abandoned": abandoned, "start": start, "observing": observing, "gateway": gateway}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Figures of the documents.")
    parser.add_argument("what", choices=list(FIGURES))
    FIGURES[parser.parse_args().what]()

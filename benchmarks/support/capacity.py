"""Cores, workers and nodes for a load, computed from results.json; the tables of scale.md.

python3 benchmarks/support/capacity.py           print the tables of docs/explanation/scale.md
python3 benchmarks/support/capacity.py --write   put them into the page
python3 benchmarks/support/capacity.py --requests 50000 --calls 5 --compute 300
                                                 the plan for a plugin of one's own

Needs nothing but Python. ``benchmarks/test_capacity.py`` fails when the page has other numbers.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from report import Results, number, table

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "docs" / "explanation" / "scale.md"

#: The load that all is computed from: 64 events of the documented plugin under way.
LOAD = "hello-64"
FLOOR = "C floor, epoll"
MODES = ("threads", "gevent", "multiprocessing")
#: PDK calls of the documented plugin.
CALLS = 3
#: The part of a core's capacity that a plan uses; scale.md says why.
SHARE = 0.5
RATES = (10_000, 100_000, 1_000_000)

#: Of the recipe in deploy/kubernetes: cores (and workers) that the plugin server may use, and those
#: that it requests; Kong's cores; the autoscaler's target of CPU time, which is a part of what is
#: requested; its example of one of events, and its most pods.
POD_WORKERS, POD_REQUEST, KONG_CORES = 2, 1, 2
POD_TARGET, POD_EVENTS, POD_MOST = 0.7, 5_000, 10
#: What a PDK call does on our side, in results.json.
CALL_STEPS = ("test_read", "test_handler one-call", "test_encode", "test_write")
#: Cores that handlers which compute can use, by mode, in the load of that name.
BURNT = {"threads": 1, "multiprocessing": 2}
#: Of the example of counters.
NGINX_WORKERS = 4
#: --threads: handlers at once in a process.
THREADS = 512


class Missing(Exception):
    """results.json does not have a value that the tables need; the text names it."""


@dataclass
class Need:
    """What a load takes.

    Args:
        busy: cores that it uses.
        cores: cores to provide for it, so that `SHARE` of them is used.
        nodes: how many nodes have as many cores.
    """

    busy: float
    cores: float
    nodes: int


class Capacity:
    """What can be said of a load.

    Args:
        results: what compare.py has measured.
    """

    def __init__(self, results: Results) -> None:
        self.results = results

    def value(self, mode: str, key: str, load: str = LOAD) -> float:
        """The median of a value of the compiled server in a mode, or of the floor.

        Raises:
            Missing: it was not measured.
        """
        name = f"{mode}, compiled" if mode in MODES else mode
        found = self.results.median(load, name, key)
        if found is None:
            raise Missing(f"results.json has no {key} of {name!r} under {load}")
        return found

    def rounds(self, mode: str) -> list[float]:
        """CPU time of an event in each round, µs."""
        found = self.results.rounds(LOAD, f"{mode}, compiled", "server_cpu_us_per_event")
        return list(found.values())

    def step(self, name: str) -> float:
        """What a step of a PDK call costs in the compiled build, µs.

        Raises:
            Missing: it was not measured.
        """
        try:
            return float(self.results.data["steps"][name]["compiled"]) / 1000
        except KeyError:
            raise Missing(f"results.json has no step {name!r}") from None

    def event(self, mode: str, calls: int = CALLS, compute: float = 0.0) -> float:
        """CPU time of an event, µs.

        What was measured is shared out among its messages: the event itself, and each PDK call.

        Args:
            mode: of the server.
            calls: PDK calls of the handler.
            compute: its own CPU time, µs.
        """
        measured = self.value(mode, "server_cpu_us_per_event")
        return measured * (calls + 1) / (CALLS + 1) + compute

    def own_call(self) -> float:
        """What our own code and its two system calls cost for a PDK call, µs."""
        return sum(map(self.step, CALL_STEPS))

    def kong(self, calls: int = CALLS) -> float:
        """What the PDK calls of an event cost Kong at the least, µs of CPU time."""
        return calls * self.value(FLOOR, "server_cpu_us_per_event")

    def need(self, rate: float, event: float, node: int) -> Need:
        """What so many events a second take.

        Args:
            rate: events a second.
            event: CPU time of each, µs.
            node: cores that a node has for it.
        """
        busy = rate * event / 1e6
        cores = busy / SHARE
        return Need(busy, cores, math.ceil(round(cores / node, 6)))

    def processes(self, rate: float, mode: str, calls: int = CALLS, compute: float = 0.0) -> int:
        """How many servers of a single process so many events a second take.

        At what one was measured to do, which in threads takes more than one core: the kernel's part
        runs beside Python. What a handler computes runs on one.
        """
        time = 1e6 / self.value(mode, "events_per_s") * (calls + 1) / (CALLS + 1) + compute
        return math.ceil(round(rate * time / 1e6 / SHARE, 6))

    def memory(self, mode: str, load: Optional[str] = None) -> float:
        """MiB of a server and its processes: idle, or the most under a load."""
        if load is None:  # measured once, before the first load
            return self.value(mode, "idle_memory_kib", "hello-1") / 1024
        return self.value(mode, "peak_memory_kib", load) / 1024


def tenth(value: float) -> str:
    """A number that is not known better than that."""
    return f"{value:.1f}"


def a_core(of: Capacity) -> str:
    """Events a second that a core gives, by mode."""
    rows = []
    for mode in MODES:
        event, speed = of.event(mode), of.value(mode, "events_per_s")
        cores = [speed * cost / 1e6 for cost in (event, of.value(mode, "cpu_us_per_event"))]
        pure = of.value(f"{mode}, pure", "server_cpu_us_per_event") / event
        rows.append([mode, *map(number, (event, 1e6 / event, speed)), *map(tenth, (*cores, pure))])
    heads = ["", "CPU, µs/event", "events/s of a core", "events/s measured"]
    heads += ["cores that the server used", "cores that the client used"]
    heads += ["CPU with the pure codec, times"]
    first = of.event(MODES[0])
    rounds = "; ".join(f"{mode} {', '.join(map(number, of.rounds(mode)))}" for mode in MODES)
    return (
        table(heads, rows)
        + f"\n\nThe arithmetic: 1,000,000 µs / {number(first)} µs = {number(1e6 / first)} events/s."
        f" The first column has the medians of these rounds, in µs: {rounds}."
    )


def a_call(of: Capacity) -> str:
    """What one more PDK call costs."""
    rows = [["our code with its `recv` and `send`, nobody to be woken", number(of.own_call())]]
    rows += [[f"a quarter of the event, {mode}", number(of.event(mode, 0))] for mode in MODES]
    rows.append(["Kong, which was not measured: more than", number(of.kong(1))])
    own = " + ".join(number(of.step(name)) for name in CALL_STEPS)
    event, more = of.event("threads"), of.event("threads", CALLS + 1)
    return (
        table(["one more PDK call", "CPU, µs"], rows)
        + f"\n\nThe arithmetic: {own} = {number(of.own_call())} µs (read, handler, encode, write);"
        f" {number(event)} µs / {CALLS + 1} = {number(event / (CALLS + 1))} µs in threads. A fourth"
        f" call then makes {number(event)} into {number(more)} µs, and {number(1e6 / event)}"
        f" events/s of a core into {number(1e6 / more)}."
    )


def nodes(of: Capacity) -> str:
    """Cores and nodes of the plugin server for some rates."""
    worker, process = of.event("multiprocessing"), of.value("threads", "events_per_s")
    rows = []
    for rate in RATES:
        need = of.need(rate, worker, POD_WORKERS)
        cells = [f"{rate:,}", number(need.busy), number(need.cores)]
        cells += [f"{need.nodes} ({POD_WORKERS * need.nodes})"]
        rows.append([*cells, *(str(of.processes(rate, mode)) for mode in MODES[:2])])
    last = of.need(RATES[-1], worker, POD_WORKERS)
    most = POD_MOST * POD_WORKERS * SHARE * 1e6 / worker
    heads = ["requests/s", "cores busy, `-m`", "cores to provide, `-m`"]
    heads += [f"nodes (workers), `-m --workers {POD_WORKERS}`", "nodes, threads", "nodes, `-g`"]
    return (
        table(heads, rows)
        + f"\n\nThe arithmetic of the last line: {RATES[-1]:,} × {number(worker)} µs ="
        f" {number(last.busy)} cores busy; {number(last.busy)} / {SHARE} = {number(last.cores)}"
        f" cores; {number(last.cores)} / {POD_WORKERS} = {last.nodes} nodes. In threads one process"
        f" is planned for {SHARE} × {number(process)} = {number(SHARE * process)} events/s, so"
        f" {RATES[-1]:,} / {number(SHARE * process)} = {of.processes(RATES[-1], 'threads')}"
        " nodes.\n\n"
        f"The autoscaler of the recipe makes {POD_MOST} pods at most: {POD_MOST} × {POD_WORKERS} ×"
        f" {SHARE} × {number(1e6 / worker)} = {number(most)} events/s. For more, raise"
        " `maxReplicas`."
    )


def kong(of: Capacity) -> str:
    """What the same rates cost Kong at the least."""
    event, call = of.kong(), number(of.kong(1))
    needs = [of.need(rate, event, KONG_CORES) for rate in RATES]
    rows = [
        [f"{rate:,}", number(need.busy), number(need.cores), str(need.nodes)]
        for rate, need in zip(RATES, needs)
    ]
    heads = ["requests/s", "Kong's cores busy with calls, more than", "to provide, more than"]
    return (
        table([*heads, f"nodes with {KONG_CORES} cores for Kong, at least"], rows)
        + f"\n\nThe arithmetic of the last line: {RATES[-1]:,} × {CALLS} calls × {call} µs ="
        f" {number(needs[-1].busy)} cores; {number(needs[-1].busy)} / {SHARE} ="
        f" {number(needs[-1].cores)} cores; / {KONG_CORES} = {needs[-1].nodes} nodes."
    )


def others(of: Capacity) -> str:
    """Cores for plugins that do more."""
    rows = []
    for text, calls, compute in (
        ("one PDK call", 1, 0),
        ("three, as the documented plugin", CALLS, 0),
        ("ten", 10, 0),
        ("three, and 0.1 ms of computing", CALLS, 100),
        ("three, and 1 ms", CALLS, 1_000),
        ("three, and 5 ms", CALLS, 5_000),
    ):
        event = of.event("multiprocessing", calls, compute)
        needs = [number(of.need(rate, event, POD_WORKERS).cores) for rate in RATES]
        rows.append([text, number(event), number(1e6 / event), *needs])
    heads = ["a handler with", "CPU, µs/event", "events/s of a core"]
    heads += [f"cores for {rate:,}/s" for rate in RATES]
    three, ten = (of.event("multiprocessing", calls) for calls in (CALLS, 10))
    said = [cores * 1e6 / of.event(mode, 1, 5_000) for mode, cores in BURNT.items()]
    found = [of.value(mode, "events_per_s", "burn") for mode in BURNT]
    return (
        table(heads, rows)
        + f"\n\nThe arithmetic of the third line: {number(three)} µs × 11 / 4 = {number(ten)} µs;"
        f" 10,000 × {number(ten)} µs / {SHARE} = {rows[2][3]} cores.\n\n"
        "A check against what was measured, with one call and 5 ms of computing: the sum says"
        f" {number(said[0])} events/s for threads, and {number(found[0])} were measured; for two"
        f" workers {number(said[1])} and {number(found[1])}, with the client on the same two cores."
    )


def memory(of: Capacity) -> str:
    """Memory of a server."""
    one, _, two = (of.memory(mode) for mode in MODES)
    each = (two - one) / 2
    rows = [[mode, *map(number, (of.memory(mode), of.memory(mode, LOAD)))] for mode in MODES]
    rows[-1][0] += ", 2 workers"
    return (
        table(["MiB of a server", "idle", "64 events under way"], rows)
        + "\n\nThe arithmetic: if the first process of `-m` is as large as a server with threads, a"
        f" worker has ({number(two)} − {number(one)}) / 2 = {number(each)} MiB, and a server with 8"
        f" workers {number(one)} + 8 × {number(each)} = {number(one + 8 * each)} MiB."
    )


def waiting(of: Capacity) -> str:
    """How many events a second threads can take whose handlers wait."""
    rate = POD_WORKERS * SHARE * 1e6 / of.event("multiprocessing")
    threads = POD_WORKERS * THREADS
    rows = [
        [f"{wait} ms", number(THREADS * 1000 / wait), number(threads * 1000 / wait)]
        for wait in (5, 50, 500)
    ]
    return (
        table(["a handler waits", "events/s of a process", f"of `--workers {POD_WORKERS}`"], rows)
        + f"\n\nThe arithmetic: {THREADS} / 0.05 s = {number(THREADS / 0.05)} events/s. A node that"
        f" is planned for {number(rate)} events/s with {threads:,} threads has none left when"
        f" handlers take {threads:,} / {number(rate)} = {number(threads * 1000 / rate, 2)} ms."
    )


def counters(of: Capacity) -> str:
    """How many counters there are, and what becomes of a limit."""
    many = of.need(RATES[-1], of.event("multiprocessing"), POD_WORKERS).nodes
    modules = POD_WORKERS * many
    objects = NGINX_WORKERS * modules
    found = [
        ("in the object (`self`)", "nginx workers × server workers × nodes", objects),
        ("in the module", "server workers × nodes", modules),
        ("in Redis", "1", 1),
    ]
    rows = [[where, how, f"{count:,}", f"{60 * count:,}"] for where, how, count in found]
    heads = ["the counter is", "there are", "in the example", "60 a minute lets through, up to"]
    return (
        table(heads, rows)
        + f"\n\nThe example has {NGINX_WORKERS} nginx workers, `--workers {POD_WORKERS}` and {many}"
        f" nodes: {NGINX_WORKERS} × {POD_WORKERS} × {many} = {objects}."
    )


def targets(of: Capacity) -> str:
    """What the autoscaler's targets mean."""
    worker, cores = of.event("multiprocessing"), POD_TARGET * POD_REQUEST
    need = of.need(RATES[1], worker, POD_WORKERS)
    pods = math.ceil(round(need.busy / cores, 6))
    return (
        f"The target of {100 * POD_TARGET:.0f} % is a part of the CPU time that a container"
        f" requests, not of its limit: {POD_TARGET} × {POD_REQUEST} = {cores:g} cores. In these"
        f" a pod makes {cores:g} × {number(1e6 / worker)} = {number(cores * 1e6 / worker)} events/s"
        f" of the documented plugin, so for {RATES[1]:,} events/s the autoscaler makes {pods} pods"
        f" ({number(need.busy)} / {cores:g}), where the table has {need.nodes} nodes. The"
        f" example target of {POD_EVENTS:,} events/s comes first if an event takes less than"
        f" {cores:g} × 1,000,000 µs / {POD_EVENTS:,} = {number(cores * 1e6 / POD_EVENTS)} µs."
    )


def rewrite(of: Capacity) -> str:
    """What another language can save on this side."""
    rows = []
    for mode, name, text in (
        ("gevent", FLOOR, "one thread and epoll"),
        ("threads", FLOOR, "one thread and epoll"),
        ("threads", "C floor, threads", "a thread for each connection"),
    ):
        event, base = of.event(mode), of.value(name, "server_cpu_us_per_event")
        saved = f"{100 * (1 - base / event):.0f} %"
        rows.append([mode, number(event), text, number(base), saved])
    heads = ["ours", "µs/event", "a C server that only answers", "µs/event", "less"]
    return table(heads, rows)


BLOCKS: dict[str, Callable[[Capacity], str]] = {
    "a core": a_core, "a call": a_call, "nodes": nodes, "kong": kong, "others": others,
    "memory": memory, "counters": counters, "waiting": waiting,
    "targets": targets, "rewrite": rewrite,
}  # fmt: skip


def load(path: Path = RESULTS) -> Capacity:
    """What compare.py has written."""
    return Capacity(Results(json.loads(path.read_text(encoding="utf-8"))))


def fill(page: str, of: Capacity) -> str:
    """A page with its blocks computed anew.

    Raises:
        Missing: the page has no place for a block, or one for an unknown block.
    """
    found = re.findall(r"<!-- begin: (.*?) -->", page)
    if sorted(found) != sorted(BLOCKS):
        raise Missing(f"the page has the blocks {sorted(found)}, not {sorted(BLOCKS)}")

    def block(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{BLOCKS[match[2]](of)}\n\n<!-- end -->"

    return re.sub(r"(<!-- begin: (.*?) -->).*?<!-- end -->", block, page, flags=re.DOTALL)


def plan(of: Capacity, rate: float, calls: int, compute: float, node: int) -> str:
    """The plan for a plugin, as text."""
    rows = []
    for mode in MODES:
        event = of.event(mode, calls, compute)
        need = of.need(rate, event, node)
        is_one = mode != "multiprocessing"
        nodes = of.processes(rate, mode, calls, compute) if is_one else need.nodes
        rows.append([mode, number(event), number(need.busy), number(need.cores), str(nodes)])
    heads = ["mode", "CPU, µs/event", "cores busy", "cores to provide", f"nodes, {node} cores each"]
    return (
        f"{rate:,.0f} requests/s, one event each, {calls} PDK calls, {compute:g} µs of computing; "
        f"{SHARE} of each core planned; without -m a node has one process\n\n"
        f"{table(heads, rows)}\n\n"
        f"Kong: more than {number(of.need(rate, of.kong(calls), 1).cores)} cores for these calls, "
        "and what it needs without them"
    )


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Print the tables, write them into the page, or print a plan."""
    parser = argparse.ArgumentParser(description="Cores and nodes for a load.")
    parser.add_argument("--write", action="store_true", help="put the tables into scale.md")
    parser.add_argument("--requests", type=float, help="requests per second: print a plan for them")
    parser.add_argument(
        "--calls", type=int, default=CALLS, help="PDK calls of an event (%(default)s)"
    )
    parser.add_argument("--compute", type=float, default=0, help="CPU time of a handler, µs (0)")
    parser.add_argument(
        "--cores", type=int, default=POD_WORKERS,
        help="cores of a node for the plugin server, with -m a worker for each (%(default)s)",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    if given.requests is not None and not given.requests > 0:
        parser.error("--requests: more than 0")
    if given.calls < 0 or given.compute < 0 or given.cores < 1:
        parser.error("--calls and --compute: 0 or more; --cores: 1 or more")
    try:
        capacity = load()
        if given.requests is not None:
            print(plan(capacity, given.requests, given.calls, given.compute, given.cores))
        elif given.write:
            page = fill(PAGE.read_text(encoding="utf-8"), capacity)
            PAGE.write_text(page, encoding="utf-8")
        else:
            for name, block in BLOCKS.items():
                print(f"{name}\n\n{block(capacity)}\n")
    except Missing as exc:
        parser.exit(1, f"capacity.py: {exc}\n")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Compares this package with the published one and with the floor, interleaved.

    python3 dev.py compare               measure, and write results.json, the tables and the plots
    python3 dev.py compare --plot-only   tables and plots anew, from results.json
    python3 dev.py compare --steps-only  measure anew only what steps and calls cost
    python3 dev.py compare --quick       one short round, printed; nothing is written
    python3 dev.py compare --only NAME   only these servers, printed; nothing is written

In each round every server runs once in each scenario, one after the other, so that what disturbs
the machine disturbs them all; what is compared are ratios within a round.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple, Optional

import contenders
import report
from contenders import ROOT, Contender, Failed, Unavailable
from servers import clean_environment

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results.json"
README = FOLDER / "README.md"

HELLO = ROOT / "examples" / "py-hello.py"
WORK = FOLDER / "plugins" / "bench_work.py"

IDLE = 0.3  # a server's threads have started by then, seconds


class Scenario(NamedTuple):
    """A kind of load.

    Attributes:
        name: in results.json; one with a number of events under way is ``hello-<N>``.
        plugin: the file that is served.
        options: of the load client.
        floor: flags with which the floor can take part; None if it cannot.
    """

    name: str
    plugin: Path
    options: list[str]
    floor: Optional[tuple[str, ...]]


def work(name: str, under_way: int, config: dict[str, Any], body: int = 0) -> Scenario:
    """A scenario of the plugin that does what its configuration says."""
    options = ["--plugin", "bench-work", "--config", json.dumps(config)]
    options += ["--under-way", str(under_way), "--body", str(body)]
    return Scenario(name, WORK, options, ("--body",) if body else None)


def scenarios(under_way: list[int], quick: bool) -> list[Scenario]:
    """All scenarios, in the order in which a round runs them."""
    found = [Scenario(f"hello-{n}", HELLO, ["--under-way", str(n)], ()) for n in sorted(under_way)]
    if quick:
        return found
    many = ["--under-way", "64"]
    return [
        *found,
        Scenario("scatter", HELLO, [*many, "--scatter"], ()),
        Scenario("workers", HELLO, [*many, "--workers", "4"], ()),
        work("sleep", 64, {"calls": 2, "sleep": 0.005}),
        work("burn", 16, {"calls": 2, "burn": 0.005}),
        work("body", 64, {"calls": 1, "body": True}, body=100_000),
    ]


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def commit() -> str:
    """The commit of the checkout; a plus behind it stands for changes since."""
    git = ["git", "-C", str(ROOT)]
    done = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    if done.returncode:
        return "unknown"
    changes = subprocess.run(
        [*git, "status", "--porcelain", "kong_pdk", "benchmarks/native", "benchmarks/plugins"],
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() + ("+" if changes.stdout.strip() else "")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure everything; returns what results.json holds."""
    results: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "machine": machine(),
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "under_way": sorted(arguments.under_way),
        "versions": {
            "published": contenders.install_published(),
            "ours": contenders.versions(sys.executable),
        },
        "contenders": [],
        "unavailable": {},
        "cells": [],
    }
    loads = scenarios(arguments.under_way, arguments.quick or bool(arguments.only))
    everyone = [
        one for one in contenders.contenders() if not arguments.only or one.name in arguments.only
    ]
    echo = Contender("echo", "floor", "", "", ("--echo",))
    for number in range(1, arguments.rounds + 1):
        for load in loads:
            for one in [*everyone, echo]:
                if one.name in results["unavailable"]:
                    continue
                if one is echo and load.name != "hello-64":
                    continue
                if one.project == "floor":
                    if load.floor is None:
                        continue
                    one = one._replace(flags=(*one.flags, *load.floor))
                cell = {"round": number, "scenario": load.name, "contender": one.name}
                first = number == 1 and load.name == loads[0].name
                try:
                    cell.update(
                        contenders.measure(
                            one, load.plugin, load.options, arguments.seconds,
                            IDLE if load.name == loads[0].name else None,
                        )
                    )  # fmt: skip
                except Unavailable as exc:
                    if first:
                        results["unavailable"][one.name] = str(exc)
                        print(f"{one.name}: not available: {exc}", file=sys.stderr)
                        continue
                    cell["failed"] = f"does not start: {exc}"
                except Failed as exc:
                    cell["failed"] = str(exc)
                results["cells"].append(cell)
                print(describe(cell), file=sys.stderr)
    if not arguments.quick and not arguments.only:
        results["steps"] = steps()
        results["calls"] = calls(arguments.rounds)
    names = [one.name for one in everyone if one.name not in results["unavailable"]]
    kinds = {one.name: one for one in everyone}
    results["contenders"] = [
        {"name": name, "project": kinds[name].project, "mode": kinds[name].mode} for name in names
    ]
    return results


def steps() -> dict[str, dict[str, float]]:
    """What each step of an RPC costs, nanoseconds: the medians of test_steps_bench.py.

    Returns:
        By test and codec; "" is any codec.
    """
    command = [str(Path(sys.executable).with_name("pytest")), str(FOLDER / "test_steps_bench.py")]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "steps.json"
        options = ["-q", "--benchmark-enable", "--benchmark-json", str(output)]
        subprocess.run([*command, *options], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        measured = json.loads(output.read_text(encoding="utf-8"))["benchmarks"]
    found: dict[str, dict[str, float]] = {}
    for one in measured:
        params = dict(one["params"] or {})
        codec = params.pop("package", "")
        key = " ".join([one["name"].partition("[")[0], *params.values()])
        median = one["stats"]["median"] * 1e9 / one["extra_info"].get("steps", 1)
        found.setdefault(key, {})[codec] = round(median, 1)
    return found


def calls(rounds: int) -> dict[str, dict[str, float]]:
    """What a PDK call costs up to where it is encoded, nanoseconds: the best of all rounds.

    Returns:
        By case of time_calls.py and variant.
    """
    contenders.install_published()
    pythons = {
        "compiled": (sys.executable, {"KONG_PDK_PUREPYTHON": "0"}),
        "pure": (sys.executable, {"KONG_PDK_PUREPYTHON": "1"}),
        "published": (str(contenders.PUBLISHED_VENV / "bin" / "python"), {}),
    }
    found: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for name, (python, env) in pythons.items():
            output = subprocess.run(
                [python, str(FOLDER / "support" / "time_calls.py")], check=True, text=True, cwd="/",
                stdout=subprocess.PIPE, env={**clean_environment(), **env},
            ).stdout  # fmt: skip
            for case, variants in json.loads(output).items():
                cases = found.setdefault(case, {})
                for variant, took in variants.items():
                    key = f"{name} {variant}"
                    cases[key] = min(took, cases.get(key, took))
    return found


def describe(cell: dict[str, Any]) -> str:
    """One line about a measurement."""
    head = f"{cell['round']} {cell['scenario']:10} {cell['contender']:26}"
    if "failed" in cell:
        return f"{head} failed: {cell['failed']}"
    errors = f", {cell['errors']} errors ({cell['first_error']})" if cell["errors"] else ""
    return (
        f"{head} {cell['events_per_s']:9,.0f} events/s, p50 {cell['p50_us']:,.0f} us, "
        f"p99 {cell['p99_us']:,.0f} us, {cell['server_cpu_us_per_event']:.0f} us CPU{errors}"
    )


def numbers(text: str) -> list[int]:
    """The argument of ``--under-way``."""
    found = [int(part) for part in text.split(",")]
    if min(found) < 1:
        raise ValueError(text)
    return found


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="dev.py compare", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="of all servers (%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run (%(default)s)")
    parser.add_argument(
        "--under-way", type=numbers, default=[1, 16, 64, 256], metavar="N,N",
        help="events at the same time (1,16,64,256)",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="one short round, printed; nothing is written"
    )
    parser.add_argument(
        "--only", action="append", metavar="SERVER",
        help="this one of the servers in the tables, which may be repeated; nothing is written",
    )  # fmt: skip
    parser.add_argument(
        "--plot-only", action="store_true", help="tables and plots anew, from results.json"
    )
    parser.add_argument(
        "--steps-only", action="store_true",
        help="measure only what each step and call costs, and take the rest from results.json",
    )  # fmt: skip
    arguments = parser.parse_args()
    contenders.end_with_the_terminal()
    if arguments.plot_only or arguments.steps_only:
        results = json.loads(RESULTS.read_text(encoding="utf-8"))
        if arguments.steps_only:
            results["steps"] = steps()
            results["calls"] = calls(arguments.rounds)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    else:
        if arguments.quick:
            arguments.rounds, arguments.seconds = 1, 0.3
        try:
            results = run(arguments)
        except RuntimeError as exc:  # no C compiler, so no load client
            sys.exit(f"compare: {exc}")
        if arguments.quick or arguments.only:
            print(report.text(results))
            return
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    import plots  # needs matplotlib, which --quick does not

    report.insert(README, report.text(results))
    plots.draw(results, FOLDER)
    print(f"written: {README}, {RESULTS}, {FOLDER}/throughput.svg, {FOLDER}/latency.svg")


if __name__ == "__main__":
    main()

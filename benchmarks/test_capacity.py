"""That docs/explanation/scale.md says what results.json gives, and that the sums are right."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import capacity
import pytest
import report
import yaml

KUBERNETES = capacity.ROOT / "deploy" / "kubernetes"
REMEDY = "run python3 benchmarks/support/capacity.py --write, and read the page's text again"


def cells(
    contender: str, *cpu: float, load: str = "hello-64", **more: float
) -> list[dict[str, Any]]:
    return [
        {"round": number, "scenario": load, "contender": contender, "errors": 0,
         "server_cpu_us_per_event": one, **more}
        for number, one in enumerate(cpu)
    ]  # fmt: skip


@pytest.fixture
def small() -> capacity.Capacity:
    """Round numbers: 40 µs an event with -m, 10 µs each of its four messages."""
    names = ("C floor, epoll", "threads, compiled", "multiprocessing, compiled")
    measured = [
        *cells(names[0], 8.0, 12.0),
        *cells(names[1], 20.0, events_per_s=50_000.0),
        *cells(names[2], 30.0, 50.0),
    ]
    contenders = [{"name": name, "project": "", "mode": ""} for name in names]
    nanoseconds = (1000.0, 500.0, 250.0, 1250.0)
    steps = {name: {"compiled": one} for name, one in zip(capacity.CALL_STEPS, nanoseconds)}
    data = {"contenders": contenders, "cells": measured, "steps": steps}
    return capacity.Capacity(report.Results(data))


def test_the_page_is_up_to_date() -> None:
    page = capacity.PAGE.read_text(encoding="utf-8")
    assert capacity.fill(page, capacity.load()) == page, REMEDY


def test_what_the_text_of_the_page_says_is_so() -> None:
    """Kong's bound for a call is above our own cost, and -m costs more than threads."""
    of = capacity.load()
    assert all(of.kong(1) > of.event(mode, 0) for mode in capacity.MODES), REMEDY
    assert of.event("multiprocessing") > of.event("threads"), REMEDY
    assert all(of.event(mode, 0) < 1_000 for mode in capacity.MODES), REMEDY
    # "At 10,000 requests/s it is a core or two"
    ours = of.need(10_000, of.event("multiprocessing"), 1).cores
    assert ours + of.need(10_000, of.kong(), 1).cores < 2, REMEDY


def test_the_recipe_is_that_of_the_page() -> None:
    deployment = yaml.safe_load((KUBERNETES / "base" / "deployment.yaml").read_text("utf-8"))
    pod = deployment["spec"]["template"]["spec"]
    (server,) = [one for one in pod["initContainers"] if one["name"] == "plugins"]
    (kong,) = [one for one in pod["containers"] if one["name"] == "kong"]
    assert f"--workers={capacity.POD_WORKERS}" in server["args"]
    assert int(server["resources"]["limits"]["cpu"]) == capacity.POD_WORKERS
    assert int(server["resources"]["requests"]["cpu"]) == capacity.POD_REQUEST
    # "the half of two cores ... is what a pod requests"
    assert capacity.POD_REQUEST == capacity.SHARE * capacity.POD_WORKERS
    assert int(kong["resources"]["limits"]["cpu"]) == capacity.KONG_CORES
    scaler = yaml.safe_load((KUBERNETES / "base" / "autoscaler.yaml").read_text("utf-8"))["spec"]
    assert scaler["maxReplicas"] == capacity.POD_MOST
    for metric in scaler["metrics"]:
        target = metric["containerResource"]["target"]["averageUtilization"]
        assert target == round(100 * capacity.POD_TARGET)
    patches = yaml.safe_load((KUBERNETES / "prometheus" / "autoscaler.yaml").read_text("utf-8"))
    by_name = {
        patch["value"]["pods"]["metric"]["name"]: patch["value"]["pods"] for patch in patches
    }
    events = by_name["kong_pdk_events_per_second"]["target"]["averageValue"]
    assert events == f"{capacity.POD_EVENTS // 1000}k"


def test_an_event_is_its_messages_and_its_computing(small: capacity.Capacity) -> None:
    assert small.event("multiprocessing") == 40  # the median of both rounds
    assert small.event("multiprocessing", 0) == 10
    assert small.event("multiprocessing", 10) == 110
    assert small.event("multiprocessing", 3, 500) == 540


def test_a_call_costs_its_steps_here_and_the_floor_in_kong(small: capacity.Capacity) -> None:
    assert small.own_call() == 3
    assert small.kong() == 30


def test_half_of_the_cores_are_planned(small: capacity.Capacity) -> None:
    # 100,000 × 40 µs = 4 s of CPU time a second
    assert small.need(100_000, 40, 2) == capacity.Need(busy=4, cores=8, nodes=4)
    assert small.need(100_001, 40, 2).nodes == 5
    assert small.processes(100_000, "threads") == 4  # of 25,000 each
    assert small.processes(100_000, "threads", 7) == 8
    assert small.processes(1_000, "threads", 3, 1_980) == 4  # 20 µs and 1,980 of each


def test_what_was_not_measured_is_named(small: capacity.Capacity) -> None:
    with pytest.raises(capacity.Missing, match="'gevent, compiled' under hello-64"):
        small.event("gevent")
    with pytest.raises(capacity.Missing, match="'test_wake'"):
        small.step("test_wake")


def test_a_page_without_a_block_is_an_error(small: capacity.Capacity) -> None:
    with pytest.raises(capacity.Missing, match="the page has the blocks"):
        capacity.fill("<!-- begin: nodes -->\n<!-- end -->", small)


def test_a_plan_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    capacity.main(["--requests", "100000", "--calls", "3"])
    text = capsys.readouterr().out
    of = capacity.load()
    need = of.need(100_000, of.event("multiprocessing"), capacity.POD_WORKERS)
    (row,) = [line for line in text.splitlines() if line.startswith("| multiprocessing")]
    assert row.split("|")[-2].strip() == str(need.nodes)
    assert report.number(of.need(100_000, of.kong(), 1).cores) in text.splitlines()[-1]


def test_a_plan_and_the_page_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    page = capacity.PAGE.read_text(encoding="utf-8")
    for rate in capacity.RATES:
        capacity.main(["--requests", str(rate)])
        rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if "|" in line]
        planned = {row[1].strip(): row[-2].strip() for row in rows}
        (line,) = re.findall(rf"^\| {rate:,} \|.*\d \(\d+\) \|.*$", page, re.MULTILINE)
        workers, threads, gevent = line.strip("| ").split(" | ")[-3:]
        assert planned["multiprocessing"] == workers.split()[0]
        assert (planned["threads"], planned["gevent"]) == (threads, gevent)


@pytest.mark.parametrize("wrong", [["--requests", "0"], ["--calls", "-1"], ["--cores", "0"]])
def test_numbers_that_make_no_sense_are_refused(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        capacity.main(wrong)
    assert end.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_tables_are_printed_and_written_as_a_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = capacity.ROOT / "benchmarks" / "support" / "capacity.py"
    found = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True
    )
    page = capacity.PAGE.read_text(encoding="utf-8")
    for name, block in capacity.BLOCKS.items():
        assert f"{name}\n\n{block(capacity.load())}" in found.stdout
    copy = tmp_path / "scale.md"
    copy.write_text(page.replace("| threads |", "| old |"), encoding="utf-8")
    monkeypatch.setattr(capacity, "PAGE", copy)
    capacity.main(["--write"])
    assert copy.read_text(encoding="utf-8") == page

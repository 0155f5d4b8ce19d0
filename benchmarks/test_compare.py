"""What compare.py makes of measurements: medians, ratios within a round, tables, plots."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import report

FOLDER = Path(__file__).parent


def cell(number: int, contender: str, **values: Any) -> dict[str, Any]:
    return {"round": number, "scenario": "hello-64", "contender": contender, **values}


def measured(number: int, contender: str, speed: float, errors: int = 0) -> dict[str, Any]:
    return cell(
        number, contender, events_per_s=speed, rpcs_per_s=4 * speed, p50_us=1000.0, p99_us=2000.0,
        server_cpu_us_per_event=20.0, peak_memory_kib=20480, idle_memory_kib=10240, errors=errors,
        first_error="load: first error: something",
    )  # fmt: skip


@pytest.fixture
def data() -> dict[str, Any]:
    names = [("C floor, epoll", "floor", ""), ("threads, compiled", "ours", "threads"),
             ("threads, published", "published", "threads")]  # fmt: skip
    return {
        "date": "2030-01-01 00:00 UTC",
        "commit": "abc",
        "machine": {"cpu": "some", "cores": 2, "kernel": "6", "load_before": 0.1},
        "rounds": 3,
        "seconds": 2.0,
        "under_way": [64],
        "versions": {"ours": {"python": "3.9"}, "published": {"kong-pdk": "0.36"}},
        "contenders": [{"name": n, "project": p, "mode": m} for n, p, m in names],
        "unavailable": {"multiprocessing, pure": "not yet"},
        "calls": {
            "chain": {
                "compiled checked": 170.0,
                "compiled unchecked": 171.0,
                "pure checked": 690.0,
                "published call": 2210.0,
            },
        },
        "steps": {"test_read": {"compiled": 1234.0, "pure": 5000.0}, "test_wake": {"": 42.0}},
        "cells": [
            measured(1, "C floor, epoll", 1000.0),
            measured(1, "threads, compiled", 400.0),
            measured(1, "threads, published", 100.0),
            # The machine was ten times as fast in this round, and once a server has hung.
            measured(2, "C floor, epoll", 10000.0),
            measured(2, "threads, compiled", 6000.0),
            measured(2, "threads, published", 2000.0, errors=7),
            measured(3, "C floor, epoll", 2000.0),
            measured(3, "threads, compiled", 1000.0),
            cell(3, "threads, published", failed="hangs"),
        ],
    }


def test_ratios_are_within_a_round(data: dict[str, Any]) -> None:
    results = report.Results(data)
    speed = "events_per_s"
    assert results.median("hello-64", "threads, compiled", speed) == 1000
    assert results.ratio("hello-64", "threads, compiled", "C floor, epoll", speed) == 0.5
    assert results.ratio("hello-64", "threads, compiled", "threads, published", speed) == 3.5
    assert results.ratio("hello-64", "threads, compiled", "nobody", speed) is None


def test_text(data: dict[str, Any]) -> None:
    text = report.text(data)
    assert (
        "| threads, compiled | 1,000 | 50 % | 3.5× | 1,000 | 2,000 | 20.0 | 20.0 | 10.0 |" in text
    )
    assert "| threads, published | 1,050* |" in text
    assert (
        "- threads, published, hello-64: round 2: 7 errors, load: first error: something; "
        "round 3: hangs" in text
    )
    assert "| **read** a step: recv, scan, decode | 1,230 | 5,000 |" in text
    assert "| **wake** another thread through its waiter, and run there | 42.0 | 42.0 |" in text
    assert "Not available: multiprocessing, pure (not yet)." in text


@pytest.mark.parametrize(
    "value, text",
    [(None, "–"), (0, "0"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (99.96, "100.0"),
     (1234, "1,230"), (183537, "184,000"), (0.01234, "0.0123")],
)  # fmt: skip
def test_number(value: float, text: str) -> None:
    assert report.number(value) == text


def test_insert(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.insert(page, "new")
    assert page.read_text() == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="has no lines"):
        report.insert(page, "new")


def test_plots(data: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra bench is not installed")
    import plots

    plots.draw(data, tmp_path)
    for name in ("throughput.svg", "latency.svg"):
        path = tmp_path / name
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
        assert "threads, published" in path.read_text()  # text is text


def test_readme_shows_the_results() -> None:
    """The committed tables are those of the committed data."""
    path = FOLDER / "results.json"
    if not path.exists():
        pytest.skip("nothing was measured yet: python3 dev.py compare")
    data = json.loads(path.read_text(encoding="utf-8"))
    assert report.text(data) in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_calls_beside_the_published_package(data: dict[str, Any]) -> None:
    (row,) = [line for line in report.text(data).split("\n") if "not called" in line]
    cells = [each.strip() for each in row.strip("|").split("|")]
    assert cells[1:] == ["170", "0", "690", "2,210", "13×"]


def test_each_call_is_measured() -> None:
    script = FOLDER / "support" / "time_calls.py"
    output = subprocess.run(
        [sys.executable, str(script), "--quick"], check=True, text=True, stdout=subprocess.PIPE,
        cwd="/",
    ).stdout  # fmt: skip
    measured = json.loads(output)
    assert set(measured) == set(report.CALLS)
    for variants in measured.values():
        assert set(variants) == {"checked", "unchecked"}
        assert min(variants.values()) > 0

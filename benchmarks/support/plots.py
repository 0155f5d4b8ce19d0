"""The plots of a comparison, as SVG, from what results.json holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from report import Results

matplotlib.use("svg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

#: A colour for each mode, a line for each project and codec.
COLOURS = {"threads": "#1b6ca8", "gevent": "#2a8c4a", "multiprocessing": "#b8531a", "": "#777777"}


def style(one: dict[str, str]) -> dict[str, Any]:
    """How a server is drawn: ours solid, pure dashed, supervised dash-dotted, published dotted."""
    published, pure = one["project"] == "published", one["name"].endswith("pure")
    supervised = one["name"].endswith("supervised")
    line = ":" if published else "--" if pure else "-." if supervised else "-"
    marker = "x" if published else "." if pure else "o"
    if not one["mode"]:
        marker, line = ("s", "-") if "epoll" in one["name"] else ("v", "--")
    return {
        "color": COLOURS[one["mode"]], "linestyle": line, "marker": marker,
        "markersize": 4, "linewidth": 1.3, "label": one["name"],
    }  # fmt: skip


def curves(axes: Axes, results: Results, key: str, scale: float = 1.0) -> None:
    """Draw a value of all servers against the events under way."""
    loads = results.data["under_way"]
    for one in results.contenders:
        points = [
            (load, value * scale)
            for load in loads
            if (value := results.median(f"hello-{load}", one["name"], key))
        ]
        if points:
            axes.plot(*zip(*points), **style(one))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=30))
    axes.set_xticks(loads, [str(load) for load in loads])
    axes.minorticks_off()
    axes.set_xlabel("events under way")
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def draw(data: dict[str, Any], folder: Path) -> None:
    """Write ``throughput.svg`` and ``latency.svg`` into a folder."""
    # Text stays text; no dates and random ids, so that equal results give equal files.
    pyplot.rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "kong-pdk", "font.family": "sans-serif",
         "font.size": 9}
    )  # fmt: skip
    results = Results(data)

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    curves(axes, results, "events_per_s")
    axes.set_ylabel("events/s")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    figure.legend(loc="outside right center", frameon=False)
    save(figure, folder / "throughput.svg")

    figure, both = pyplot.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    for axes, key in zip(both, ("p50_us", "p99_us")):
        curves(axes, results, key, scale=1e-3)
        axes.set_title(key[:3])
    both[0].set_ylabel("latency of an event, ms")
    both[0].yaxis.set_major_formatter("{x:g}")
    handles, labels = both[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    save(figure, folder / "latency.svg")


def save(figure: Any, path: Path) -> None:
    """Write a figure, and close it."""
    figure.savefig(path, metadata={"Date": None}, transparent=False)
    pyplot.close(figure)

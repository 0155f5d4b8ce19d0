"""What ``plugin.GetStatus`` tells: plugins, their instances and events, and the workers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from .. import __version__
from .._codec import is_compiled
from ..config import ServerConfig
from ..plugins.definition import Plugin
from .tally import PERCENTILES, Counts, Table, WorkerState

#: What is told of the instances; see :meth:`kong_pdk.runtime.instances.Instances.report`.
Report = tuple[list[tuple[int, str, float]], dict[str, tuple[float, float]]]


def describe_server(config: ServerConfig, table: Table) -> dict[str, Any]:
    """What is told of the server as a whole, and of its workers."""
    return {
        "Version": __version__,
        "Mode": describe_mode(config),
        "Codec": "compiled" if is_compiled() else "pure-Python",
        "StartTime": table.started,
        "Uptime": max(0.0, time.time() - table.started),
        "Workers": [_describe_worker(one) for one in table.states() if not one.vacant],
    }


def describe_mode(config: ServerConfig) -> str:
    """The mode in a word: threads, gevent, or either of them in processes."""
    return f"{config.mode} in processes" if config.workers else config.mode


def describe_plugins(
    plugins: Iterable[Plugin], report: Report, table: Table
) -> dict[str, dict[str, Any]]:
    """What is told of each plugin, by its name.

    Args:
        plugins: all of them.
        report: of their instances.
        table: has counted their events.
    """
    alive, times = report
    described = {}
    for plugin in sorted(plugins, key=lambda one: one.name):
        described[plugin.name] = {
            "Name": plugin.name,
            "Version": plugin.version,
            "Priority": plugin.priority,
            "Modtime": plugin.modified,
            "LoadTime": plugin.loaded,
            "Instances": [
                {"Name": plugin.name, "Id": instance_id, "StartTime": started}
                for instance_id, name, started in alive
                if name == plugin.name
            ],
            "LastStartInstance": times[plugin.name][0],
            "LastCloseInstance": times[plugin.name][1],
            "Events": {
                phase: _describe_counts(table.counts(plugin.number, phase))
                for phase in plugin.phases
                if plugin.rows is not None
            },
        }
    return described


def _describe_counts(counts: Counts) -> dict[str, Any]:
    return {
        "Started": counts.started,
        "InFlight": counts.in_flight,
        "Errors": counts.errors,
        "Refused": counts.refused,
        "Abandoned": counts.abandoned,
        "Lost": counts.lost,
        "Calls": counts.calls,
        "Mean": counts.mean,
        **{name: counts.quantile(share) for name, share in PERCENTILES.items()},
    }


def _describe_worker(state: WorkerState) -> dict[str, Any]:
    return {
        "Index": state.index,
        "Pid": state.pid,
        "Ready": state.ready,
        "Restarts": state.restarts,
        "Replaced": state.replaced,
        "Memory": state.memory,
        "Connections": state.connections,
        "Running": state.running,
        "Queued": state.queued,
        "Waiting": state.waiting,
        "Shed": state.shed,
    }

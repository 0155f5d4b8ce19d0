"""``kong-pdk check``: a plugin as Kong would see it, what is wrong with it, and a run of it."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Sequence

from ..checking.findings import ERROR, WARNING, shown_path
from ..checking.plugin import Options, Report, check, expand
from ..checking.smoke import ORDER, shown_calls
from ..exception import ConfigError
from ..kongconf import serving
from ..kongconf.releases import release
from .objects import json_object
from .releases import kong_release
from .terminal import clean, counted

EPILOG = """\
Loads each plugin in a process of its own, as Kong's query does; holds its name, version, priority,
phases and, field by field, its Schema against what Kong takes; follows its PDK calls through the
source; and runs it in a real plugin server for a plain request. With --config the run has your
values; those that the Schema requires and you do not give are made up.

The exit status is 0 if there is no error (with --strict: and no warning), 1 if there is one, 2 if
the command itself is wrong. The names in brackets say what kind of problem it is.

examples:
  kong-pdk check my_plugin.py
  kong-pdk check plugins/ --kong-version 3.4 --strict
  kong-pdk check my_plugin.py --config '{"host": "localhost"}'
  kong-pdk check my_plugin.py --no-run --json > report.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's arguments to its parser."""
    parser.add_argument(
        "plugins", metavar="PLUGIN", nargs="+",
        help="a file, a folder that is a package or holds plugins, or the name of an installed one",
    )  # fmt: skip
    parser.add_argument(
        "--config",
        metavar="JSON",
        type=json_object,
        help="the configuration for the run; @FILE reads it from a file",
    )
    parser.add_argument(
        "--kong-version", metavar="VERSION", type=kong_release,
        help=f"the release of Kong that it is for, 2.8 to {release()} or later (default: any)",
    )  # fmt: skip
    style = parser.add_mutually_exclusive_group()
    style.add_argument(
        "--python-style", action="store_false", dest="lua_style", default=None,
        help="PDK calls return data alone, for a server with --no-lua-style (default: what the "
        "annotations say, else Lua style)",
    )  # fmt: skip
    style.add_argument(
        "--lua-style", action="store_true", dest="lua_style", default=None,
        help="PDK calls return data and error",
    )  # fmt: skip
    parser.add_argument("--no-run", action="store_false", dest="run_it", help="do not run it")
    parser.add_argument(
        "--server-args", metavar='"ARGS"', type=shlex.split, default=[],
        help='more flags for the plugin server of the run; with "=" if they begin with a dash',
    )  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="warnings count as errors")
    parser.add_argument("--json", action="store_true", help="print all as JSON")


def run(args: argparse.Namespace) -> int:
    """Run the subcommand.

    Returns:
        0 if nothing is wrong, 1 if something is, 2 if that cannot be said.
    """
    options = Options(
        python=serving.python_of(None), config=args.config, kong=args.kong_version,
        lua_style=args.lua_style, run=args.run_it, server_flags=tuple(args.server_args),
    )  # fmt: skip
    reports: list[Report] = []
    try:
        for spec in args.plugins:
            for target in _expanded(spec, reports):
                report = check(target, options)
                _check_twins(report, reports)
                reports.append(report)
                if not args.json:
                    _show(report)
    except ConfigError as exc:
        print(f"kong-pdk check: {exc}", file=sys.stderr)
        return 2
    counts = {
        level: sum(one.level == level for each in reports for one in each.findings)
        for level in (ERROR, WARNING)
    }
    if args.json:
        found = [each.as_dict() for each in reports]
        summary = {"errors": counts[ERROR], "warnings": counts[WARNING]}
        print(json.dumps({"plugins": found, **summary}, indent=2))
    else:
        print(_summary(len(reports), counts))
    return 1 if counts[ERROR] or (args.strict and counts[WARNING]) else 0


def _check_twins(report: Report, others: Sequence[Report]) -> None:
    """Find that a plugin before this one has the same name."""
    for other in others:
        if report.info is None or other.info is None or other.place == report.place:
            continue
        if other.info.name == report.info.name:
            text = (
                f"{shown_path(other.place)} is a plugin {report.info.name} too: Kong knows a "
                f"plugin by its name, give one another"
            )
            report.add(ERROR, "name-twice", text, report.place)


def _expanded(spec: str, reports: list[Report]) -> Iterator[serving.Target]:
    try:
        yield from expand(serving.find(spec))
    except serving.NoPython as exc:
        report = Report(exc.path)
        report.add(ERROR, "not-loaded", exc.problem, exc.path, exc.line)
        reports.append(report)
        _show(report)


def _show(report: Report) -> None:
    for line in describe(report):
        print(clean(line, keep=""))


def describe(report: Report) -> Iterator[str]:
    """The lines that show a report to people."""
    info, outcome = report.info, report.outcome
    if info is None:
        yield f"{shown_path(report.place)}: not a plugin that Kong could load"
    else:
        phases = sorted(info.phases, key=ORDER.index)
        yield (
            f"{info.name} {info.version}, priority {info.priority}, phases: {', '.join(phases)} "
            f"({shown_path(report.place)})"
        )
    if outcome is not None:
        config = json.dumps(report.config)
        yield f"  run with {config if len(config) < 200 else config[:197] + '...'}"
        if outcome.status is not None:
            failed = outcome.ended in [failure.phase for failure in outcome.failures]
            by = (
                f"refused, {outcome.ended} failed"
                if failed
                else f"by the plugin in {outcome.ended}"
            )
            ended = f", {by}" if outcome.ended else ""
            yield f"  GET / -> {outcome.status}{ended}"
        for phase in ORDER:
            if phase in outcome.calls:
                calls = outcome.calls[phase]
                trips = "1 round trip" if len(calls) == 1 else f"{len(calls)} round trips"
                yield f"  {phase}: {trips}{': ' if calls else ''}{shown_calls(calls)}"
    for finding in report.findings:
        yield str(finding)


def _summary(plugins: int, counts: dict[str, int]) -> str:
    words = [counted(plugins, "plugin"), *(counted(n, level) for level, n in counts.items())]
    return f"{words[0]}: {words[1]}, {words[2]}"

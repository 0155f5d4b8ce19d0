"""``kong-pdk migrate``: what a Kong with the published package needs to go over to this one."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping

from ..exception import ConfigError
from ..kongconf import reading, serving
from ..kongconf.reading import Configuration
from ..kongconf.releases import release
from ..migration.differences import ALWAYS, PAGE
from ..migration.entries import Entry
from ..migration.launching import DIRECTORY
from ..migration.report import Report, examine
from ..migration.source import CHANGE, LOOK
from .releases import kong_release
from .terminal import clean, counted

EPILOG = """\
Reads Kong's settings as Kong does: its file, the environment (KONG_...) above it, and what that
release takes where a setting is missing. For each plugin server in Python it says what must be
changed before this package can take the published one's place: flags, sockets, entries that Kong
3.9 needs, plugins that are not loaded any more, imports of what is not here; and what is to be
looked at, because the plugin may rely on behaviour that differs on purpose. Nothing is changed.

Run it on Kong's machine with the Python that is to run the plugins. With --env alone no file is
read, as in a container; --env FILE takes the variables from what "env" printed there. Plugins are
loaded as by Kong's query, but by this package; with --no-run only their source is read.

The exit status is 0 if nothing must be changed, 1 if something must be, 2 if the settings cannot
be read.

examples:
  kong-pdk migrate
  kong-pdk migrate --kong-conf /etc/kong/kong.conf --kong-version 3.4
  kong-pdk migrate --env
  docker exec kong env > kong.env && kong-pdk migrate --env kong.env --no-run
  kong-pdk migrate --json > report.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's arguments to its parser."""
    parser.add_argument(
        "--kong-conf", metavar="FILE",
        help=f"Kong's file (default: {' or '.join(reading.DEFAULT_PLACES)})",
    )  # fmt: skip
    parser.add_argument(
        "--env", metavar="FILE", nargs="?", const="",
        help="read the environment and, without --kong-conf, no file; FILE: take the variables "
        "from its lines NAME=VALUE",
    )  # fmt: skip
    parser.add_argument(
        "--kong-version", metavar="VERSION", type=kong_release, default=release(),
        help="Kong's release, 2.8 to %(default)s or later (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--python", metavar="PATH",
        help="the Python that is to run the plugins, with this package in it (default: the one of "
        "this command)",
    )  # fmt: skip
    parser.add_argument(
        "--no-run", action="store_false", dest="run_it",
        help="load no plugin and start no program: read only",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print all as JSON")


def run(args: argparse.Namespace) -> int:
    """Run the subcommand.

    Returns:
        0 if nothing must be changed, 1 if something must be, 2 if the settings cannot be read.
    """
    try:
        conf, sources = _settings(args)
        python = serving.python_of(args.python)
        report = examine(conf, args.kong_version, python, args.run_it, sources)
    except ConfigError as exc:
        print(f"kong-pdk migrate: {exc}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        for line in describe(report):
            print(clean(line, keep=""))
    return 1 if report.count(CHANGE) else 0


def _settings(args: argparse.Namespace) -> tuple[Configuration, list[str]]:
    """Kong's settings, and what they come from."""
    environment: Mapping[str, str] = os.environ
    sources = []
    conf = Configuration()
    path = args.kong_conf
    if path is None and args.env is None:
        path = next(filter(os.path.exists, reading.DEFAULT_PLACES), None)
        if path is None and "KONG_PLUGINSERVER_NAMES" not in os.environ:
            raise ConfigError(
                f"there is no {' and no '.join(reading.DEFAULT_PLACES)}: name the file that Kong "
                f"is started with (--kong-conf FILE), or its environment (--env, --env FILE)"
            )
    if path is not None:
        conf = reading.read_file(path, args.kong_version)
        sources.append(path)
    if args.env:
        environment = reading.read_variables(args.env)
        sources.append(args.env)
    elif any(name.startswith("KONG_") for name in environment) or not sources:
        sources.append("the environment")
    return reading.overlay(conf, environment), sources


def describe(report: Report) -> Iterator[str]:
    """The lines that show a report to people."""
    yield f"{' and '.join(report.sources)}, for Kong {report.kong}"
    for finding in report.findings:
        yield str(finding)
    for entry in report.entries:
        yield ""
        yield from _describe_entry(entry)
        lines = report.lines.get(entry.server.name)
        if lines:
            yield "  in place of this entry (join both lists with what else is in them):"
            yield from (f"    {line}".rstrip() for line in lines.splitlines())
    yield ""
    yield "What differs on purpose, for every plugin:"
    for difference in ALWAYS:
        yield f"  - {difference.text} ({difference.link})"
    yield f"  All of it: {PAGE}"
    yield ""
    changes, looks = report.count(CHANGE), report.count(LOOK)
    servers = sum(entry.is_python for entry in report.entries)
    verdict = ""
    if not servers:
        verdict = "; none of them was found to be in Python"
    elif not changes:
        verdict = "; it can go over as it is"
    entries = counted(len(report.entries), "plugin server") if not servers else ""
    said = entries or counted(servers, "Python plugin server")
    yield f"{said}: {changes} to change, {looks} to look at{verdict}"


def _describe_entry(entry: Entry) -> Iterator[str]:
    name, launch = entry.server.name, entry.launch
    if not entry.is_python:
        yield f"{name}: no Python plugin server that is known: {launch.reason}"
    else:
        kind = "kong-python-pluginserver" if launch.kind == DIRECTORY else launch.script
        plugins = f", plugins: {', '.join(entry.plugins)}" if entry.plugins else ""
        yield f"{name}: {kind}{plugins}"
        version = f", kong-pdk {entry.version}" if entry.version else ""
        if launch.python is not None:
            yield f"  Python: {launch.python}{version}"
    where = "" if entry.server.socket.origin else " (Kong's default)"
    started = "" if entry.server.start is not None else "; somebody else starts the server"
    yield f"  socket: {entry.server.socket.value}{where}{started}"
    for finding in entry.findings:
        yield f"  {finding}"

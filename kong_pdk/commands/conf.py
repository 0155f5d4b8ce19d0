"""``kong-pdk conf``: what Kong's configuration must say for some plugins."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence

from .. import __version__
from ..config import DEFAULT_PREFIX
from ..exception import ConfigError
from ..kongconf import formats, serving
from ..kongconf.releases import Release, release
from ..kongconf.serving import EMBEDDED, FOLDER, INSTALLED, CommandError, Python, Target
from ..kongconf.settings import Server, settings
from .releases import kong_release

EPILOG = """\
Prints settings for Kong; standard output has nothing else. Each plugin is asked for its name by the
command that Kong will run, so what is printed is known to work here. Add what else your kong.conf
has in "plugins" and "pluginserver_names". --format env sets the environment of "kong start" in a
shell, --format compose is a service for Docker Compose with Python and the plugins in it.

examples:
  kong-pdk conf my_plugin.py
  kong-pdk conf plugins/ --kong-version 3.4
  kong-pdk conf my_plugin.py --server-args="-g --on-error open" >> /etc/kong/kong.conf
  eval "$(kong-pdk conf my_plugin.py --format env)" && kong start
  kong-pdk conf my_plugin.py --format compose > compose.yaml && docker compose up --build
"""

FORMATS = ("conf", "env", "compose")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's arguments to its parser."""
    parser.add_argument(
        "plugins", metavar="PLUGIN", nargs="+",
        help="a file, a folder that is a package or holds plugins, or the name of an installed one",
    )  # fmt: skip
    parser.add_argument(
        "--kong-version", metavar="VERSION", type=kong_release, default=release(),
        help="Kong's release, 2.8 to %(default)s or later (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=FORMATS, default=FORMATS[0],
        help="lines of kong.conf, exports for a shell, or a service for Docker Compose "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "-p", "--kong-prefix", "--prefix", metavar="PREFIX", dest="prefix", default=DEFAULT_PREFIX,
        help="Kong's prefix, the folder of the sockets (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--python", metavar="PATH",
        help="the Python that runs the plugins (default: the one of this command)",
    )  # fmt: skip
    parser.add_argument(
        "--server-args", metavar='"ARGS"', type=shlex.split, default=[],
        help='more flags for the plugin server; with "=" if they begin with a dash',
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run the subcommand.

    Returns:
        0, or 1 if a plugin cannot be loaded or the settings would not work.
    """
    try:
        print(_text(args), end="")
    except ConfigError as exc:
        print(f"kong-pdk conf: {exc}", file=sys.stderr)
        return 1
    return 0


def _text(args: argparse.Namespace) -> str:
    python = serving.python_of(args.python)
    prefix = os.path.abspath(args.prefix)
    flags = tuple(args.server_args)
    found = list(dict.fromkeys(serving.find(spec) for spec in args.plugins))
    if flags:
        _check_flags(serving.base_command(found[0], python), flags)
    names = {target: _names(target, python) for target in found}
    _check_twins(names)
    if args.format == "compose":
        return _compose(names, flags, args.kong_version, prefix)
    made = settings(_servers(names, python, flags), args.kong_version, prefix)
    return formats.conf(made) if args.format == "conf" else formats.env(made)


def _names(target: Target, python: Python) -> list[str]:
    """The names of a target's plugins, which they are asked for."""
    return [str(each["Name"]) for each in serving.query(serving.query_command(target, python))]


def _check_twins(names: Mapping[Target, Sequence[str]]) -> None:
    places: dict[str, str] = {}
    for target in names:
        for name in names[target]:
            if name in places:
                raise CommandError(
                    f"two plugins are called {name!r}, in {places[name]} and in {target.place}: "
                    f"Kong knows a plugin by its name"
                )
            places[name] = target.place


def _servers(
    names: Mapping[Target, Sequence[str]], python: Python, flags: tuple[str, ...]
) -> list[Server]:
    """A file that starts its own server is one; all others have one between them."""
    servers = []
    shared = [target for target in names if target.kind != EMBEDDED]
    for target in names:
        if target.kind == EMBEDDED:
            query = serving.query_command(target, python)
            start = serving.base_command(target, python)
            for name in names[target]:
                servers.append(Server({name: query}, query, start, f"{name}.socket", flags))
    if shared:
        script = serving.script_of(python)
        start = (script, *(flag for target in shared for flag in target.flags))
        queries: dict[str, tuple[str, ...]] = {}
        for target in shared:
            for name in names[target]:
                queries[name] = serving.query_command(target, python, name)
        query = (*start, "--dump-all-plugins")
        servers.append(Server(queries, query, start, serving.SERVER_SOCKET, flags))
    return servers


def _compose(
    names: Mapping[Target, Sequence[str]], flags: tuple[str, ...], kong: Release, prefix: str
) -> str:
    """The same with the paths of a container, and what it must have."""
    moved: dict[Target, Sequence[str]] = {}
    mounts: dict[str, formats.Mount] = {}
    packages = [f"kong-pdk>={__version__}"]
    for target, of_target in names.items():
        if target.kind == INSTALLED:
            packages.append(_distribution(target.place))
            moved[target] = of_target
            continue
        # The folder around it, because it may import what lies beside it.
        folder = target.place if target.kind == FOLDER else os.path.dirname(target.place)
        if folder not in mounts:
            number = f"-{len(mounts) + 1}" if mounts else ""
            mounts[folder] = formats.Mount(folder, f"{formats.IMAGE_PLUGINS}{number}")
        inside = os.path.join(mounts[folder].target, os.path.relpath(target.place, folder))
        moved[Target(target.kind, os.path.normpath(inside))] = of_target
    programs = f"{formats.IMAGE_PYTHON}/bin"
    python = Python(f"{programs}/python", f"{programs}/{serving.SERVER_SCRIPT}")
    made = settings(_servers(moved, python, flags), kong, prefix)
    return formats.compose(made, list(mounts.values()), list(dict.fromkeys(packages)))


def _distribution(name: str) -> str:
    """The distribution that an installed plugin comes from, as pip knows it."""
    from importlib import metadata

    for each in metadata.distributions():
        for point in each.entry_points:
            if point.group == serving.GROUP and point.name == name:
                return str(each.metadata["Name"])
    return name  # it was there for the query


def _check_flags(base: Sequence[str], flags: Sequence[str]) -> None:
    """See that the server knows its flags, before Kong does."""
    done = subprocess.run(
        [*base, *flags, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=serving.QUERY_LIMIT, check=False, cwd="/",
    )  # fmt: skip
    if done.returncode == 2:
        problem = done.stderr.strip().splitlines()[-1:] or ["wrong flags"]
        raise CommandError(f"--server-args: {problem[0].rpartition('error: ')[2]}")

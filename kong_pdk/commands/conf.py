"""``kong-pdk conf``: what Kong's configuration must say for some plugins."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence

from .. import __version__
from ..config import DEFAULT_PREFIX
from ..exception import ConfigError
from ..kongconf import formats
from ..kongconf.releases import Release, release
from ..kongconf.settings import FOLDER_ENTRY, Server, Settings, settings
from . import targets
from .targets import EMBEDDED, FOLDER, INSTALLED, CommandError, Python, Target

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
        "--kong-version", metavar="VERSION", type=_release, default=release(),
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
    python = targets.python_of(args.python)
    prefix = os.path.abspath(args.prefix)
    found = [targets.find(spec) for spec in args.plugins]
    groups = _groups(found, python)
    flags = tuple(args.server_args)
    if flags:
        _check_flags(targets.base_command(found[0], python), flags)
    if args.format != "compose":
        servers = _servers(groups, python, flags)
        made = settings(servers, args.kong_version, prefix)
        return formats.conf(made) if args.format == "conf" else formats.env(made)
    return _compose(groups, flags, args.kong_version, prefix)


def _groups(found: Sequence[Target], python: Python) -> list[tuple[Target, list[str]]]:
    """What has a server of its own, each with the names of the plugins that are wanted of it."""
    groups: dict[object, tuple[Target, list[str]]] = {}
    for target in found:
        alone = target.kind in (EMBEDDED, INSTALLED)
        key = target if alone else target.folder
        first, names = groups.setdefault(key, (target, []))
        if first.kind != FOLDER and target.kind == FOLDER:
            groups[key] = target, names
        for name in targets.load_names(target, python):
            if name not in names:
                names.append(name)
    return list(groups.values())


def _servers(
    groups: Sequence[tuple[Target, Sequence[str]]], python: Python, flags: tuple[str, ...]
) -> list[Server]:
    servers = []
    folders = 0
    for target, names in groups:
        base = targets.base_command(target, python)
        if target.kind == EMBEDDED:
            (name,) = names
            servers.append(Server((name,), base, ("--dump",), None, f"{name}.socket", flags))
            continue
        folders += 1
        number = "" if folders == 1 else f"_{folders}"
        socket = f"{targets.FOLDER_STEM}{number}.socket"
        own = ("--socket-name", socket) if number else ()
        servers.append(
            Server(
                tuple(names), base, ("--dump-all-plugins",), ("--dump-plugin-info",), socket,
                (*own, *flags), f"{FOLDER_ENTRY}{number}",
            )
        )  # fmt: skip
    return servers


def _compose(
    groups: Sequence[tuple[Target, list[str]]], flags: tuple[str, ...], kong: Release, prefix: str
) -> str:
    """The same with the paths of a container, and what it must have."""
    moved: list[tuple[Target, list[str]]] = []
    mounts: list[formats.Mount] = []
    packages = [f"kong-pdk>={__version__}"]
    for target, names in groups:
        if target.kind == INSTALLED:
            packages.append(_distribution(target.place))
            moved.append((target, names))
            continue
        folder = target.folder
        mount = next((each for each in mounts if each.source == folder), None)
        if mount is None:
            number = f"-{len(mounts) + 1}" if mounts else ""
            mount = formats.Mount(folder, f"{formats.IMAGE_PLUGINS}{number}")
            mounts.append(mount)
        inside = os.path.join(mount.target, os.path.relpath(target.place, folder))
        moved.append((Target(target.kind, os.path.normpath(inside)), names))
    programs = f"{formats.IMAGE_PYTHON}/bin"
    python = Python(f"{programs}/python", f"{programs}/{targets.SERVER_SCRIPT}")
    made: Settings = settings(_servers(moved, python, flags), kong, prefix)
    return formats.compose(made, mounts, packages)


def _distribution(name: str) -> str:
    """The distribution that an installed plugin comes from, as pip knows it."""
    from importlib import metadata

    for each in metadata.distributions():
        for point in each.entry_points:
            if point.group == targets.GROUP and point.name == name:
                return str(each.metadata["Name"])
    return name  # it was there for the query


def _check_flags(base: Sequence[str], flags: Sequence[str]) -> None:
    """See that the server knows its flags, before Kong does."""
    done = subprocess.run(
        [*base, *flags, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=targets.QUERY_LIMIT, check=False, cwd="/",
    )  # fmt: skip
    if done.returncode == 2:
        problem = done.stderr.strip().splitlines()[-1:] or ["wrong flags"]
        raise CommandError(f"--server-args: {problem[0].rpartition('error: ')[2]}")


def _release(text: str) -> Release:
    try:
        return release(text)
    except ConfigError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc

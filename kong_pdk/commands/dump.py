"""``kong-pdk dump``: what Kong gets to know of plugins."""

from __future__ import annotations

import argparse
import json
import sys

from ..kongconf import serving

EPILOG = """\
Runs the query as Kong does at its start, in a process of its own, and prints the JSON document that
Kong would get. A folder without __init__.py is a folder of plugins.

examples:
  kong-pdk dump my_plugin.py
  kong-pdk dump plugins/ --pretty
  kong-pdk dump plugins/ my_plugin
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's arguments to its parser."""
    parser.add_argument(
        "plugin", metavar="PLUGIN",
        help="a file, a folder that is a package or holds plugins, or the name of an installed one",
    )  # fmt: skip
    parser.add_argument("name", metavar="NAME", nargs="?", help="only this plugin of a folder")
    parser.add_argument(
        "--python",
        metavar="PATH",
        help="the Python that runs it (default: the one of this command)",
    )
    parser.add_argument("--pretty", action="store_true", help="on several lines, for people")


def run(args: argparse.Namespace) -> int:
    """Run the subcommand.

    Returns:
        0, or 1 if a plugin cannot be loaded.
    """
    try:
        target = serving.find(args.plugin)
        python = serving.python_of(args.python)
        plugins = serving.query(serving.query_command(target, python, args.name))
        if args.name is not None:
            plugins = [plugin for plugin in plugins if plugin.get("Name") == args.name]
            if not plugins:
                raise serving.CommandError(f"there is no plugin {args.name!r} in {args.plugin}")
    except serving.CommandError as exc:
        print(f"kong-pdk dump: {exc}", file=sys.stderr)
        return 1
    print(json.dumps(plugins, indent=2 if args.pretty else None))
    return 0

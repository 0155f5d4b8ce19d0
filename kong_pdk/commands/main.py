"""``kong-pdk``: the command for people who write plugins, and for those who run them."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from .. import __version__

#: Subcommands: name, module beside this one, one line for the overview. A module has ``EPILOG``,
#: ``configure(parser)``, which adds its arguments, and ``run(args)``, which returns the status.
COMMANDS = (
    ("new", "new", "write a plugin with a test, ready to run"),
    ("check", "check", "look at a plugin as Kong would, and run it once"),
    ("try", "try_", "run a plugin behind a small gateway on this machine"),
    ("conf", "conf", "print the settings that make Kong run plugins"),
    ("migrate", "migrate", "read Kong's settings and say what changes from the published package"),
    ("dump", "dump", "print what Kong gets to know of plugins"),
    ("completion", "completion", "print a script for a shell's completion"),
    ("status", "status", "show what a running plugin server is doing"),
)

#: What a full disk says.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_EPILOG = """\
examples:
  kong-pdk new my-plugin
  kong-pdk check my_plugin.py
  kong-pdk try my_plugin.py --config '{"message": "hello"}' --request "GET /orders?page=2"
  kong-pdk conf my_plugin.py --kong-version 3.10
  kong-pdk status --kong-prefix /usr/local/kong
  kong-pdk try --help
"""


class Subparser(argparse.ArgumentParser):
    """A subcommand's parser, which imports the subcommand when its arguments are to be parsed."""

    def __init__(self, *, module: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._module = module

    def load(self) -> None:
        """Import the subcommand, and take its arguments."""
        module, self._module = self._module, None
        if module is not None:
            command = importlib.import_module(f"{__package__}.{module}")
            self.epilog = command.EPILOG
            command.configure(self)
            self.set_defaults(run=command.run)

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]  # has overloads
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        self.load()
        return super().parse_known_args(args, namespace)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog="kong-pdk",
        description="Tools for Kong Gateway plugins in Python.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"kong-pdk {__version__}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=Subparser
    )
    for name, module, summary in COMMANDS:
        commands.add_parser(
            name,
            module=module,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    return parser


def subparsers_of(parser: argparse.ArgumentParser) -> dict[str, Subparser]:
    """The subcommands' parsers by their names; :meth:`Subparser.load` gives them arguments."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments; ``None`` for those of the process.

    Returns:
        The exit status: 0 if all went well, 1 if not, 130 if it was interrupted.

    Raises:
        SystemExit: for ``--help`` and ``--version``, and with status 2 for arguments that make no
            sense.
    """
    try:
        args = build_parser().parse_args(argv)
        status: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # `kong-pdk ... | head`
        _drop_output()
        return 1
    except KeyboardInterrupt:  # Ctrl-C; what was begun has been ended on the way here
        return 130
    except OSError as exc:
        if exc.errno in _FULL:
            _drop_output()
            text = f"cannot write the output: {exc.strerror}"
        elif _is_folder_gone():
            text = "the current folder has been removed: change into another one"
        else:
            raise
        print(f"kong-pdk: {text}", file=sys.stderr)
        return 1
    return status


def _is_folder_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _drop_output() -> None:
    """See that Python does not try to write what is left of the output at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    sys.exit(main())

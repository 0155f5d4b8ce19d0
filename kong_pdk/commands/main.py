"""``kong-pdk``: the command for people who write plugins, and for those who run them."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from .. import __version__

#: Subcommands: name, module beside this one, one line for the overview. A module has ``EPILOG``,
#: ``configure(parser)``, which adds its arguments, and ``run(args)``, which returns the status.
COMMANDS = (
    ("try", "try_", "run a plugin behind a small gateway on this machine"),
    ("status", "status", "show what a running plugin server is doing"),
)

_EPILOG = """\
examples:
  kong-pdk try my_plugin.py
  kong-pdk try my_plugin.py --config '{"message": "hello"}' --request "GET /orders?page=2"
  kong-pdk status --kong-prefix /usr/local/kong
  kong-pdk try --help
"""


class _Subparser(argparse.ArgumentParser):
    """A subcommand's parser, which imports the subcommand when its arguments are to be parsed."""

    def __init__(self, *, module: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._module = module

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]  # has overloads
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        module, self._module = self._module, None
        if module is not None:
            command = importlib.import_module(f"{__package__}.{module}")
            self.epilog = command.EPILOG
            command.configure(self)
            self.set_defaults(run=command.run)
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
        title="commands", metavar="COMMAND", required=True, parser_class=_Subparser
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments; ``None`` for those of the process.

    Returns:
        The exit status: 0 if all went well, 1 if not.

    Raises:
        SystemExit: for ``--help`` and ``--version``, and with status 2 for arguments that make no
            sense.
    """
    args = build_parser().parse_args(argv)
    status: int = args.run(args)
    return status


if __name__ == "__main__":
    sys.exit(main())

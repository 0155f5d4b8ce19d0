"""``kong-pdk completion``: a script with which a shell completes the commands."""

from __future__ import annotations

import argparse
import sys

EPILOG = """\
The script knows all commands and flags and needs no Python when you press Tab. Make it anew after
an upgrade of kong-pdk.

examples:
  kong-pdk completion bash > ~/.local/share/bash-completion/completions/kong-pdk
  kong-pdk completion bash --command kong-python-pluginserver \\
      > ~/.local/share/bash-completion/completions/kong-python-pluginserver
  kong-pdk completion zsh > ~/.zfunc/_kong-pdk        # with fpath+=~/.zfunc before compinit
"""

SHELLS = ("bash", "zsh", "tcsh")
COMMANDS = ("kong-pdk", "kong-python-pluginserver")

#: Arguments that are files or folders, by what their help calls them.
FILES = ("PLUGIN", "PLUGIN.py", "PATH", "FILE")
FOLDERS = ("DIR", "PREFIX")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's arguments to its parser."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))
    parser.add_argument(
        "--command", choices=COMMANDS, default=COMMANDS[0],
        help="the command that is completed (default: %(default)s)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run the subcommand.

    Returns:
        0, or 1 if what it needs is not installed.
    """
    try:
        import shtab
    except ModuleNotFoundError:
        print(
            "kong-pdk completion: shtab is missing; install it with: "
            "pip install 'kong-pdk[completion]'",
            file=sys.stderr,
        )
        return 1
    parser = parser_of(args.command)
    _mark_files(parser, shtab)
    # A prefix of its own, so that the scripts of both commands can live in one shell.
    prefix = args.command.replace("-", "_")
    print(shtab.complete(parser, shell=args.shell, root_prefix=prefix))
    return 0


def parser_of(command: str) -> argparse.ArgumentParser:
    """The whole parser of a command, with the arguments of all its subcommands."""
    if command == "kong-python-pluginserver":
        from ..flags import directory_parser

        return directory_parser(prog=command)
    from .main import build_parser, subparsers_of

    parser = build_parser()
    for each in subparsers_of(parser).values():
        each.load()
    return parser


def _mark_files(parser: argparse.ArgumentParser, shtab: object) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _mark_files(inner, shtab)
        elif action.metavar in FILES:
            action.complete = getattr(shtab, "FILE")  # type: ignore[attr-defined]  # noqa: B009
        elif action.metavar in FOLDERS:
            action.complete = getattr(shtab, "DIRECTORY")  # type: ignore[attr-defined]  # noqa: B009

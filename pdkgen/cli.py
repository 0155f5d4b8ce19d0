"""The reference page of the command ``kong-pdk``, from its own parsers."""

from __future__ import annotations

import argparse
import re

from kong_pdk.commands.completion import parser_of
from kong_pdk.commands.main import COMMANDS, subparsers_of

#: Stands at the page's top.
NOTE = "<!-- Generated from kong_pdk/commands by `python3 dev.py generate`: change it there. -->\n"

_HEAD = """\
# The command kong-pdk

For authors of plugins, and those who run them. A PLUGIN is a file, a folder that is a package, a
folder of plugins where a command takes several, or the name of a plugin that is installed.
`kong-pdk COMMAND --help` says what is said here. The flags of the plugin server itself are
[on a page of their own](server.md).

| command | what it does |
| --- | --- |
"""


def page() -> str:
    """The whole page."""
    parsers = subparsers_of(parser_of("kong-pdk"))
    text = [f"{NOTE}\n{_HEAD}"]
    text += [f"| [`{name}`](#kong-pdk-{name}) | {summary} |\n" for name, _, summary in COMMANDS]
    for name, _, summary in COMMANDS:
        text.append(f"\n## kong-pdk {name}\n\n{summary[0].upper()}{summary[1:]}.\n\n")
        text.append(_section(parsers[name]))
    return "".join(text).rstrip() + "\n"


def _section(parser: argparse.ArgumentParser) -> str:
    words, _, examples = (parser.epilog or "").partition("examples:\n")
    paragraphs = [each.strip() for each in words.split("\n\n")]
    text = "".join(f"{_code(each)}\n\n" for each in paragraphs if each)
    rows = [_row(parser, each) for each in parser._actions if each.help != argparse.SUPPRESS]
    text += "| argument | meaning |\n| --- | --- |\n" + "".join(rows)
    lines = [line[2:] if line.startswith("  ") else line for line in examples.splitlines()]
    return f"{text}\n```sh\n" + "\n".join(lines).rstrip() + "\n```\n"


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    value = action.metavar if isinstance(action.metavar, str) else None
    if value is None and action.choices:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    if not action.option_strings:
        shown = f"`{value or action.dest}`"
        if action.nargs in ("+", "*"):
            shown += " …"
    else:
        takes = f" {value}" if value and action.nargs != 0 else ""
        shown = ", ".join(f"`{flag}`" for flag in action.option_strings[:-1])
        shown += f"{', ' if shown else ''}`{action.option_strings[-1]}{takes}`"
    helped = parser._get_formatter()._expand_help(action) if action.help else ""
    if action.dest == "help":
        helped = "show what the command takes, with examples, and end"
    cells = [each.replace("|", "\\|") for each in (shown, _code(helped))]
    return f"| {cells[0]} | {cells[1]} |\n"


def _code(text: str) -> str:
    """A text with its flags as code."""
    return re.sub(r"(?<![\w`])(--?[a-z][\w-]*)", r"`\1`", text)

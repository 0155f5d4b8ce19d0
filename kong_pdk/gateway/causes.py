"""Why a plugin cannot be loaded, from what the query command has written about it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

#: Flags of a plugin server that make it say more, in a form that can be told from other output.
DETAILED = ("-v", "--log-format", "json")

_FRAME = re.compile(r'\s+File "([^"]+)", line (\d+)')
_RAISED = re.compile(r"([A-Za-z_][\w.]*)(?:: (.*))?\Z")
_START = "Traceback (most recent call last):"
# What a server makes of an author's exception, in whose traceback that one stands first.
_OURS = "kong_pdk.exception."


class Told(NamedTuple):
    """What a command has said: the lines that people should see, and tracebacks in others."""

    lines: list[str]
    tracebacks: list[str]


def read_output(text: str) -> Told:
    """Take apart what a server with :data:`DETAILED` has written to its standard error.

    Args:
        text: lines of the log as JSON objects, and whatever else the plugin or Python wrote.
    """
    told = Told([], [])
    for line in text.splitlines():
        try:
            record = json.loads(line) if line.startswith("{") else None
        except ValueError:
            record = None
        if not isinstance(record, dict) or "logger" not in record or "message" not in record:
            told.lines.append(line)
            told.tracebacks.append(line)
            continue
        told.tracebacks.extend(str(record.get("exception", "")).splitlines())
        if record.get("level") != "debug":
            told.lines.append(f"[{str(record.get('level')).upper()}] {record['message']}")
    return told


def find_cause(lines: Iterable[str], folder: str) -> str | None:
    """Return what tracebacks come down to: the last exception that is the author's, and its line.

    Args:
        lines: of an output.
        folder: where the plugin lives. The last frame in it is the one that is named, or if there
            is none the last of all.

    Returns:
        ``"NameError: name 'x' is not defined (/path/plugin.py:3)"``; the server's own error if
        there is no other; ``None`` if there is no traceback.
    """
    ours = theirs = None
    for text, frames in _exceptions(lines):
        if text.startswith(_OURS):
            ours = text.partition(": ")[2]
            continue
        own = [frame for frame in frames if _lies_in(frame[0], folder)]
        real = [frame for frame in frames if not frame[0].startswith("<frozen ")]
        file, number = (own or real or frames)[-1]
        theirs = f"{text} ({file}:{number})"
    return theirs or ours


def _exceptions(lines: Iterable[str]) -> Iterator[tuple[str, Sequence[tuple[str, int]]]]:
    """Yield the first line of each exception's text with the frames above it."""
    frames: list[tuple[str, int]] = []
    for line in lines:
        frame = _FRAME.match(line)
        if frame:
            frames.append((frame[1], int(frame[2])))
        elif line.endswith(_START):
            frames = []
        elif frames and _RAISED.match(line):
            yield line, frames
            frames = []


def _lies_in(file: str, folder: str) -> bool:
    return os.path.realpath(file).startswith(os.path.join(os.path.realpath(folder), ""))

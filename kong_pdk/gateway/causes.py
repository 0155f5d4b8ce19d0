"""Why a plugin cannot be loaded, from what the query command has written about it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence

_FRAME = re.compile(r'\s+File "([^"]+)", line (\d+)')
_RAISED = re.compile(r"([A-Za-z_][\w.]*)(?:: (.*))?\Z")
_START = "Traceback (most recent call last):"


def find_cause(lines: Sequence[str], command: str, folder: str) -> str | None:
    """Return what the output of a query command that has failed comes down to.

    Args:
        lines: of its standard error.
        command: the name with which it begins its own errors.
        folder: where the plugin lives. The last frame in it is the one that is named, or if there
            is none the last of all.

    Returns:
        The last exception of its tracebacks with the author's line, such as ``"NameError: name 'x'
        is not defined (/path/plugin.py, line 3)"``, or what it has said itself at its end; ``None``
        if it has said nothing of the kind.
    """
    found = None
    for text, frames in _exceptions(lines):
        own = [frame for frame in frames if _lies_in(frame[0], folder)]
        real = [frame for frame in frames if not frame[0].startswith("<frozen ")]
        file, number = (own or real or frames)[-1]
        found = f"{text} ({file}, line {number})"
    told, colon, text = (lines[-1] if lines else "").partition(": ")
    return text if colon and told == command else found


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

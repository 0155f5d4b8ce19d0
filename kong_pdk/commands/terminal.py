"""What is written to a terminal: colours where they are wanted, and nothing that could harm it."""

from __future__ import annotations

import contextlib
import os
from typing import Any, TextIO

CHOICES = ("auto", "always", "never")

_CODES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}


def wants_colour(stream: TextIO, choice: str = "auto") -> bool:
    """Say whether output to a stream is to be coloured.

    Args:
        stream: where it goes.
        choice: one of :data:`CHOICES`. With ``auto`` a variable ``NO_COLOR`` in the environment
            says no and ``FORCE_COLOR`` yes (neither counts if it is empty); else a terminal gets
            colours unless it is a dumb one.
    """
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def clean(text: str, keep: str = "\t") -> str:
    """Return a text whose control characters are written out; a client can send any.

    Bytes that are not UTF-8 are written out too.

    Args:
        text: the text.
        keep: the characters that stay as they are.
    """
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def counted(number: int, what: str) -> str:
    """Return a number of things in words, ``1 plugin`` or ``2 plugins``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


class Screen:
    """A stream for lines made of pieces, each with or without a style.

    Args:
        stream: where they go.
        colour: whether styles are shown.
    """

    def __init__(self, stream: TextIO, colour: bool) -> None:
        self._stream = stream
        self._colour = colour
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            # A log line may hold what the terminal's encoding does not have.
            reconfigure(errors="backslashreplace")

    def paint(self, text: object, *styles: str) -> str:
        """Return a text, cleaned, in styles such as ``bold`` and ``red``; for :meth:`line`."""
        shown = clean(str(text))
        if not self._colour or not styles or not shown:
            return shown
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{shown}\x1b[0m"

    def line(self, *pieces: str) -> None:
        """Write pieces that :meth:`paint` has made as one line."""
        with contextlib.suppress(BrokenPipeError):
            print("".join(pieces), file=self._stream, flush=True)

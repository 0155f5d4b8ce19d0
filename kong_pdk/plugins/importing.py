"""Importing what an author has written, which may do whatever it likes, and saying what came."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Callable

from ..exception import PluginError
from .definition import Stamp

logger = logging.getLogger("kong_pdk.server")

#: How long an import may take until it is said that it is awaited, seconds.
SLOW = 5.0


class LoadFailed(PluginError):
    """A plugin cannot be imported.

    Attributes:
        stamps: the files that were loaded, or were about to be, as they were then.
    """

    stamps: Mapping[str, Stamp] = {}


def import_module(
    load: Callable[[], ModuleType],
    where: str,
    places: Iterable[str],
    find_sharers: Callable[[str], list[str]] = lambda _: [],
) -> ModuleType:
    """Import something that may do whatever it likes.

    Args:
        load: imports it.
        where: for errors.
        places: its files, or the folders that they are in.
        find_sharers: says which other plugins have loaded a file.

    Raises:
        LoadFailed: it has raised; the text says what, and in which line of its files.
    """
    try:
        with _tell_if_slow(where):
            return load()
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # sys.exit() in a script that happens to lie there
        told = _text_of(exc, places, find_sharers)
        raise LoadFailed(f"{where}: cannot be imported: {type(exc).__name__}: {told}") from exc


@contextlib.contextmanager
def _tell_if_slow(where: str) -> Iterator[None]:
    """Say what is awaited if an import takes long: Kong waits for it, without an end or a word."""
    timer = threading.Timer(
        SLOW,
        logger.warning,
        ("%s: importing it takes longer than %g s: what does it wait for?", where, SLOW),
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # a process that is about to fork has no other thread


def _text_of(
    exc: BaseException, places: Iterable[str], find_sharers: Callable[[str], list[str]]
) -> str:
    """The text of an exception, and the line of a plugin's file where it was raised."""
    if isinstance(exc, SyntaxError):  # its own text names the file without its folder
        return f"{exc.msg} ({exc.filename}, line {exc.lineno})" if exc.filename else str(exc)
    places = list(map(os.path.realpath, places))
    for frame in reversed(traceback.extract_tb(exc.__traceback__)):
        path = os.path.realpath(frame.filename)
        if any(path == each or path.startswith(each + os.sep) for each in places):
            text, sharers = f"{exc} ({path}, line {frame.lineno})", find_sharers(path)
            if sharers:
                text += (
                    f"; plugin {sharers[0]} has a module of its own of that file: what a process "
                    f"may have only once belongs into an installed package"
                )
            return text
    return str(exc)

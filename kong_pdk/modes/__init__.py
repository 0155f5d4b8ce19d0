"""Modes: how a handler is run, woken and stopped. One module each; all else is shared."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, cast

from .. import _again
from ..config import MODES
from ..exception import ConfigError

if TYPE_CHECKING:
    from .base import BaseMode


def load_mode(name: str) -> type[BaseMode]:
    """The ``Mode`` class of that name, from a module that is imported only when it is wanted."""
    return cast("type[BaseMode]", importlib.import_module(MODES[name]).Mode)


def check_mode(name: str) -> None:
    """See that a mode can be had, without importing it.

    Raises:
        ConfigError: the library that it needs is not installed.
    """
    if name == "gevent" and importlib.util.find_spec("gevent") is None:
        raise missing_gevent("No module named 'gevent'")


def starts_anew(name: str) -> bool:
    """Whether this process is to start anew for a mode, and need not import it for that.

    A script that has imported gevent may have patched Python itself: the mode looks.
    """
    return name == "gevent" and not _again.get_purpose() and "gevent" not in sys.modules


def missing_gevent(why: object) -> ConfigError:
    """The error for a gevent that is not there, or is broken.

    Args:
        why: it cannot be imported.
    """
    return ConfigError(
        f"the gevent mode needs gevent, which cannot be imported ({why}): "
        f"pip install 'kong-pdk[gevent]'"
    )


def check_gil() -> None:
    """See that this Python has its global interpreter lock.

    A free-threaded one takes it by itself once the compiled codec is loaded; not for the pure one,
    nor where it is told not to. Without it what is one step here is none: who takes an event, what
    is counted.

    Raises:
        ConfigError: it has none.
    """
    importlib.import_module("kong_pdk._codec")
    if not getattr(sys, "_is_gil_enabled", lambda: True)():  # Python 3.13
        raise ConfigError(
            "this Python runs without the global interpreter lock, which the server relies on: set "
            "PYTHON_GIL=1 in its environment, or use a Python that is not free-threaded"
        )

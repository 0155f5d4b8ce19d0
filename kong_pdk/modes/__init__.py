"""Modes: how a handler is run, woken and stopped. One module each; all else is shared."""

from __future__ import annotations

import importlib
from typing import Any

from ..config import MODES


def load_mode(name: str) -> Any:
    """The ``Mode`` class of that name, from a module that is imported only when it is wanted."""
    return importlib.import_module(MODES[name]).Mode

"""Modes: how a handler is run, woken and stopped. One module each; all else is shared."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from ..config import MODES

if TYPE_CHECKING:
    from .base import BaseMode


def load_mode(name: str) -> type[BaseMode]:
    """The ``Mode`` class of that name, from a module that is imported only when it is wanted."""
    return cast("type[BaseMode]", importlib.import_module(MODES[name]).Mode)

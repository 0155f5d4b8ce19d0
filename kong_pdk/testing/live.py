"""The real server in a process of its own, spoken to over its socket as Kong does it."""

from __future__ import annotations

from ..exception import KongPDKError


class ModeUnavailable(KongPDKError):
    """A mode cannot be had here; says why."""

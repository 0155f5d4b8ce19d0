"""PDK functions as Kong runs them, each acting on an exchange."""

from __future__ import annotations

from . import client, log, node, request, response, service  # noqa: F401  they fill the table
from .registry import TABLE, Function, PdkError, Reply, call

__all__ = ["TABLE", "Function", "PdkError", "Reply", "call"]

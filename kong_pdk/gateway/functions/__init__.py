"""PDK functions as Kong runs them, each acting on an exchange."""

from __future__ import annotations

from . import client, log, node, request, response, service, vault  # noqa: F401  fill the table
from .registry import TABLE, Function, PdkError, Reply, call

__all__ = ["TABLE", "Function", "PdkError", "Reply", "call"]

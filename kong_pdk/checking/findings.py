"""What a check has found."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a plugin, or looks wrong.

    Attributes:
        level: "error", Kong or the plugin will fail; "warning", it most likely does not do what
            its author wants.
        code: what kind of problem it is, a short name that stays the same.
        text: what is wrong, and what to do.
        path: the file, "" if it is none in particular.
        line: the line in it, 0 if none is known.
        column: the column, from 1; 0 if none is known.
    """

    level: str
    code: str
    text: str
    path: str = ""
    line: int = 0
    column: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The finding as JSON takes it."""
        return asdict(self)

    def __str__(self) -> str:
        where = shown_path(self.path)
        if where and self.line:
            where += f":{self.line}" + (f":{self.column}" if self.column else "")
        return f"{where + ': ' if where else ''}{self.level}: {self.text} [{self.code}]"


def shown_path(path: str) -> str:
    """A path as people want to see it: from the current folder, if it lies below that."""
    if not path:
        return ""
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):  # the current folder is gone
        return path
    return path if relative.startswith("..") else relative


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Findings without those that are there twice, by place; the order of a place is kept."""
    unique = dict.fromkeys(findings)
    return sorted(unique, key=lambda one: (one.path, one.line, one.column))

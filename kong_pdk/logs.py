"""The log on standard error, as the command lines write it: text, or a JSON object in each line."""

from __future__ import annotations

import datetime
import json
import logging
from typing import Any

#: What code of ours and plugins may give with ``extra``; JSON lines have it as it is.
FIELDS = ("plugin", "phase", "instance", "event")


def configure(verbose: int, style: str) -> None:
    """Write what this package logs to standard error.

    The root logger is left alone: plugins may configure it for themselves.

    Args:
        verbose: debug lines too, if not 0.
        style: one of :data:`kong_pdk.config.LOG_FORMATS`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    package = logging.getLogger("kong_pdk")
    package.addHandler(handler)
    package.propagate = False
    package.setLevel(logging.DEBUG if verbose else logging.INFO)


def time_of(record: logging.LogRecord) -> str:
    """When something was logged, as ISO 8601 with milliseconds, in UTC."""
    moment = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """Lines for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s [%(levelname)s] %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: Any = None) -> str:
        """The time in front of a line."""
        return time_of(record)


class JsonFormatter(logging.Formatter):
    """One object in each line: time, level, logger, message, and where it is known more."""

    def format(self, record: logging.LogRecord) -> str:
        """The line for a record."""
        line: dict[str, Any] = {
            "time": time_of(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        line.update((name, vars(record)[name]) for name in FIELDS if name in vars(record))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)

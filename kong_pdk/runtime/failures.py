"""What an author's code has raised, in the log."""

from __future__ import annotations

import logging

from .._codec import Event

plugin_log = logging.getLogger("kong_pdk.plugin")


def log_failure(exc: BaseException, message: str, *args: object, **fields: object) -> None:
    """Log what an author's code has raised, with its traceback if that can be shown.

    Args:
        exc: what was raised.
        message, args: the line, as for logging.
        fields: for logs in JSON, see ``logs.FIELDS``.
    """
    try:
        plugin_log.error(message, *args, exc_info=exc, extra=fields)
    except BaseException:  # its __str__ has raised something that logging does not expect
        plugin_log.error(message + "; its traceback cannot be shown", *args, extra=fields)


def fields_of(event: Event) -> dict[str, object]:
    """What a line about an event says of it in a log of JSON."""
    instance = event.instance
    return {
        "plugin": instance.plugin.name,
        "phase": event.phase,
        "instance": instance.id,
        "event": event.id,
    }

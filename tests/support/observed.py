"""Events as observers see them, for tests of these."""

from __future__ import annotations

from typing import Any

from kong_pdk._codec import Event, Events
from kong_pdk.observing.base import Record


class Plugin:
    name = "auth"


class Instance:
    plugin = Plugin()
    id = 7


def ended(exited: Any = None, error: str = "", late: bool = False, **attributes: Any) -> Event:
    """An event that has ended."""
    event = Event(Events(12), Instance(), "access", None, 1, None, None)
    event.record, event.exited = Record(), exited
    event.record.error, event.record.late = error, late
    for name, value in attributes.items():
        setattr(event, name, value)
    return event

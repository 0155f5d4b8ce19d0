"""Those who are told of each event, while it happens: the event log, and tracing.

The codec's ``Dispatcher`` asks an observer before each handler and after it, if there is one.
Nothing of this is imported, and nothing asked, unless a flag wants it.
"""

from __future__ import annotations

from typing import Callable, Optional

from ..config import ServerConfig
from .base import Observer, Observers

__all__ = ["Observer", "open_observer"]


def open_observer(
    config: ServerConfig,
    start_thread: Callable[[Callable[[], None]], None],
    sleep: Callable[[float], None],
    must: bool = True,
) -> Optional[Observer]:
    """Open what the settings want to be told of events, in the process that runs them.

    Args:
        config: the server's settings.
        start_thread, sleep: the mode's, for what blocks; see ``modes.base.BaseMode``.
        must: a file that cannot be opened is an error; else it is tried again for each write.

    Returns:
        None if nobody wants to know.

    Raises:
        ConfigError: a file cannot be written, a library is missing, or an address is none.
    """
    found: list[Observer] = []
    if config.tracing is not None:  # first: the event log names the trace
        from .tracing import Tracing

        found.append(Tracing(config.tracing))
    if config.event_log is not None:
        from .eventlog import EventLog, Target

        target = Target(config.event_log, must)
        found.append(EventLog(target, config, start_thread, sleep))
    return Observers(found) if found else None

"""The server from start to end: what ends it, and in which order."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterable
from types import FrameType
from typing import TYPE_CHECKING, Callable, Optional, Protocol

from .._codec import is_compiled
from ..config import ServerConfig
from ..modes import load_mode
from ..observing import open_observer
from ..plugins.definition import Plugin
from ..runtime.service import Service
from .loop import Loop
from .usage import resident_memory

if TYPE_CHECKING:
    from ..metrics import Metrics
    from ..modes.base import BaseMode
    from .reloading import Reloading

logger = logging.getLogger("kong_pdk.server")

#: Kong sends SIGTERM; SIGINT is Ctrl-C, SIGHUP the end of a terminal.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stoppable(Protocol):
    """What signals stop."""

    @property
    def stopping(self) -> bool:
        """Whether it has been told to stop."""
        ...

    @property
    def signal_fd(self) -> int:
        """Wakes it up when something is written to it."""
        ...

    def stop(self) -> None:
        """Stop, gracefully the first time and at once the second."""


def serve(plugins: dict[str, Plugin], config: ServerConfig) -> None:
    """Serve plugins until a signal or the death of the parent process.

    Then nothing new is accepted, running events go on for ``graceful_timeout`` seconds at the most,
    and the sockets are removed. Signals are handled only if this is the main thread; after the end
    they are ignored, because the process is about to end anyway.

    Args:
        plugins: by name.
        config: the server's settings.

    Raises:
        ListenError: a socket cannot be opened.
        ConfigError: a library that is asked for is missing, the event log cannot be written, or
            there are too many plugins.
    """
    mode_class = load_mode(config.mode)
    loop = Loop(config, mode_class.new_selector)
    handle_signals(loop)  # before anybody can know that there is a server
    observer = open_observer(config, mode_class.start_thread, mode_class.sleep)
    service = Service(plugins, config, observer=observer)
    mode = mode_class(service, loop, config)
    metrics = open_metrics(config)
    reloading = None
    try:
        loop.listen()
        look = watch_parent(loop, os.getppid())

        def tick() -> None:
            look()
            service.table.note_memory(0, resident_memory(os.getpid()))

        loop.on_tick = tick
        if metrics is not None:
            phases = {name: plugin.phases for name, plugin in plugins.items()}
            metrics.serve(service.table, phases, service.instances.count, lambda: service.measure())
        set_title(plugins)
        log_start(plugins, config, [])
        reloading = open_reloading(service, loop, mode, config)
        mode.drive()
    finally:
        if reloading is not None:
            reloading.close()
        if metrics is not None:
            metrics.close()
        if observer is not None:
            observer.close()
    handle_signals(None)
    logger.info("stopped")


def open_reloading(
    service: Service, loop: Loop, mode: BaseMode, config: ServerConfig, tells: bool = True
) -> Optional[Reloading]:
    """Begin to take over changed code of plugins, if that is asked for.

    Args:
        service: whose plugins they are.
        loop: of this process.
        mode: runs its handlers.
        config: the server's settings.
        tells: this process tells what holds for all of the server's.
    """
    if not config.reload:
        return None
    from .reloading import Reloading

    return Reloading(service, loop, config, mode, tells)


def open_metrics(config: ServerConfig) -> Optional[Metrics]:
    """Open the socket of the metrics, if they are asked for.

    Raises:
        ListenError: it cannot be opened.
        ConfigError: the library is missing.
    """
    if config.metrics is None:
        return None
    from ..metrics import Metrics

    return Metrics(config)


def log_start(plugins: Iterable[str], config: ServerConfig, workers: list[int]) -> None:
    """Log what is served.

    Args:
        plugins: their names.
        config: the server's settings.
        workers: pids of the worker processes, if there are any.
    """
    logger.info(
        "serving %s on %s (pid %d, %s%s, %s codec, PDK calls return %s)",
        ", ".join(sorted(plugins)) or "no plugins",
        " and ".join(config.socket_paths),
        os.getpid(),
        f"workers {' '.join(map(str, workers))}, " if workers else "",
        config.mode,
        "compiled" if is_compiled() else "pure-Python",
        "(data, err)" if config.lua_style else "data",
    )


def set_title(plugins: Iterable[str], role: str = "") -> None:
    """Show the plugins in the process list; needs the extra ``kong-pdk[setproctitle]``.

    Args:
        plugins: their names.
        role: of this process, if the server has several.
    """
    try:
        from setproctitle import setproctitle  # pyright: ignore[reportMissingImports]
    except ImportError:
        return
    setproctitle(f"kong-pdk: {', '.join(sorted(plugins))}" + (f" ({role})" if role else ""))


def watch_parent(loop: Stoppable, parent: int) -> Callable[[], None]:
    """What is to be called from time to time, to stop after the death of the parent process.

    Args:
        loop: to be stopped.
        parent: its pid.
    """

    def look() -> None:
        if os.getppid() != parent and not loop.stopping:
            logger.info("the parent process %d is gone: stopping", parent)
            loop.stop()

    return look


def handle_signals(loop: Optional[Stoppable]) -> None:
    """Let signals stop the loop, or do nothing if there is none any more."""
    if threading.current_thread() is not threading.main_thread():
        return

    def handle(number: int, _: Optional[FrameType]) -> None:
        if loop is not None:
            loop.stop()

    for number in STOP_SIGNALS:
        # Ignored ones stay so while Python ends; others would kill it in the middle of that.
        signal.signal(number, signal.SIG_IGN if loop is None else handle)
    # Without it, a signal that arrives just before the loop goes to sleep would wait for a tick.
    signal.set_wakeup_fd(-1 if loop is None else loop.signal_fd, warn_on_full_buffer=False)

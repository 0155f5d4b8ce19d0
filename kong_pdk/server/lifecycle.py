"""The server from start to end: what ends it, and in which order."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType
from typing import Callable, Optional

from .._codec import is_compiled
from ..config import ServerConfig
from ..modes import load_mode
from ..runtime.plugins import Plugin
from ..runtime.service import Service
from .loop import Loop

logger = logging.getLogger("kong_pdk.server")

#: Kong sends SIGTERM; SIGINT is Ctrl-C, SIGHUP the end of a terminal.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


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
    """
    mode_class = load_mode(config.mode)
    loop = Loop(config, mode_class.new_selector)
    _handle_signals(loop)  # before anybody can know that there is a server
    mode = mode_class(Service(plugins, config), loop, config)
    loop.listen()
    loop.on_tick = _parent_watch(loop)
    _set_title(plugins)
    logger.info(
        "serving %s on %s (pid %d, %s, %s codec, PDK calls return %s)",
        ", ".join(sorted(plugins)) or "no plugins",
        " and ".join(config.socket_paths),
        os.getpid(),
        config.mode,
        "compiled" if is_compiled() else "pure-Python",
        "(data, err)" if config.lua_style else "data",
    )
    mode.drive()
    _handle_signals(None)
    logger.info("stopped")


def _set_title(plugins: dict[str, Plugin]) -> None:
    """Show the plugins in the process list; needs the extra ``kong-pdk[setproctitle]``."""
    try:
        from setproctitle import setproctitle
    except ImportError:
        return
    setproctitle(f"kong-pdk: {', '.join(sorted(plugins))}")


def _parent_watch(loop: Loop) -> Callable[[], None]:
    parent = os.getppid()

    def look() -> None:
        if os.getppid() != parent:
            logger.info("the parent process %d is gone: stopping", parent)
            loop.stop()

    return look


def _handle_signals(loop: Optional[Loop]) -> None:
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
    fd = -1 if loop is None else loop.signal_fd
    signal.set_wakeup_fd(fd, warn_on_full_buffer=False)

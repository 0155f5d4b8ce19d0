"""The way in: all sockets of the server, and who is let in through them."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator

from ..config import ServerConfig
from .listener import Listener, Permissions, open_listeners
from .peers import Peers

logger = logging.getLogger("kong_pdk.server")

#: Connections accepted in one go, so that others get their turn.
BATCH = 64
#: For how long nothing is accepted after the system could not give a connection, seconds.
REST = 0.5


class Door:
    """Opens, closes and accepts; for the one thread that does so.

    Args:
        config: the server's settings.

    Attributes:
        listeners: the sockets, once they are open.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._peers = Peers(config.allow_uids)
        self._rests_until = 0.0
        self.listeners: list[Listener] = []

    def open(self) -> None:
        """Open all sockets, or none.

        Raises:
            ListenError: a socket cannot be opened.
        """
        config = self._config
        self.listeners = open_listeners(
            config.socket_paths,
            config.listen_queue_size,
            Permissions(config.socket_mode, config.socket_user, config.socket_group),
        )

    @property
    def rests(self) -> bool:
        """Whether nothing is to be accepted for a moment, although connections may wait."""
        return time.monotonic() < self._rests_until

    def accept(self, listener: Listener, all_of_them: bool = False) -> Iterator[socket.socket]:
        """Accept those who wait at a socket and may come in; see :attr:`rests` afterwards.

        Args:
            listener: one of :attr:`listeners`.
            all_of_them: all that the kernel holds, at the end; else some.
        """
        # The kernel holds one more than it is told to.
        for _ in range(self._config.listen_queue_size + 1 if all_of_them else BATCH):
            try:
                sock, _ = listener.sock.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as exc:
                # Out of descriptors, say. The queue stays readable: to look at it again at once
                # would be a busy loop.
                logger.error("cannot accept connections for a moment: %s", exc.strerror)
                self._rests_until = time.monotonic() + REST
                return
            if self._peers.admit(sock):
                yield sock
            else:
                sock.close()

    def tick(self) -> None:
        """Log what is due; to be called about once a second."""
        self._peers.report()

    def remove_paths(self) -> None:
        """Let nobody find the sockets any more; those who wait can still be accepted."""
        for listener in self.listeners:
            listener.remove_path()

    def close(self) -> None:
        """Close the sockets, and remove their paths. May be called again."""
        for listener in self.listeners:
            listener.close()
        self._peers.report(at_once=True)

    def let_go(self) -> None:
        """Close the sockets in a process that was forked from the one that serves them."""
        for listener in self.listeners:
            listener.sock.close()

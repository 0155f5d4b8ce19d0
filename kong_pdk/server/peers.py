"""Who is at the other end of a connection, and whether that user may be."""

from __future__ import annotations

import logging
import os
import socket
import struct
import time
from typing import NamedTuple, Optional

logger = logging.getLogger("kong_pdk.server")

#: How often connections that were refused are told of, seconds: nobody shall fill the log.
REPORT_PAUSE = 60.0
#: Users that are told of one by one; all further ones are counted together.
MOST_USERS = 64
#: Stands for these in the counts.
OTHERS = -1

#: struct ucred: pid_t, uid_t, gid_t.
_CREDENTIALS = struct.Struct("iII")


class Credentials(NamedTuple):
    """A process at the other end, as it was when it connected or began to listen."""

    pid: int
    uid: int
    gid: int


def credentials(sock: socket.socket) -> Optional[Credentials]:
    """Who is at the other end of a Unix socket; None where the system does not tell.

    Raises:
        OSError: the socket is not connected.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Credentials(*_CREDENTIALS.unpack(raw))


class Peers:
    """Decides whose connections are taken. For one thread.

    Args:
        allowed: user ids; the server's own is always one of them. None: whoever can connect.
    """

    def __init__(self, allowed: Optional[frozenset[int]]) -> None:
        # Its own user could replace the server altogether, and is who looks whether it is alive.
        self._allowed = None if allowed is None else allowed | {os.geteuid()}
        self._refused: dict[int, int] = {}  # by user, since the last report
        self._due = 0.0

    def admit(self, sock: socket.socket) -> bool:
        """Whether a connection is taken; the first one of a user that is not is logged."""
        if self._allowed is None:
            return True
        try:
            peer = credentials(sock)
        except OSError:
            peer = None
        if peer is not None and peer.uid in self._allowed:
            return True
        self._note(OTHERS if peer is None else peer.uid)
        return False

    def _note(self, uid: int) -> None:
        if uid not in self._refused and uid != OTHERS:
            if len(self._refused) < MOST_USERS:
                self._refused[uid] = 0
                logger.warning(
                    "refused a connection of user %d, who is not allowed by --allow-uid", uid
                )
                return
            uid = OTHERS
        self._refused[uid] = self._refused.get(uid, 0) + 1

    def report(self, at_once: bool = False) -> None:
        """Log how many were refused since it was last said, unless that is less than a minute ago.

        Args:
            at_once: say it now; at the end.
        """
        now = time.monotonic()
        if not any(self._refused.values()) or (now < self._due and not at_once):
            return
        self._due = now + REPORT_PAUSE
        counts = ", ".join(
            f"{count} of {'others' if uid == OTHERS else f'user {uid}'}"
            for uid, count in self._refused.items()
            if count
        )
        logger.warning("refused further connections: %s", counts)
        self._refused = dict.fromkeys(self._refused, 0)

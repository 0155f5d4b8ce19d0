"""Steps that have arrived at another worker than the one whose handler waits for them.

A step goes to its owner together with a duplicate of the connection that it came on, and the owner
answers there. The connection stays with the worker that reads it, which goes on as if it had
answered: Kong sends nothing more on it before it has the answer.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import Callable, NamedTuple

from .._codec import Connection, Request
from ..config import MAX_WORKERS
from ..exception import RPCError
from ..runtime.events import owner_of
from .channel import Channel

logger = logging.getLogger("kong_pdk.server")

#: How long a step waits for room in the inbox of its event's worker, seconds: Kong's own patience
#: is 60 s, and whoever waits is kept from other work.
PATIENCE = 10.0

#: Steps taken in one go, so that connections get their turn.
BATCH = 64


class Forwarder:
    """Hands steps on to other workers; see :class:`kong_pdk.runtime.service.Forward`.

    Args:
        index: of this worker.
        outboxes: to each worker, by its index.
        life_of: how many processes have died in a worker's place, by its index.
    """

    def __init__(
        self, index: int, outboxes: list[Channel], life_of: Callable[[int], int] = lambda _: 0
    ) -> None:
        self._index = index
        self._outboxes = outboxes
        self._life_of = life_of

    def __call__(self, request: Request, connection: Connection, wait: bool) -> bool:
        """Have another worker take a step."""
        owner = owner_of(request.target, MAX_WORKERS)
        if owner == self._index or owner >= len(self._outboxes) or connection.borrowed:
            return False
        slot, fd, own = connection.slot, connection.fileno(), -1
        owes = connection.lend(owner)
        # Looked at after it was lent: if its owner dies before, the next one takes it, else the
        # parent finds it in the ledger, or is told of it by the next one.
        life = self._life_of(owner)
        step = (request.kind, request.msgid, request.target, request.value, slot, owes, life)
        try:
            if wait:  # the connection may be closed meanwhile, and its number be another file's
                fd = own = os.dup(fd)
            self._outboxes[owner].send(step, [fd], PATIENCE if wait else 0.0)
        except (OSError, ValueError) as exc:
            if not connection.reclaim(owes):
                return True  # its owner has died, and the parent has answered
            if wait:
                raise RPCError(f"a step cannot be handed to worker {owner}: {exc}") from exc
            return False
        finally:
            if own >= 0:
                os.close(own)
        return True


class Lent(NamedTuple):
    """A step from another worker's connection.

    Attributes:
        sock: a duplicate of the connection, to answer on.
        request: the step.
        slot: of the connection in the ledger.
        owes: what is owed on it.
        life: as the ledger had it of the worker that it is for.
    """

    sock: socket.socket
    request: Request
    slot: int
    owes: int
    life: int


def read_inbox(
    inbox: Channel, take: Callable[[Lent], None], miss: Callable[[int, int], None]
) -> bool:
    """Take the steps that lie in an inbox.

    Args:
        inbox: of this worker.
        take: gets each.
        miss: gets the slot, and what is owed, of one that has lost its connection on the way.

    Returns:
        Whether there may be more of them.
    """
    for _ in range(BATCH):
        try:
            message = inbox.receive()
        except BlockingIOError:
            return False
        except (EOFError, OSError) as exc:
            logger.error("a step of another worker is lost: %s", exc)
            return False
        if len(message.fds) != 1:
            for fd in message.fds:
                os.close(fd)
            logger.error("a step of another worker is lost: too many descriptors are open here")
            miss(*message.value[4:6])
            continue
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=message.fds[0])
        *fields, slot, owes, life = message.value
        take(Lent(sock, Request(*fields), slot, owes, life))
    return True

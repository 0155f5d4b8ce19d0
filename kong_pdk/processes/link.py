"""What ties a worker to its parent and to the other workers: descriptors, by their numbers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

#: Whole messages, an end that is noticed, and descriptors with a message.
KIND = getattr(socket, "SOCK_SEQPACKET", socket.SOCK_DGRAM)


@dataclass(frozen=True)
class Link:
    """One worker's place in the server.

    Attributes:
        index: of the worker, from 0.
        parent: pid of the parent.
        control: the parent deals connections here and says when to stop.
        requests: the worker asks the parent here, one question at a time.
        inbox: the other workers leave steps here.
        outboxes: where to leave steps for each worker, by its index; this one's too.
        ledger: memory for what is owed on connections.
        tally: memory in which it counts what it does.
        first: the server does not listen yet: a worker that cannot do what it is to do ends it.
    """

    index: int
    parent: int
    control: int
    requests: int
    inbox: int
    outboxes: list[int]
    ledger: int
    tally: int
    first: bool = True

    def descriptors(self) -> Iterator[int]:
        """All of them."""
        yield from (self.control, self.requests, self.inbox, self.ledger)
        yield from self.outboxes
        yield self.tally


def open_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets that keep messages apart."""
    if os.name != "posix" or not hasattr(socket, "AF_UNIX"):  # pragma: no cover
        raise OSError("worker processes need Unix sockets")
    return socket.socketpair(socket.AF_UNIX, KIND)

#!/usr/bin/env python3
"""Writes a JSON line for each request, to a file that is rotated or to an HTTP endpoint in batches.

The record is that of Kong's own logging plugins (``kong.log.serialize``), with what other plugins
have added to it. A request never waits for the disk or the endpoint: its handler leaves the record
in a queue, from which one thread takes them in batches. Where that thread cannot keep up the queue
fills, and what has no room is dropped and counted. A line ``{"dropped": 17}`` tells where records
are missing, and how many have been lost so far. ``close`` writes what is in the queue, so nothing
is lost when an instance or the server ends; what a killed process had in its queue is.

Any number of processes may write the same file, such as the workers of ``-m``: each batch is
written at one go under a lock, which also guards the rotation.

PDK round trips:

- a request, 1: log.serialize

The one call gives everything there is to know. Asking for status, path, latency and consumer one by
one would be four, and in the log phase Kong answers each from the same record.

Fails open, as the log phase always does: the client has its answer by then. What goes wrong is in
the server's log.
"""

from __future__ import annotations

import fcntl
import logging
import threading
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Protocol

import kong_pdk.pdk.kong as kong
from kong_pdk.schema import field, schema_of

version = "1.0.0"
priority = 12

logger = logging.getLogger("kong_pdk.plugin")


@dataclass
class Config:
    #: A file, or the URL of an endpoint that takes POST requests with ``application/x-ndjson``.
    path: Optional[str] = None
    url: Optional[str] = field(None, match="^https?://")
    #: What goes into the header ``Authorization`` for the endpoint.
    authorization: Optional[str] = field(None, referenceable=True, encrypted=True)
    #: The file is renamed to ``….1`` when it would become larger; so many old ones are kept.
    max_bytes: int = field(100_000_000, gt=0)
    backups: int = field(5, between=(1, 100))
    #: A batch has no more records than that, and waits no longer to be full, in seconds.
    batch: int = field(200, between=(1, 10_000))
    linger: float = field(1.0, between=(0, 60))
    #: So many records may wait.
    queue: int = field(10_000, between=(1, 1_000_000))
    #: The endpoint has so many seconds to answer, and is asked so often before a batch is dropped.
    timeout: float = field(10.0, between=(0.1, 60))
    attempts: int = field(3, between=(1, 10))


Schema = schema_of(
    Config, entity_checks=[{"at_least_one_of": ["path", "url"]}, {"only_one_of": ["path", "url"]}]
)


class Sink(Protocol):
    """Where lines go."""

    def write(self, lines: bytes) -> None:
        """Write lines, each with its end; raises OSError."""
        ...


class File:
    """A file that is renamed when it gets too large."""

    def __init__(self, path: str, max_bytes: int, backups: int) -> None:
        self.path, self.max_bytes, self.backups = Path(path), max_bytes, backups

    def write(self, lines: bytes) -> None:
        with self.locked():
            size = self.path.stat().st_size if self.path.exists() else 0
            if size and size + len(lines) > self.max_bytes:
                self.rotate()
            with self.path.open("ab") as file:
                file.write(lines)

    def rotate(self) -> None:
        names = [self.path, *(Path(f"{self.path}.{n}") for n in range(1, self.backups + 1))]
        for older, newer in reversed(list(zip(names[1:], names))):
            if newer.exists():
                newer.replace(older)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other threads and processes away; a file of its own, for this one is renamed."""
        with open(f"{self.path}.lock", "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: it must not carry the authorization to another host."""

    def redirect_request(self, *args: object, **kwargs: object) -> None:
        return None


class Endpoint:
    """An HTTP endpoint that takes lines."""

    def __init__(self, url: str, authorization: Optional[str], timeout: float) -> None:
        self.url, self.timeout = url, timeout
        self.headers = {"Content-Type": "application/x-ndjson"}
        if authorization:
            self.headers["Authorization"] = authorization
        self.opener = urllib.request.build_opener(NoRedirects)

    def write(self, lines: bytes) -> None:
        request = urllib.request.Request(self.url, lines, self.headers)
        with self.opener.open(request, timeout=self.timeout) as answer:
            answer.read()


class Writer:
    """A queue of lines, and one thread that takes them to a sink.

    Attributes:
        dropped: how many lines have been lost so far.
    """

    def __init__(self, sink: Sink, config: Config) -> None:
        self.sink, self.config = sink, config
        #: None stands for the line that tells how many were dropped.
        self.lines: deque[Optional[bytes]] = deque()
        self.changed = threading.Condition()
        self.dropped = self.told = 0
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self.run, name="request-log", daemon=True)
        self.thread.start()

    def put(self, line: bytes) -> None:
        """Leave a line in the queue, if there is room; does not wait."""
        with self.changed:
            if len(self.lines) >= self.config.queue:
                self.dropped += 1
                return
            self.tell_drops()
            self.lines.append(line)
            self.changed.notify()

    def close(self) -> None:
        """Write what is in the queue, and end the thread; an endpoint is not asked twice by now."""
        with self.changed:
            self.closing.set()
            self.changed.notify()
        self.thread.join()

    def run(self) -> None:
        while batch := self.take():
            if not self.deliver(batch) and self.closing.is_set():
                logger.error("request-log: %d more lines are lost at the end", len(self.lines))
                break

    def take(self) -> list[Optional[bytes]]:
        """The next batch, once it is full or has waited long enough; empty at the end."""
        closing, size = self.closing.is_set, self.config.batch
        with self.changed:
            self.changed.wait_for(lambda: self.lines or closing())
            self.changed.wait_for(lambda: len(self.lines) >= size or closing(), self.config.linger)
            batch = [self.lines.popleft() for _ in range(min(size, len(self.lines)))]
            if not self.lines:
                self.tell_drops()
            return batch

    def deliver(self, batch: list[Optional[bytes]]) -> bool:
        """Take a batch to the sink; say whether that has worked."""
        count = b'{"dropped": %d}' % self.dropped
        lines = b"".join((count if line is None else line) + b"\n" for line in batch)
        for attempt in range(self.config.attempts):
            if attempt and self.closing.wait(4**attempt / 10):
                break
            try:
                self.sink.write(lines)
                return True
            except Exception as error:
                logger.warning("request-log: %d lines are not written: %s", len(batch), error)
        with self.changed:
            self.dropped += sum(line is not None for line in batch)
            self.tell_drops()
        logger.error("request-log: %d lines are lost so far", self.dropped)
        return False

    def tell_drops(self) -> None:
        """Have a line in the queue that tells of drops, where there were any since the last one."""
        if self.told != self.dropped:
            self.told = self.dropped
            self.lines.append(None)


class Plugin:
    def __init__(self, config: Config) -> None:
        sink: Sink
        if config.url:
            sink = Endpoint(config.url, config.authorization, config.timeout)
        else:
            sink = File(str(config.path), config.max_bytes, config.backups)
        self.writer = Writer(sink, config)

    def log(self, kong: kong.kong) -> None:
        record, _ = kong.log.serialize()
        if record is not None:
            # Bytes of a client that are not UTF-8 become escapes, which JSON has too.
            self.writer.put(record.encode(errors="backslashreplace"))

    def close(self) -> None:
        self.writer.close()


if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server

    start_dedicated_server("request-log", Plugin, version, priority, Schema)

"""Clients that do the same again and again while something happens to the server."""

from __future__ import annotations

import threading
from typing import Callable

from kongwire import Kong
from servers import Server


class Clients:
    """Threads that do something without a pause, each as a Kong of its own.

    Args:
        server: that they talk to.
        act: what they do.
        count: how many there are.

    Attributes:
        failures: what ended one of them before the end.
    """

    def __init__(self, server: Server, act: Callable[[Kong], object], count: int) -> None:
        self._server, self._act = server, act
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]

    def _run(self) -> None:
        try:
            with self._server.kong() as kong:
                while not self._stop.is_set():
                    self._act(kong)
        except Exception as exc:
            self.failures.append(repr(exc))

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

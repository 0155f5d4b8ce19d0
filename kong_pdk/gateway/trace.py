"""What the gateway tells about its work; the program around it decides what to show, and how."""

from __future__ import annotations

from typing import Any

from .exchange import Exchange, LogLine, PhaseRun


class Trace:
    """Told what happens; each method does nothing unless it is overridden."""

    def note(self, event: str, text: str, **facts: Any) -> None:
        """Something about the gateway itself has happened.

        Args:
            event: what it was, in one word for programs: ``start``, ``reload``, ``instance``, …
            text: the same for people.
            facts: what else programs may want to know, plain data.
        """

    def problem(self, event: str, text: str) -> None:
        """Something has gone wrong, and the gateway goes on.

        Args:
            event: as in :meth:`note`.
            text: what is wrong, and what can be done about it.
        """

    def server_line(self, line: str) -> None:
        """The plugin server's process wrote a line, given without its end."""

    def server_started(self, pid: int) -> None:
        """The plugin server accepts connections."""

    def server_died(self, status: int) -> None:
        """The plugin server's process has ended without being asked to.

        Args:
            status: its exit status; the signal's number, negative, if one killed it.
        """

    def log_line(self, line: LogLine) -> None:
        """A line came into Kong's log, from the plugin or about it."""

    def exchange_done(self, exchange: Exchange) -> None:
        """A request is over, its log phase included."""

    def handshake_done(self, exchange: Exchange, failure: str | None) -> None:
        """A TLS handshake is over.

        Args:
            exchange: the connection; its runs have the certificate phase if the plugin has one.
            failure: why there is no connection; ``None`` if there is one.
        """


def plugin_seconds(run: PhaseRun) -> float:
    """Return how long a phase waited for the plugin.

    That is the plugin's own time and the way over the socket: all but what the gateway did itself.
    """
    return sum(run.waits)

"""What the gateway tells about its work; the program around it decides what to show, and how."""

from __future__ import annotations

from .exchange import Exchange, LogLine


class Trace:
    """Told what happens; each method does nothing unless it is overridden."""

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

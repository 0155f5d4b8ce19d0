"""What can go wrong with the gateway itself, as opposed to the plugin that runs behind it."""

from __future__ import annotations

from ..exception import KongPDKError, RPCError


class GatewayError(KongPDKError):
    """The gateway cannot do what it was asked to; its text is for the person who asked."""


class SettingsError(GatewayError):
    """A plugin's configuration does not fit its schema.

    Attributes:
        field: the field's name, with dots where it is inside of others.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"config field {field!r}: {problem}")
        self.field = field


class ServerFailed(GatewayError):
    """The plugin server could not be started or queried, or has died."""


class NoAnswer(RPCError):
    """The plugin server closed the connection, or kept silent, before its reply was complete."""


class BadAnswer(RPCError):
    """The plugin server sent what is no reply to the call."""

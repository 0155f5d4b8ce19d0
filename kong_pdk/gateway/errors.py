"""What can go wrong with the gateway itself, as opposed to the plugin that runs behind it."""

from __future__ import annotations

from ..exception import KongPDKError, RPCError, SettingsError

__all__ = ["BadAnswer", "GatewayError", "NoAnswer", "ServerFailed", "SettingsError"]


class GatewayError(KongPDKError):
    """The gateway cannot do what it was asked to; its text is for the person who asked."""


class ServerFailed(GatewayError):
    """The plugin server could not be started or queried, or has died."""


class NoAnswer(RPCError):
    """The plugin server closed the connection, or kept silent, before its reply was complete."""


class BadAnswer(RPCError):
    """The plugin server sent what is no reply to the call."""

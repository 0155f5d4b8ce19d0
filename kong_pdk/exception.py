"""Every exception of the package, in one tree.

::

    KongPDKError                      base of all that the package raises
    ├── PDKException                  a PDK call failed; what plugin authors catch
    │   ├── CallError                 a PDK call was not made, because Kong would not take it
    │   │   ├── ArgumentError         an argument is missing, too many, of a wrong type, or cannot
    │   │   │                         be sent (also TypeError)
    │   │   ├── ArgumentValueError    an argument has a value that Kong does not take (also
    │   │   │                         ValueError)
    │   │   └── PhaseError            Kong does not take the call in this phase (also ValueError)
    │   ├── UnreachableError          Kong has it, but plugin servers cannot use it (also
    │   │                             AttributeError)
    │   └── EventEnded                a PDK call after the end of its event (also RuntimeError)
    ├── PluginError                   not a plugin that Kong could use (also ValueError)
    │   └── SchemaError                   a class that cannot be made a Schema of
    ├── SettingsError                 a configuration does not fit its Schema (also ValueError)
    ├── ConfigError                   an option of the server makes no sense (also ValueError)
    ├── ListenError                   the socket cannot be served (also OSError)
    ├── WorkerError                   a worker process cannot start (also RuntimeError)
    ├── RPCError                      the answer to a call is an error
    │   ├── TooManyStarts             too many instances of a plugin are being made already
    │   └── UnknownInstance           Kong knows an instance id that this process does not
    ├── ConnectionClosed              the peer is gone (also ConnectionError)
    │   └── ReplyLost                 and has not read what was sent to it
    └── ProtocolError                 bytes that are no request (also ValueError)
        ├── MessageTooLarge           larger than ``max_message`` bytes
        └── NestingTooDeep            nested deeper than ``max_depth`` containers

    HandlerExit (BaseException)       ends a handler; ``except Exception`` does not catch it
    ├── ResponseSent                  by kong.response.exit or kong.response.error
    ├── EventAbandoned                nobody waits for the answer any more
    └── HandlerTimeout                the handler has had its time
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "ArgumentError",
    "ArgumentValueError",
    "CallError",
    "ConfigError",
    "ConnectionClosed",
    "EventAbandoned",
    "EventEnded",
    "HandlerExit",
    "HandlerTimeout",
    "KongPDKError",
    "ListenError",
    "MessageTooLarge",
    "NestingTooDeep",
    "PDKException",
    "PhaseError",
    "PluginError",
    "PluginServerException",
    "ProtocolError",
    "RPCError",
    "ReplyLost",
    "ResponseSent",
    "SchemaError",
    "SettingsError",
    "TooManyStarts",
    "UnknownInstance",
    "UnreachableError",
    "WorkerError",
]


class KongPDKError(Exception):
    """Base of every error that this package raises."""


#: The published package's name for an error of the server.
PluginServerException = KongPDKError


class PDKException(KongPDKError):
    """A PDK call failed. With ``--no-lua-style`` this is how a plugin learns of it."""


class CallError(PDKException):
    """A PDK call was not made: Kong would have ended the event over it, without an answer."""


class ArgumentError(CallError, TypeError):
    """An argument of a PDK call is missing, is one too many, has a wrong type or cannot be sent."""


class ArgumentValueError(CallError, ValueError):
    """An argument of a PDK call has a value that Kong does not take."""


class PhaseError(CallError, ValueError):
    """Kong does not take this PDK call in the phase of the event; the text names where it does."""


class UnreachableError(PDKException, AttributeError):
    """Kong's PDK has this name, but no plugin server can use it; the text says why."""


class EventEnded(PDKException, RuntimeError):
    """A PDK call was made after its event had ended; Kong would never answer it."""


class PluginError(KongPDKError, ValueError):
    """What was found is no plugin that Kong could use; the text names file and field."""


class SchemaError(PluginError):
    """A class that describes a configuration cannot be made a Schema of; names class and field."""


class SettingsError(KongPDKError, ValueError):
    """A plugin's configuration does not fit its Schema.

    Args:
        field: the field's name, with dots where it is inside of others.
        problem: what is wrong with it.

    Attributes:
        field: the first field that does not fit.
        problems: field and problem of all that do not.
    """

    def __init__(self, field: str, problem: str = "does not fit the schema") -> None:
        super().__init__(f"config field {field!r}: {problem}")
        self.field = field
        self.problems = [(field, problem)]

    @classmethod
    def of(cls, problems: Sequence[tuple[str, str]]) -> SettingsError:
        """Make one error of several problems, each a field and what is wrong with it."""
        error = cls(*problems[0])
        error.problems = list(problems)
        if len(problems) > 1:
            error.args = ("; ".join(str(cls(*each)) for each in problems),)
        return error


class ConfigError(KongPDKError, ValueError):
    """An option of the server has a value that makes no sense."""


class ListenError(KongPDKError, OSError):
    """The server's socket cannot be created at the given path."""


class WorkerError(KongPDKError, RuntimeError):
    """A worker process of the multiprocessing mode cannot start."""


class RPCError(KongPDKError):
    """The answer to a call is an error; its text is what Kong gets to read."""


class TooManyStarts(RPCError):
    """So many instances of a plugin are being made that another one would harm other plugins."""


class UnknownInstance(RPCError):
    """The call is for a plugin instance that this process does not hold.

    Its text is part of the protocol: Kong looks for "no plugin instance" in an error, then
    forgets its instance ids, starts the instance again and repeats the event.
    """

    def __init__(self, instance_id: object) -> None:
        super().__init__(f"no plugin instance {instance_id!r}")


class ConnectionClosed(KongPDKError, ConnectionError):
    """The peer has closed the connection."""


class ReplyLost(ConnectionClosed):
    """The peer has closed the connection without reading the last reply."""


class ProtocolError(KongPDKError, ValueError):
    """The peer sent what is no request of the protocol; its connection cannot go on."""


class MessageTooLarge(ProtocolError):
    """A message is larger than the ``max_message`` of the configuration, in bytes."""


class NestingTooDeep(ProtocolError):
    """A message nests containers deeper than the ``max_depth`` of the configuration."""


class HandlerExit(BaseException):
    """Ends a handler early.

    No subclass of ``Exception``, so that a plugin's ``except Exception`` does not keep a handler
    alive that has nobody to talk to any more. ``finally`` blocks run.
    """


class ResponseSent(HandlerExit):
    """``kong.response.exit`` or ``kong.response.error`` has ended the request in Kong."""


class EventAbandoned(HandlerExit):
    """Kong has gone away or did not answer a PDK call in time; the event is over."""


class HandlerTimeout(HandlerExit):
    """The handler has taken longer than ``--handler-timeout``; its request is closed."""

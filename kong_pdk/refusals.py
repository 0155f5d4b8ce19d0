"""The answers to calls whose plugin has failed, cannot be had, or is not to be waited for.

An error lets the request go on in Kong. Where it is to be refused, Kong is told to answer the
client itself. So whoever owes an answer, and can say nothing better, finds the right one here.
"""

from __future__ import annotations

from . import _wire
from ._codec import encode_call, encode_error

#: What the client gets to read when a plugin has failed: nothing about the cause.
FAILURE_STATUS = 500
FAILURE_BODY = '{"message":"An unexpected error occurred"}'
HEADERS = {"Content-Type": "application/json; charset=utf-8"}

#: For a request that the server cannot take on.
BUSY_STATUS = 503
BUSY_BODY = '{"message":"Service unavailable"}'

#: The arguments of ``kong.response.exit`` for a plugin that has failed.
FAILURE = (FAILURE_STATUS, FAILURE_BODY, HEADERS)
#: The same where there is no room.
BUSY = (BUSY_STATUS, BUSY_BODY, HEADERS)


def refuse(
    msgid: int, event_id: int = 0, response: tuple[int, str, dict[str, str]] = FAILURE
) -> bytes:
    """The answer that has Kong refuse the client's request.

    Args:
        msgid: of the call that is answered.
        event_id: of the event; 0 if none has begun.
        response: what the client gets.
    """
    return encode_call(msgid, event_id, "kong.response.exit", response)


def is_closed_id(number: object) -> bool:
    """Whether an instance's or event's id says that the request is refused if the plugin fails."""
    return isinstance(number, int) and bool(number & _wire.CLOSED_BIT)


def answer_debt(owes: int, closed: bool, why: str) -> bytes:
    """The answer to what a connection owes, for whoever knows nothing else of it.

    Args:
        owes: as ``Connection.owes``.
        closed: the server's policy for plugins that say nothing.
        why: the text of an error; the client does not get to read it.

    Returns:
        b"" if it is not known what is owed.
    """
    how, msgid = owes & _wire.OWES_HOW, owes & _wire.OWES_MSGID
    if not how or owes & _wire.OWES_UNKNOWN:
        return b""
    if how == _wire.OWES_EXIT or (how == _wire.OWES_POLICY and closed):
        return refuse(msgid)
    return encode_error(msgid, why)

"""What Kong sees of a handler that fails, and of a server that has survived it."""

from __future__ import annotations

import pytest
from kongwire import Connection, Kong, RemoteError, Turn

#: In these the client can still be answered, so a plugin that fails ends the request.
CLOSABLE = ("rewrite", "access", "response", "preread")
PHASES = (*CLOSABLE, "certificate", "log")
BODY = '{"message":"An unexpected error occurred"}'


#: What the client gets of a plugin that has failed.
ARGS = [500, BODY, {"Content-Type": "application/json; charset=utf-8"}]


def refused(turn: Turn) -> bool:
    """Whether Kong is told to refuse the request, with a body that says nothing."""
    return turn.data != "ret" and (turn.function, turn.args) == ("kong.response.exit", ARGS)


def indented(statement: str, phase: str = "access") -> str:
    return f"def {phase}(self, kong):\n    {statement}\n"


def failure(on: Connection, instance: int, phase: str = "access", calls: int = 0) -> str:
    """Run a handler that fails after some calls; returns what Kong gets to read of it."""
    msgid = on.send_event(instance, phase)
    for _ in range(calls):
        turn = on.turn(msgid)
        assert turn.function == "kong.log", turn
        msgid = on.send_step(turn.event_id)
    return end_of_failure(on, msgid, phase)


def end_of_failure(on: Connection, msgid: int, phase: str) -> str:
    """What follows when a handler has failed; returns what Kong gets to read of it."""
    if phase not in CLOSABLE:
        with pytest.raises(RemoteError) as caught:
            on.result(msgid)
        assert f"plugin author: {phase} raised" in str(caught.value)
        return str(caught.value)
    turn = on.turn(msgid)
    assert turn.function == "kong.log.err"
    (text,) = turn.args
    assert isinstance(text, str)
    assert text.startswith(f"{phase} failed, the request is refused: ")
    turn = on.step(turn.event_id)
    assert refused(turn)
    return text


def still_works(kong: Kong) -> None:
    assert kong.run_event(
        kong.start_instance("hello", {"message": "hi"}),
        answers={"kong.request.get_header": "example.com"},
    ).headers == {"x-hello": "hi to example.com"}

"""Events that Kong begins and leaves to themselves."""

from __future__ import annotations

from kongwire import Connection, Kong

#: Makes a call that Kong does not answer, and adds a byte to a file when it has ended.
ABANDONED = """
def access(self, kong):
    try:
        kong.request.get_method()
    finally:
        with open(self.config["ended"], "ab", 0) as file:
            file.write(b"x")
"""


def abandon(kong: Kong, instance: int, count: int) -> None:
    """Begin events as Kong does, and answer none of their calls.

    A function of the PDK has raised in Kong, which uses the connection for the next event; or Kong
    closes it, with the call still unread or not.
    """
    for number in range(count):
        if number % 3 == 0:
            assert kong.handle_event(instance).function == "kong.request.get_method"
            continue
        with Connection(kong.path) as connection:
            msgid = connection.send_event(instance)
            if number % 3 == 1:
                assert connection.turn(msgid).function == "kong.request.get_method"

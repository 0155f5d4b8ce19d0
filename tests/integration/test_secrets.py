"""What passes through the server stays out of its log, however much it logs, and whatever fails."""

from __future__ import annotations

import json

import pytest
from failures import CLOSABLE
from kongwire import Kong, RemoteError
from servers import Start

SECRET = "hunter2-b2f1"

#: Handlers that do something with a header's value and a body, mostly wrong.
STATEMENTS = [
    "pass",
    "raise ValueError('failed')",
    "raise SystemExit(3)",
    "return token",
    "assert not token",
    "{}[token.count('x')]",
    "int(self)",
    "kong.log(token, body)",
    "kong.log.serialize(token)",
    "kong.response.set_status(token)",
    "kong.response.set_status(body)",
    "kong.response.exit(token)",
    "kong.response.exit(403, token)",
    "kong.response.exit(403, {token})",
    "kong.response.exit(403, {'a': [{token}]})",
    "kong.response.exit(403, None, token)",
    "kong.response.set_header('authorization', {'a': token})",
    "kong.response.set_header('authorization', (token, None))",
    "kong.response.set_header('authorization', token + '\\ud800')",
    "kong.response.set_headers([token])",
    "kong.response.set_headers({'authorization': {token: token}})",
    "kong.response.set_headers({5: token})",
    "kong.response.set_header(token)",
    "kong.response.set_header(token, token, token)",
    "kong.response.set_header(value=token)",
    "kong.service.request.set_path(token)",
    "kong.service.request.set_body(token)",
    "kong.service.request.set_query({'a': object(), 'b': token})",
    "kong.service.set_timeouts(token, token, token)",
    "kong.client.load_consumer(token)",
    "kong.ctx.shared.set('a', {token: self})",
    "kong.ctx.shared.set(token, 2 ** 70)",
]

SOURCE = """
def start(self, config):
    if config["where"] == "init":
        raise RuntimeError("init fails")

def {phase}(self, kong):
    token, _ = kong.request.get_header("authorization")
    body, _ = kong.request.get_raw_body()
    {statement}
"""


@pytest.mark.parametrize("checks", [(), ("--no-pdk-checks",)], ids=["checked", "unchecked"])
def test_nothing_that_passes_through_is_logged(start: Start, checks: tuple[str, ...]) -> None:
    server = start("-v", "-v", *checks)
    with server.kong() as kong:
        for statement in STATEMENTS:
            for phase in ("access", "log"):
                run(kong, SOURCE.format(phase=phase, statement=statement), phase)
        start_wrong_instances(kong)
        make_wrong_calls(kong)
        leave_in_the_middle(kong)
    server.stop()
    # What was to fail has failed, and the log tells of it.
    for told in (
        "access raised", "log raised", "ValueError: failed", "RuntimeError: init fails",
        "Config is no JSON", "started instance", "closed instance", "closed a connection",
    ):  # fmt: skip
        assert told in server.log, told
    assert checks or "ArgumentError: kong.response.set_status: status must be" in server.log
    assert SECRET not in server.log


def run(kong: Kong, source: str, phase: str) -> None:
    """An event from the start of its instance to the end of that."""
    config = {"where": "handler", "password": SECRET, "nested": {SECRET: [SECRET]}}
    instance = kong.start_author(source, **config)
    try:
        kong.run_event(
            instance,
            phase,
            answers={
                "kong.request.get_header": f"Bearer {SECRET}",
                "kong.request.get_raw_body": SECRET.encode(),
            },
        )
    except RemoteError as exc:
        assert phase not in CLOSABLE
        assert SECRET not in str(exc)
    for told in (
        kong.call("plugin.InstanceStatus", instance),
        kong.call("plugin.GetStatus"),
        kong.close_instance(instance),
    ):
        assert SECRET not in repr(told)
        assert "Config" not in told or told["Config"]["password"] == "REDACTED"


def start_wrong_instances(kong: Kong) -> None:
    good = {"source": SOURCE.format(phase="access", statement="pass"), "password": SECRET}
    for text in (
        json.dumps({**good, "where": "init"}),
        json.dumps(good),  # the plugin looks for a key that is not there
        json.dumps([SECRET]),
        json.dumps(SECRET),
        json.dumps(good)[:-1],
        json.dumps(good) + SECRET,
        json.dumps({**good, "more": "\ud800"}),
        json.dumps({**good, "more": 2**70}),
        f'{{"password": {SECRET}}}',
        SECRET.encode() + b"\xff",
    ):
        with pytest.raises(RemoteError) as caught:
            kong.call("plugin.StartInstance", {"Name": "author", "Config": text})
        assert SECRET not in str(caught.value)
    with pytest.raises(RemoteError, match="JSON text"):
        kong.call("plugin.StartInstance", {"Name": "author", "Config": {"password": SECRET}})


def make_wrong_calls(kong: Kong) -> None:
    instance = kong.start_author(SOURCE.format(phase="access", statement="pass"), where="handler")
    for method, argument in (
        ("plugin.HandleEvent", {"InstanceId": str(instance), "EventName": "access", "a": SECRET}),
        ("plugin.SetPluginDir", {"password": SECRET}),
        ("plugin.Step", {"EventId": 4, "Data": SECRET}),
        ("plugin.Step", {"EventId": SECRET, "Data": SECRET}),
        ("plugin.StepError", {"EventId": 4, "Data": {"a": SECRET}}),
    ):
        with pytest.raises(RemoteError) as caught:
            kong.call(method, argument)
        assert SECRET not in str(caught.value)
    for junk in (
        SECRET.encode() + b"\xc1",
        b"\x81\xa1a\xac" + SECRET.encode(),
        b"\x94\x00\xac" + SECRET.encode() + b"\xa1x\x90",
        b"\x94\x00\x01\xa1x\xac" + SECRET.encode(),
    ):
        with kong.connect() as connection:
            connection.send_raw(junk)
            assert SECRET.encode() not in connection.read_to_end()


def leave_in_the_middle(kong: Kong) -> None:
    """Kong goes away while a handler has a secret in its hands."""
    source = SOURCE.format(phase="access", statement="kong.log('x')")
    instance = kong.start_author(source, where="handler", password=SECRET)
    with kong.connect() as connection:
        turn = connection.handle_event(instance)
        turn = connection.step(turn.event_id, f"Bearer {SECRET}")
        turn = connection.step(turn.event_id, SECRET.encode())
        assert turn.function == "kong.log"
        connection.send_step(turn.event_id, {"a": SECRET})

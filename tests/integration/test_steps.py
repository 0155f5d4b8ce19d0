"""Steps arrive on any connection, for Kong takes one from its pool for each call."""

from __future__ import annotations

import itertools
import random

import pytest
from failures import refused
from kongwire import Connection, Kong, RemoteError, Turn

#: Makes as many calls as the configuration says, each with what the one before has returned.
CHAIN = """
def access(self, kong):
    value = "begin"
    for number in range(self.config["calls"]):
        value, err = kong.ctx.shared.get(f"{number}:{value}")
    kong.response.exit(200, value)
"""
WAITS = "def access(self, kong): kong.log('first'); kong.log('second')"
SHORT = "def access(self, kong): pass"


def start_chain(kong: Kong, calls: int = 3) -> int:
    return kong.start_author(CHAIN, calls=calls)


def connections(kong: Kong, count: int) -> list[Connection]:
    """Connections that have answered once, so that the server is at rest on them."""
    made = [kong.connect() for _ in range(count)]
    for connection in made:
        connection.call("plugin.GetPluginNames")
    return made


def used(kong: Kong, count: int) -> list[Connection]:
    """Connections on which an event has run to its end."""
    instance = kong.start_author(SHORT)
    made = [kong.connect() for _ in range(count)]
    for connection in made:
        assert connection.handle_event(instance).is_return
    return made


FRESH = {"fresh": lambda kong, count: [kong.connect() for _ in range(count)]}
KINDS = {**FRESH, "called": connections, "used": used}


@pytest.fixture(params=list(KINDS))
def some(request: pytest.FixtureRequest, kong: Kong) -> list[Connection]:
    """Six connections; the server has not seen them, or has answered on them."""
    return KINDS[request.param](kong, 6)


def finish(turns: Turn, on: itertools.cycle[Connection], prefix: str = "v") -> list[str]:
    """Answer a chain to its end, each step on the next connection; returns its arguments."""
    arguments = []
    turn, number = turns, 0
    while not turn.is_terminal:
        arguments.append(turn.args[0])
        turn = next(on).step(turn.event_id, f"{prefix}{number}")
        number += 1
    arguments.append(turn.args[1])
    return arguments


def test_each_step_on_another_connection(kong: Kong, some: list[Connection]) -> None:
    instance = start_chain(kong, 10)
    for _ in range(5):
        on = itertools.cycle(some)
        turn = next(on).handle_event(instance)
        expected = ["0:begin", *(f"{n}:v{n - 1}" for n in range(1, 10)), "v9"]
        assert finish(turn, on) == expected


def test_two_events_cross_on_two_connections(kong: Kong, some: list[Connection]) -> None:
    instance = start_chain(kong)
    left, right = some[:2]
    one, two = left.handle_event(instance), right.handle_event(instance)
    for number in range(3):
        assert one.function == two.function == "kong.ctx.shared.get"
        left, right = right, left
        one, two = left.step(one.event_id, f"a{number}"), right.step(two.event_id, f"b{number}")
    assert (one.args, two.args) == ([200, "a2"], [200, "b2"])


def test_two_steps_cross_at_the_same_moment(kong: Kong, some: list[Connection]) -> None:
    instance = start_chain(kong, 20)
    left, right = some[:2]
    one, two = left.handle_event(instance), right.handle_event(instance)
    for number in range(20):
        left, right = right, left
        first = left.send_step(one.event_id, f"a{number}")
        second = right.send_step(two.event_id, f"b{number}")
        one, two = left.turn(first), right.turn(second)
    assert (one.args, two.args) == ([200, "a19"], [200, "b19"])


def test_a_connection_carries_another_event_meanwhile(kong: Kong, some: list[Connection]) -> None:
    instance = start_chain(kong)
    first, second = some[:2]
    outer = first.handle_event(instance)
    inner = first.handle_event(instance)
    innermost = first.handle_event(instance)
    assert len({outer.event_id, inner.event_id, innermost.event_id}) == 3
    assert finish(inner, itertools.cycle([first]), "i")[-1] == "i2"
    assert finish(outer, itertools.cycle([second, first]), "o")[-1] == "o2"
    assert finish(innermost, itertools.cycle([first, second]), "m")[-1] == "m2"


@pytest.mark.parametrize("where", ["same", "other"])
def test_a_connection_carries_other_calls_meanwhile(
    kong: Kong, some: list[Connection], where: str
) -> None:
    instance = start_chain(kong)
    first, second = some[:2]
    turn = first.handle_event(instance)
    for number in range(3):
        assert first.call("plugin.GetPluginNames") == ["author", "hello"]
        with pytest.raises(RemoteError, match="no plugin instance"):
            first.handle_event(1)
        assert first.handle_event(kong.start_author(SHORT)).is_return
        turn = (first if where == "same" else second).step(turn.event_id, str(number))
    assert turn.args == [200, "2"]


def test_many_events_scattered_at_random(kong: Kong, some: list[Connection]) -> None:
    instance = start_chain(kong, 8)
    random_ = random.Random(7)
    for _ in range(20):
        running = {}
        for name in "abcdefgh":
            running[name] = random_.choice(some).handle_event(instance)
        numbers = dict.fromkeys(running, 0)
        while running:
            batch = random_.sample(sorted(running), min(len(running), random_.randint(1, 6)))
            random_.shuffle(some)
            sent = [  # at the same time, each on a connection of its own
                (name, connection, connection.send_step(running[name].event_id, name))
                for name, connection in zip(batch, some)
            ]
            for name, connection, msgid in sent:
                turn = connection.turn(msgid)
                numbers[name] += 1
                if turn.is_terminal:
                    assert (turn.args, numbers.pop(name)) == ([200, name], 8)
                    del running[name]
                else:
                    assert turn.args == [f"{numbers[name]}:{name}"]
                    running[name] = turn


def test_the_same_msgid_in_flight_everywhere(kong: Kong, some: list[Connection]) -> None:
    instance = start_chain(kong)
    event = {"InstanceId": instance, "EventName": "access"}
    for connection in some:
        connection.request("plugin.HandleEvent", event, msgid=5)
    ids = [connection.result(5)["EventId"] for connection in some]
    assert len(set(ids)) == len(some)
    for number in range(3):
        some.append(some.pop(0))  # each event on its neighbour's connection
        for connection, event_id in zip(some, ids):
            argument = {"EventId": event_id, "Data": f"{event_id}:{number}"}
            connection.request("plugin.Step", argument, msgid=5)
        results = [connection.result(5) for connection in some]
        assert [result["EventId"] for result in results] == ids
    assert [result["Data"]["Args"] for result in results] == [[200, f"{one}:2"] for one in ids]


@pytest.mark.parametrize("event_id", [0, 1, -1, 2**53, 2**64 - 1, -(2**63)])
@pytest.mark.parametrize("method", ["plugin.Step", "plugin.StepError", "plugin.StepRoute"])
def test_a_step_for_an_unknown_event(kong: Kong, event_id: int, method: str) -> None:
    with kong.connect() as connection:
        if event_id & 1:  # such ids are of requests that are to be refused
            assert refused(connection.step(event_id, "x", method))
        else:
            with pytest.raises(RemoteError) as caught:
                connection.step(event_id, "x", method)
            assert "no event" in str(caught.value)
            assert "no plugin instance" not in str(caught.value).lower()
        assert connection.call("plugin.GetPluginNames") == ["author", "hello"]


def test_a_step_for_an_event_that_has_ended(kong: Kong, some: list[Connection]) -> None:
    turn = some[0].handle_event(kong.start_author(SHORT))
    for connection in some:
        assert refused(connection.step(turn.event_id, "x"))


@pytest.mark.one_process
def test_a_second_step_for_the_same_call(kong: Kong, some: list[Connection]) -> None:
    source = """
import threading

def start(self, config):
    self.arrived, self.go, self.values = threading.Event(), threading.Event(), []

def access(self, kong):
    self.values.append(kong.ctx.shared.get("first")[0])
    self.arrived.set()
    self.go.wait()
    self.values.append(kong.ctx.shared.get("second")[0])

def rewrite(self, kong): self.arrived.wait()

def response(self, kong): self.go.set()

def log(self, kong): kong.log(*self.values)
"""
    instance = kong.start_author(source)
    first, second, third = some[:3]
    turn = first.handle_event(instance)
    msgid = first.send_step(turn.event_id, "right")
    assert third.handle_event(instance, "rewrite").is_return
    for connection in (second, third):
        assert refused(connection.step(turn.event_id, "wrong"))
    assert third.handle_event(instance, "response").is_return
    assert first.turn(msgid).args == ["second"]
    assert third.step(turn.event_id, "next").is_return
    assert kong.run_event(instance, "log").calls == [("kong.log", ["right", "next"])]


def test_a_connection_closed_while_its_event_waits(kong: Kong, some: list[Connection]) -> None:
    """Kong may close what lies idle in its pool; the step comes on a fresh one."""
    instance = start_chain(kong)
    for connection in some:
        turn = connection.handle_event(instance)
        connection.close()
        with kong.connect() as fresh:
            assert finish(turn, itertools.cycle([fresh]))[-1] == "v2"


def test_a_step_on_the_neighbour_of_a_closed_connection(kong: Kong, some: list[Connection]) -> None:
    """The neighbour carries an event of its own, which waits too."""
    instance = start_chain(kong)
    turns = [one.handle_event(instance) for one in some]
    for closed, orphan, neighbour, turn in zip(some[::2], turns[::2], some[1::2], turns[1::2]):
        closed.close()
        orphan = neighbour.step(orphan.event_id, "a")
        turn = neighbour.step(turn.event_id, "b")
        assert (orphan.args, turn.args) == (["1:a"], ["1:b"])
        assert finish(orphan, itertools.cycle([neighbour]))[-1] == "v1"
        assert finish(turn, itertools.cycle([neighbour]))[-1] == "v1"


def test_a_connection_closed_at_each_step(kong: Kong) -> None:
    instance = start_chain(kong, 20)
    connection = kong.connect()
    turn = connection.handle_event(instance)
    number = 0
    while not turn.is_terminal:
        connection.close()
        connection = kong.connect()
        turn = connection.step(turn.event_id, str(number))
        number += 1
    assert turn.args == [200, "19"]


def test_a_connection_that_turns_bad_while_its_event_waits(kong: Kong) -> None:
    instance = start_chain(kong)
    with kong.connect() as first, kong.connect() as second:
        turn = first.handle_event(instance)
        first.send_raw(b"GET / HTTP/1.1\r\n")
        assert first.is_closed_by_server()
        assert finish(turn, itertools.cycle([second]))[-1] == "v2"


def test_an_event_ends_elsewhere_than_it_began(kong: Kong, some: list[Connection]) -> None:
    """Both connections are free for new events then."""
    waits, short = kong.start_author(WAITS), kong.start_author(SHORT)
    first, second = some[:2]
    for _ in range(20):
        turn = first.handle_event(waits)
        turn = second.step(turn.event_id)
        assert second.step(turn.event_id).is_return
        for connection in (first, second, first):
            assert connection.handle_event(short).is_return
        first, second = second, first


def test_half_a_step_on_one_connection_does_not_hold_up_another(kong: Kong) -> None:
    instance = start_chain(kong)
    with kong.connect() as first, kong.connect() as second, kong.connect() as third:
        one, two = first.handle_event(instance), second.handle_event(instance)
        first.send_raw(b"\x94\x00\x09\xabplugin.St")
        assert finish(two, itertools.cycle([third, second]))[-1] == "v2"
        first.send_raw(b"ep\x91\x82\xa7EventId\xcf" + one.event_id.to_bytes(8, "big"))
        first.send_raw(b"\xa4Data\xa1x")
        assert turn_args(first, 9) == ["1:x"]


def turn_args(connection: Connection, msgid: int) -> list[object]:
    return connection.turn(msgid).args


def test_half_a_request_on_the_connection_of_a_waiting_event(kong: Kong) -> None:
    """Its step comes on another connection while the rest is still missing."""
    instance = start_chain(kong)
    with kong.connect() as first, kong.connect() as second:
        turn = first.handle_event(instance)
        first.send_raw(b"\x94\x00\x09\xb5plugin.GetPlugi")
        assert finish(turn, itertools.cycle([second]))[-1] == "v2"
        first.send_raw(b"nNames\x90")
        assert first.result(9) == ["author", "hello"]

"""Many handlers at the same time: a handler that blocks holds up nobody."""

from __future__ import annotations

import json

import pytest
from kongwire import Connection, Kong, RemoteError, pack
from servers import Server, Start, wait_until

PARTIES = 24

#: All handlers must be in the same place at the same time, or nobody gets on.
MEETING = """
import threading

def start(self, config):
    self.barriers = [threading.Barrier(config["parties"]) for _ in range(3)]

def access(self, kong):
    self.barriers[0].wait(config_limit)
    first = kong.ctx.shared.get("first")[0]
    self.barriers[1].wait(config_limit)
    second = kong.ctx.shared.get("second")[0]
    self.barriers[2].wait(config_limit)
    kong.response.exit(200, [first, second])
"""
#: ``access`` blocks after so many calls; ``rewrite`` waits for that, and ``response`` ends it.
BLOCKING = """
import threading

def start(self, config): self.go, self.inside = threading.Event(), threading.Semaphore(0)

def access(self, kong):
    for number in range(3):
        if number == self.config["after"]:
            self.inside.release()
            self.go.wait()
        if number < 2:
            kong.log(number)

def rewrite(self, kong): self.inside.acquire()

def response(self, kong): self.go.set()
"""
CALL = "def access(self, kong): kong.log(kong.request.get_header('x')[0])"
MANY = "def access(self, kong): kong.ctx.shared.get('waits')"


def start_meeting(kong: Kong, parties: int) -> int:
    # Broken long before the test's own time-outs, so that the error tells what happened.
    return kong.start_author(MEETING.replace("config_limit", "15"), parties=parties)


def serve_others(kong: Kong, times: int = 64) -> None:
    """Whatever Kong may ask, on used and on fresh connections."""
    for _ in range(times):
        instance = kong.start_author(CALL)
        with kong.connect() as fresh:
            for _ in range(2):
                turn = fresh.handle_event(instance)
                assert kong.step(turn.event_id, "y").args == ["y"]
                assert fresh.step(turn.event_id).is_return
            assert fresh.call("plugin.GetPluginNames") == ["author", "hello"]
        kong.close_instance(instance)


@pytest.mark.one_process
def test_handlers_meet_before_between_and_after_calls(kong: Kong) -> None:
    instance = start_meeting(kong, PARTIES)
    with kong.connect() as other:
        for _ in range(3):
            connections = [kong.connect() for _ in range(PARTIES)]
            sent = [(one, one.send_event(instance)) for one in connections]
            turns = [one.turn(msgid) for one, msgid in sent]
            assert {turn.args[0] for turn in turns} == {"first"}
            for number in range(2):
                connections.append(connections.pop(0))  # steps on other connections, too
                sent = [
                    (one, one.send_step(turn.event_id, [number, turn.event_id]))
                    for one, turn in zip(connections, turns)
                ]
                assert other.call("plugin.GetPluginNames") == ["author", "hello"]
                turns = [one.turn(msgid) for one, msgid in sent]
            for turn in turns:
                assert turn.args == [200, [[0, turn.event_id], [1, turn.event_id]]]
            for connection in connections:
                connection.close()


@pytest.mark.one_process
def test_handlers_of_different_instances_meet(kong: Kong) -> None:
    source = """
import sys, threading

def access(self, kong):
    # The one thing that instances share is the process.
    barrier = sys.modules.setdefault("meeting-" + self.config["name"], threading.Barrier(8))
    barrier.wait(15)
    kong.log(self.config["number"])
"""
    connections = [kong.connect() for _ in range(8)]
    instances = [kong.start_author(source, name="a", number=n) for n in range(8)]
    sent = [(one, one.send_event(i)) for one, i in zip(connections, instances)]
    assert [one.turn(msgid).args for one, msgid in sent] == [[str(n)] for n in range(8)]


@pytest.mark.one_process
@pytest.mark.parametrize("blocked", [1, 40])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_blocked_handlers_hold_nobody_up(kong: Kong, after: int, blocked: int) -> None:
    """Before their first call, between two, and after the last."""
    instance = kong.start_author(BLOCKING, after=after)
    connections = [kong.connect() for _ in range(blocked)]
    sent = [(one, one.send_event(instance)) for one in connections]
    for number in range(after):
        turns = [one.turn(msgid) for one, msgid in sent]
        assert [turn.args for turn in turns] == [[str(number)]] * blocked
        connections.append(connections.pop(0))  # each on another connection
        sent = [(one, one.send_step(turn.event_id)) for one, turn in zip(connections, turns)]
    for _ in connections:
        assert kong.handle_event(instance, "rewrite").is_return  # it is in there
    serve_others(kong, 20)
    assert not any(one.has_data() for one in connections)
    assert kong.handle_event(instance, "response").is_return
    for connection, msgid in sent:
        for number in range(after, 2):
            turn = connection.turn(msgid)
            assert turn.args == [str(number)]
            serve_others(kong, 1)  # and neither do those that wait for a step
            msgid = connection.send_step(turn.event_id)
        assert connection.turn(msgid).is_return


@pytest.mark.one_process
def test_instances_start_run_and_close_side_by_side(kong: Kong) -> None:
    source = """
import sys, threading

def start(self, config):
    sys.modules.setdefault("starting", threading.Barrier(8)).wait(15)

def access(self, kong): kong.log(self.config["number"], kong.request.get_header("x")[0])
"""
    connections = [kong.connect() for _ in range(8)]
    sent = [
        one.request(
            "plugin.StartInstance", {"Name": "author", "Config": config_of(source, number=n)}
        )
        for n, one in enumerate(connections)
    ]
    instances = [one.result(msgid)["Id"] for one, msgid in zip(connections, sent)]
    assert len(set(instances)) == 8
    sent = [one.send_event(instance) for one, instance in zip(connections, instances)]
    turns = [one.turn(msgid) for one, msgid in zip(connections, sent)]
    sent = [one.request("plugin.CloseInstance", i) for one, i in zip(connections, instances)]
    for one, msgid, instance in zip(connections, sent, instances):
        assert one.result(msgid)["Id"] == instance
    for number, (one, turn) in enumerate(zip(connections, turns)):  # they end all the same
        turn = one.step(turn.event_id, "y")
        assert turn.args == [str(number), "y"]
        assert one.step(turn.event_id).is_return


@pytest.mark.one_process
def test_an_init_that_blocks_holds_nobody_up(kong: Kong) -> None:
    source = """
import sys, threading
go = sys.modules.setdefault("init-go", threading.Event())

def start(self, config):
    if config["waits"]:
        go.wait()

def access(self, kong): go.set()
"""
    free = kong.start_author(source, waits=False)
    with kong.connect() as connection:
        argument = {"Name": "author", "Config": config_of(source, waits=True)}
        msgid = connection.request("plugin.StartInstance", argument)
        serve_others(kong, 10)
        assert not connection.has_data()
        assert kong.handle_event(free).is_return
        assert type(connection.result(msgid)["Id"]) is int


def config_of(source: str, **config: object) -> str:
    return json.dumps({"source": source, **config})


def test_an_instance_closed_while_its_events_run(kong: Kong) -> None:
    instance = kong.start_author(CALL)
    with kong.connect() as connection:
        turn = connection.handle_event(instance)
        kong.close_instance(instance)
        with pytest.raises(RemoteError, match="no plugin instance"):
            connection.handle_event(instance)
        assert connection.step(turn.event_id, "y").args == ["y"]
        assert connection.step(turn.event_id).is_return


def test_events_of_one_connection_begin_in_their_order(kong: Kong) -> None:
    source = """
import sys
begun = sys.modules.setdefault("begun", [])

def access(self, kong):
    begun.append(self.config["number"])
    if self.config["number"] % 3 == 0:
        kong.log("waits")

def log(self, kong): kong.log(*begun)
"""
    with kong.connect() as connection:
        instances = []
        for number in range(30):
            config = {"source": source, "number": number}
            instances.append(kong.start_instance("author", config))
        events = [
            pack([0, n, "plugin.HandleEvent", [{"InstanceId": one, "EventName": "access"}]])
            for n, one in enumerate(instances)
        ]
        connection.send_raw(b"".join(events))
        replies = [connection.reply() for _ in events]
        assert sorted(reply.msgid for reply in replies) == list(range(30))
        for reply in replies:
            if reply.msgid % 3 == 0:
                assert connection.step(reply.unwrap()["EventId"]).is_return
        turn = connection.handle_event(instances[0], "log")
        assert turn.args == list(map(str, range(30)))
        assert connection.step(turn.event_id).is_return


def open_many(kong: Kong, count: int) -> list[Connection]:
    return [kong.connect() for _ in range(count)]


@pytest.mark.one_process
def test_more_events_than_threads_are_all_answered(start: Start) -> None:
    """Threads are 512; those that wait for a step are in use. Steps need no free one."""
    server = start()
    with server.kong() as kong:
        instance = kong.start_author(MANY)
        connections = open_many(kong, 700)
        sent = {one: one.send_event(instance) for one in connections}
        answered: list[tuple[Connection, int]] = []

        def collect() -> bool:
            for one in [one for one in sent if one.has_data()]:
                answered.append((one, one.turn(sent.pop(one)).event_id))
            return len(answered) >= 512

        wait_until(collect, "512 events are under way")
        assert server.threads() < 600
        while answered:  # each that ends makes room for another
            connection, event_id = answered.pop()
            assert connection.step(event_id).is_return
            collect()
            wait_until(lambda: answered or not sent or collect() or answered, "the next events")
        assert kong.handle_event(instance).function == "kong.ctx.shared.get"


@pytest.mark.one_process
def test_requests_behind_others_in_one_write_when_there_is_a_queue(start: Start) -> None:
    """A thread that is needed elsewhere must not leave a request behind that it has read."""
    server = start()
    with server.kong() as kong:
        instance = kong.start_author(MANY)
        connections = open_many(kong, 512)
        turns = [(one, one.handle_event(instance)) for one in connections]
        queued = open_many(kong, 40)
        waiting = [(one, one.send_event(instance)) for one in queued]
        _, turn = turns.pop()
        with kong.connect() as fresh:  # the loop reads it when it has read those of the queue
            assert fresh.step(turn.event_id).is_return
        for connection, turn in turns:
            step = pack([0, 7, "plugin.Step", [{"EventId": turn.event_id}]])
            connection.send_raw(step + pack([0, 8, "plugin.GetPluginNames", []]))
        for connection, _ in turns:
            assert connection.turn(7).is_return
        for connection, _ in turns:
            assert connection.result(8) == ["author", "hello"]
        for connection, msgid in waiting:
            assert connection.step(connection.turn(msgid).event_id).is_return


def test_few_descriptors_cost_connections_and_not_the_server(start: Start) -> None:
    server = start(through=("sh", "-c", 'ulimit -n 64; exec "$@"', "sh"))
    with server.kong() as kong:
        instance = kong.start_author(MANY)
        connections = open_many(kong, 100)
        for connection in connections:
            connection.send_event(instance)
        server.wait_log("cannot accept connections for a moment")
        for connection in connections:
            connection.close()
        kong.call("plugin.GetPluginNames")
        with kong.connect() as connection:  # it may take until the server accepts again
            turn = connection.handle_event(instance)
            assert connection.step(turn.event_id).is_return


def test_idle_threads_are_used_again(kong: Kong, server: Server) -> None:
    instance = kong.start_author(CALL)
    for _ in range(3):
        kong.run_event(instance)
    before = server.threads()
    for _ in range(200):
        kong.run_event(instance)
    assert server.threads() <= before + 1

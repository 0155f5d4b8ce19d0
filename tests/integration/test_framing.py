"""Bytes on the wire: cut, joined, slow, large, and such as are no request at all."""

from __future__ import annotations

import hashlib
import json
import os
import threading

import msgpack
import pytest
from failures import refused
from kongwire import Kong, pack
from servers import Server, Start, wait_until

CALL = "def access(self, kong): kong.log(kong.request.get_header('x')[0])"
MIB = 1 << 20
LARGE = 64 * MIB


def event_frame(instance: int, msgid: int) -> bytes:
    argument = {"InstanceId": instance, "EventName": "access"}
    return pack([0, msgid, "plugin.HandleEvent", [argument]])


def step_frame(event_id: int, value: object, msgid: int) -> bytes:
    return pack([0, msgid, "plugin.Step", [{"EventId": event_id, "Data": value}]])


def serve_one(kong: Kong, instance: int) -> None:
    """Others are served."""
    assert kong.run_event(instance, answers={"kong.request.get_header": "y"}).calls == [
        ("kong.request.get_header", ["x"]),
        ("kong.log", ["y"]),
    ]


def test_byte_by_byte(kong: Kong) -> None:
    instance = kong.start_author(CALL)
    with kong.connect() as connection:
        for _ in range(2):
            for byte in event_frame(instance, 3):
                connection.send_raw(bytes((byte,)))
            turn = connection.turn(3)
            for byte in step_frame(turn.event_id, "value \udcff", 4):
                connection.send_raw(bytes((byte,)))
            turn = connection.turn(4)
            assert turn.args == ["value \udcff"]
            assert connection.step(turn.event_id).is_return


def test_cut_at_each_point_with_others_served_meanwhile(kong: Kong) -> None:
    instance = kong.start_author(CALL)
    with kong.connect() as connection:
        for cut in range(1, len(event_frame(instance, 3))):
            frame = event_frame(instance, 3)
            connection.send_raw(frame[:cut])
            serve_one(kong, instance)
            connection.send_raw(frame[cut:])
            turn = connection.turn(3)
            frame = step_frame(turn.event_id, "value", 4)
            cut = min(cut, len(frame) - 1)
            connection.send_raw(frame[:cut])
            serve_one(kong, instance)
            connection.send_raw(frame[cut:])
            turn = connection.turn(4)
            assert connection.step(turn.event_id).is_return


def test_the_bytes_of_many_connections_in_turn(kong: Kong) -> None:
    """Events, and then steps to them, each on the connection of another event that waits."""
    instance = kong.start_author(CALL)
    connections = [kong.connect() for _ in range(5)]
    for byte in event_frame(instance, 3):
        for connection in connections:
            connection.send_raw(bytes((byte,)))
    events = [one.turn(3).event_id for one in connections]
    assert len(set(events)) == len(events)
    connections.append(connections.pop(0))
    frames = [step_frame(event, f"v{number}", 4) for number, event in enumerate(events)]
    for column in zip(*frames):
        for connection, byte in zip(connections, column):
            connection.send_raw(bytes((byte,)))
    turns = [one.turn(4) for one in connections]
    assert [turn.args for turn in turns] == [[f"v{number}"] for number in range(5)]
    for connection, turn in zip(connections, turns):
        assert connection.step(turn.event_id).is_return


@pytest.mark.parametrize("how", ["fresh", "used", "waiting"])
def test_a_step_cut_at_each_point_on_another_connection(kong: Kong, how: str) -> None:
    instance = kong.start_author(CALL)
    with kong.connect() as first, kong.connect() as second:
        if how != "fresh":
            turn = second.handle_event(instance)
            if how == "used":
                turn = second.step(turn.event_id, "v")
                assert second.step(turn.event_id).is_return
        cut, length = 1, 2
        while cut < length:
            event = first.handle_event(instance)
            frame = step_frame(event.event_id, "value", 9)
            length = len(frame)
            second.send_raw(frame[:cut])
            serve_one(kong, instance)
            second.send_raw(frame[cut:])
            assert second.turn(9).args == ["value"]
            assert first.step(event.event_id).is_return
            cut += 1
        if how == "waiting":
            assert first.step(turn.event_id, "at last").args == ["at last"]
            assert first.step(turn.event_id).is_return


@pytest.mark.parametrize("count", [2, 100, 2000])
def test_many_requests_in_one_write(kong: Kong, count: int) -> None:
    instance = kong.start_author("def access(self, kong): pass")
    frames = [
        event_frame(instance, n) if n % 2 else pack([0, n, "plugin.GetPluginNames", []])
        for n in range(count)
    ]
    with kong.connect() as connection:
        # From a thread, for what is not read holds up what is still to be sent.
        sender = threading.Thread(target=connection.send_raw, args=(b"".join(frames),))
        sender.start()
        replies = [connection.reply() for _ in range(count)]
        sender.join()
    assert [reply.msgid for reply in replies] == list(range(count))
    for reply in replies:
        result = reply.unwrap()
        if reply.msgid % 2:
            assert result["Data"] == "ret"
        else:
            assert result == ["author", "hello"]


def test_large_replies_to_requests_in_one_write(kong: Kong) -> None:
    """None may begin within another."""
    config = json.dumps({"source": "", "filler": "x" * MIB})
    argument = {"Name": "author", "Config": config}
    frames = [pack([0, n, "plugin.StartInstance", [argument]]) for n in range(8)]
    with kong.connect() as connection:
        sender = threading.Thread(target=connection.send_raw, args=(b"".join(frames),))
        sender.start()
        replies = [connection.reply() for _ in frames]
        sender.join()
    assert sorted(reply.msgid for reply in replies) == list(range(8))
    for reply in replies:
        assert len(reply.unwrap()["Config"]["filler"]) == MIB


def test_a_step_and_the_next_requests_in_one_write(kong: Kong) -> None:
    instance = kong.start_author(CALL)
    with kong.connect() as connection:
        for _ in range(20):
            turn = connection.handle_event(instance)
            names = [pack([0, n, "plugin.GetPluginNames", []]) for n in (21, 22, 23)]
            connection.send_raw(names[0] + step_frame(turn.event_id, "v", 24) + names[1] + names[2])
            replies = {reply.msgid: reply.unwrap() for reply in
                       (connection.reply() for _ in range(4))}  # fmt: skip
            assert replies.pop(24)["Data"]["Args"] == ["v"]
            assert replies == {number: ["author", "hello"] for number in (21, 22, 23)}
            assert connection.step(turn.event_id).is_return


def test_half_of_the_next_request_comes_with_the_first(kong: Kong) -> None:
    instance = kong.start_author(CALL)
    frame = event_frame(instance, 5)
    with kong.connect() as connection, kong.connect() as other:
        for cut in (1, 10, len(frame) - 1):
            connection.send_raw(pack([0, 4, "plugin.GetPluginNames", []]) + frame[:cut])
            assert connection.result(4) == ["author", "hello"]
            serve_one(kong, instance)
            connection.send_raw(frame[cut:])
            turn = connection.turn(5)
            turn = other.step(turn.event_id, "v")
            assert other.step(turn.event_id).is_return


GARBAGE = {
    "HTTP": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "byte 0x47"),
    "zero": (b"\0", "byte 0x00"),
    "map": (b"\x81\xa1a\x01", "byte 0x81"),
    "string": (b"\xa5hello", "byte 0xa5"),
    "reserved": (b"\xc1", "byte 0xc1"),
    "reserved inside": (b"\x94\x00\x01\xc1\x90", "byte 0xc1"),
    "empty array": (b"\x90", "a request [0, msgid, method, arguments]"),
    "too short": (pack([0, 1, "plugin.GetStatus"]), "a request [0, msgid, method, arguments]"),
    "too long": (
        pack([0, 1, "plugin.GetStatus", [], None]),
        "a request [0, msgid, method, arguments]",
    ),
    "a reply": (pack([1, 1, None, "x"]), "a request [0, msgid, method, arguments]"),
    "type 3": (pack([3, 1, "plugin.GetStatus", []]), "a request [0, msgid, method, arguments]"),
    "type true": (pack([True, 1, "x", []]), "a request [0, msgid, method, arguments]"),
    "msgid a string": (pack([0, "1", "plugin.GetStatus", []]), "msgid must be an integer"),
    "msgid nil": (pack([0, None, "plugin.GetStatus", []]), "msgid must be an integer"),
    "arguments a map": (pack([0, 1, "plugin.GetStatus", {}]), "arguments must be an array"),
    "arguments nil": (pack([0, 1, "plugin.GetStatus", None]), "arguments must be an array"),
    "a map's key is a map": (pack([0, 1, "x", []])[:-1] + b"\x91\x81\x80\x01", "cannot decode"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_costs_that_one_connection(kong: Kong, server: Server, name: str) -> None:
    garbage, text = GARBAGE[name]
    instance = kong.start_author(CALL)
    with kong.connect() as bad, kong.connect() as good:
        turn = good.handle_event(instance)
        assert bad.call("plugin.GetPluginNames") == ["author", "hello"]
        length = len(server.log)
        bad.send_raw(garbage)
        told = bad.read_to_end()
        # What looks like a request until its end is not left without an answer.
        assert not told or msgpack.unpackb(told)[:2] == [1, 1]
        wait_until(lambda: text in server.log[length:], f"{text!r} in the log")
        turn = good.step(turn.event_id, "v")
        assert turn.args == ["v"]
        assert good.step(turn.event_id).is_return
    serve_one(kong, instance)


def test_garbage_on_a_fresh_connection_is_closed_too(kong: Kong) -> None:
    for garbage, _ in GARBAGE.values():
        with kong.connect() as bad:
            bad.send_raw(garbage)
            bad.read_to_end()


def test_what_came_before_the_garbage_is_answered(kong: Kong) -> None:
    with kong.connect() as connection:
        connection.send_raw(pack([0, 7, "plugin.GetPluginNames", []]) + b"GET / HTTP/1.1\r\n")
        assert connection.result(7) == ["author", "hello"]
        assert connection.is_closed_by_server()


@pytest.mark.parametrize(
    "frame",
    [
        b"\x94\x00\x01\xabplugin.Step\x91\x82\xa7EventId\x01\xa4Data\xc6\x10\x00\x00\x00",
        b"\x94\x00\x01\xabplugin.Step\x91\x82\xa7EventId\x01\xa4Data\xdb\xff\xff\xff\xff",
        b"\x94\x00\x01\xabplugin.Step\x91\x82\xa7EventId\x01\xa4Data\xdd\xff\xff\xff\xff",
        b"\x94\x00\x01\xabplugin.Step\x91\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
    ],
)
def test_a_message_over_the_bound_is_refused_by_its_length(
    kong: Kong, server: Server, frame: bytes
) -> None:
    """As it is announced: the rest is never sent."""
    length = len(server.log)
    with kong.connect() as connection:
        connection.send_raw(frame)
        if b"Step" in frame:
            assert refused(connection.turn(1))
        else:
            assert connection.is_closed_by_server()
    text = f"{128 * MIB} are allowed (max_message)"
    wait_until(lambda: text in server.log[length:], f"{text!r} in the log")


def test_a_peer_that_has_shut_down_its_sending_side(kong: Kong) -> None:
    with kong.connect() as connection:
        connection.send_raw(pack([0, 7, "plugin.GetPluginNames", []]))
        connection.sock.shutdown(1)
        assert connection.result(7) == ["author", "hello"]
        assert connection.is_closed_by_server()


# --- large values ---------------------------------------------------------------------------------

BODIES = """
import hashlib

def access(self, kong):
    body, _ = kong.request.get_raw_body()
    kong.response.set_header("digest", hashlib.sha256(body).hexdigest())
    kong.service.request.set_raw_body(body[::-1])
"""


def test_64_mib_each_way_at_a_slow_peer(kong: Kong) -> None:
    instance, short = kong.start_author(BODIES), kong.start_author(CALL)
    body = os.urandom(MIB) * (LARGE // MIB)
    head = step_frame(0, b"", 5)
    with kong.connect() as connection:
        turn = connection.handle_event(instance)
        argument = {"EventId": turn.event_id, "Data": None}
        head = pack([0, 5, "plugin.Step", [argument]])[:-1] + b"\xc6" + LARGE.to_bytes(4, "big")
        connection.send_raw(head)
        view = memoryview(body)
        for start in range(0, LARGE, 8 * MIB):
            connection.send_raw(view[start : start + 8 * MIB])
            serve_one(kong, short)
        turn = connection.turn(5)
        assert turn.args == ["digest", hashlib.sha256(body).hexdigest()]
        msgid = connection.send_step(turn.event_id)
        wait_until(connection.has_data, "the server begins to send")
        for _ in range(50):  # nobody reads it, and nobody else is held up
            serve_one(kong, short)
        turn = connection.turn(msgid)
        assert turn.function == "kong.service.request.set_raw_body"
        assert turn.args[0] == body[::-1]
        assert connection.step(turn.event_id).is_return


@pytest.mark.one_process
def test_a_peer_that_goes_away_in_the_middle_of_a_large_reply(kong: Kong, server: Server) -> None:
    source = """
def start(self, config): self.ended = []

def access(self, kong):
    try:
        kong.service.request.set_raw_body(bytes(16 << 20))
    except BaseException as exc:
        self.ended.append(type(exc).__name__)
        raise

def log(self, kong): kong.log(", ".join(self.ended))
"""
    instance = kong.start_author(source)
    before, threads = server.descriptors(), server.threads()
    for number in range(1, 4):
        with kong.connect() as connection:
            connection.send_event(instance)
            wait_until(connection.has_data, "the server begins to send")
        told = [", ".join(["EventAbandoned"] * number)]
        wait_until(
            lambda told=told: kong.run_event(instance, "log").calls[0][1] == told,
            "the handler has been told",
        )
    # A thread has a descriptor or two of its own.
    more = 2 * (server.threads() - threads)
    wait_until(lambda: server.descriptors() <= before + more, "all connections are closed")


def test_a_large_value_in_small_pieces(kong: Kong) -> None:
    instance = kong.start_author(BODIES)
    body = os.urandom(300_000)
    with kong.connect() as connection:
        turn = connection.handle_event(instance)
        frame = step_frame(turn.event_id, body, 5)
        for start in range(0, len(frame), 999):
            connection.send_raw(frame[start : start + 999])
        assert connection.turn(5).args == ["digest", hashlib.sha256(body).hexdigest()]


def test_the_memory_of_a_large_value_is_given_back(start: Start) -> None:
    server = start()
    with server.kong() as kong:
        instance = kong.start_author(BODIES)
        answers = {"kong.request.get_raw_body": bytes(LARGE)}
        kong.run_event(instance, answers={"kong.request.get_raw_body": b"x"})
        before = server.memory()
        with kong.connect() as idle:  # another one than the next events are on
            kong.run_event(instance, answers=answers)
            idle.call("plugin.GetPluginNames")
        wait_until(lambda: server.memory() < before + 40 * 1024, "less than 40 MiB are kept")

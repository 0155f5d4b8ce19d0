"""Kong's side of the wire against a plugin server that says whatever the test wants it to say."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from kong_pdk.exception import RPCError
from kong_pdk.gateway import BadAnswer, Exchange, NoAnswer, PhaseRun, Request
from kong_pdk.gateway.plugin import PluginInfo
from kong_pdk.gateway.rpc import MAX_STARTS, PluginClient, RpcClient

PLUGIN = PluginInfo("p", "1.0.0", 0, ("access",))
LIMIT = 20.0

#: Answers a request, given as [0, msgid, method, args], with the bytes to send; None hangs up.
Server = Callable[[list[Any]], "bytes | None"]


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kp-", dir="/tmp") as directory:
        yield Path(directory) / "s.sock"


def pack(message: object) -> bytes:
    data: bytes = msgpack.packb(message, unicode_errors="surrogateescape")
    return data


def result(request: list[Any], value: object) -> bytes:
    return pack([1, request[1], None, value])


def error(request: list[Any], text: object) -> bytes:
    return pack([1, request[1], text, None])


class Script:
    """A plugin whose handler makes the PDK calls given, and what it got for them."""

    def __init__(self, *calls: tuple[str, list[Any]]) -> None:
        self.calls = list(calls)
        self.requests: list[list[Any]] = []

    def __call__(self, request: list[Any]) -> bytes | None:
        self.requests.append(request)
        if request[2] == "plugin.StartInstance":
            return result(request, {"Id": 7, "Name": "p"})
        if not self.calls:
            return result(request, {"Data": "ret", "EventId": 5})
        name, args = self.calls.pop(0)
        return result(request, {"Data": {"Method": name, "Args": args}, "EventId": 5})


def serve(path: Path, server: Server, test: Callable[[], Awaitable[None]]) -> int:
    """Run a test against a server, and return how many connections were made to it."""
    made = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal made
        made += 1
        unpacker = msgpack.Unpacker(strict_map_key=False, unicode_errors="surrogateescape")
        while data := await reader.read(65536):
            unpacker.feed(data)
            for request in unpacker:
                answer = server(request)
                if answer is None:
                    writer.close()
                    return
                writer.write(answer)
        writer.close()

    async def main() -> None:
        listener = await asyncio.start_unix_server(connected, str(path))
        try:
            await asyncio.wait_for(test(), LIMIT)
        finally:
            listener.close()
            # One turn of the loop for the connections to see their end.
            await asyncio.sleep(0)

    asyncio.run(main())
    return made


def run_event(path: Path, server: Server, exchange: Exchange | None = None) -> Exchange:
    """Run the access phase of an exchange against a server."""
    exchange = exchange or Exchange(phase="access", runs=[PhaseRun("access")])

    async def test() -> None:
        client = PluginClient(path, PLUGIN, "{}")
        await client.run_phase(exchange, "access")
        client.close()

    serve(path, server, test)
    return exchange


def test_an_event_goes_step_by_step(path: Path) -> None:
    script = Script(
        ("kong.request.get_method", []),
        ("kong.request.get_headers", []),
        ("kong.request.get_raw_body", []),
        ("kong.request.get_header", ["none"]),
        ("kong.client.get_consumer", []),
        ("kong.nothing", []),
    )
    exchange = run_event(path, script)
    sent = [(request[2], request[3][0]) for request in script.requests]
    assert sent == [
        ("plugin.StartInstance", {"Name": "p", "Config": "{}"}),
        ("plugin.HandleEvent", {"InstanceId": 7, "EventName": "access"}),
        ("plugin.Step", {"EventId": 5, "Data": "GET"}),
        ("plugin.StepMultiMap", {"EventId": 5, "Data": {}}),
        ("plugin.Step", {"EventId": 5, "Data": b""}),
        ("plugin.Step", {"EventId": 5}),
        ("plugin.StepConsumer", {"EventId": 5}),
        ("plugin.Step", {"EventId": 5}),
    ]
    assert [request[1] for request in script.requests] == list(range(1, 9))
    assert len(exchange.runs[0].calls) == 6


def test_bytes_that_are_not_utf8_are_sent_as_a_string(path: Path) -> None:
    script = Script(("kong.request.get_query_arg", ["a"]))
    exchange = Exchange(request=Request(target="/?a=%FF"), phase="access")
    run_event(path, script, exchange)
    assert script.requests[-1][3][0]["Data"] == "\udcff"


@pytest.mark.parametrize("call", [("kong.response.exit", [403]), ("kong.response.set_status", [1])])
def test_no_step_follows_an_exit_or_an_abort(path: Path, call: tuple[str, list[Any]]) -> None:
    script = Script(call)
    exchange = run_event(path, script)
    assert [request[2] for request in script.requests][1:] == ["plugin.HandleEvent"]
    assert exchange.response.status == (403 if call[0].endswith("exit") else 500)


def test_an_instance_is_started_once(path: Path) -> None:
    script = Script()
    exchanges = [Exchange(phase="access") for _ in range(8)]

    async def test() -> None:
        client = PluginClient(path, PLUGIN, "{}")
        await asyncio.gather(*(client.run_phase(e, "access") for e in exchanges))
        client.close()

    serve(path, script, test)
    methods = [request[2] for request in script.requests]
    assert methods.count("plugin.StartInstance") == 1
    assert methods.count("plugin.HandleEvent") == 8


def test_connections_are_used_again(path: Path) -> None:
    async def test() -> None:
        client = RpcClient(path)
        for n in range(5):
            assert await client.call("m", n) == [n]
        await asyncio.gather(*(client.call("m", n) for n in range(3)))
        client.close()

    assert serve(path, lambda request: result(request, request[3]), test) == 3


def test_a_forgotten_instance_is_started_again(path: Path) -> None:
    script = Script()
    forgotten: list[object] = []

    def server(request: list[Any]) -> bytes | None:
        if request[2] == "plugin.HandleEvent" and not forgotten:
            forgotten.append(request)
            return error(request, "No Plugin Instance 7")
        return script(request)

    exchange = run_event(path, server)
    methods = [request[2] for request in script.requests]
    assert methods == ["plugin.StartInstance", "plugin.StartInstance", "plugin.HandleEvent"]
    assert [line.level for line in exchange.logs] == ["warn"]


def test_starting_again_has_an_end(path: Path) -> None:
    starts = []

    def server(request: list[Any]) -> bytes | None:
        if request[2] == "plugin.StartInstance":
            starts.append(request)
            return result(request, {"Id": 1})
        return error(request, "no plugin instance 1")

    exchange = run_event(path, server)
    assert len(starts) == MAX_STARTS
    assert exchange.logs[-1].level == "err" and exchange.aborted is None


def test_an_error_lets_the_request_go_on(path: Path) -> None:
    script = Script()

    def server(request: list[Any]) -> bytes | None:
        failed = request[2] == "plugin.HandleEvent"
        return error(request, "handler failed") if failed else script(request)

    exchange = run_event(path, server)
    assert exchange.aborted is None and not exchange.unexpected
    assert exchange.logs[-1].message == "handler failed"


def test_an_instance_that_cannot_be_started_is_a_500(path: Path) -> None:
    exchange = run_event(path, lambda request: error(request, "bad config"))
    assert exchange.response.status == 500 and "bad config" in exchange.logs[-1].message


def test_a_server_that_hangs_up_lets_the_request_go_on(path: Path) -> None:
    script = Script()

    def server(request: list[Any]) -> bytes | None:
        return None if request[2] == "plugin.HandleEvent" else script(request)

    exchange = run_event(path, server)
    assert exchange.aborted is None and "no data" in exchange.logs[-1].message


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: pack([1, request[1] + 1, None, 1]),
        lambda request: pack([3, request[1], None, 1]),
        lambda request: pack({"a": 1}),
        lambda request: b"\xc1",
    ],
)
def test_what_is_no_reply_is_refused(path: Path, answer: Server) -> None:
    async def test() -> None:
        client = RpcClient(path)
        with pytest.raises(BadAnswer):
            await client.call("m")
        client.close()

    serve(path, answer, test)


def test_errors_of_a_call(path: Path) -> None:
    async def test() -> None:
        client = RpcClient(path)
        with pytest.raises(RPCError, match="the text"):
            await client.call("m")
        client.close()
        with pytest.raises(NoAnswer, match="connect"):
            await RpcClient(path.with_name("none")).call("m")

    serve(path, lambda request: error(request, "the text"), test)


def test_an_answer_without_meaning_aborts_the_phase(path: Path) -> None:
    def server(request: list[Any]) -> bytes | None:
        if request[2] == "plugin.StartInstance":
            return result(request, {"Id": 1})
        return result(request, {"Data": 5})

    assert run_event(path, server).response.status == 500


def test_another_process_means_another_instance(path: Path) -> None:
    script = Script()
    pid = 100

    def server(request: list[Any]) -> bytes | None:
        answer = script(request)
        assert answer is not None
        return pack([2, "serverPid", pid]) + pack([2, "other", []]) + answer

    async def test() -> None:
        nonlocal pid
        client = PluginClient(path, PLUGIN, "{}")
        for pid in (100, 100, 200, 200):  # noqa: B007  the server reads it
            await client.run_phase(Exchange(phase="access"), "access")
        client.close()

    serve(path, server, test)
    methods = [request[2] for request in script.requests]
    # The new pid is heard with the third event, too late for it; the fourth starts anew.
    assert methods.count("plugin.StartInstance") == 2
    assert methods[-2] == "plugin.StartInstance"

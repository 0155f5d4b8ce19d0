"""HTTP requests through a real nginx, whose Lua client calls a real plugin server.

nginx brings what a gateway is made of and what no test double has: cosockets with a keep-alive
pool, two workers with message ids that overlap, LuaJIT's way with nil, and lua-MessagePack.
"""

import base64
import collections
import hashlib
import itertools
import json
import os
import signal
import threading
import time
from pathlib import Path

import msgpack
import pytest

from kong_pdk._wire import pad_holes

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SOON = 5.0  # seconds; a gateway would wait 60 for an answer
ALL_BYTES = bytes(range(256))
# What the client gets in each case of plugins/e2e_exit.py: status, body, headers
EXITS = {
    "plain": (403, b"not for you", {"x-a": ["b"], "x-c": ["d", "e"]}),
    "no-body": (403, b"", {"x-a": ["b"]}),
    "nothing-else": (401, b"", {}),
    "table": (418, b'{"tea":"pot"}', {}),
    "bytes": (200, b"\x00\xff\xc3\x28", {"x-a": ["b"]}),
    "at-once": (503, b"closed", {}),
}
FAILURES = ["access at once", "access later"]

ROUTES = {
    "request": {"plugin": "e2e_request"},
    "large": {"plugin": "e2e_request", "config": {"large": True}},
    "json": {"plugin": "e2e_body", "config": {"mode": "json"}},
    "raw": {"plugin": "e2e_body", "config": {"mode": "raw"}},
    "reverse": {"plugin": "e2e_body", "config": {"mode": "reverse"}},
    "spooled": {"plugin": "e2e_body", "config": {"mode": "spooled"}},
    "slow": {"plugin": "e2e_slow", "config": {"pause": 0.01}},
    "scatter": {"plugin": "e2e_slow", "config": {"pause": 0.01}, "scatter": True},
    "log": {"plugin": "e2e_log", "phases": ["rewrite", "access", "log"]},
    "raise-log": {
        "plugin": "e2e_raise",
        "config": {"where": "log at once"},
        "phases": ["access", "log"],
    },
    "absent": {"plugin": "e2e_absent"},
    **{
        f"exit-{case}": {"plugin": "e2e_exit", "config": {"case": case}}
        for case in [*EXITS, "error"]
    },
    **{
        f"raise-{index}": {"plugin": "e2e_raise", "config": {"where": where}}
        for index, where in enumerate(FAILURES)
    },
}


@pytest.fixture(scope="module")
def shared_gateway(make_gateway):
    with make_gateway(ROUTES) as gateway:
        gateway.start_server()
        gateway.start_nginx()
        yield gateway


@pytest.fixture
def gateway(shared_gateway):
    yield shared_gateway
    shared_gateway.show_logs()


def serves(gateway):
    """The server still works for other requests."""
    return gateway.request("/request/again")["x-seen-path"] == "/request/again"


def both_workers(gateway, path, check):
    """Request with new connections until each of nginx's two workers has answered."""
    seen = set()

    def one_more():
        answer = gateway.request(path)
        check(answer)
        seen.add(answer["x-nginx-worker"])
        return len(seen) == 2

    gateway.wait_until(one_more, "an answer from either nginx worker")


# The documented plugin ------------------------------------------------------------------


@pytest.mark.parametrize("socket_name", ["py-hello.sock", "py-hello.socket"])
def test_the_documented_plugin(make_gateway, installed_script, socket_name):
    routes = {
        "plain": {"plugin": "py-hello"},
        "message": {"plugin": "py-hello", "config": {"message": "good day"}},
    }
    with make_gateway(routes, socket_name=socket_name) as gateway:
        gateway.start_server(installed_script("python3"), EXAMPLES / "py-hello.py")
        gateway.start_nginx()
        for route, message in [("plain", "hello"), ("message", "good day")]:
            answer = gateway.request(f"/{route}/", headers=[("Host", "example.test")])
            gateway.show_logs()
            assert answer.status == 200
            assert answer["x-hello-from-python"] == f"Python says {message} to example.test"


# What the plugin sees -------------------------------------------------------------------


def test_request_and_response_functions(gateway):
    headers = [("X-Double", "one"), ("X-Double", "two")]
    answer = gateway.request("/request/some%20where?x=1&flag&x=2&e=", "PATCH", headers)
    assert answer.status == 200
    assert answer["x-seen-method"] == "PATCH"
    assert answer["x-seen-path"] == "/request/some%20where"
    assert answer["x-seen-ip"] == "127.0.0.1"
    assert answer["x-seen-missing"] == "None"
    assert answer["x-seen-double"] == "one,two"
    assert answer["x-seen-query"] == "e=[''];flag=[];x=['1', '2']"
    assert answer.headers.get_all("x-added") == ["one", "two"]
    assert answer["x-cleared"] is None
    assert answer.upstream()["headers"]["x-to-service"] == "from the plugin"


def test_bytes_that_are_no_utf8_survive(gateway):
    value = b"caf\xe9 \xff\xfe \xc3("
    answer = gateway.request("/request/?a=%FFb%C3", headers=[("X-Raw", value)])
    assert answer.status == 200
    assert answer["x-echo-raw"].encode("latin-1") == value
    assert answer["x-echo-arg"].encode("latin-1") == b"\xffb\xc3"
    service = answer.upstream()["headers"]
    assert os.fsencode(service["x-service-raw"]) == value
    assert os.fsencode(service["x-service-arg"]) == b"\xffb\xc3"
    assert service["x-service-same"] == "True"
    assert serves(gateway)


def test_valid_utf8_is_text(gateway):
    value = "grüße ✓".encode()
    answer = gateway.request("/request/", headers=[("X-Raw", value)])
    assert answer.upstream()["headers"]["x-service-raw"] == value.decode()


def test_a_method_key_in_the_query(gateway):
    answer = gateway.request("/request/?_method=x&b=1")
    assert answer.status == 200
    assert answer["x-seen-query"] == "_method=['x'];b=['1']"
    assert answer["x-to-service"] is None
    assert answer.upstream()["headers"]["x-to-service"] == "from the plugin"


def test_a_method_key_in_the_headers(gateway):
    answer = gateway.request("/request/", headers=[("_method", "plugin.CloseInstance")])
    assert answer.status == 200
    assert answer["x-seen-hijack"] == "['plugin.CloseInstance']"


@pytest.mark.parametrize("method", ["plugin.CloseInstance", "plugin.SetPluginDir", "x"])
def test_a_method_key_in_a_json_body(gateway, method):
    body = json.dumps({"_method": method, "a": "b"}).encode()
    answer = gateway.request("/json/", "POST", body=body)
    assert answer.status == 200
    assert answer["x-body"] == f"_method={method},a=b"
    assert serves(gateway)


def test_many_headers(gateway):
    many = {f"x-many-{index:03}": f"{index:x}" * 60 + "\xe9" for index in range(400)}
    headers = [(name, value.encode("latin-1")) for name, value in many.items()]
    answer = gateway.request("/large/", headers=headers)
    lines = b"".join(b"%s=%s;" % (name.encode(), value) for name, value in headers)
    assert answer.status == 200
    assert answer["x-many-count"] == "400"
    assert answer["x-many-digest"] == hashlib.sha256(lines).hexdigest()


# Bodies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"\0", b"text", ALL_BYTES, ALL_BYTES * 31], ids=len)
def test_raw_bodies_are_exact(gateway, body):
    answer = gateway.request("/raw/", "POST", body=body)
    assert answer.status == 200
    assert answer["x-body-type"] == "bytes"
    assert answer["x-body-sha256"] == hashlib.sha256(body).hexdigest()
    assert base64.b64decode(answer.upstream()["body"]) == body


def test_raw_bodies_go_out_as_they_are(gateway):
    answer = gateway.request("/reverse/", "POST", body=ALL_BYTES)
    assert base64.b64decode(answer.upstream()["body"]) == ALL_BYTES[::-1]


def test_a_body_on_disk(gateway):
    body = ALL_BYTES * 1200
    answer = gateway.request("/spooled/", "POST", body=body)
    assert answer["x-body-sha256"] == hashlib.sha256(body).hexdigest()


def test_events_that_the_gateway_abandons(gateway):
    """A function that raises in Lua: the client gets a 500 and the server no further word."""
    for _ in range(8):
        assert gateway.request("/raw/", "POST", body=ALL_BYTES * 64).status == 500
    assert serves(gateway)


# The end of the request -----------------------------------------------------------------


@pytest.mark.parametrize("case", EXITS)
def test_exit(gateway, case):
    status, body, headers = EXITS[case]
    answer = gateway.request(f"/exit-{case}/")
    assert (answer.status, answer.body) == (status, body)
    for name, values in headers.items():
        assert answer.headers.get_all(name) == values
    assert answer["x-before"] == (None if case == "at-once" else case)
    assert "the handler went on" not in gateway.log_text()


def test_error_with_headers_and_no_message(gateway):
    answer = gateway.request("/exit-error/")
    assert answer.status == 429
    assert answer["x-a"] == "b"


@pytest.mark.parametrize("index", range(len(FAILURES)), ids=FAILURES)
def test_a_handler_that_raises_is_answered_at_once(gateway, index):
    start = time.monotonic()
    for _ in range(3):
        assert gateway.request(f"/raise-{index}/").status == 500
    assert time.monotonic() - start < SOON
    gateway.wait_for_log(f"failure in {FAILURES[index]}")
    assert serves(gateway)


def test_a_handler_that_raises_in_the_log_phase(gateway):
    assert gateway.request("/raise-log/").status == 200
    gateway.wait_for_log("failure in log at once")
    assert serves(gateway)


def test_a_plugin_that_does_not_exist(gateway):
    assert gateway.request("/absent/").status == 500
    assert serves(gateway)


# Phases, logs and arguments -------------------------------------------------------------


def test_the_log_phase(gateway):
    answer = gateway.request("/log/some/where", headers=[("X-Token", "t-77")])
    assert answer["x-label"] == "none"
    line = gateway.wait_for_log("logged t-77")
    assert "logged t-77 rewrite+access 200 True /log/some/where" in line
    assert "[notice]" in line


def test_none_between_arguments(gateway):
    gateway.request("/log/", headers=[("X-Token", "t-78")])
    line = gateway.wait_for_log("hole before t-78")
    assert "hole after" in line


def test_which_argument_lists_luajit_keeps(gateway):
    """Why the server must not send a hole: `unpack(args)` loses what follows some of them."""
    shapes = [
        "".join(shape) for length in range(1, 5) for shape in itertools.product("x-", repeat=length)
    ]
    packed = b"".join(
        bytes([0x90 + len(shape)]) + shape.encode().replace(b"x", b"\xa1x").replace(b"-", b"\xc0")
        for shape in shapes
    )
    answer = gateway.request("/_shapes", "POST", body=bytes([0xDC, 0, len(shapes)]) + packed)
    arrived = dict(zip(shapes, json.loads(answer.body)))
    # A nil at the end is dropped too, which does no harm.
    lost = {shape for shape in shapes if arrived[shape].rstrip("-") != shape.rstrip("-")}
    assert lost == {"x-x", "--x", "---x", "--x-", "--xx", "x-x-"}


def test_padded_argument_lists_arrive_whole(gateway):
    """Every pattern of up to eight arguments, as the server sends it; false counts as nothing."""
    shapes = [
        "".join(shape) for length in range(1, 9) for shape in itertools.product("x-", repeat=length)
    ]
    lists = [pad_holes(tuple(None if sign == "-" else sign for sign in shape)) for shape in shapes]
    answer = gateway.request("/_shapes", "POST", body=msgpack.packb(lists))
    arrived = dict(zip(shapes, json.loads(answer.body)))
    assert len(arrived) == 510
    assert [s for s in shapes if arrived[s].rstrip("-") != s.rstrip("-")] == []


# Many at a time -------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["slow", "scatter"])
def test_concurrent_requests_keep_apart(gateway, route):
    """200 clients at a time, two requests each, with handlers that block between their calls."""
    clients, rounds = 200, 2
    barrier = threading.Barrier(clients)
    wrong = []

    def client(number):
        try:
            connection = gateway.connection()
            connection.connect()
            barrier.wait(60)
            for turn in range(rounds):
                token = f"t-{number}-{turn}"
                path = f"/{route}/{number}/{turn}"
                answer = gateway.request(path, headers=[("X-Token", token)], connection=connection)
                if (answer.status, answer["x-answer"]) != (200, f"{token} {path} {token}"):
                    wrong.append((token, answer.status, answer["x-answer"]))
            connection.close()
        except Exception as error:
            wrong.append((number, repr(error)))

    before = gateway.stats()
    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    after = gateway.stats()
    assert after.get("failed", 0) == before.get("failed", 0)
    if route == "scatter":
        # One call for the event and four steps, each on another connection than the one before.
        assert after["scattered"] - before.get("scattered", 0) >= clients * rounds * 5


def test_one_instance_for_each_worker(gateway):
    def check(answer):
        assert answer.status == 200

    both_workers(gateway, "/request/", check)
    both_workers(gateway, "/request/", check)
    stats = gateway.stats()
    assert [stats[f"started:request:{worker}"] for worker in range(2)] == [1, 1]


# Restarts -------------------------------------------------------------------------------


LABELS = {
    name: {"plugin": "e2e_log", "config": {"label": name}, "phases": ["access"]}
    for name in ("first", "second", "third")
}


@pytest.fixture
def restartable(make_gateway):
    with make_gateway(LABELS) as gateway:
        gateway.start_server()
        gateway.start_nginx()
        yield gateway
        gateway.show_logs()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_a_server_that_is_started_anew(restartable, signum):
    """Ids of the old server mean nothing to the new one, least of all another configuration."""

    def ask(label):
        both_workers(restartable, f"/{label}/", lambda answer: labelled(answer, label))

    def labelled(answer, label):
        assert (answer.status, answer["x-label"]) == (200, label)

    for label in LABELS:
        ask(label)
    assert "restarted" not in restartable.stats()
    restartable.server.stop(signum)
    restartable.start_server()
    for label in reversed(LABELS):
        ask(label)
    assert restartable.stats()["restarted"] >= 2


def test_nginx_reloads_and_stops(restartable):
    """New workers are served, and those that went leave no connection behind."""
    server = restartable.server

    def check(answer):
        assert (answer.status, answer["x-label"]) == (200, "first")

    both_workers(restartable, "/first/", check)
    assert restartable.connections() >= 2
    old = restartable.workers()
    restartable.front.popen.send_signal(signal.SIGHUP)
    restartable.wait_until(lambda: not old & restartable.workers(), "the old workers' end")
    both_workers(restartable, "/first/", check)
    stats = restartable.stats()
    assert [stats[f"started:first:{worker}"] for worker in range(2)] == [2, 2]

    assert restartable.front.stop(signal.SIGQUIT) == 0
    restartable.wait_until(lambda: restartable.connections() == 0, "the end of nginx's connections")
    assert server.alive()
    assert server.stop(signal.SIGTERM) == 0
    assert not restartable.socket_path.exists()


# Deaths ---------------------------------------------------------------------------------


KILLS = 6


@pytest.mark.parametrize("route", ["slow", "scatter"])
def test_nothing_gets_past_a_plugin_whose_process_is_killed(make_gateway, installed_script, route):
    """Under load: each request has had the plugin, or is refused."""
    with make_gateway({route: ROUTES[route]}) as gateway:
        plugins = Path(__file__).parent / "plugins"
        gateway.start_server(
            installed_script("kong-python-pluginserver"),
            *("-d", plugins, "--socket-name", gateway.socket_path.name),
            *("--no-lua-style", "--supervise"),
        )
        gateway.start_nginx()
        seen, wrong, enough = collections.Counter(), [], threading.Event()

        def client(number):
            turn = 0
            while not enough.is_set():
                turn += 1
                token = f"t-{number}-{turn}"
                answer = gateway.request(f"/{route}/{turn}", headers=[("X-Token", token)])
                seen[answer.status] += 1
                right = f"{token} /{route}/{turn} {token}"
                if answer.status != 500 and (answer.status, answer["x-answer"]) != (200, right):
                    wrong.append((answer.status, answer["x-answer"]))

        threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(KILLS):
                served = seen[200]
                gateway.wait_until(lambda served=served: seen[200] > served + 50, "requests")
                for pid in gateway.server.children():
                    os.kill(pid, signal.SIGKILL)
        finally:
            enough.set()
            for thread in threads:
                thread.join()
        gateway.show_logs()
        assert wrong == []
        assert gateway.stats().get("failed", 0) == 0, "these went on without the plugin"
        assert seen[500] > 0, "some were under way at each of the kills"
        assert seen[200] > KILLS * 50

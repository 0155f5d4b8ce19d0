"""What ``kong-pdk try`` shows of each request, and what it is told about the request's world."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from trying import COMMAND, LIMIT, Running, run

pytest.importorskip("aiohttp")

pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason="kong-pdk is not installed")

PLUGIN = """
version, priority, Schema = "1.0.0", 1, ({"key": {"type": "string"}},)


class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong):
        kong.request.get_header("authorization")
        kong.request.get_query_arg("wide")
        kong.ctx.shared.set("long", "x" * 500)
        kong.response.set_header("x-found", [
            str(kong.client.get_consumer()),
            str(kong.client.get_credential()),
            str(kong.router.get_route()),
            str(kong.router.get_service()),
            kong.request.get_forwarded_scheme(),
            str(self.config.get("key")),
        ])

    def log(self, kong):
        kong.log.notice("over ", kong.router.get_service()["protocol"])

    def preread(self, kong):
        if kong.client.get_port() is None:
            raise ValueError
        kong.log.notice("before a ", kong.nginx.get_subsystem())
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "traced.py"
    path.write_text(PLUGIN)
    return path


def test_each_call_is_shown_with_its_times_and_without_secrets(plugin: Path, scratch: Path) -> None:
    headers = ("-H", "Authorization: Bearer t0psecret")
    done = run(
        plugin, scratch, "--request", "GET /a?wide=%1B[31m&api_key=t0psecret", *headers, "-v"
    )
    assert done.returncode == 0, done.stderr
    said = done.stderr.decode()
    assert "GET /a?wide=%1B[31m&api_key=REDACTED -> 200  access " in said
    assert re.search(r"\n  access  [\d.]+ ms, of which [\d.]+ ms in the plugin\n", said)
    times = r"\n +[\d.]+ ms  \+[\d.]+ ms +"
    call = r'kong\.request\.get_header\("authorization"\) -> "REDACTED"  [\d.]+ ms\n'
    assert re.search(times + call, said)
    assert "x" * 72 + '"... (500 characters))' in said
    assert re.search(times + r"\(returned\)\n", said)
    assert "t0psecret" not in said
    assert "\x1b" not in said  # of the client's, and there is no terminal


def test_colours_and_secrets_when_they_are_wanted(plugin: Path, scratch: Path) -> None:
    headers = ("-H", "Authorization: Bearer t0psecret")
    args = (
        "--request",
        "GET /?wide=%1B[31mwide",
        *headers,
        "-vv",
        "--show-secrets",
        "--color",
        "always",
    )
    said = run(plugin, scratch, *args).stderr.decode()
    assert "\x1b[1;32m200\x1b[0m" in said
    assert "Bearer t0psecret" in said
    assert "x" * 500 in said and "query: " in said
    assert "\x1b[31mwide" not in said and "\\u001b[31mwide" in said


def test_json_lines_for_programs(plugin: Path, scratch: Path) -> None:
    args = ("--request", "PUT /a?token=t0psecret", "--json", "-H", "Authorization: t0psecret")
    done = run(plugin, scratch, *args)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"HTTP/1.1 200 OK\r\n")
    lines: list[dict[str, Any]] = [json.loads(line) for line in done.stderr.splitlines()]
    events = {line["event"]: line for line in lines}
    assert events["plugin"]["phases"] == ["access", "preread", "log"]
    assert (events["log"]["level"], events["log"]["message"]) == ("notice", "over http")
    request = events["request"]
    assert (request["method"], request["target"]) == ("PUT", "/a?token=REDACTED")
    assert (request["status"], request["source"]) == (200, "service")
    access, log = request["phases"]
    assert (access["phase"], log["phase"]) == ("access", "log")
    assert access["ms"] >= access["plugin_ms"] >= 0
    first = access["calls"][0]
    assert first["function"] == "kong.request.get_header"
    assert (first["args"], first["result"]) == (["authorization"], "REDACTED")
    assert first["at_ms"] >= first["plugin_ms"] >= 0 and first["gateway_ms"] >= 0
    assert b"t0psecret" not in done.stderr


def test_a_refused_call_is_marked(tmp_path: Path, scratch: Path) -> None:
    plugin = tmp_path / "wrong.py"
    args = ("--request", "GET /", "-v", "--server-args=--no-pdk-checks")
    # Without its checks Kong's own answer is seen: for a status that is none, the end of the phase.
    plugin.write_text(PLUGIN.replace('request.get_query_arg("wide")', "response.set_status(7)"))
    done = run(plugin, scratch, *args)
    assert done.stdout.startswith(b"HTTP/1.1 500 ")
    assert re.search(
        rb"kong\.response\.set_status\(7\)  error: kong\.response\.set_st", done.stderr
    )


def test_what_a_request_finds_beside_the_plugin(
    plugin: Path, tmp_path: Path, scratch: Path
) -> None:
    (tmp_path / "config.json").write_text('{"key": "from a file"}')
    (tmp_path / "body").write_bytes(b"\x00body")
    done = run(
        plugin, scratch, "--request", "POST /", "-d", f"@{tmp_path}/body",
        "-H", "X-Forwarded-Proto: https", "--trusted-ip", "127.0.0.0/8",
        "--config", f"@{tmp_path}/config.json", "--mode", "multiprocessing",
        "--server-args=--workers 1", "--consumer", '{"username": "ann"}',
        "--credential", '{"id": "c1"}', "--route", '{"name": "r1"}',
        "--service", '{"tags": ["t1"]}',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    found = [line[9:] for line in head.decode().split("\r\n") if line.startswith("x-found: ")]
    consumer, credential, route, service, scheme, key = found
    assert "'username': 'ann'" in consumer and "'id': " in consumer
    assert "'id': 'c1'" in credential
    assert "'name': 'r1'" in route and "'paths': ['/']" in route
    assert "'tags': ['t1']" in service
    assert (scheme, key) == ("https", "from a file")
    assert json.loads(body)["body"] == "\x00body"


def test_streams_are_passed_on(plugin: Path, scratch: Path) -> None:
    running = Running(plugin, scratch, "--stream")
    try:
        port = int(running.seen_with("tcp://").rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), LIMIT) as client:
            client.sendall(b"there and back")
            client.shutdown(socket.SHUT_WR)
            with client.makefile("rb") as answer:
                assert answer.read() == b"there and back"
        running.wait_for("[notice] before a stream")
        running.wait_for("[notice] over tcp")
        assert "passed on  preread " in running.wait_for("TCP 127.0.0.1 -> ")
        assert running.ask()[0] == 200
    finally:
        assert running.stop() == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--config", "{"], ["--config", "no JSON"]),
        (["--config", "@none.json"], ["none.json", "No such file"]),
        (["--consumer", "[]"], ["--consumer", "must be a JSON object"]),
        (["--tls-key", "key.pem"], ["--tls-key needs --tls-cert"]),
        (["--request", "/", "--reload"], ["--reload", "--request"]),
        (["--trusted-ip", "x"], ["'x'", "trusted"]),
        (["--service", '{"retries": "x"}'], ["retries", "number"]),
        (["--mode", "fast"], ["--mode", "gevent"]),
    ],
)
def test_what_makes_no_sense_is_said(
    plugin: Path, scratch: Path, args: list[str], words: list[str]
) -> None:
    done = run(plugin, scratch, *args)
    assert done.returncode in (1, 2) and not done.stdout
    last = done.stderr.decode().splitlines()[-1]
    assert all(word in last for word in words), last


@pytest.mark.parametrize("name", ["direct.py", "embedded.py", "syntax.py"])
def test_why_a_plugin_cannot_be_loaded(tmp_path: Path, scratch: Path, name: str) -> None:
    plugin = tmp_path / name
    (tmp_path / "beside.py").write_text("import json\n\njson.loads('{')\n")
    source = "import beside\n"
    if name == "embedded.py":
        source += "from kong_pdk.cli import start_dedicated_server\nstart_dedicated_server()\n"
    if name == "syntax.py":
        source = "import os\ndef\n"
    plugin.write_text(source)
    done = run(plugin, scratch)
    assert done.returncode == 1
    last = done.stderr.decode().splitlines()[-1]
    where = f"{plugin}, line 2" if name == "syntax.py" else f"{tmp_path}/beside.py, line 3"
    assert last.startswith("kong-pdk try: the plugin ") and where in last
    assert name == "syntax.py" or "JSONDecodeError: " in last


def test_what_its_server_says_of_a_plugin_that_is_none(tmp_path: Path, scratch: Path) -> None:
    plugin = tmp_path / "none.py"
    plugin.write_text("version = '1'\nclass Plugin:\n    def access(self, kong): pass\n")
    done = run(plugin, scratch)
    assert done.returncode == 1
    last = done.stderr.decode().splitlines()[-1]
    assert "version must be a string of three numbers" in last and "none.py" in last

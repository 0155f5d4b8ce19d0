"""``kong-pdk try`` as a user runs it: the installed command, a real plugin server, real HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from trying import COMMAND, EMBEDDED, LIMIT, PLAIN, Running, is_running, run

pytest.importorskip("aiohttp")

pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason="kong-pdk is not installed")


def test_one_request_of_a_plain_plugin(plain: Path, scratch: Path) -> None:
    done = run(
        plain, scratch, "--request", "POST /a/b?c=1&c=2", "--header", "X-A: 1", "--data", "body",
        "--config", '{"message": "good day"}',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nx-pid: " in head
    echoed = json.loads(body)
    assert (echoed["method"], echoed["path"], echoed["body"]) == ("POST", "/a/b", "body")
    assert echoed["query"] == {"c": ["1", "2"]}
    assert echoed["headers"]["x-a"] == "1" and echoed["headers"]["x-message"] == "good day"
    said = done.stderr.decode()
    assert "plugin plain 1.2.3, priority 42, phases: access, log" in said
    assert "[notice] message is good day" in said
    assert "[server] printed by the plugin" in said
    assert "[info] logged 200" in said
    assert "POST /a/b?c=1&c=2 -> 200  access " in said


@pytest.mark.parametrize("source", [PLAIN, EMBEDDED])
def test_modules_beside_the_plugin_are_found(tmp_path: Path, scratch: Path, source: str) -> None:
    (tmp_path / "beside.py").write_text("WORD = 'found'\n")
    # The libraries are not shadowed by what lies beside a plugin that the directory server loads.
    if source is PLAIN:
        (tmp_path / "msgpack.py").write_text("raise SystemError('shadowed')\n")
    plugin = tmp_path / "plugin.py"
    plugin.write_text(source.replace("import sys\n", "import sys\nimport beside\n", 1))
    done = run(plugin, scratch, "--request", "GET /")
    assert done.returncode == 0, done.stderr


def test_exit_answers_without_the_upstream(plain: Path, scratch: Path) -> None:
    done = run(
        plain,
        scratch,
        "--request",
        "/",
        "--header",
        "X-Exit: 1",
        "--upstream",
        "http://127.0.0.1:1",
    )
    assert done.returncode == 0, done.stderr
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n") and b"x-why: asked" in head
    assert body == b'{"message":"no"}'
    assert b"[info] logged 403" in done.stderr


def test_an_embedded_plugin_with_a_response_phase(tmp_path: Path, scratch: Path) -> None:
    plugin = tmp_path / "embedded.py"
    plugin.write_text(EMBEDDED)
    done = run(plugin, scratch, "--request", "GET /", "-v")
    assert done.returncode == 0, done.stderr
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 201 Created\r\n") and body.endswith(b" bytes")
    said = done.stderr.decode()
    assert "phases: access, response, log" in said
    assert re.search(r"\n  response  .* in the plugin\n", said)
    assert re.search(r'kong\.response\.exit\(201, "\d+ bytes", {.*}\)  ends the request', said)
    assert "[info] logged 201" in said


def test_an_upstream_that_is_not_there(plain: Path, scratch: Path) -> None:
    done = run(plain, scratch, "--request", "GET /", "--upstream", "http://127.0.0.1:1/")
    assert done.returncode == 0
    assert done.stdout.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ('{"mesage": "x"}', ("mesage", "unknown")),
        ('{"count": "x"}', ("count", "integer")),
        ('{"message": 1}', ("message", "string")),
    ],
)
def test_a_bad_configuration(
    plain: Path, scratch: Path, config: str, words: tuple[str, ...]
) -> None:
    done = run(plain, scratch, "--config", config)
    assert done.returncode == 1
    last = done.stderr.decode().splitlines()[-1]
    assert all(word in last for word in words)


def test_a_missing_required_field(plain: Path, scratch: Path) -> None:
    plain.write_text(PLAIN.replace('"default": "hello"', '"required": True'))
    done = run(plain, scratch, "--request", "GET /")
    assert done.returncode == 1 and b"message" in done.stderr and b"required" in done.stderr


def test_a_plugin_that_cannot_be_loaded(plain: Path, scratch: Path) -> None:
    source = "# no Plugin\nprint('before', flush=True)\nraise SystemError('broken plugin')\n"
    plain.write_text(source)
    done = run(plain, scratch)
    assert done.returncode == 1
    assert b"broken plugin" in done.stderr


def test_a_server_that_dies_at_its_start(tmp_path: Path, scratch: Path) -> None:
    plugin = tmp_path / "dying.py"
    plugin.write_text(
        EMBEDDED.replace(
            'if __name__ == "__main__":',
            'if __name__ == "__main__":\n    if "--dump" not in sys.argv: sys.exit("cannot go on")',
        )
    )
    done = run(plugin, scratch)
    assert done.returncode == 1
    said = done.stderr.decode()
    assert "[server] cannot go on" in said and "status 1" in said


def test_a_port_in_use(plain: Path, scratch: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(plain, scratch, "--port", str(port))
    assert done.returncode == 1
    said = done.stderr.decode()
    assert f"127.0.0.1:{port}: it is in use" in said
    assert "Unclosed" not in said


def test_a_file_that_is_not_there(tmp_path: Path, scratch: Path) -> None:
    done = run(tmp_path / "none.py", scratch)
    assert done.returncode == 1 and b"none.py" in done.stderr


def test_the_extra_is_named_when_it_is_missing(tmp_path: Path, plain: Path, scratch: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "aiohttp.py").write_text("raise ModuleNotFoundError('gone', name='aiohttp')")
    done = run(plain, scratch, "--request", "GET /", PYTHONPATH=str(hidden))
    assert done.returncode == 1 and b"pip install 'kong-pdk[try]'" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything(plain: Path, scratch: Path, number: int) -> None:
    running = Running(plain, scratch)
    try:
        assert running.ask()[0] == 200
        pid = int(running.headers["x-pid"])
        assert is_running(pid)
        assert running.ask("GET", "/x")[0] == 200
        line = running.wait_for("GET /x -> 200")
        pattern = r"GET /x -> 200  access [\d.]+ ms \(6 calls\)  log [\d.]+ ms \(2 calls\)"
        assert re.fullmatch(pattern, line)
        # An idle connection must not hold up the end.
        with socket.create_connection(("127.0.0.1", running.port)):
            assert running.stop(number) == 0
        assert not is_running(pid)
    finally:
        running.stop(signal.SIGKILL)


def test_a_server_that_dies_is_started_again(plain: Path, scratch: Path) -> None:
    running = Running(plain, scratch, "-v")
    try:
        running.ask()
        pid = int(running.headers["x-pid"])
        os.kill(pid, signal.SIGKILL)
        running.wait_for("signal 9")
        running.wait_for("accepts connections")
        assert running.ask()[0] == 200
        assert int(running.headers["x-pid"]) != pid
    finally:
        assert running.stop() == 0


def test_any_bytes_reach_the_plugin(plain: Path, scratch: Path) -> None:
    running = Running(plain, scratch)
    try:
        raw = "b\u00ff".encode("latin-1")
        chunks = iter([b"x" * 6000] * 3)
        status, body = running.ask(
            "PUT", "/?a=%FF&b", headers={"X-Raw": raw}, body=chunks, encode_chunked=True
        )
        assert status == 200
        assert json.loads(body) == {"header": "62ff", "argument": "ff", "body": 18000}
    finally:
        assert running.stop() == 0


def test_head_and_concurrent_requests(plain: Path, scratch: Path) -> None:
    running = Running(plain, scratch)
    try:
        assert running.ask(headers={"X-Plain": "1"}) == (200, b"plain")
        assert "content-type" not in running.headers  # only what the plugin gave
        assert running.ask("HEAD", "/") == (200, b"")
        statuses: list[int] = []
        threads = [
            threading.Thread(target=lambda: statuses.append(running.ask()[0])) for _ in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        assert statuses == [200] * 16
    finally:
        assert running.stop() == 0


def test_the_command_explains_itself() -> None:
    for args, word in (
        (["--version"], b"kong-pdk "),
        (["--help"], b"examples:"),
        (["try", "--help"], b"--upstream URL"),
    ):
        command = [str(COMMAND), *args]
        done = subprocess.run(command, capture_output=True, timeout=LIMIT, check=False)
        assert done.returncode == 0 and word in done.stdout
    done = subprocess.run([str(COMMAND)], capture_output=True, timeout=LIMIT, check=False)
    assert done.returncode == 2


def test_aiohttp_is_imported_for_try_only() -> None:
    code = "import sys, kong_pdk.gateway, kong_pdk.gateway.rpc, kong_pdk.commands.main;"
    code += "sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=LIMIT, check=False).returncode == 0

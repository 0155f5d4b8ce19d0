"""What the tests of the examples share. They use kong_pdk.testing alone, as any author would."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable

import pytest


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is true; fail if that takes far too long."""
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit, f"this has not come about: {what}"
        time.sleep(0.01)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool], str], None]:
    """The function that waits until something is true."""
    return wait_until


class Endpoint:
    """An HTTP endpoint: a function of a test answers, several requests at once.

    Attributes:
        url: its address.
        answer: gets the body of a request, returns status and body.
        received: headers and bodies of all requests.
    """

    def __init__(self) -> None:
        self.answer: Callable[[bytes], tuple[int, bytes]] = lambda body: (200, b"")
        self.received: list[tuple[dict[str, str], bytes]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                endpoint.received.append((headers, body))
                status, data = endpoint.answer(body)
                self.send_response(status)
                if status in (301, 302, 307):
                    self.send_header("Location", endpoint.url)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST  # what a client may make of a redirect

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True  # a plugin's pool keeps its connections open
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def answer_json(self, value: Any, status: int = 200) -> None:
        """Have the same answer for all requests from now on."""
        data = json.dumps(value).encode()
        self.answer = lambda body: (status, data)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """An HTTP endpoint of the test's own."""
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port at which connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    """A port at which nobody is."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


class RedisServer:
    """A real Redis, for this test run alone."""

    def __init__(self, program: str, folder: Path) -> None:
        import redis

        path = folder / "redis.sock"
        command = [
            program,
            "--port",
            "0",
            "--unixsocket",
            str(path),
            "--save",
            "",
            "--dir",
            str(folder),
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.url = f"unix://{path}"
        self.client = redis.Redis.from_url(self.url, decode_responses=True)
        wait_until(path.exists, "the socket of Redis is there")

    def close(self) -> None:
        self.client.close()
        self._process.terminate()
        self._process.wait()


@pytest.fixture(scope="session")
def redis_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    program = shutil.which("redis-server")
    if program is None:
        text = "redis-server is not there: on Debian, apt-get install redis-server"
        if os.environ.get("KONG_PDK_REQUIRE_E2E", "0") not in ("", "0"):
            pytest.fail(text)
        pytest.skip(text)
    server = RedisServer(program, tmp_path_factory.mktemp("redis"))
    yield server
    server.close()


@pytest.fixture
def redis_server(redis_of_session: RedisServer) -> RedisServer:
    """A real Redis, with nothing in it."""
    redis_of_session.client.flushall()
    return redis_of_session

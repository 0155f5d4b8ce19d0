"""The command ``kong-pdk try`` as tests run it, and plugins for it."""

from __future__ import annotations

import http.client
import os
import queue
import signal
import ssl
import subprocess
import sysconfig
import threading
import time
from pathlib import Path

COMMAND = Path(sysconfig.get_path("scripts")) / "kong-pdk"
#: Seconds for anything at all; a command is ready in a fraction of one.
LIMIT = 40.0 * float(os.environ.get("KONG_PDK_TEST_TIMEOUT_SCALE", "1"))

PLAIN = """
import os
import sys

Schema = (
    {"message": {"type": "string", "default": "hello"}},
    {"count": {"type": "integer"}},
)
version = "1.2.3"
priority = 42


class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong):
        kong.log.notice("message is ", self.config["message"])
        kong.response.set_header("x-pid", str(os.getpid()))
        kong.service.request.set_header("x-message", self.config["message"])
        if kong.request.get_header("x-exit"):
            kong.response.exit(403, {"message": "no"}, {"x-why": "asked"})
        if kong.request.get_header("x-plain"):
            kong.response.exit(200, "plain")
        if kong.request.get_header("x-raw"):
            header = kong.request.get_header("x-raw")
            argument = kong.request.get_query_arg("a")
            body = kong.request.get_raw_body(0)
            kong.response.exit(200, {
                "header": header.encode("utf-8", "surrogateescape").hex(),
                "argument": argument.encode("utf-8", "surrogateescape").hex(),
                "body": len(body),
            })
        print("printed by the plugin", flush=True)

    def log(self, kong):
        kong.log.info("logged ", kong.response.get_status())
"""

EMBEDDED = (
    PLAIN.replace('kong.request.get_header("x-exit")', "False")
    + """
    def response(self, kong):
        body = kong.service.response.get_raw_body()
        kong.response.exit(201, "%d bytes" % len(body), {"Content-Type": "text/plain"})


if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server

    start_dedicated_server("embedded", Plugin, version, priority, Schema)
"""
)


def environment(scratch: Path, **more: str) -> dict[str, str]:
    """The environment of the command, with a folder for its temporary files."""
    return {**os.environ, "TMPDIR": str(scratch), **more}


def arguments(plugin: Path, *args: str) -> list[str]:
    """The command line; the style of the results must not depend on the server's default."""
    return [str(COMMAND), "try", str(plugin), "--python-style", *args]


def run(plugin: Path, scratch: Path, *args: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command to its end."""
    return subprocess.run(
        arguments(plugin, *args),
        capture_output=True,
        timeout=LIMIT,
        env=environment(scratch, **env),
        check=False,
    )


class Running:
    """A command that goes on until it is told to stop, and its output line by line."""

    def __init__(self, plugin: Path, scratch: Path, *args: str, **env: str) -> None:
        self.process = subprocess.Popen(
            arguments(plugin, "--port", "0", *args),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(scratch, **env),
        )
        self.seen: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        line = self.wait_for("listening on http://")
        self.port = int(line.split("http://127.0.0.1:")[1].split('"')[0])

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def wait_for(self, text: str) -> str:
        """Return the next line that holds a text."""
        end = time.monotonic() + LIMIT
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line with {text!r} in: {self.seen}") from None
            if line is None:
                raise AssertionError(f"it ended without a line with {text!r}: {self.seen}")
            self.seen.append(line)
            if text in line:
                return line

    def seen_with(self, text: str) -> str:
        """Return the first line so far that holds a text."""
        return next(line for line in self.seen if text in line)

    def ask(self, method: str = "GET", target: str = "/", **options: object) -> tuple[int, bytes]:
        """Make one request on a connection of its own; ``headers`` has the answer's then."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        try:
            connection.request(method, target, **options)  # type: ignore[arg-type]
            answer = connection.getresponse()
            self.headers = answer.headers
            return answer.status, answer.read()
        finally:
            connection.close()

    @property
    def tls_port(self) -> int:
        """The port for HTTPS."""
        return int(self.seen_with("https://localhost:").split(":")[2].split()[0])

    def trust(self) -> ssl.SSLContext:
        """What a client connects with that trusts the certificate which the command has made."""
        path = self.seen_with("--cacert").rsplit(" ", 1)[1].rstrip(")")
        return ssl.create_default_context(cafile=path)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop the command and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(LIMIT)
        finally:
            self.process.kill()
            self._reader.join(LIMIT)
            assert self.process.stdout is not None
            self.process.stdout.close()


def is_running(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

"""What a PDK call costs on the other side: in a real nginx with what Kong is made of.

That is the nginx of the end-to-end tests: LuaJIT, cosockets, lua-MessagePack and lua-cjson, and a
client that does of Kong's own PDK only what the tests need. So Kong takes more.
"""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

ROOT = Path(__file__).resolve().parents[2]
#: PDK calls of the handlers that are compared.
FEW, MANY = 3, 13
#: Clients, which send their requests one after the other.
CLIENTS = 8
PLUGIN = """
Schema = ({"calls": {"type": "integer"}},)
version = "1.0.0"
priority = 10


class Plugin:
    def __init__(self, config):
        self.calls = config["calls"]

    def access(self, kong):
        for _ in range(self.calls):
            kong.request.get_header("host")
"""


def _harness() -> Any:
    """The module that starts the end-to-end tests' processes."""
    path = ROOT / "tests" / "e2e" / "conftest.py"
    spec = importlib.util.spec_from_file_location("kong_pdk_e2e_processes", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def missing() -> Optional[str]:
    """What there is not of nginx, its module and libraries; None if all is there."""
    found: Optional[str] = _harness().Nginx().missing
    return found


class Front:
    """A gateway with two routes, whose plugins make few and many calls."""

    def __init__(self, gateway: Any) -> None:
        self._gateway = gateway

    def _used(self) -> float:
        """CPU time of nginx's workers, seconds; what sees them needs no ticks of the clock."""
        texts = (Path(f"/proc/{pid}/schedstat").read_text() for pid in self._gateway.workers())
        return sum(int(text.split()[0]) for text in texts) / 1e9

    def _send(self, path: str, requests: int) -> None:
        failed: list[str] = []

        def client() -> None:
            connection = self._gateway.connection()
            with contextlib.closing(connection):
                for _ in range(requests // CLIENTS):
                    answer = self._gateway.request(
                        path, headers=(("Host", "example.com"),), connection=connection
                    )
                    if answer.status != 200:
                        failed.append(f"status {answer.status}")
                        return

        threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed, failed[0]

    def call(self, requests: int) -> float:
        """CPU time of nginx for one call more, in µs.

        Args:
            requests: so many are sent to each of both routes.
        """
        found = []
        for calls in (FEW, MANY):
            before = self._used()
            self._send(f"/calls-{calls}", requests)
            found.append((self._used() - before) / (requests // CLIENTS * CLIENTS))
        return (found[1] - found[0]) / (MANY - FEW) * 1e6


@contextlib.contextmanager
def front() -> Iterator[Front]:
    """Start nginx and the plugin server, with threads, and warm them up."""
    harness = _harness()
    routes = {
        f"calls-{calls}": {"plugin": "calls", "config": {"calls": calls}} for calls in (FEW, MANY)
    }
    with tempfile.TemporaryDirectory() as folder:
        plugin = Path(folder, "calls.py")
        plugin.write_text(PLUGIN, encoding="utf-8")
        gateway = harness.Gateway(harness.Nginx(), routes)
        try:
            gateway.start_server(
                harness.script("kong-python-pluginserver"), "--plugin", plugin,
                "--socket-name", gateway.socket_path.name, "--no-lua-style",
            )  # fmt: skip
            gateway.start_nginx()
            made = Front(gateway)
            made.call(CLIENTS * 50)
            yield made
        finally:
            gateway.close()

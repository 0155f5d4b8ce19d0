"""``kong-pdk try --tls``: HTTPS, with the certificate phase in each handshake."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from trying import COMMAND, LIMIT, Running, run

pytest.importorskip("aiohttp")
trustme = pytest.importorskip("trustme")

pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason="kong-pdk is not installed")

PLUGIN = """
version, priority, Schema = "1.0.0", 1, ()


class Plugin:
    def __init__(self, config):
        self.count = 0

    def certificate(self, kong):
        self.count += 1
        kong.client.tls.request_client_certificate()
        kong.ctx.shared.set("count", self.count)

    def access(self, kong):
        kong.response.exit(200, {
            "count": kong.ctx.shared.get("count") or 0,
            "scheme": kong.request.get_scheme(),
            "port": kong.request.get_port(),
            "version": kong.nginx.get_tls1_version_str() or "",
            "name": kong.nginx.get_var("ssl_server_name") or "",
            "https": kong.nginx.get_var("https") or "",
            "chain": kong.client.tls.get_full_client_certificate_chain() or "",
            "verified": kong.nginx.get_var("ssl_client_verify") or "",
        })
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "secure.py"
    path.write_text(PLUGIN)
    return path


class Client(http.client.HTTPSConnection):
    """A connection that goes to a port of this machine, whatever name it asks for."""

    def __init__(self, name: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(name, timeout=LIMIT, context=context)
        raw = socket.create_connection(("127.0.0.1", port), LIMIT)
        self.sock = context.wrap_socket(raw, server_hostname=name)

    def ask(self) -> dict[str, Any]:
        self.request("GET", "/")
        found: dict[str, Any] = json.loads(self.getresponse().read())
        return found


def test_https_with_a_certificate_made_for_the_name(plugin: Path, scratch: Path) -> None:
    running = Running(plugin, scratch, "--tls")
    try:
        context = running.trust()
        client = Client("shop.example", running.tls_port, context)
        found = client.ask()
        assert found == {
            "count": 1, "scheme": "https", "port": running.tls_port, "version": "TLSv1.3",
            "name": "shop.example", "https": "on", "chain": "", "verified": "NONE",
        }  # fmt: skip
        assert client.ask()["count"] == 1  # one handshake, two requests
        client.close()
        running.wait_for("[warn] this gateway asks no client for a certificate")
        assert "connected  certificate " in running.wait_for("TLS shop.example -> ")
        other = Client("localhost", running.tls_port, context)
        assert other.ask()["count"] == 2
        other.close()
        # Nothing of that beside HTTPS.
        found = json.loads(running.ask()[1])
        assert (found["scheme"], found["version"], found["count"]) == ("http", "", 0)
    finally:
        assert running.stop() == 0


def test_clients_that_make_no_handshake(plugin: Path, scratch: Path) -> None:
    running = Running(plugin, scratch, "--tls")
    try:
        port = running.tls_port
        plain = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
        plain.request("GET", "/")
        answer = plain.getresponse()
        assert answer.status == 400 and b"https://" in answer.read()
        plain.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            Client("localhost", port, ssl.create_default_context())
        running.wait_for("-> refused: ")
        # A connection without a word holds up nothing, not even the end.
        with socket.create_connection(("127.0.0.1", port)):
            client = Client("localhost", port, running.trust())
            assert client.ask()["scheme"] == "https"
            client.close()
            assert running.stop() == 0
    finally:
        running.stop()


def test_certificates_of_clients_and_ones_own(plugin: Path, tmp_path: Path, scratch: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    own = authority.issue_cert("shop.example")
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(str(files["ca"]))
    own.cert_chain_pems[0].write_to_path(str(files["cert"]))
    own.private_key_pem.write_to_path(str(files["key"]))
    running = Running(
        plugin, scratch, "--tls-cert", str(files["cert"]), "--tls-key", str(files["key"]),
        "--tls-client-ca", str(files["ca"]),
    )  # fmt: skip
    try:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        client = Client("shop.example", running.tls_port, context)
        assert client.ask()["chain"] == ""  # it may have none
        client.close()
        shown = authority.issue_cert("ann@shop.example")
        shown.configure_cert(context)
        client = Client("shop.example", running.tls_port, context)
        found = client.ask()
        client.close()
        assert found["verified"] == "SUCCESS"
        pem = shown.cert_chain_pems[0].bytes().decode()
        # From Python 3.13 on those that lead to the root may follow, as the client sends them.
        assert found["chain"].split()[: len(pem.split())] == pem.split()
        other.issue_cert("ann@shop.example").configure_cert(context)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            Client("shop.example", running.tls_port, context).ask()
        running.wait_for("-> refused: ")
    finally:
        assert running.stop() == 0


def test_a_certificate_phase_that_breaks_ends_the_handshake(tmp_path: Path, scratch: Path) -> None:
    plugin = tmp_path / "broken.py"
    plugin.write_text(PLUGIN.replace("self.count += 1", "kong.response.exit(200)"))
    args = ("--tls", "--request", "GET /", "--server-args=--no-pdk-checks")
    done = run(plugin, scratch, *args)
    assert done.returncode == 1 and not done.stdout
    assert b"refused: its certificate phase failed" in done.stderr


@pytest.mark.parametrize("flag", ["--tls-cert", "--tls-client-ca"])
def test_a_file_that_holds_no_certificate(
    plugin: Path, tmp_path: Path, scratch: Path, flag: str
) -> None:
    (tmp_path / "x.pem").write_text("x")
    done = run(plugin, scratch, flag, str(tmp_path / "x.pem"))
    assert done.returncode == 1 and b"x.pem" in done.stderr.splitlines()[-1]


def test_the_extra_is_named_when_it_is_missing(plugin: Path, tmp_path: Path, scratch: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "trustme.py").write_text("raise ModuleNotFoundError('gone', name='trustme')")
    done = run(plugin, scratch, "--tls", PYTHONPATH=str(hidden))
    assert done.returncode == 1
    assert b"pip install 'kong-pdk[try]'" in done.stderr.splitlines()[-1]

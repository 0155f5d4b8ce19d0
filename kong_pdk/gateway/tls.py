"""The gateway's TLS side: certificates, and connections whose handshake waits for the plugin.

Kong runs the certificate phase in the middle of a handshake. Python's ssl calls nobody there who
may wait, so a connection's first message is looked at without being read, the phase is run, and
then the handshake is made with what the phase has decided.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Callable

from .driver import Tasks
from .errors import GatewayError

#: Seconds that a client has for its first message, and for the handshake.
HANDSHAKE_LIMIT = 20.0
#: The longest first message that is looked at, bytes; with post-quantum keys they are some 2 kB.
_MAX_HELLO = 64 * 1024
_POLL = 0.01
#: Names for which a certificate is made; clients may ask for any number.
_MAX_NAMES = 100
_PLAIN = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\n"
    b"This port speaks HTTPS: ask for https://\n"
)

Protocol = Callable[[], asyncio.Protocol]


class Context(ssl.SSLContext):
    """What one connection is made with, and what was found out before its handshake."""

    #: Whatever the gateway wants to find again with the connection's requests.
    owner: Any = None


class Certificates:
    """The gateway's certificates, and whose certificates it takes from clients.

    Args:
        folder: an existing private directory for the files that are made.
        certificate: a file with the certificate and those that lead to its root; ``None`` to make
            one for whatever name a client asks for.
        key: the file of its key; ``None`` if it is in the same file.
        client_ca: a file with the certificates that clients' ones must be signed with.

    Raises:
        GatewayError: a file cannot be read or is none, or a certificate cannot be made because
            trustme is missing.
    """

    def __init__(
        self,
        folder: Path,
        certificate: Path | None = None,
        key: Path | None = None,
        client_ca: Path | None = None,
    ) -> None:
        self.client_ca = client_ca
        #: The root's certificate, for clients that want to check; ``None`` for a certificate given.
        self.root: Path | None = None
        self._folder = folder
        self._given = certificate
        self._key = key
        self._made: dict[str, Path] = {}
        self._authority: Any = None
        if certificate is None:
            self._authority = _authority()
            self.root = folder / "ca.pem"
            self._authority.cert_pem.write_to_path(str(self.root))
        self.context(None, ask=client_ca is not None)

    def context(self, name: str | None, ask: bool) -> Context:
        """Return what one connection is made with.

        Args:
            name: the server's name that the client asked for.
            ask: ask the client for a certificate, which it may leave out.

        Raises:
            GatewayError: a file cannot be read or is none.
        """
        context = Context(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0  # no other connection knows this context
        context.set_alpn_protocols(["http/1.1"])
        certificate = self._issue(name) if self._given is None else self._given
        try:
            context.load_cert_chain(certificate, self._key)
        except (OSError, ValueError) as error:
            shown = f"{certificate} and {self._key}" if self._key else str(certificate)
            raise GatewayError(f"no certificate and key in {shown}: {error}") from error
        if ask and self.client_ca is not None:
            context.verify_mode = ssl.CERT_OPTIONAL
            try:
                context.load_verify_locations(cafile=str(self.client_ca))
            except OSError as error:
                raise GatewayError(f"no certificates in {self.client_ca}: {error}") from error
        return context

    def _issue(self, name: str | None) -> Path:
        """Return the file of a certificate for a name, beside this machine's."""
        if len(self._made) > _MAX_NAMES:
            name = None
        path = self._made.get(name or "")
        if path is None:
            names = ["localhost", "127.0.0.1", "::1"]
            try:
                issued = self._authority.issue_cert(*([name] if name else []), *names)
            except ValueError:  # no name that a certificate can have
                return self._issue(None)
            path = self._made[name or ""] = self._folder / f"server-{len(self._made)}.pem"
            issued.private_key_and_cert_chain_pem.write_to_path(str(path))
        return path


def _authority() -> Any:
    try:
        import trustme
    except ModuleNotFoundError as error:
        if error.name != "trustme":
            raise
        raise GatewayError(
            "trustme, which makes certificates, is missing: install it with "
            "pip install 'kong-pdk[try]', or give --tls-cert and --tls-key"
        ) from error
    return trustme.CA(organization_name="kong-pdk try")


class Listener:
    """Takes connections, has each decided on, and makes its handshake.

    Args:
        protocol: makes what speaks on a connection after the handshake.
        decide: called with the client's address and the server's name that it asked for; returns
            what to make the connection with, ``None`` to hang up.
        done: called with what ``decide`` returned when a handshake is over, and why it has failed.
    """

    def __init__(
        self,
        protocol: Protocol,
        decide: Callable[[tuple[str, int], str | None], Awaitable[Context | None]],
        done: Callable[[Context, str | None], None],
    ) -> None:
        self.port = 0
        self._protocol = protocol
        self._decide = decide
        self._done = done
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._tasks = Tasks()

    def start(self, host: str, port: int) -> None:
        """Listen on a port; ``port`` says which, if any was asked for with 0. Raises OSError."""
        self._socket = socket.create_server((host, port), backlog=128)
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]
        self._accepting = asyncio.ensure_future(self._accept(self._socket))

    async def close(self) -> None:
        """Take no more connections; those that are made stay."""
        accepting, self._accepting = self._accepting, None
        if accepting is not None:
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
        await self._tasks.finish(0)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listening)
            except OSError:  # the client has gone already, or there are too many files
                await asyncio.sleep(_POLL)
                continue
            self._tasks.start(self._connect(connection, (address[0], address[1])))

    async def _connect(self, connection: socket.socket, address: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        taken = False
        connection.setblocking(False)
        try:
            name = await asyncio.wait_for(_asked_name(connection), HANDSHAKE_LIMIT)
            context = await self._decide(address, name)
            if context is None:
                return
            taken = True
            try:
                await loop.connect_accepted_socket(
                    self._protocol, connection, ssl=context, ssl_handshake_timeout=HANDSHAKE_LIMIT
                )
            except (OSError, asyncio.TimeoutError) as error:
                self._done(context, str(getattr(error, "reason", None) or error or "no answer"))
            else:
                self._done(context, None)
        except _SpeaksPlain:
            with contextlib.suppress(OSError):
                connection.recv(_MAX_HELLO)
                connection.send(_PLAIN)
        except (OSError, asyncio.TimeoutError, GatewayError):
            pass  # a client that says nothing, or goes
        finally:
            if not taken:
                connection.close()


class _SpeaksPlain(Exception):
    """A client does not speak TLS."""


async def _asked_name(connection: socket.socket) -> str | None:
    """Return the server's name in a client's first message, which stays unread.

    Raises:
        OSError: the client has gone, or what it sends is no such message.
    """
    seen = -1
    while True:
        await _readable(connection)
        data = connection.recv(_MAX_HELLO, socket.MSG_PEEK)
        if not data:
            raise ConnectionResetError("the client has hung up")
        if data[0] != 22:  # a handshake, in TLS's records
            raise _SpeaksPlain
        if len(data) == seen:  # the rest is still to come
            await asyncio.sleep(_POLL)
            continue
        seen = len(data)
        known, name = _read_hello(data)
        if known:
            return name


def _read_hello(data: bytes) -> tuple[bool, str | None]:
    """Return whether a first message is complete, and the name in it."""
    found: list[str | None] = []

    def hear(_: object, name: str | None, __: object) -> int:
        found.append(name)
        return int(ssl.AlertDescription.ALERT_DESCRIPTION_USER_CANCELLED)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = hear
    incoming = ssl.MemoryBIO()
    incoming.write(data)
    try:
        context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
    except ssl.SSLWantReadError:
        return False, None
    except ssl.SSLError:
        pass  # broken off by the callback, or else the real handshake will say what is wrong
    return True, found[0] if found else None


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection.fileno())


def client_chain(connection: Any) -> str | None:
    """Return the certificates that a client has shown, its own first, as PEM; ``None`` if none.

    Before Python 3.13 it is its own alone.

    Args:
        connection: an ``ssl.SSLObject``.
    """
    own = connection.getpeercert(binary_form=True)
    if not own:
        return None
    chain = getattr(connection, "get_unverified_chain", lambda: None)() or [own]
    return "".join(ssl.DER_cert_to_PEM_cert(bytes(each)) for each in chain)


def variables(connection: Any, name: str | None) -> dict[str, str]:
    """Return nginx's variables about a TLS connection.

    Args:
        connection: an ``ssl.SSLObject``.
        name: the server's name that the client asked for.
    """
    cipher = connection.cipher()
    shown = connection.getpeercert(binary_form=True)
    result = {
        "ssl_protocol": connection.version() or "",
        "ssl_cipher": cipher[0] if cipher else "",
        "ssl_server_name": name or "",
        "ssl_client_verify": "SUCCESS" if shown else "NONE",
        "ssl_session_reused": "r" if connection.session_reused else ".",
    }
    if shown:
        result["ssl_client_raw_cert"] = ssl.DER_cert_to_PEM_cert(shown)
    return result

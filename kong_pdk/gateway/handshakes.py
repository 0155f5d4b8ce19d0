"""What a plugin has to say in a TLS handshake, and what is left of it for the requests after it."""

from __future__ import annotations

import time
from typing import Any

from . import tls
from .errors import GatewayError
from .exchange import Exchange, PhaseRun
from .rpc import PluginClient
from .trace import Trace

_ASK = "kong.client.tls.request_client_certificate"


class Connection:
    """A TLS connection.

    Args:
        exchange: what the certificate phase was run on.
        server_name: the server's name that the client asked for.
    """

    def __init__(self, exchange: Exchange, server_name: str | None) -> None:
        self.exchange = exchange
        self._server_name = server_name

    def carry(self, request: Exchange, connection: Any) -> Exchange:
        """Return a request of this connection with what belongs to the connection in it.

        What the certificate phase has put into the contexts is there in each request.

        Args:
            request: the request's exchange.
            connection: the ``ssl.SSLObject``.
        """
        request.tls = True
        request.shared.update(self.exchange.shared)
        request.context.update(self.exchange.context)
        request.variables = tls.variables(connection, self._server_name)
        request.client_chain = tls.client_chain(connection)
        return request


class Handshakes:
    """Decides on connections.

    Args:
        certificates: what handshakes are made with.
        trace: is told each handshake.
    """

    def __init__(self, certificates: tls.Certificates, trace: Trace) -> None:
        self._certificates = certificates
        self._trace = trace

    async def decide(
        self, exchange: Exchange, server_name: str | None, client: PluginClient
    ) -> tls.Context | None:
        """Run the certificate phase, and return what to make the connection with.

        The client is asked for a certificate if the plugin says so in this phase, or has no such
        phase, for it is another plugin that will have said so then.

        Args:
            exchange: a fresh one for the connection.
            server_name: the server's name that the client asked for.
            client: runs the plugin.

        Returns:
            ``None`` to hang up.
        """
        exchange.tls = True
        exchange.received = f"TLS {server_name or exchange.client_ip}"
        # Nobody is known before there is a request.
        exchange.consumer = exchange.credential = None
        exchange.variables = {"ssl_server_name": server_name or ""}
        ask = True
        if "certificate" in client.plugin.phases:
            exchange.phase = "certificate"
            run = PhaseRun("certificate")
            exchange.runs.append(run)
            await client.run_phase(exchange, "certificate")
            run.seconds = time.monotonic() - run.began
            if exchange.aborted is not None:
                self._trace.handshake_done(exchange, "its certificate phase failed")
                return None
            ask = any(call.function == _ASK and call.result for call in run.calls)
            if ask and self._certificates.client_ca is None:
                exchange.log("warn", "this gateway asks no client for a certificate: it has no CA")
        try:
            context = self._certificates.context(server_name, ask)
        except GatewayError as error:  # a file has changed since the start
            self._trace.handshake_done(exchange, str(error))
            return None
        context.owner = Connection(exchange, server_name)
        return context

    def done(self, context: tls.Context, failure: str | None) -> None:
        """Tell that a handshake has succeeded, or why it has failed."""
        self._trace.handshake_done(context.owner.exchange, failure)

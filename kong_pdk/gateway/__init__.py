"""A simulation of Kong for one plugin, with one core and room for several ways into it.

The core does no I/O: an :class:`Exchange` is a request with everything that a plugin can see or
change, :func:`life` says which step comes next, and :func:`call` runs a PDK function. Around it,
:mod:`.rpc`, :mod:`.process` and :mod:`.http` make a gateway that speaks to a plugin server over its
socket, as Kong does. What is simulated is Kong 3.10 with its default settings.
"""

from __future__ import annotations

from .errors import BadAnswer, GatewayError, NoAnswer, ServerFailed, SettingsError
from .exchange import Call, Exchange, LogLine, PhaseRun, Request, Response, Service, ServiceRequest
from .functions import TABLE, PdkError, Reply, call
from .headers import Headers
from .life import PHASES, CallUpstream, Respond, RunPhase, life
from .trace import Trace

__all__ = [
    "PHASES",
    "TABLE",
    "BadAnswer",
    "Call",
    "CallUpstream",
    "Exchange",
    "GatewayError",
    "Headers",
    "LogLine",
    "NoAnswer",
    "PdkError",
    "PhaseRun",
    "Reply",
    "Request",
    "Respond",
    "Response",
    "RunPhase",
    "ServerFailed",
    "Service",
    "ServiceRequest",
    "SettingsError",
    "Trace",
    "call",
    "life",
]

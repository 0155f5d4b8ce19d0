"""Tests of plugins, without a Kong: requests go through the simulation that ``kong-pdk try`` uses.

::

    from kong_pdk.testing import Gateway

    def test_it_says_hello():
        gateway = Gateway("my_plugin.py", {"message": "hello"})
        result = gateway.get("/orders", headers={"X-Key": "k"})
        assert result.status == 200
        assert result.service_request.headers["X-Message"] == "hello"

What runs the plugin is the real server, in this process and without a socket; or, with another
``mode``, in a process of its own over a socket, as Kong has it. With pytest there is the fixture
``kong_gateway``, see :mod:`.pytest_plugin`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..gateway.driver import UpstreamError
    from ..gateway.exchange import Call, LogLine, ServiceRequest
    from ..gateway.headers import Headers
    from .fakes import Fake
    from .gateway import MODES, Gateway
    from .live import ModeUnavailable
    from .messages import Response, echo
    from .result import Failure, Result

__all__ = [
    "MODES",
    "Call",
    "Failure",
    "Fake",
    "Gateway",
    "Headers",
    "LogLine",
    "ModeUnavailable",
    "Response",
    "Result",
    "ServiceRequest",
    "UpstreamError",
    "echo",
]

# pytest imports this package, for the plugin in it, in every project: the server waits until it is
# asked for.
_HOMES = {
    "kong_pdk.gateway.driver": ("UpstreamError",),
    "kong_pdk.gateway.exchange": ("Call", "LogLine", "ServiceRequest"),
    "kong_pdk.gateway.headers": ("Headers",),
    "kong_pdk.testing.fakes": ("Fake",),
    "kong_pdk.testing.gateway": ("MODES", "Gateway"),
    "kong_pdk.testing.live": ("ModeUnavailable",),
    "kong_pdk.testing.messages": ("Response", "echo"),
    "kong_pdk.testing.result": ("Failure", "Result"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

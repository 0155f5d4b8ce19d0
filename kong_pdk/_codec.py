"""Chooses the codec: the compiled ``_speedups``, or ``_fallback`` where it is missing.

``KONG_PDK_PUREPYTHON=1`` in the environment forces the pure one; ``KONG_PDK_REQUIRE_EXTENSIONS=1``
makes a missing compiled one an error instead of a reason to fall back.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

#: What each of the two modules offers; tests hold them to it.
CODEC_API = (
    "BaseInstance",
    "Child",
    "Connection",
    "Decoder",
    "Dispatcher",
    "Event",
    "Events",
    "Function",
    "Method",
    "Namespace",
    "Poller",
    "Request",
    "Switch",
    "Tally",
    "Waiter",
    "encode_call",
    "encode_error",
    "encode_notification",
    "encode_result",
    "encode_return",
)

if TYPE_CHECKING or os.environ.get("KONG_PDK_PUREPYTHON", "0") not in ("", "0"):
    from . import _fallback as codec
else:
    try:
        from . import _speedups as codec
    except ImportError:
        if os.environ.get("KONG_PDK_REQUIRE_EXTENSIONS", "0") not in ("", "0"):
            raise
        from . import _fallback as codec

BaseInstance = codec.BaseInstance
Child = codec.Child
Connection = codec.Connection
Decoder = codec.Decoder
Dispatcher = codec.Dispatcher
Event = codec.Event
Events = codec.Events
Function = codec.Function
Method = codec.Method
Namespace = codec.Namespace
Poller = codec.Poller  # the compiled one needs Linux
Request = codec.Request
Switch = codec.Switch
Tally = codec.Tally
Waiter = codec.Waiter
encode_call = codec.encode_call
encode_error = codec.encode_error
encode_notification = codec.encode_notification
encode_result = codec.encode_result
encode_return = codec.encode_return

if not sys.platform.startswith("linux"):
    from ._fallback import Poller  # noqa: F401


def is_compiled() -> bool:
    """Tell whether the compiled codec is in use."""
    return codec.__name__.endswith("._speedups")

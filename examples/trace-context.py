#!/usr/bin/env python3
"""Gives each request a place in a trace (W3C Trace Context), for all phases and plugins to use.

Joins the trace of the header ``traceparent`` that the client has sent, or begins one, and sends the
header on to the service. Its ids and when it began lie in ``kong.ctx.shared``, which belongs to the
request: the log phase takes them from there, and so does any plugin that runs later::

    trace = kong.ctx.shared["trace"]
    kong.log.warn("what I have to say, trace ", trace["trace_id"])

The instance is no place for them. Many requests are in it at once, and with ``-m`` another process
may run log than the one that ran access.

PDK round trips:

- a traced request, 7: request.get_header, service.request.set_header, ctx.shared.set,
  log.set_serialize_value, response.set_header; ctx.shared.get, log.notice
- a request that does not show it, 6: request.get_header, service.request.set_header,
  ctx.shared.set, log.set_serialize_value; ctx.shared.get, log.notice

Four things want to know the trace: the service, later phases, loggers and the client. Each is told
with one call. The ids and the time go as one value, for each key would be two calls, one to set it
and one to get it. ``log.set_serialize_value`` puts the trace id into the records of Kong's logging
plugins and of request-log.py. The line of the log phase is free above ``--kong-log-level notice``.

Fails open: a trace is no reason to refuse a request (``on_error`` below). A malformed header is not
an error: it counts as none, as the standard wants it.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from typing import Optional

import kong_pdk.pdk.kong as kong
from kong_pdk.schema import field, schema_of

version = "1.0.0"
#: Before those that refuse requests, whose refusals are worth a trace most.
priority = 100_000
on_error = "open"

#: Version, trace id, span id, flags; later versions may append something. W3C Trace Context, 3.2.
TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)


@dataclass
class Config:
    #: The header in which the client gets the trace's id; without one it gets none.
    response_header: Optional[str] = field("X-Trace-Id")
    #: Whether the trace of the client is joined; if not, each request begins one.
    join: bool = True


Schema = schema_of(Config)


class Plugin:
    def __init__(self, config: Config) -> None:
        self.config = config

    def access(self, kong: kong.kong) -> None:
        began = time.time()
        given, _ = kong.request.get_header("traceparent")
        joined = trace_of(given or "") if self.config.join else None
        trace_id, parent_id, flags = joined or (secrets.token_hex(16), "", "01")
        span_id = secrets.token_hex(8)
        kong.service.request.set_header("traceparent", f"00-{trace_id}-{span_id}-{flags}")
        kong.ctx.shared["trace"] = {
            "trace_id": trace_id, "span_id": span_id, "parent_id": parent_id, "began": began,
        }  # fmt: skip
        kong.log.set_serialize_value("trace_id", trace_id)
        if self.config.response_header:
            kong.response.set_header(self.config.response_header, trace_id)

    def log(self, kong: kong.kong) -> None:
        trace, _ = kong.ctx.shared.get("trace")
        if trace is None:
            return  # the request has ended before access
        milliseconds = round((time.time() - trace["began"]) * 1000)
        parent = trace["parent_id"] or "none"
        kong.log.notice(
            f"trace {trace['trace_id']} span {trace['span_id']} parent {parent}: {milliseconds} ms"
        )


def trace_of(header: str) -> Optional[tuple[str, str, str]]:
    """Trace id, span id and flags of a ``traceparent``; None if it is malformed."""
    found = TRACEPARENT.fullmatch(header)
    if found is None or (found[1] == "00" and found[5]):
        return None
    return found[2], found[3], found[4]


if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server

    start_dedicated_server("trace-context", Plugin, version, priority, Schema)

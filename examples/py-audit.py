#!/usr/bin/env python3
"""Refuses unknown clients in access, marks answers in response, and writes an audit line in log.

Shows what the phases are for: access may end the request, response sees what the service answered
(Kong buffers it for that), log runs when the client has got everything and the request itself is
gone. kong.ctx.shared carries a value from one phase to the next.

PDK round trips:

- a known client, 9: request.get_header, request.get_method, request.get_path, ctx.shared.set;
  service.response.get_status, response.set_header; ctx.shared.get, response.get_status, log.notice
- an unknown client, 5: request.get_header, response.exit; ctx.shared.get, response.get_status,
  log.notice

Each phase asks for what it needs. What access knows is kept as one text, so that log needs one call
for all of it.

Fails closed: what raises in access or response is a 500.
"""

import hmac

import kong_pdk.pdk.kong as kong

Schema = (
    {"keys": {"type": "array", "elements": {"type": "string"}, "default": []}},
    {"header": {"type": "string", "default": "x-api-key"}},
)

version = "1.0.0"
priority = 900


class Plugin:
    def __init__(self, config):
        self.keys = [key.encode() for key in config.get("keys") or []]
        self.header = config.get("header") or "x-api-key"

    def access(self, kong: kong.kong):
        given, _ = kong.request.get_header(self.header)
        if self.keys and not self.knows(given or ""):
            # Ends the handler: nothing after this line runs, and the service is not asked.
            kong.response.exit(401, {"message": "unknown client"}, {"WWW-Authenticate": "Key"})
        method, _ = kong.request.get_method()
        path, _ = kong.request.get_path()
        kong.ctx.shared.set("audit", f"{method} {path}")

    def response(self, kong: kong.kong):
        status, _ = kong.service.response.get_status()
        kong.response.set_header("x-audited", "yes")
        if status is None or status >= 500:
            kong.response.clear_header("server")

    def log(self, kong: kong.kong):
        # The request itself is gone by now; what access has saved is not.
        audit, _ = kong.ctx.shared.get("audit")
        status, _ = kong.response.get_status()
        kong.log.notice("audit: ", audit or "refused", " -> ", status)

    def knows(self, given):
        # Bytes that are not UTF-8 arrive as surrogate escapes. compare_digest, and looking at every
        # key, take the same time for each wrong one.
        client = given.encode(errors="surrogateescape")
        matches = [hmac.compare_digest(key, client) for key in self.keys]
        return any(matches)


if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server

    start_dedicated_server("py-audit", Plugin, version, priority, Schema)

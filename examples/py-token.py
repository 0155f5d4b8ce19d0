#!/usr/bin/env python3
"""Lets requests with a known token through, and tells the service whose it is.

In Python style: run it with --no-lua-style. A call then returns the data alone, and what the type
checker says of kong_pdk.pdk.python_style is what arrives. Configured with the SHA-256 digests of
the tokens (``printf %s "$TOKEN" | sha256sum``), so that Kong's database holds no secret.

PDK round trips:

- a known token, 7: request.get_header, service.request.set_header, service.request.clear_header,
  ctx.shared.set; ctx.shared.get, ctx.shared.get, log.info
- an unknown token, 3: request.get_header, response.exit; ctx.shared.get

Reading like a dict is pleasant and costs a round trip for each ``in`` and each ``[]``: log would do
with one less by ``kong.ctx.shared.get("user")``.

Fails closed: what raises in access is a 500.
"""

import hashlib
from typing import Any, Optional

import kong_pdk.pdk.python_style as kong

Schema = (
    {"users": {"type": "map", "keys": {"type": "string"}, "values": {"type": "string"}}},
    {"realm": {"type": "string", "default": "api"}},
)

version = "1.0.0"
priority = 1000


class Plugin:
    def __init__(self, config: dict[str, Any]) -> None:
        users: dict[str, str] = config.get("users") or {}
        self.names = {digest.lower(): name for name, digest in users.items()}
        self.realm: str = config.get("realm") or "api"

    def access(self, kong: kong.kong) -> None:
        name = self.find(kong.request.get_header("authorization") or "")
        if name is None:
            challenge = {"www-authenticate": f'Bearer realm="{self.realm}"'}
            kong.response.exit(401, {"message": "a valid token is needed"}, challenge)
        # exit never returns, so a type checker knows that there is a name from here on.
        kong.service.request.set_header("x-user", name)
        kong.service.request.clear_header("authorization")
        kong.ctx.shared["user"] = name

    def log(self, kong: kong.kong) -> None:
        if "user" in kong.ctx.shared:
            kong.log.info("served ", kong.ctx.shared["user"])

    def find(self, authorization: str) -> Optional[str]:
        """The user whose token it is, if it is anybody's."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        # Bytes that are not UTF-8 arrive as surrogate escapes. How long it takes to look a
        # digest up tells nothing about the tokens.
        digest = hashlib.sha256(token.strip().encode(errors="surrogateescape")).hexdigest()
        return self.names.get(digest)


if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server

    start_dedicated_server("py-token", Plugin, version, priority, Schema)

"""The plugin of the recipes: greets the client, and tells the service who did.

Put your own plugins beside it, or in its place; each file that defines one is served.
"""

from __future__ import annotations

import os
from typing import Any

import kong_pdk.pdk.kong as kong

Schema = ({"greeting": {"type": "string", "default": "hello"}},)

version = "1.0.0"
priority = 100


class Plugin:
    def __init__(self, config: dict[str, Any]) -> None:
        self.greeting: str = config.get("greeting") or "hello"
        # A secret of the environment, not of Kong's database. Kong gives a server that it starts
        # only what nginx_main_env names.
        self.signature = os.environ.get("GREETING_SIGNATURE", "kong")

    def access(self, kong: kong.kong) -> None:
        host, _ = kong.request.get_header("host")
        kong.response.set_header("x-greeting", f"{self.greeting}, {host}")
        kong.service.request.set_header("x-greeted-by", self.signature)

"""Gets its configuration as an object; its Schema is made of the annotation."""

from __future__ import annotations

from _settings import Config

import kong_pdk.pdk.kong as kong
from kong_pdk.schema import kong_keys

version = "1.0.0"
priority = 1


class Plugin:
    def __init__(self, config: Config) -> None:
        assert isinstance(config, Config)
        self.config = config

    def access(self, kong: kong.kong) -> None:
        kong.response.set_header("x-config", repr(self.config))
        kong.response.set_header("x-keys", sorted(kong_keys(self.config)))

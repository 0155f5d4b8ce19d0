"""A small plugin as authors write it, with one phase and a configuration."""

import kong_pdk.pdk.kong as kong

Schema = ({"message": {"type": "string", "default": "hello"}},)
version = "0.1.0"
priority = 100


class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong: kong.kong):
        host, err = kong.request.get_header("host")
        assert err is None
        kong.response.set_header("x-hello", f"{self.config['message']} to {host}")

#!/usr/bin/env python3
"""Says hello: the plugin of Kong's documentation, as an embedded server.

PDK round trips:

- a request, 3: request.get_header, response.set_header, response.set_header

It is written as simply as can be. One ``response.set_headers`` would save a round trip.
"""

import os

import kong_pdk.pdk.kong as kong

Schema = ({"message": {"type": "string"}},)

version = "0.1.0"
priority = 0


class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong: kong.kong):
        host, err = kong.request.get_header("host")
        if err:
            pass  # error handling
        # With --no-lua-style:
        # try:
        #     host = kong.request.get_header("host")
        # except PDKException:
        #     pass  # error handling
        message = "hello"
        if "message" in self.config:
            message = self.config["message"]
        kong.response.set_header("x-hello-from-python", f"Python says {message} to {host}")
        kong.response.set_header("x-python-pid", str(os.getpid()))


# Lets the plugin run in a server process of its own.
if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server

    start_dedicated_server("py-hello", Plugin, version, priority)

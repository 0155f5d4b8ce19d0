"""Bodies: bytes in, bytes out, JSON, and one that nginx has spooled to disk."""

import hashlib

Schema = ({"mode": {"type": "string"}},)
version = "1.2.3"
priority = 10


class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong):
        mode = self.config["mode"]
        if mode == "json":
            body = kong.request.get_body()
            kong.response.set_header("x-body", ",".join(f"{k}={body[k]}" for k in sorted(body)))
            return
        body = kong.request.get_raw_body(0) if mode == "spooled" else kong.request.get_raw_body()
        kong.response.set_header("x-body-type", type(body).__name__)
        kong.response.set_header("x-body-sha256", hashlib.sha256(body).hexdigest())
        if mode == "reverse":
            kong.service.request.set_raw_body(body[::-1])

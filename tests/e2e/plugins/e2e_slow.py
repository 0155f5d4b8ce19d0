"""Block between the calls and mark the response with what the calls said about this request."""

import time

Schema = ({"pause": {"type": "number"}},)
version = "1.2.3"
priority = 10


class Plugin:
    def __init__(self, config):
        self.pause = config["pause"]

    def access(self, kong):
        first = kong.request.get_header("x-token")
        time.sleep(self.pause)
        path = kong.request.get_path()
        time.sleep(self.pause)
        again = kong.request.get_header("x-token")
        kong.response.set_header("x-answer", f"{first} {path} {again}")

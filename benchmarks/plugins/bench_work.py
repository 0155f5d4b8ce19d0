#!/usr/bin/env python3
"""Does as much as its configuration says: PDK calls, waiting, computing. For benchmarks."""

import time

Schema = (
    {"calls": {"type": "integer", "default": 1}},  # PDK calls in each event
    {"body": {"type": "boolean", "default": False}},  # the first one reads the request's body
    {"sleep": {"type": "number", "default": 0}},  # after the first one, seconds
    {"burn": {"type": "number", "default": 0}},  # CPU time after the first one, seconds
)

version = "1.0.0"
priority = 1


def burn(seconds):
    """Use up CPU time of this thread in Python code, as a plugin that computes does."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(100))


class Plugin:
    def __init__(self, config):
        self.calls = int(config.get("calls", 1))
        self.body = config.get("body", False)
        self.sleep = config.get("sleep", 0)
        self.burn = config.get("burn", 0)

    def access(self, kong):
        if self.body:
            body, _ = kong.request.get_raw_body()
            len(body)
        else:
            kong.request.get_header("host")
        if self.sleep:
            time.sleep(self.sleep)
        if self.burn:
            burn(self.burn)
        for number in range(1, self.calls):
            if number % 2:
                kong.response.set_header("x-work", "some more text in a header")
            else:
                kong.request.get_header("accept")


if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server

    start_dedicated_server("bench-work", Plugin, version, priority)

"""End the request from the plugin; the case to run is named in the configuration."""

Schema = ({"case": {"type": "string"}},)
version = "1.2.3"
priority = 10

CASES = {
    "plain": (403, "not for you", {"x-a": "b", "x-c": ["d", "e"]}),
    "no-body": (403, None, {"x-a": "b"}),
    "nothing-else": (401, None, None),
    "table": (418, {"tea": "pot"}, None),
    "bytes": (200, b"\x00\xff\xc3\x28", {"x-a": "b"}),
}


class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong):
        case = self.config["case"]
        if case == "at-once":
            kong.response.exit(503, "closed")
        # From here on the exit is the answer to a step and not to the event's start.
        kong.response.set_header("x-before", case)
        if case == "error":
            kong.response.error(429, None, {"x-a": "b"})
        kong.response.exit(*CASES[case])
        kong.log.err("the handler went on after ", case)

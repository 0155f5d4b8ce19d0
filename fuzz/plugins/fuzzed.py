"""The plugin of the server's target: two PDK calls, whatever comes back from them."""

Schema = ({"message": {"type": "string"}},)
version = "1.0.0"
priority = 1


class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong):
        kong.request.get_headers()
        kong.response.set_header("x-fuzzed", "yes")

    rewrite = response = log = access

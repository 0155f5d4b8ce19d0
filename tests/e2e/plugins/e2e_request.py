"""Read the request in every way there is and tell the client and the service what arrived."""

import hashlib

Schema = ({"large": {"type": "boolean"}},)
version = "1.2.3"
priority = 10


def digest(headers):
    """A short name for a map of lists, whatever bytes its strings hold."""
    hasher = hashlib.sha256()
    for name in sorted(headers):
        for value in headers[name]:
            hasher.update(f"{name}={value};".encode("utf-8", "surrogateescape"))
    return hasher.hexdigest()


class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong):
        if self.config.get("large"):
            self.large(kong)
        else:
            self.small(kong)

    def large(self, kong):
        headers = {
            name: values
            for name, values in kong.request.get_headers(1000).items()
            if name.startswith("x-many-")
        }
        kong.response.set_header("x-many-count", str(len(headers)))
        kong.response.set_header("x-many-digest", digest(headers))

    def small(self, kong):
        reply = kong.response.set_header
        reply("x-seen-method", kong.request.get_method())
        reply("x-seen-path", kong.request.get_path())
        reply("x-seen-ip", kong.client.get_ip())
        reply("x-seen-missing", repr(kong.request.get_header("x-not-there")))

        query = kong.request.get_query()
        reply("x-seen-query", ";".join(f"{key}={query[key]!r}" for key in sorted(query)))
        argument = kong.request.get_query_arg("a")
        if argument is not None:
            reply("x-echo-arg", argument)
            kong.service.request.set_header("x-service-arg", argument)

        headers = kong.request.get_headers()
        reply("x-seen-double", ",".join(headers.get("x-double", [])))
        reply("x-seen-hijack", repr(headers.get("_method")))
        raw = kong.request.get_header("x-raw")
        if raw is not None:
            reply("x-echo-raw", raw)
            kong.service.request.set_header("x-service-raw", raw)
            kong.service.request.set_header("x-service-same", str(headers["x-raw"] == [raw]))

        kong.response.add_header("x-added", "one")
        kong.response.add_header("x-added", "two")
        reply("x-cleared", "still there")
        kong.response.clear_header("x-cleared")
        kong.service.request.set_header("x-to-service", "from the plugin")

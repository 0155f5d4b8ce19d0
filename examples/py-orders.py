#!/usr/bin/env python3
"""Asks for a bearer token and a JSON body, and takes secrets out of the service's answer.

Shows the helpers: what most plugins need and would otherwise write by hand.

PDK round trips:

- an order, 6: request.get_header, request.get_raw_body; service.response.get_raw_body,
  response.get_status, response.clear_header, response.exit
- no token, 2: request.get_header, response.exit
- no JSON, 3: request.get_header, request.get_raw_body, response.exit

One for each of the first two helpers, three for the last one, and one for the service's answer.

Fails closed: what raises is a 500.
"""

import json

import kong_pdk.pdk.kong as kong
from kong_pdk.pdk import helpers

Schema = (
    {"tokens": {"type": "array", "elements": {"type": "string"}, "default": []}},
    {"hidden": {"type": "array", "elements": {"type": "string"}, "default": ["password"]}},
)

version = "1.0.0"
priority = 800


class Plugin:
    def __init__(self, config):
        self.tokens = set(config.get("tokens") or [])
        self.hidden = set(config.get("hidden") or ["password"])

    def access(self, kong: kong.kong):
        if helpers.bearer_token(kong) not in self.tokens:
            kong.response.exit(401, {"message": "unauthorized"}, {"WWW-Authenticate": "Bearer"})
        try:
            order = helpers.json_body(kong)
        except ValueError as error:
            kong.response.exit(400, {"message": f"the body is no JSON: {error}"})
        if order is not None and not isinstance(order, dict):
            kong.response.exit(400, {"message": "the body must be an object"})

    def response(self, kong: kong.kong):
        body, _ = kong.service.response.get_raw_body()
        try:
            answer = json.loads(body)
        except ValueError:
            return  # no JSON: nothing to hide
        helpers.replace_response_body(kong, json.dumps(self.without_hidden(answer)))

    def without_hidden(self, value):
        if isinstance(value, dict):
            kept = ((key, each) for key, each in value.items() if key not in self.hidden)
            return {key: self.without_hidden(each) for key, each in kept}
        if isinstance(value, list):
            return [self.without_hidden(each) for each in value]
        return value


if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server

    start_dedicated_server("py-orders", Plugin, version, priority, Schema)

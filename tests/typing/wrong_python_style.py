"""Mistakes in Python style; type checkers must report each marked line, and no other one."""

from __future__ import annotations

import kong_pdk.pdk.kong as lua_style
import kong_pdk.pdk.python_style as kong
from kong_pdk.pdk import types


class Plugin:
    def arguments(self, kong: kong.kong) -> None:
        kong.request.get_header()  # wrong: an argument is missing
        kong.request.get_header("host", "port")  # wrong: one argument too many
        kong.request.get_header(1)  # wrong: no text
        kong.request.get_header(None)  # wrong: not optional
        kong.request.get_header(header="host")  # wrong: it is called name
        kong.request.get_headers("10")  # wrong: a number as text
        kong.request.get_headers(max_header=10)  # wrong: misspelt keyword
        kong.request.get_method("GET")  # wrong: takes nothing
        kong.response.set_header("x-one", None)  # wrong: no value
        kong.response.set_header("x-one", {"a": "b"})  # wrong: a dict
        kong.response.set_header("x-one", [1, 2])  # wrong: numbers in a list
        kong.response.set_headers({"x-one": None})  # wrong: no value
        kong.response.set_headers([("x-one", "1")])  # wrong: pairs
        kong.response.set_headers("x-one: 1")  # wrong: text
        kong.response.set_status("200")  # wrong: a status as text
        kong.service.request.add_header("x-one", ["a", "b"])  # wrong: one line for each call
        kong.service.request.set_query("a=1")  # wrong: that is set_raw_query's
        kong.service.request.set_body("text")  # wrong: that is set_raw_body's
        kong.service.request.set_raw_body({"a": 1})  # wrong: that is set_body's
        kong.service.set_target("orders.internal", "80")  # wrong: a port as text
        kong.service.set_timeouts(1, 2)  # wrong: three of them
        kong.client.load_consumer("alice", "username")  # wrong: a text for a boolean
        kong.log.err("failed", level="err")  # wrong: no keywords
        kong.response.exit()  # wrong: no status

    def results(self, kong: kong.kong) -> None:
        _, _ = kong.request.get_header("x-one")  # wrong: no pair
        kong.response.set_header("x-one", kong.request.get_header("x-one"))  # wrong: may be None
        value = kong.request.get_header("x-one")
        kong.response.set_header("x-one", value)  # wrong: may be None
        kong.log(value.upper())  # wrong: may be None
        if kong.request.get_header("x-one").startswith("a"):  # wrong: may be None
            pass
        kong.log(len(kong.request.get_body()))  # wrong: may be None
        body = kong.request.get_raw_body()
        kong.log(body.startswith("{"))  # wrong: bytes
        headers = kong.request.get_headers()
        kong.log(headers["accept"].lower())  # wrong: a list
        route = kong.router.get_route()
        assert route is not None
        kong.log(route["url"])  # wrong: no such key
        kong.log(route["id"] + 1)  # wrong: text
        consumer: types.Consumer = {"user": "alice"}  # wrong: no such key
        kong.client.authenticate(consumer)

    def names(self, kong: kong.kong) -> None:
        kong.request.get_haeder("host")  # wrong: misspelt
        kong.reqest.get_header("host")  # wrong: misspelt
        kong.log.new("mine")  # wrong: not for plugin servers
        kong.response.get_raw_body()  # wrong: not for plugin servers
        kong.service.response.set_header("a", "b")  # wrong: there is none
        kong.request("host")  # wrong: not a function
        kong.request = None  # wrong: cannot be set

    def items(self, kong: kong.kong) -> None:
        kong.nginx.var["limit_rate"] = "1k"  # wrong: cannot be set
        kong.nginx.var[1]  # wrong: no text
        kong.log(kong.ctx.shared.user)  # wrong: items are no attributes
        for key in kong.ctx.shared:  # wrong: Kong has no list
            kong.log(key)

    def style(self, kong: kong.kong) -> None:
        helper(kong)  # wrong: of the other style


def helper(kong: lua_style.kong) -> None:
    """Wants the other style."""

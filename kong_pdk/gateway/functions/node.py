"""nginx, the context, the node, the router, and what else a gateway has one of."""

from __future__ import annotations

import re
import socket
from typing import Any, Callable

from ..exchange import TLS_VERSION, Exchange
from ..values import as_map, is_number, is_table, type_name
from .checks import need_string
from .registry import PdkError, check, pdk

_VARIABLES: dict[str, Callable[[Exchange], str | None]] = {
    "args": lambda e: e.request.query,
    "query_string": lambda e: e.request.query,
    "is_args": lambda e: "?" if e.request.query else "",
    "body_bytes_sent": lambda e: str(e.response_size),
    "content_length": lambda e: e.request.headers.get("content-length"),
    "content_type": lambda e: e.request.headers.get("content-type"),
    "host": lambda e: e.request.host,
    "hostname": lambda e: socket.gethostname(),
    "https": lambda e: "on" if e.request.scheme == "https" else "",
    "kong_request_id": lambda e: e.request_id,
    "remote_addr": lambda e: e.client_ip,
    "realip_remote_addr": lambda e: e.client_ip,
    "remote_port": lambda e: str(e.client_port),
    "realip_remote_port": lambda e: str(e.client_port),
    "request": lambda e: f"{e.request.method} {e.request.target} HTTP/{e.request.version:g}",
    "request_id": lambda e: e.request_id,
    "request_length": lambda e: str(len(e.request.body)),
    "request_method": lambda e: e.request.method,
    "request_uri": lambda e: e.request.target,
    "scheme": lambda e: e.request.scheme,
    "server_addr": lambda e: "127.0.0.1",
    "server_name": lambda e: "kong",
    "server_port": lambda e: str(e.server_port),
    "server_protocol": lambda e: f"HTTP/{e.request.version:.1f}",
    "status": lambda e: f"{e.response.status:03d}",
    "upstream_host": lambda e: e.upstream_host or e.service.host,
    "upstream_scheme": lambda e: e.service.scheme,
    "upstream_uri": lambda e: e.service_request().target,
    "uri": lambda e: e.request.path,
    "document_uri": lambda e: e.request.path,
}
#: Those of a stream connection.
_OF_STREAMS = frozenset(
    [
        "hostname",
        "realip_remote_addr",
        "realip_remote_port",
        "remote_addr",
        "remote_port",
        "server_addr",
        "server_port",
        "status",
    ]
)
_SCALES = {"b": 0, "k": 1, "m": 2, "g": 3}


@pdk("kong.nginx.get_var")
def get_var(exchange: Exchange, name: Any) -> str | None:
    """Return one of nginx's variables; nil for one that this gateway does not have."""
    wanted = need_string("the variable's name", name)
    if wanted in exchange.variables:
        return exchange.variables[wanted]
    if exchange.stream:
        if wanted == "protocol":
            return "TCP"
        return _VARIABLES[wanted](exchange) if wanted in _OF_STREAMS else None
    if wanted in _VARIABLES:
        return _VARIABLES[wanted](exchange)
    if wanted.startswith("http_"):
        return exchange.request.headers.get(wanted[5:])
    if wanted.startswith("arg_"):
        found = re.search(f"(?:^|&){re.escape(wanted[4:])}=([^&]*)", exchange.request.query)
        return found.group(1) if found else None
    if wanted.startswith("sent_http_"):
        return exchange.response.headers.get(wanted[10:])
    return None


@pdk("kong.nginx.get_subsystem")
def get_subsystem(exchange: Exchange) -> str:
    return "stream" if exchange.stream or exchange.phase == "preread" else "http"


@pdk("kong.nginx.get_statistics")
def get_statistics(exchange: Exchange) -> dict[str, int]:
    counted: dict[str, int] = dict.fromkeys(
        ("connections_active", "connections_reading", "connections_writing", "connections_waiting"),
        0,
    )
    counted.update(
        dict.fromkeys(("connections_accepted", "connections_handled", "total_requests"), 1)
    )
    return counted


@pdk("kong.nginx.get_tls1_version_str")
def get_tls1_version_str(exchange: Exchange) -> str | None:
    if not exchange.tls or exchange.phase == "log":
        return None
    return exchange.variables.get("ssl_protocol", TLS_VERSION)


@pdk("kong.nginx.get_ctx")
def get_ctx(exchange: Exchange, key: Any) -> Any:
    return exchange.context.get(_key(key))


@pdk("kong.nginx.set_ctx")
def set_ctx(exchange: Exchange, key: Any, value: Any) -> None:
    _put(exchange.context, key, value)


@pdk("kong.nginx.req_start_time")
def req_start_time(exchange: Exchange) -> float | None:
    """Return the time the request began, seconds since the epoch; a stream has none."""
    if exchange.phase == "preread":
        return None
    return 0 if exchange.phase == "certificate" else round(exchange.started, 3)


@pdk("kong.ctx.shared.get")
def shared_get(exchange: Exchange, key: Any) -> Any:
    return exchange.shared.get(_key(key))


@pdk("kong.ctx.shared.set")
def shared_set(exchange: Exchange, key: Any, value: Any) -> None:
    _put(exchange.shared, key, value)


def _key(key: Any) -> Any:
    return key if not is_table(key) else None


def _put(table: dict[Any, Any], key: Any, value: Any) -> None:
    if key is None or is_table(key):
        raise PdkError(f"a key must be a string, not {type_name(key)}")
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value


@pdk("kong.node.get_id")
def node_id(exchange: Exchange) -> str:
    return exchange.node_id


@pdk("kong.node.get_hostname")
def node_hostname(exchange: Exchange) -> str:
    return socket.gethostname()


@pdk("kong.node.get_memory_stats")
def node_memory_stats(exchange: Exchange, unit: Any, scale: Any) -> dict[str, Any]:
    """Return statistics in Kong's form; the numbers are made up, as there is no nginx here."""
    name = str(unit or "b").lower()
    check(name in _SCALES, f"the unit must be b, k, m or g, not {unit!r}")
    digits = 2 if scale is None else scale
    check(is_number(digits) and digits >= 0, "the scale must be a number that is not negative")

    def shown(size: int) -> Any:
        if name == "b":
            return size
        return f"{size / 1024 ** _SCALES[name]:.{int(digits)}f} {name.upper()}iB"

    worker = {"pid": 0, "http_allocated_gc": shown(32 * 1024 * 1024)}
    shared = {"allocated_slabs": shown(0), "capacity": shown(128 * 1024 * 1024)}
    return {"workers_lua_vms": [worker], "lua_shared_dicts": {"kong_db_cache": shared}}


@pdk("kong.cluster.get_id")
def cluster_id(exchange: Exchange) -> None:
    """Return nil, as a Kong without a database does."""


@pdk("kong.plugin.get_id")
def plugin_id(exchange: Exchange) -> str | None:
    return exchange.plugin_id


@pdk("kong.router.get_route")
def get_route(exchange: Exchange) -> dict[str, Any] | None:
    return exchange.route


@pdk("kong.router.get_service")
def get_service(exchange: Exchange) -> dict[str, Any] | None:
    return exchange.service_entity


@pdk("kong.table.new")
def table_new(exchange: Exchange, narr: Any, nrec: Any) -> dict[str, Any]:
    for what, value in (("narr", narr), ("nrec", nrec)):
        check(is_number(value), f"{what} must be a number, not {type_name(value)}")
    return {}


@pdk("kong.table.clear")
def table_clear(exchange: Exchange, table: Any) -> None:
    """Check the argument; what came over the wire was a copy."""
    check(is_table(table), f"the argument must be a table, not {type_name(table)}")


@pdk("kong.table.merge")
def table_merge(exchange: Exchange, first: Any, second: Any) -> dict[Any, Any]:
    tables = [as_map(value) for value in (first, second) if is_table(value)]
    return {key: value for table in tables for key, value in table.items()}


@pdk("kong.telemetry.log")
def telemetry_log(exchange: Exchange) -> None:
    """Do nothing: without the OpenTelemetry plugin Kong drops the entry too."""


@pdk("kong.configuration.remove_sensitive")
def configuration(exchange: Exchange) -> dict[str, Any]:
    """Return the settings that mean something here."""
    return {
        "nginx_http_client_body_buffer_size": str(exchange.body_buffer),
        "database": "off",
        "node_id": exchange.node_id,
        "real_ip_header": "X-Real-IP",
        "role": "traditional",
        "trusted_ips": list(exchange.trusted_ips),
    }

"""``kong.log``: log lines, and the record of a request that logging plugins send on."""

from __future__ import annotations

from typing import Any, Callable

from .. import body
from ..exchange import TLS_VERSION, Exchange
from ..values import is_number, is_table, to_json, to_string, type_name
from .checks import need_string
from .registry import PdkError, check, pdk

_SECRET = ("authorization", "proxy-authorization")
_SOURCES = {"service": "upstream", "exit": "kong", "error": "kong"}


def _logger(level: str) -> Callable[..., None]:
    def write(exchange: Exchange, *parts: Any) -> None:
        check(bool(parts), "there is nothing to log")
        exchange.log(level, "".join(to_string(part) for part in parts))

    return write


for _level in ("debug", "info", "notice", "warn", "err", "crit", "alert", "emerg"):
    pdk(f"kong.log.{_level}")(_logger(_level))
pdk("kong.log")(_logger("notice"))


@pdk("kong.log.trace")
def trace(exchange: Exchange, *parts: Any) -> None:
    """Do nothing, as Kong does outside of its own tests."""


@pdk("kong.log.deprecation")
def deprecation(exchange: Exchange, *parts: Any) -> None:
    options = parts[-1] if parts and is_table(parts[-1]) else {}
    texts = parts[:-1] if parts and is_table(parts[-1]) else parts
    check(bool(texts), "there is nothing to log")
    for part in texts:
        wanted = isinstance(part, str) or is_number(part)
        check(wanted, f"a part of the message must be a string or a number, not {type_name(part)}")
    message = "".join(to_string(part) for part in texts)
    if isinstance(options, dict):
        notes = [f"{key}: {options[key]}" for key in ("after", "removal") if key in options]
        message += f" ({', '.join(notes)})" if notes else ""
    exchange.log("warn", message)


@pdk("kong.log.inspect")
def inspect(exchange: Exchange, *parts: Any) -> None:
    if not exchange.inspecting:
        return
    shown = (to_json(part) if is_table(part) else to_string(part) for part in parts)
    exchange.log("notice", " ".join(shown))


@pdk("kong.log.inspect.on")
def inspect_on(exchange: Exchange) -> None:
    exchange.inspecting = True


@pdk("kong.log.inspect.off")
def inspect_off(exchange: Exchange) -> None:
    exchange.inspecting = False


@pdk("kong.log.set_format")
def set_format(exchange: Exchange, template: Any) -> None:
    """Check the format; this gateway prints log lines in its own."""
    if template is not None:
        need_string("format", template)


@pdk("kong.log.set_serialize_value")
def set_serialize_value(exchange: Exchange, key: Any, value: Any, options: Any) -> None:
    name = need_string("key", key)
    mode = options.get("mode", "set") if isinstance(options, dict) else "set"
    check(mode in ("set", "add", "replace"), f"mode must be set, add or replace, not {mode!r}")
    # In the log phase Kong has made the record already.
    if exchange.phase != "log":
        exchange.serialize_edits.append((name, value, mode))


@pdk("kong.log.serialize")
def serialize(exchange: Exchange) -> str | None:
    """Return the record of the request as JSON, or nil where it has no JSON form."""
    record = build_record(exchange)
    for key, value, mode in exchange.serialize_edits:
        _edit(record, key, value, mode)
    try:
        return to_json(record)
    except ValueError:
        return None


def build_record(exchange: Exchange) -> dict[str, Any]:
    """Return what Kong's logging plugins say of a request, before any plugin's own values."""
    request, response = exchange.request, exchange.response
    headers: dict[str, Any] = _one_or_many(request.headers.as_map(100))
    headers.update((name, "REDACTED") for name in _SECRET if name in headers)
    sent = exchange.service_request() if exchange.proxied else None
    kong_time = response.headers.get("x-kong-proxy-latency") or response.headers.get(
        "x-kong-response-latency"
    )
    waiting = exchange.upstream_latency
    own = int(kong_time or 0)
    credential = exchange.credential
    entity = None
    if credential is not None and credential.get("id") is not None:
        consumer_id = (exchange.consumer or {}).get("id")
        entity = {"id": credential["id"], "consumer_id": consumer_id}
    came = exchange.service_response
    record: dict[str, Any] = {
        "request": {
            "id": exchange.request_id,
            "uri": request.target,
            "url": f"{request.scheme}://{request.host}:{exchange.server_port}{request.target}",
            "querystring": body.simple_map(body.parse_query(request.query, 100)),
            "method": request.method,
            "headers": headers,
            "size": len(request.body),
        },
        "upstream_uri": sent.target if sent is not None else "",
        "upstream_status": str(came.status) if came is not None else "",
        "response": {
            "status": response.status,
            "headers": _one_or_many(response.headers.as_map(100)),
            "size": exchange.response_size,
        },
        "latencies": {
            "kong": own,
            "proxy": waiting,
            "request": own + max(waiting, 0),
            "receive": 0,
        },
        "tries": [{"ip": sent.host, "port": sent.port}] if sent is not None else None,
        "authenticated_entity": entity,
        "route": exchange.route,
        "service": exchange.service_entity,
        "consumer": exchange.consumer,
        "client_ip": exchange.client_ip,
        "started_at": round(exchange.started * 1000),
        "source": _SOURCES[exchange.source],
    }
    if exchange.tls:
        verified = exchange.client_verify or "NONE"
        record["request"]["tls"] = {"version": TLS_VERSION, "client_verify": verified}
    return record


def _one_or_many(values: dict[str, Any]) -> dict[str, Any]:
    return {name: v[0] if len(v) == 1 else v for name, v in values.items()}


def _edit(record: dict[str, Any], key: str, value: Any, mode: str) -> None:
    """Change one value of the record; the dots in its key lead to inner tables."""
    *path, last = key.replace("\\.", "\0").split(".")
    table = record
    for part in path:
        inner = table.get(part.replace("\0", "."))
        if inner is None:
            if mode == "replace":
                return
            inner = table[part.replace("\0", ".")] = {}
        check(isinstance(inner, dict), f"{key} leads through a value that is no table")
        table = inner
    name = last.replace("\0", ".")
    there = table.get(name) is not None
    if mode == "set" or there == (mode == "replace"):
        if isinstance(value, (str, bool)) or value is None or is_number(value) or is_table(value):
            table[name] = value
        else:
            raise PdkError(f"the value of {key} must be plain data")

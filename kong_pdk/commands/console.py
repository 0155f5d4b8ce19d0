"""What ``kong-pdk try`` prints about requests: lines for people, or JSON lines for programs."""

from __future__ import annotations

import datetime
import json
import re
from typing import Any, TextIO

from ..gateway import Call, Exchange, LogLine, PhaseRun, Trace
from ..gateway.redaction import redact_call, redact_target
from ..gateway.trace import plugin_seconds
from .terminal import Screen

_CODEC = re.compile(r"\b(compiled|pure-Python) codec\b")
_LOUD = ("err", "crit", "alert", "emerg")
_ENDINGS = ("kong.response.exit", "kong.response.error")
#: Functions whose names begin like that have a result; nil is one, too.
_ASKING = ("get", "load_", "is_", "serialize")
#: How much of a text and of a list is shown, unless all of it is wanted.
MAX_TEXT = 72
MAX_ITEMS = 6
#: How much of a text is in a JSON line.
MAX_JSON_TEXT = 10_000


class ConsoleTrace(Trace):
    """Prints what the gateway tells, for people.

    Args:
        out: for what is about requests and the gateway.
        errors: for what has gone wrong, and the plugin server's lines.
        level: 0 for a line for each request; 1 for its PDK calls too, with what is long in them
            cut; 2 for all of them, and for what the gateway does.
        secrets: show secrets too.
    """

    def __init__(self, out: Screen, errors: Screen, level: int = 0, secrets: bool = False) -> None:
        self._out = out
        self._errors = errors
        self._level = level
        self._secrets = secrets
        #: The build of the server's codec, once its log has told.
        self.codec = ""

    def note(self, event: str, text: str, **facts: Any) -> None:
        if facts.get("detail", 0) > self._level:
            return
        styles = ("bold", "green") if event in ("listening", "reload") else ()
        self._out.line(self._out.paint(text, *styles))

    def problem(self, event: str, text: str) -> None:
        self._errors.line(self._errors.paint(text, "bold", "red"))

    def server_line(self, line: str) -> None:
        told = _CODEC.search(line)
        self.codec = told.group(1) if told else self.codec
        paint = self._errors.paint
        self._errors.line(paint("[server] ", "dim"), paint(line, "dim"))

    def server_started(self, pid: int) -> None:
        self.note("server", f"plugin server: process {pid} accepts connections", detail=1)

    def server_died(self, status: int) -> None:
        how = f"signal {-status}" if status < 0 else f"status {status}"
        self.problem("server", f"plugin server ended with {how}; it is started again")

    def log_line(self, line: LogLine) -> None:
        style = "red" if line.level in _LOUD else "yellow" if line.level == "warn" else "blue"
        self._out.line(self._out.paint(f"[{line.level}] ", style), self._out.paint(line.message))

    def exchange_done(self, exchange: Exchange) -> None:
        if exchange.stream:
            outcome = "passed on" if exchange.proxied else "ended"
            failed = exchange.unexpected or exchange.aborted is not None
            outcome = "failed" if failed else outcome
            received = f"TCP {exchange.client_ip}"
            self._summary(exchange, received, outcome, "red" if failed else "green")
            return
        status = exchange.response.status
        style = {2: "green", 3: "cyan", 4: "yellow"}.get(status // 100, "red")
        received = exchange.received if self._secrets else redact_target(exchange.received)
        self._summary(exchange, received, str(status), style)

    def handshake_done(self, exchange: Exchange, failure: str | None) -> None:
        if failure is None and not exchange.runs and not self._level:
            return
        outcome = "connected" if failure is None else f"refused: {failure}"
        self._summary(exchange, exchange.received, outcome, "red" if failure else "green")

    def _summary(self, exchange: Exchange, received: str, outcome: str, style: str) -> None:
        paint = self._out.paint
        pieces = [paint(received, "bold"), paint(" -> "), paint(outcome, "bold", style)]
        for run in exchange.runs:
            count = len(run.calls)
            calls = f"{count} call" if count == 1 else f"{count} calls"
            failed = run.name == exchange.aborted or any(call.error for call in run.calls)
            cost = f"{run.name} {run.seconds * 1000:.1f} ms ({calls})"
            pieces.append(paint("  ") + paint(cost, "red" if failed else "dim"))
        self._out.line(*pieces)
        if self._level:
            for run in exchange.runs:
                self._phase(exchange, run)

    def _phase(self, exchange: Exchange, run: PhaseRun) -> None:
        paint = self._out.paint
        self._out.line(
            paint(f"  {run.name}", "bold", "cyan"),
            paint(
                f"  {_ms(run.seconds)}, of which {_ms(plugin_seconds(run))} in the plugin", "dim"
            ),
        )
        for number, call in enumerate(run.calls):
            waited = run.waits[number] if number < len(run.waits) else 0.0
            self._call(exchange, call, waited)
        if len(run.waits) > len(run.calls):
            ended = f"{_ms(run.seconds):>12}  +{_ms(run.waits[-1]):<11}"
            self._out.line(paint(ended, "dim"), paint("  (returned)", "dim"))

    def _call(self, exchange: Exchange, call: Call, waited: float) -> None:
        paint = self._out.paint
        args, result = (call.args, call.result) if self._secrets else redact_call(call)
        limit = None if self._level > 1 else MAX_TEXT
        shown = ", ".join(show(arg, limit) for arg in args)
        quiet = ("dim",) if call.function.startswith("kong.log") else ()
        name, _, function = call.function.rpartition(".")
        pieces = [
            paint(f"{_ms(call.at):>12}  +{_ms(waited):<11}  ", "dim"),
            paint(f"{name}.", "dim"),
            paint(function, *(quiet or ("bold",))),
            paint(f"({shown})", *quiet),
        ]
        if call.error is not None:
            pieces.append(paint(f"  error: {call.error}", "bold", "red"))
        elif call.function in _ENDINGS:
            pieces.append(paint("  ends the request", "yellow"))
        elif result is not None or function.startswith(_ASKING):
            pieces += [paint(" -> ", "dim"), paint(show(result, limit), "green")]
        pieces.append(paint(f"  {_ms(call.seconds)}", "dim"))
        self._out.line(*pieces)


class JsonTrace(Trace):
    """Prints each thing that the gateway tells as a JSON object in a line of its own.

    Args:
        out: where they go.
        secrets: show secrets too.
    """

    codec = ""

    def __init__(self, out: TextIO, secrets: bool = False) -> None:
        self._screen = Screen(out, colour=False)
        self._secrets = secrets

    def note(self, event: str, text: str, **facts: Any) -> None:
        facts.pop("detail", None)
        self._write(event, message=text, **facts)

    def problem(self, event: str, text: str) -> None:
        self._write(event, level="error", message=text)

    def server_line(self, line: str) -> None:
        self._write("output", message=line)

    def server_started(self, pid: int) -> None:
        self._write("server", message="accepts connections", pid=pid)

    def server_died(self, status: int) -> None:
        self._write("server", level="error", message="ended", status=status)

    def log_line(self, line: LogLine) -> None:
        self._write("log", level=line.level, message=line.message)

    def exchange_done(self, exchange: Exchange) -> None:
        method, _, target = exchange.received.partition(" ")
        if exchange.stream:
            self._write(
                "stream",
                client=exchange.client_ip,
                passed_on=exchange.proxied and not exchange.unexpected,
                ended_in=exchange.exited or exchange.aborted,
                bytes=exchange.response_size,
                phases=[self._phase(run) for run in exchange.runs],
            )
            return
        self._write(
            "request",
            id=exchange.request_id,
            method=method,
            target=target if self._secrets else redact_target(target),
            scheme=exchange.request.scheme,
            client=exchange.client_ip,
            status=exchange.response.status,
            source=exchange.source,
            ended_in=exchange.exited or exchange.aborted,
            bytes=exchange.response_size,
            upstream_ms=exchange.upstream_latency if exchange.proxied else None,
            phases=[self._phase(run) for run in exchange.runs],
        )

    def handshake_done(self, exchange: Exchange, failure: str | None) -> None:
        self._write(
            "handshake",
            message=exchange.received,
            client=exchange.client_ip,
            failure=failure,
            phases=[self._phase(run) for run in exchange.runs],
        )

    def _phase(self, run: PhaseRun) -> dict[str, Any]:
        calls = []
        for number, call in enumerate(run.calls):
            args, result = (call.args, call.result) if self._secrets else redact_call(call)
            waited = run.waits[number] if number < len(run.waits) else None
            calls.append(
                {
                    "function": call.function,
                    "args": args,
                    "result": result,
                    "error": call.error,
                    "at_ms": _number(call.at),
                    "plugin_ms": _number(waited),
                    "gateway_ms": _number(call.seconds),
                }
            )
        return {
            "phase": run.name,
            "ms": _number(run.seconds),
            "plugin_ms": _number(plugin_seconds(run)),
            "calls": calls,
        }

    def _write(self, event: str, **facts: Any) -> None:
        now = datetime.datetime.now(datetime.timezone.utc)
        time = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        # ASCII alone, so that nothing in it can be more than text to a terminal.
        self._screen.line(json.dumps({"event": event, "time": time, **_plain(facts)}))


def show(value: Any, limit: int | None = None) -> str:
    """Return a value much as JSON has it, in one line.

    Args:
        value: an argument or a result of a PDK call.
        limit: the most characters of a text that are shown; long lists and maps are cut too.
            ``None``: all is shown.
    """
    if isinstance(value, bytes):
        return "b" + show(value.decode("utf-8", "backslashreplace"), limit)
    if isinstance(value, str):
        if limit is not None and len(value) > limit:
            return f"{json.dumps(value[:limit], ensure_ascii=False)}... ({len(value)} characters)"
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        items = [f"{show(key, limit)}: {show(item, limit)}" for key, item in value.items()]
        return "{" + _cut(items, limit) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + _cut([show(item, limit) for item in value], limit) + "]"
    return "nil" if value is None else json.dumps(value, default=repr)


def _cut(items: list[str], limit: int | None) -> str:
    if limit is None or len(items) <= MAX_ITEMS:
        return ", ".join(items)
    return ", ".join([*items[:MAX_ITEMS], f"... {len(items) - MAX_ITEMS} more"])


def _plain(value: Any) -> Any:
    """Return a value that JSON can have."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, str) and len(value) > MAX_JSON_TEXT:
        return f"{value[:MAX_JSON_TEXT]}... ({len(value)} characters)"
    return value


def _ms(seconds: float) -> str:
    """Return a time to be read: three digits in milliseconds."""
    milliseconds = seconds * 1000
    return f"{milliseconds:.{2 if milliseconds < 10 else 1 if milliseconds < 100 else 0}f} ms"


def _number(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)

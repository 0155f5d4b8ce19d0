"""Spans of events, as a collector gets them, in each mode."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from collector import Collector, collecting
from kongwire import ABSENT
from servers import SERVER, Flavour, Start, directory_command, run_command, running, wait_until

ONE_CODEC = True
PLUGINS = Path(__file__).parent / "plugins"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SERVER_KIND = 2

#: A plugin that traces something itself, as instrumented libraries do.
TRACED = """\
from opentelemetry import trace

def access(self, kong):
    with trace.get_tracer("author").start_as_current_span("own"):
        pass
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


def headers(flags: str = "01", **more: str) -> dict[str, Any]:
    """Answers of a request with these headers and a ``traceparent``."""
    known = {"traceparent": f"00-{TRACE}-{PARENT}-{flags}", **more}
    return {"kong.request.get_header": lambda name: known.get(name, ABSENT)}


def test_spans_join_the_trace_of_the_request(start: Start, collector: Collector) -> None:
    server = start("--tracing", collector.url)
    with server.kong() as kong:
        hello = kong.start_instance("hello", {"message": "hi"})
        run = kong.run_event(hello, answers=headers(tracestate="vendor=1", host="example.com"))
        assert [call[0] for call in run.calls].count("kong.request.get_header") == 3
        author = kong.start_author("def log(self, kong): pass\ndef certificate(self, kong): pass\n")
        assert kong.run_event(author, "log", headers()).functions == ["kong.request.get_header"] * 2
        assert kong.run_event(author, "certificate", headers()).functions == []
    server.stop()
    assert collector.paths == {"/v1/traces"}
    spans = collector.spans
    assert len(collector) == 3
    span = spans["hello access"]
    assert (span.trace, span.parent, span.state) == (TRACE, PARENT, "vendor=1")
    assert (span.kind, span.scope, span.failed) == (SERVER_KIND, "kong_pdk", False)
    assert 0 < span.nanoseconds < 60e9
    assert span.resource["service.name"] == "kong-python-pluginserver"
    expected = {
        "kong.plugin.name": "hello", "kong.plugin.version": "0.1.0", "kong.phase": "access",
        "kong.instance": hello, "kong.outcome": "ok", "kong.pdk.calls": 4,
    }  # fmt: skip
    assert expected.items() <= span.attributes.items()
    assert (spans["author log"].trace, spans["author log"].parent) == (TRACE, PARENT)
    alone = spans["author certificate"]
    assert alone.parent == "" and alone.trace != TRACE


def test_how_handlers_end(start: Start, collector: Collector) -> None:
    source = """\
        def access(self, kong):
            kong.response.exit(403, "no")
        def log(self, kong):
            raise ValueError("oops")
    """
    server = start("--tracing", collector.url)
    with server.kong() as kong:
        author = kong.start_author(textwrap.dedent(source))
        kong.run_event(author)
        with kong.connect() as connection:
            msgid = connection.send_event(author, "log")
            turn = connection.turn(msgid)
            assert turn.args == ["traceparent"]
            msgid = connection.send_step(turn.event_id)
            assert connection.reply().error is not None
    server.stop()
    left, failed = collector.spans["author access"], collector.spans["author log"]
    assert left.attributes["kong.outcome"] == "exit" and not left.failed
    assert left.attributes["http.response.status_code"] == 403
    assert failed.failed and failed.attributes["kong.outcome"] == "error"
    assert failed.attributes["error.type"] == "ValueError"
    (raised,) = failed.exceptions
    assert (raised["exception.type"], raised["exception.message"]) == ("ValueError", "oops")
    assert '"<source>", line 4, in log' in raised["exception.stacktrace"]


def test_what_clients_send_is_not_in_the_log(start: Start, collector: Collector) -> None:
    """Nor does a header that OpenTelemetry does not take write a line for each request."""
    server = start("--tracing", collector.url)
    with server.kong() as kong:
        author = kong.start_author("def access(self, kong): pass\n")
        run = kong.run_event(author, answers=headers(tracestate="my secret"))
        assert run.functions == ["kong.request.get_header"] * 2
        long = {"kong.request.get_header": lambda name: f"01-{TRACE}-{PARENT}-00-" + "my" * 500}
        kong.run_event(author, "rewrite", long)
    server.stop()
    span = collector.spans["author access"]
    assert (span.trace, span.state) == (TRACE, "")
    assert "opentelemetry" not in server.log


def test_an_exception_whose_text_raises_anything(start: Start, collector: Collector) -> None:
    """Its request is closed all the same."""
    source = """\
        class Strange(Exception):
            def __str__(self):
                raise SystemExit(3)
        def access(self, kong):
            raise Strange()
    """
    server = start("--tracing", collector.url)
    with server.kong() as kong:
        turn = kong.handle_event(kong.start_author(textwrap.dedent(source)))
        assert turn.args == ["traceparent"]
        assert kong.step(turn.event_id).function == "kong.log.err"
        turn = kong.step(turn.event_id)
        assert turn.function == "kong.response.exit" and turn.args[0] == 500
    server.stop()
    (found,) = collector.spans["author access"].exceptions
    assert found["exception.message"] == "(its text cannot be had)"


def test_an_exception_whose_text_cannot_be_sent(start: Start, collector: Collector) -> None:
    """As that of a header which is not UTF-8."""
    server = start("--tracing", collector.url)
    with server.kong() as kong:
        author = kong.start_author("def log(self, kong):\n    raise ValueError('a\\udc80b')\n")
        with kong.connect() as connection:
            turn = connection.turn(connection.send_event(author, "log"))
            connection.send_step(turn.event_id)
            assert connection.reply().error is not None
    server.stop()
    (found,) = collector.spans["author log"].exceptions
    assert found["exception.message"] == "a\\udc80b"
    assert "opentelemetry" not in server.log


def test_what_a_plugin_traces_itself_is_below_its_event(start: Start, collector: Collector) -> None:
    server = start("--tracing", collector.url)
    with server.kong() as kong:
        author = kong.start_author(TRACED)
        kong.run_event(author, answers=headers())
        kong.run_event(author, answers=headers())  # in the same thread or greenlet, perhaps
    server.stop()
    assert len(collector) == 4
    own, event = collector.spans["own"], collector.spans["author access"]
    assert (own.trace, own.parent, event.parent) == (TRACE, event.id, PARENT)


def test_a_trace_that_nobody_records(start: Start, collector: Collector) -> None:
    server = start("--tracing", collector.url)
    with server.kong() as kong:
        author = kong.start_author(TRACED)
        functions = kong.run_event(author, answers=headers("00")).functions
        assert functions == ["kong.request.get_header"]  # and no tracestate
    server.stop()
    assert len(collector) == 0


def test_the_environment_says_how(flavour: Flavour, prefix: Path, collector: Collector) -> None:
    """As by ``env`` in the start command."""
    environment = {
        **flavour.env,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_SERVICE_NAME": "my-plugins",
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
    }
    command = directory_command(PLUGINS, prefix, *flavour.flags, "--tracing", "env")
    with running(command, prefix, env=environment) as server:
        with server.kong() as kong:
            author = kong.start_author("def access(self, kong): pass\n")
            kong.run_event(author)  # of no trace
            kong.run_event(author, answers=headers())
        server.stop()
    assert len(collector) == 1
    assert collector.spans["author access"].resource["service.name"] == "my-plugins"


def test_the_event_log_names_the_trace(start: Start, collector: Collector, prefix: Path) -> None:
    path = prefix / "events"
    server = start("--tracing", collector.url, "--event-log", str(path))
    with server.kong() as kong:
        kong.run_event(kong.start_author("def access(self, kong): pass\n"), answers=headers())
    server.stop()
    assert f" trace={TRACE} " in path.read_text()


def test_a_collector_that_is_not_there_harms_no_request(start: Start) -> None:
    with collecting() as gone:
        url = gone.url
    server = start("--tracing", url)
    with server.kong() as kong:
        hello = kong.start_instance("hello", {"message": "hi"})
        for _ in range(3):
            run = kong.run_event(hello, answers={"kong.request.get_header": "x"})
            assert "kong.response.set_header" in run.functions
    server.stop()
    wait_until(lambda: "opentelemetry" in server.log, "a line about it")


def test_the_event_log_of_a_trace_that_is_switched_off(flavour: Flavour, prefix: Path) -> None:
    environment, path = {**flavour.env, "OTEL_SDK_DISABLED": "true"}, prefix / "events"
    flags = ("--tracing", "http://127.0.0.1:1", "--event-log", str(path))
    command = directory_command(PLUGINS, prefix, *flavour.flags, *flags)
    with running(command, prefix, env=environment) as server:
        with server.kong() as kong:
            author = kong.start_author("def access(self, kong): pass\n")
            kong.run_event(author, answers={"kong.request.get_header": ABSENT})
            kong.run_event(author, answers=headers())
        server.stop()
    first, second = path.read_text().splitlines()
    assert " trace=" not in first
    assert f" trace={TRACE} " in second


@pytest.mark.parametrize("mode", [(), ("-m", "--workers", "2")], ids=["threads", "processes"])
def test_an_environment_that_opentelemetry_cannot_work_with(
    prefix: Path, mode: tuple[str, ...]
) -> None:
    """A queue that is smaller than a batch."""
    command = directory_command(PLUGINS, prefix, *mode, "--tracing", "http://127.0.0.1:4318")
    done = run_command(*command, env={"OTEL_BSP_MAX_QUEUE_SIZE": "100"})
    assert done.returncode == 1
    assert "max_queue_size" in done.stderr and "see to its OTEL_* variables" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("error", ["ImportError", "TypeError"])
def test_an_opentelemetry_that_cannot_be_imported(prefix: Path, error: str) -> None:
    """protobuf has errors of its own for a wrong version."""
    package = prefix / "opentelemetry"
    package.mkdir()
    (package / "__init__.py").write_text(f"raise {error}('the reason')\n")
    command = directory_command(PLUGINS, prefix, "--tracing", "http://127.0.0.1:4318")
    done = run_command(*command, env={"PYTHONPATH": str(prefix)})
    assert done.returncode == 1
    assert "cannot be imported (the reason): pip install 'kong-pdk[tracing]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("mode", [(), ("-m", "--workers", "2")], ids=["threads", "processes"])
@pytest.mark.parametrize("url", ["localhost:4318", "ftp://here", "http://", "http://a:b", ""])
def test_an_address_that_is_none(prefix: Path, mode: tuple[str, ...], url: str) -> None:
    done = run_command(SERVER, "-d", str(PLUGINS), "-p", str(prefix), *mode, "--tracing", url)
    assert done.returncode == 1
    assert "--tracing wants the address of an OpenTelemetry collector" in done.stderr
    assert repr(url) in done.stderr and "Traceback" not in done.stderr

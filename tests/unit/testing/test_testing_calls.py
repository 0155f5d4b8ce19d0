"""The harness: PDK calls, wrong ones, and those that a test replaces."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

import pytest
from pdkcalls import right_arguments

from kong_pdk._wire import TERMINAL
from kong_pdk.exception import PluginError, SettingsError
from kong_pdk.gateway import TABLE
from kong_pdk.testing import Gateway


def plugin(**bodies: Callable[[Any], Any]) -> type:
    """A plugin whose handlers are functions of ``kong``."""
    members: dict[str, Any] = {"__init__": lambda self, config: None}
    for phase, body in bodies.items():
        members[phase] = lambda self, kong, body=body: body(kong)
    return type("Plugin", (), members)


# --- calls that Kong would not take ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (lambda kong: kong.response.get_status(), "PhaseError: kong.response.get_status"),
        (lambda kong: kong.request.get_heder("x"), "AttributeError: there is no"),
        (lambda kong: kong.request.get_header(7), "name must be a string"),
        (lambda kong: kong.request.get_header(), "kong.request.get_header"),
        (lambda kong: kong.tracing.active_span(), "cannot be used from a plugin server"),
        (lambda kong: kong.ctx.shared.set("k", object()), "cannot be sent to Kong"),
    ],
)
def test_calls_that_the_server_refuses(body: Callable[[Any], Any], text: str) -> None:
    result = Gateway(plugin(rewrite=body)).get()
    (failure,) = result.failures
    assert failure.phase == "rewrite"
    assert text in failure.text or text.partition(": ")[2] in failure.text
    assert (result.status, result.ended) == (500, "rewrite")


def test_without_checks_it_is_kong_that_refuses() -> None:
    after: list[str] = []

    def access(kong: Any) -> None:
        try:
            kong.request.get_header(7)
        finally:
            after.append("finally")
        after.append("next line")

    gateway = Gateway(plugin(access=access, log=lambda kong: kong.log.info("log")))
    assert gateway.get().failures != []
    del after[:]
    gateway = Gateway(gateway._target.plugin.factory, pdk_checks=False)
    result = gateway.get()
    assert after == ["finally"]  # and nobody waits for a time-out
    assert result.failures == []
    assert (result.status, result.ended, result.source) == (500, "access", "error")
    assert result.calls[0].error is not None and "must be a string" in result.calls[0].error
    assert result.messages("info") == ["log"]


def test_calls_after_the_end() -> None:
    errors: list[str] = []

    def access(kong: Any) -> None:
        try:
            kong.response.exit(204)
        finally:
            try:
                kong.log.info("too late")
            except RuntimeError as error:
                errors.append(str(error))

    result = Gateway(plugin(access=access)).get()
    assert (result.status, result.round_trips) == (204, 1)
    assert errors[0].startswith("kong.log.info: this event is over")


def test_both_styles() -> None:
    def access(kong: Any) -> None:
        kong.response.set_header("X-Style", type(kong.request.get_host()).__name__)

    assert Gateway(plugin(access=access)).get().headers["x-style"] == "tuple"
    assert Gateway(plugin(access=access), python_style=True).get().headers["x-style"] == "str"


def test_values_cross_the_wire() -> None:
    values = [{}, [], (1, 2), b"\xff", 2.0, 2**60, {"a": None, "b": {1: "x"}}, "\udcff", True]
    found: list[Any] = []

    def access(kong: Any) -> None:
        for value in values:
            kong.ctx.shared.set("k", value)
            found.append(kong.ctx.shared.get("k"))

    Gateway(plugin(access=access), python_style=True).get()
    assert found == [[], [], [1, 2], "\udcff", 2, float(2**60), {"b": ["x"]}, "\udcff", True]
    assert type(found[4]) is int


def test_async_handlers_are_refused() -> None:
    class Plugin:
        def __init__(self, config: Any) -> None: ...

        async def access(self, kong: Any) -> None: ...

    with pytest.raises(PluginError, match=r"Plugin\.access must be a plain method"):
        Gateway(Plugin)


def test_a_handler_that_lets_threads_of_its_own_call() -> None:
    def access(kong: Any) -> None:
        threads = [threading.Thread(target=kong.request.get_host) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    result = Gateway(plugin(access=access)).get()
    assert result.functions == ["kong.request.get_host"] * 8


def test_an_instance_is_kept_and_closed() -> None:
    events: list[str] = []

    class Plugin:
        def __init__(self, config: Any) -> None:
            events.append("init")

        def access(self, kong: Any) -> None:
            events.append("access")

        def close(self) -> None:
            events.append("close")

    with Gateway(Plugin) as gateway:
        gateway.get()
        gateway.get()
        assert events == ["init", "access", "access"]
    assert events[-1] == "close"
    gateway.close()
    assert events.count("close") == 1
    with pytest.raises(RuntimeError, match="this gateway is closed"):
        gateway.get()


# --- what is known of the calls -------------------------------------------------------------------


def test_calls_by_phase_and_function() -> None:
    def access(kong: Any) -> None:
        kong.request.get_header("a")
        kong.request.get_header("b")

    def log(kong: Any) -> None:
        kong.log.warn("w", 1, None)

    result = Gateway(plugin(access=access, log=log)).get(headers={"B": "x"})
    assert result.round_trips == 3
    assert (result.round_trips_of("access"), result.round_trips_of("log")) == (2, 1)
    assert [call.args for call in result.calls_of("kong.request.get_header")] == [["a"], ["b"]]
    assert [call.result for call in result.calls] == [None, "x", None]
    assert [call.phase for call in result.calls] == ["access", "access", "log"]
    assert result.messages("warn") == result.messages() == ["w1None"]
    with pytest.raises(ValueError, match="there is no level 'warning', only emerg, alert"):
        result.messages("warning")
    assert repr(result) == '<Result 200; warn: "w1None">'


def test_a_body_that_is_no_json() -> None:
    gateway = Gateway(plugin(access=lambda kong: None))
    gateway.respond(200, body="<html>")
    with pytest.raises(ValueError, match="the body is no JSON: '<html>'"):
        gateway.get().json()


def test_one_phase_or_some() -> None:
    def note(name: str) -> Callable[[Any], None]:
        return lambda kong: kong.log.info(name)

    names = ("rewrite", "access", "response", "log")
    gateway = Gateway(plugin(**{name: note(name) for name in names}))
    gateway.respond(201)
    assert gateway.get().messages("info") == list(names)
    assert gateway.run("response").messages() == ["response"]
    result = gateway.run(("log", "access"), "POST", "/x", json={})
    assert result.messages() == ["access", "log"]
    assert (result.status, result.phases) == (201, ("access", "log"))
    assert result.service_request is not None and result.service_request.method == "POST"


# --- fakes ----------------------------------------------------------------------------------------


def test_fakes() -> None:
    gateway = Gateway(
        plugin(access=lambda kong: kong.ctx.shared.set("ip", kong.client.get_ip())),
        python_style=True,
    )
    fake = gateway.fake("kong.client.get_ip", returns="192.0.2.9")
    assert gateway.get().shared == {"ip": "192.0.2.9"}
    with gateway.fake("kong.client.get_ip", calls=lambda exchange: exchange.request.target):
        assert gateway.get("/path").shared == {"ip": "/path"}
    assert gateway.get().shared == {"ip": "192.0.2.9"}
    assert fake.calls == [[], []]
    fake.remove()
    fake.remove()
    assert gateway.get().shared == {"ip": "127.0.0.1"}


def test_a_fake_that_fails_ends_the_phase() -> None:
    after: list[str] = []

    def access(kong: Any) -> None:
        kong.client.load_consumer("ada", True)
        after.append("not here")

    gateway = Gateway(plugin(access=access))
    gateway.fake("kong.client.load_consumer", raises="the database is down")
    result = gateway.get()
    assert after == []
    assert (result.status, result.ended, result.source) == (500, "access", "error")
    assert result.json() == {"message": "An unexpected error occurred"}
    assert result.messages("err") == ["kong.client.load_consumer: the database is down"]
    assert repr(result).startswith(
        '<Result 500 broken in access; err: "kong.client.load_consumer: the database is down"'
    )


def test_fakes_keep_to_phases_and_shapes() -> None:
    gateway = Gateway(
        plugin(
            access=lambda kong: kong.ctx.shared.set("b", type(kong.request.get_raw_body()).__name__)
        ),
        python_style=True,
        pdk_checks=False,
    )
    gateway.fake("kong.request.get_raw_body", returns="text")
    assert gateway.get().shared == {"b": "bytes"}
    gateway = Gateway(plugin(log=lambda kong: kong.request.get_raw_body()), pdk_checks=False)
    gateway.fake("kong.request.get_raw_body", returns="text")
    assert "cannot be called in the log phase" in gateway.get().messages("err")[0]


@pytest.mark.parametrize(
    ("function", "options", "error", "text"),
    [
        ("kong.client.load_consumers", {"returns": 1}, LookupError, "kong.client.load_consumer"),
        ("kong.client.get_ip", {}, TypeError, "wants one of returns=, raises= and calls="),
        ("kong.client.get_ip", {"returns": 1, "raises": "x"}, TypeError, "wants one of"),
        ("kong.client.get_ip", {"raises": ValueError("x")}, TypeError, "the text of Kong's error"),
        ("kong.client.get_ip", {"calls": 7}, TypeError, "wants a function"),
        ("kong.client.get_ip", {"returns": {1}}, TypeError, "returns what Kong cannot send: set"),
        ("kong.response.exit", {"returns": None}, TypeError, "can be faked with raises= only"),
    ],
)
def test_fakes_that_make_no_sense(
    function: str, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        Gateway(plugin(access=lambda kong: None)).fake(function, **options)


def test_an_end_of_the_test_goes_through_the_handler() -> None:
    """Ctrl-C, or pytest's time-out, is no failure of the plugin."""
    ends: list[BaseException] = [KeyboardInterrupt(), pytest.exit.Exception("enough")]

    def access(kong: Any) -> None:
        raise ends[0]

    gateway = Gateway(plugin(access=access))
    for end in tuple(ends):
        with pytest.raises(type(end)):
            gateway.get()
        ends.pop(0)
    ends.append(SystemExit(3))
    assert gateway.get().failures == [("access", "SystemExit: 3")]


@pytest.mark.parametrize("spec", [TABLE[name].spec for name in TABLE], ids=lambda spec: spec.name)
def test_every_function_answers(spec: Any) -> None:
    """In each phase that the server lets it be called in, with arguments that are right."""
    for phase in spec.phases:
        args = ["x"] if spec.variadic else right_arguments(spec)

        def handler(kong: Any, args: Any = args) -> None:
            target = kong
            for part in spec.name.split(".")[1:]:
                target = getattr(target, part)
            target(*args)

        # A response phase makes Kong keep the service's answer, which some ask for in the log.
        handlers = {"response": lambda kong: None, phase: handler}
        gateway = Gateway(
            plugin(**handlers),
            python_style=True,
            tls=phase == "certificate",
            route={"protocols": ["http"]},
        )
        result = gateway.run(phase)
        assert result.functions[:1] == [spec.name]
        assert result.failures == []
        assert result.exchange.aborted is None, result
        assert (result.ended is not None) == (spec.name in TERMINAL)


# --- what is tested -------------------------------------------------------------------------------

SOURCE = """
version, priority = "1.2.3", 10
Schema = ({"message": {"type": "string", "default": "hello"}}, {"n": {"type": "integer"}})
class Plugin:
    def __init__(self, config): self.config = config
    def access(self, kong): kong.response.set_header("X-Message", self.config["message"])
"""


def test_a_file_a_folder_and_a_module(tmp_path: Path) -> None:
    file = tmp_path / "my-plugin.py"
    file.write_text(SOURCE)
    folder = tmp_path / "packaged"
    folder.mkdir()
    (folder / "__init__.py").write_text("from .inner import *\n")
    (folder / "inner.py").write_text(SOURCE)
    module = ModuleType("some.module")
    exec(SOURCE, vars(module))
    for given, name in ((file, "my-plugin"), (str(file), "my-plugin"), (folder, "packaged")):
        gateway = Gateway(given)
        assert (gateway.plugin.name, gateway.plugin.version) == (name, "1.2.3")
        assert gateway.get().headers["x-message"] == "hello"
        assert gateway.config == {"message": "hello"}
    assert Gateway(module).plugin.name == "module"
    assert Gateway(module, {"message": "x"}).get().headers["x-message"] == "x"


def test_an_installed_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "installed_plugin.py").write_text(SOURCE)
    info = tmp_path / "installed_plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: installed-plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[kong_pdk.plugins]\nas-module = installed_plugin\nas-class = installed_plugin:Plugin\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("as-module", "as-class"):
        gateway = Gateway(name)
        assert (gateway.plugin.name, gateway.plugin.version) == (name, "1.2.3")
        assert gateway.get().headers["x-message"] == "hello"
    sys.modules.pop("installed_plugin")
    with pytest.raises(PluginError, match=r"'as-modul' is installed .*: as-class, as-module"):
        Gateway("as-modul")


def test_a_configuration_is_checked(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(SOURCE)
    with pytest.raises(SettingsError, match="config field 'n': expected an integer"):
        Gateway(tmp_path / "p.py", {"n": "x"})
    with pytest.raises(SettingsError, match="'massage'"):
        Gateway(tmp_path / "p.py", {"massage": "x"})


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ("missing.py", PluginError, "there is no plugin missing.py: neither a file nor a folder"),
        (7, TypeError, "must be a class, a module, a path or the name of an installed one, got 7"),
        (ModuleType("empty"), PluginError, "it has no class Plugin"),
    ],
)
def test_what_is_no_plugin(given: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Gateway(given)


def test_a_plugin_without_a_phase() -> None:
    with pytest.raises(PluginError, match="Plugin has no phase"):
        Gateway(type("Plugin", (), {}))


def test_an_embedded_server_need_not_state_its_version_in_the_module(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "class Plugin:\n"
        "    def __init__(self, config): pass\n"
        "    def log(self, kong): kong.log.info('x')\n"
        "if __name__ == '__main__':\n"
        "    from kong_pdk.cli import start_dedicated_server\n"
        "    start_dedicated_server('own', Plugin, '2.0.0', 5)\n"
    )
    assert Gateway(tmp_path / "own.py").get().messages() == ["x"]
    (tmp_path / "bare.py").write_text("class Plugin:\n    def log(self, kong): pass\n")
    with pytest.raises(PluginError, match="version is missing"):
        Gateway(tmp_path / "bare.py")

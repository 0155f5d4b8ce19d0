"""Service: every call of Kong is answered, and no error but one makes it start instances anew."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any, Callable

import msgpack
import pytest

from kong_pdk import _wire
from kong_pdk._codec import Request
from kong_pdk.config import ServerConfig
from kong_pdk.exception import KongPDKError, PDKException, RPCError, UnknownInstance
from kong_pdk.observing import Observer
from kong_pdk.plugins import define_plugin
from kong_pdk.runtime.instances import Instances
from kong_pdk.runtime.service import Service, error_text

PHRASE = "no plugin instance"


class Words(Exception):
    """Says what it is given, whatever that is."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def __str__(self) -> str:
        return self.text


class Mute(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Exits(BaseException):
    """No Exception, as some libraries' ways out."""


class Example:
    """Its constructor fails as the configuration says."""

    errors: dict[str, BaseException] = {}

    def __init__(self, config: Any) -> None:
        if config and "error" in config:
            raise self.errors[config["error"]]

    def access(self, kong: Any) -> None:
        """Nothing."""


@pytest.fixture
def errors() -> Iterator[dict[str, BaseException]]:
    """What the constructor raises, by the ``error`` of its configuration."""
    yield Example.errors
    Example.errors.clear()


@pytest.fixture
def service() -> Service:
    field = ({"error": {"type": "string"}},)
    plugins = [
        define_plugin(name, Example, "1.0.0", 5, field, where="test") for name in ("two", "one")
    ]
    return Service({plugin.name: plugin for plugin in plugins}, ServerConfig())


@pytest.fixture
def ask(service: Service) -> Callable[..., tuple[Any, Any]]:
    """A function: the error and result of the answer to a call, one of which is nil."""

    def call(method: Any, *params: Any, kind: int = _wire.CALL) -> tuple[Any, Any]:
        value = list(params) if kind == _wire.CALL else params[0]
        reply = service.answer(Request(kind, 77, method, value))
        answer = msgpack.unpackb(reply, unicode_errors=_wire.ERRORS)
        assert answer[:2] == [1, 77]
        assert None in answer[2:]
        return answer[2], answer[3]

    return call


Ask = Callable[..., tuple[Any, Any]]


# --- the table of methods -------------------------------------------------------------------------


def test_the_life_of_an_instance(ask: Ask) -> None:
    error, started = ask("plugin.StartInstance", {"Name": "one", "Config": '{"a": 1}'})
    assert error is None
    assert started["Name"] == "one" and started["Config"] == {"a": 1}
    assert isinstance(started["Id"], int) and isinstance(started["StartTime"], float)
    told = {**started, "Config": {"a": "REDACTED"}}
    assert ask("plugin.InstanceStatus", started["Id"]) == (None, told)
    closed = {key: told[key] for key in ("Name", "Id", "Config")}
    assert ask("plugin.CloseInstance", started["Id"]) == (None, closed)
    for method in ("plugin.InstanceStatus", "plugin.CloseInstance"):
        assert ask(method, started["Id"]) == (f"{PHRASE} {started['Id']}", None)


def test_what_plugins_there_are(ask: Ask, service: Service) -> None:
    assert ask("plugin.GetPluginNames") == (None, ["one", "two"])
    assert ask("plugin.GetPluginNames", None) == (None, ["one", "two"])
    assert ask("plugin.GetPluginInfo", "two") == (None, service.plugins["two"].describe())


def test_status(ask: Ask) -> None:
    _, one = ask("plugin.StartInstance", {"Name": "one", "Config": "{}"})
    error, status = ask("plugin.GetStatus")
    assert error is None
    assert status["Pid"] == os.getpid()
    assert sorted(status["Plugins"]) == ["one", "two"]
    entry = status["Plugins"]["one"]
    shown = {key: one[key] for key in ("Name", "Id", "StartTime")}
    assert entry["Instances"] == [shown]
    assert entry["LastStartInstance"] == one["StartTime"]
    assert set(entry) == {
        "Name", "Version", "Priority", "Modtime", "LoadTime", "Instances", "LastStartInstance",
        "LastCloseInstance", "Events",
    }  # fmt: skip
    assert status["Plugins"]["two"]["Instances"] == []


@pytest.mark.parametrize(
    "method",
    [
        "plugin.SetPluginDir", "plugin.Cleanup", "plugin.__init__", "plugin.answer", "answer",
        "StartInstance", "plugin.startinstance", "", "plugin.", None, 5, ["x"], {"a": 1}, b"x",
        "plugin.\udcff",
    ],
    ids=repr,
)  # fmt: skip
def test_there_is_no_other_method(ask: Ask, method: Any) -> None:
    error, _ = ask(method, "/etc")
    shown = repr(method) if isinstance(method, str) else f"of type {type(method).__name__}"
    assert error == f"there is no method {shown}"


@pytest.mark.parametrize(
    ("method", "params", "text"),
    [
        ("plugin.StartInstance", [], "StartInstance wants {Name, Config}"),
        ("plugin.StartInstance", ["one"], "StartInstance wants {Name, Config}"),
        ("plugin.StartInstance", [{}], "there is no plugin None here (known: one, two)"),
        ("plugin.StartInstance", [{"Name": "one"}], "plugin one: Config must be a JSON text"),
        ("plugin.HandleEvent", [], "HandleEvent wants {InstanceId, EventName}"),
        ("plugin.HandleEvent", [{"InstanceId": 1}], "HandleEvent wants {InstanceId, EventName}"),
        ("plugin.GetPluginInfo", [], "there is no plugin None here"),
        ("plugin.GetPluginInfo", [["one"]], "there is no plugin ['one'] here"),
        ("plugin.GetPluginInfo", [PHRASE], "there is no plugin 'no_plugin_instance' here"),
        ("plugin.CloseInstance", [], f"{PHRASE} None"),
        ("plugin.InstanceStatus", [{"a": 1}], f"{PHRASE} {{'a': 1}}"),
    ],
)
def test_wrong_arguments(ask: Ask, method: str, params: list[Any], text: str) -> None:
    assert ask(method, *params) == (text, None)


@pytest.mark.parametrize("kind", [_wire.STEP, _wire.STEP_ERROR])
def test_a_step_that_nobody_waits_for(ask: Ask, kind: int) -> None:
    error, _ = ask(4712, "x", kind=kind)
    assert error == "no event 4712 is waiting for a step (here or any more)"
    assert PHRASE not in error


@pytest.mark.parametrize("kind", [_wire.STEP, _wire.STEP_ERROR])
def test_a_step_of_a_handler_that_was_given_up(ask: Ask, kind: int) -> None:
    """Its id says that the request is to be refused, whoever has run its handler."""
    error, result = ask(4712 | _wire.CLOSED_BIT, "x", kind=kind)
    assert error is None
    assert result["Data"]["Method"] == "kong.response.exit"
    assert result["Data"]["Args"][0] == 500


def test_a_notification_has_no_answer(service: Service) -> None:
    assert service.answer(Request(_wire.IGNORE, 0, None, None)) == b""


# --- a constructor that fails ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no"), "plugin.StartInstance: ValueError: no"),
        (KeyError("a"), "plugin.StartInstance: KeyError: 'a'"),
        (SystemExit(3), "plugin.StartInstance: SystemExit: 3"),
        (KeyboardInterrupt(), "plugin.StartInstance: KeyboardInterrupt: "),
        (PDKException("bad"), "plugin.StartInstance: bad"),
        (ValueError("\udcff"), r"plugin.StartInstance: ValueError: \udcff"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_error_of_a_constructor(
    ask: Ask, service: Service, errors: dict[str, BaseException], error: Any, text: str
) -> None:
    errors["it"] = error
    assert ask("plugin.StartInstance", {"Name": "one", "Config": '{"error": "it"}'}) == (text, None)
    assert list(service.instances) == []
    assert ask("plugin.StartInstance", {"Name": "one", "Config": "{}"})[0] is None


@pytest.mark.parametrize(
    "error",
    [Words("lone \ud800"), ValueError("x" * 10**6), Mute(), Exits("out"), GeneratorExit()],
    ids=["lone_surrogate", "long", "mute", "base_exception", "generator_exit"],
)
def test_any_error_of_a_constructor_is_answered(
    ask: Ask, errors: dict[str, BaseException], error: BaseException
) -> None:
    """Nothing may escape: it would end the server's thread, and Kong would wait for its answer."""
    errors["it"] = error
    text, result = ask("plugin.StartInstance", {"Name": "one", "Config": '{"error": "it"}'})
    assert text.startswith("plugin.StartInstance: ")
    assert result is None


@pytest.mark.parametrize(
    "config", ['{"a": "\\ud800"}', '{"a": 18446744073709551616}', "[" * 600 + "]" * 600]
)
def test_a_config_that_cannot_be_sent_back(ask: Ask, service: Service, config: str) -> None:
    """JSON says more than MessagePack: where the answer is an error, there is no instance."""
    error, _ = ask("plugin.StartInstance", {"Name": "one", "Config": config})
    assert len(list(service.instances)) == (0 if error else 1)
    assert PHRASE not in str(error)
    assert ask("plugin.GetStatus")[0] is None


def test_a_constructors_traceback_is_logged_here(
    ask: Ask, errors: dict[str, BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    errors["it"] = ValueError("secret")
    with caplog.at_level(logging.ERROR, "kong_pdk.plugin"):
        ask("plugin.StartInstance", {"Name": "one", "Config": '{"error": "it"}'})
    (record,) = caplog.records
    assert record.exc_info is not None and record.exc_info[1] is errors["it"]


# --- events of instances that cannot be had -------------------------------------------------------


def turn_of(reply: bytes) -> Any:
    """What an answer tells Kong to call; its error if it is one."""
    _, _, error, result = msgpack.unpackb(reply)
    return error or (result["Data"]["Method"], result["Data"]["Args"][0])


@pytest.mark.parametrize(("phase", "refused"), [("access", True), ("log", False)])
def test_a_busy_server_lets_no_request_of_an_unknown_instance_through(
    service: Service, phase: str, refused: bool
) -> None:
    """As after a restart, or in a worker that has not met it: Kong ignores a mere error."""
    answer = turn_of(service.refuse_busy(Request(_wire.HANDLE_EVENT, 77, 5, phase)))
    if refused:
        assert answer == ("kong.response.exit", 503)
    else:
        assert "--max-events" in answer


@pytest.mark.parametrize("policy", ["closed", "open"])
def test_an_instance_that_cannot_be_asked_for(policy: str) -> None:
    class Cut(Instances):
        def find_elsewhere(self, instance_id: int) -> Any:
            raise RPCError("the server's main process does not answer")

    class Noting(Observer):
        def turn_away(self, *what: Any) -> None:
            told.append(what)

    told: list[Any] = []
    config = ServerConfig(on_error=policy)
    service = Service({}, config, Cut({}, config), observer=Noting())
    instance_id = 6 | config.closes("")
    request = Request(_wire.HANDLE_EVENT, 77, instance_id, "access")
    reply, event = service.run_event(request, None, None, None)
    assert event is None
    assert told == [("", "access", instance_id, "unstarted")]
    if policy == "closed":
        assert turn_of(reply) == ("kong.response.exit", 500)
    else:
        assert "does not answer" in turn_of(reply)


# --- the phrase that makes Kong start instances anew ----------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        PHRASE, "No Plugin Instance 5", "xNO PLUGIN INSTANCEx", f"{PHRASE}{PHRASE}",
        f"a {PHRASE} b {PHRASE.title()} c", "no no plugin instance plugin instance",
        f"line\n{PHRASE}\nline",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "kind", [ValueError, KeyError, RPCError, PDKException, KongPDKError, Exits]
)
def test_no_other_error_says_the_phrase(kind: type[BaseException], text: str) -> None:
    said = error_text(kind(text))
    assert PHRASE not in said.lower()
    assert "no_plugin_instance" in said


def test_only_the_server_says_it(ask: Ask) -> None:
    assert ask("plugin.InstanceStatus", 5)[0] == "no plugin instance 5"
    assert PHRASE not in error_text(UnknownInstance(5)).lower()  # as a plugin may raise it


def test_an_exceptions_name_may_say_nothing_either() -> None:
    named = type("No plugin Instance", (Exception,), {})
    assert PHRASE not in error_text(named("x")).lower()


def test_words_that_only_look_like_it_are_kept() -> None:
    for text in ("no plugin", "no-plugin-instance", "no plugin  instance", "noplugin instance"):
        assert error_text(ValueError(text)) == f"ValueError: {text}"


@pytest.mark.parametrize("where", ["name", "config", "method", "init"])
def test_no_client_can_make_kong_start_instances_anew(
    ask: Ask, errors: dict[str, BaseException], where: str
) -> None:
    errors["it"] = ValueError(f"{PHRASE.upper()} of client")
    error, _ = {
        "name": lambda: ask("plugin.StartInstance", {"Name": PHRASE, "Config": "{}"}),
        "config": lambda: ask("plugin.StartInstance", {"Name": "one", "Config": PHRASE}),
        "method": lambda: ask(PHRASE),
        "init": lambda: ask("plugin.StartInstance", {"Name": "one", "Config": '{"error": "it"}'}),
    }[where]()
    assert error and PHRASE not in error.lower()


def test_the_text_of_an_error_can_always_be_sent() -> None:
    for error in (Words("\ud800"), Words("\udcff"), Words("x" * 10**7), Mute()):
        assert len(error_text(error).encode()) < 1 << 20


def test_an_error_names_its_kind_unless_it_is_ours() -> None:
    assert (
        error_text(ZeroDivisionError("division by zero")) == "ZeroDivisionError: division by zero"
    )
    assert error_text(RPCError("there is no method")) == "there is no method"
    assert error_text(SystemExit(1)) == "SystemExit: 1"


@pytest.mark.parametrize("kind", [_wire.STEP, _wire.STEP_ERROR])
@pytest.mark.parametrize("closed", [0, _wire.CLOSED_BIT])
def test_a_step_for_which_there_is_no_room(service: Service, kind: int, closed: int) -> None:
    reply = service.refuse_busy(Request(kind, 7, 4712 | closed, "x"))
    if closed:
        assert turn_of(reply) == ("kong.response.exit", 503)
    else:
        assert "--max-events" in turn_of(reply)

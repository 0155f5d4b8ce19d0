"""The fixed table of methods: what each answers, and what is refused."""

from __future__ import annotations

import json
import time

import pytest
from kongwire import ABSENT, Kong, RemoteError, nested
from servers import Flavour, Server, Start

PHASES = ["certificate", "rewrite", "access", "response", "preread", "log"]
HELLO = {
    "Name": "hello",
    "Phases": ["access"],
    "Priority": 100,
    "Version": "0.1.0",
    "Schema": {
        "name": "hello",
        "fields": [
            {
                "config": {
                    "type": "record",
                    "fields": [{"message": {"type": "string", "default": "hello"}}],
                }
            }
        ],
    },
}
QUIET = "def access(self, kong): pass"


def start_argument(config: object, name: object = "hello") -> dict[str, object]:
    return {"Name": name, "Config": json.dumps(config)}


def test_the_server_says_what_it_serves_with_which_codec(server: Server, flavour: Flavour) -> None:
    codec = {"compiled": "compiled codec", "pure": "pure-Python codec"}[flavour.codec]
    server.wait_log(" serving ")
    line = next(line for line in server.log.splitlines() if " serving " in line)
    assert "author, hello" in line
    assert codec in line
    assert ("gevent" if flavour.mode == "gevent" else "threads") in line
    assert str(server.pid) in line
    assert all(path in line for path in server.paths)


def test_start_instance_answers_name_id_config_and_time(kong: Kong) -> None:
    before = time.time()
    # Kong puts keys of its own into it.
    config = {"message": "hi", "__seq__": 3, "__key__": "plugins:hello:::", "list": [1, None]}
    result = kong.call("plugin.StartInstance", start_argument(config))
    assert result.pop("StartTime") == pytest.approx(time.time(), abs=time.time() - before + 1)
    assert type(result.pop("Id")) is int
    assert result == {"Name": "hello", "Config": config}


def test_start_instance_config_may_arrive_as_bin(kong: Kong) -> None:
    argument = {"Name": "hello", "Config": b'{"message": "hi"}'}
    assert kong.call("plugin.StartInstance", argument)["Config"] == {"message": "hi"}


def test_instance_status_and_close_instance(kong: Kong) -> None:
    config = {"message": "hi", "list": ["a"], "map": {"b": 1}, "number": 5, "none": None}
    kongs = {"__plugin_id": "5f3a", "__seq__": 3, "__key__": "plugins:hello:::", "route_id": "r"}
    started = kong.call("plugin.StartInstance", start_argument({**config, **kongs}))
    # Whoever asks later is told whose configuration it is, and what it has, but no values.
    shown = {**dict.fromkeys(config, "REDACTED"), "none": None, **kongs}
    assert kong.call("plugin.InstanceStatus", started["Id"]) == {**started, "Config": shown}
    closed = kong.close_instance(started["Id"])
    assert closed == {"Name": "hello", "Id": started["Id"], "Config": shown}
    for method in ("plugin.InstanceStatus", "plugin.CloseInstance"):
        with pytest.raises(RemoteError, match="no plugin instance"):
            kong.call(method, started["Id"])
    with pytest.raises(RemoteError, match="no plugin instance"):
        kong.handle_event(started["Id"])


def test_closing_an_instance_leaves_the_others_alone(kong: Kong) -> None:
    first, second = kong.start_author(QUIET), kong.start_author(QUIET)
    kong.close_instance(first)
    assert kong.handle_event(second).is_return


@pytest.mark.parametrize("instance_id", [0, -1, 1, 2**53, 2**63, 2**64 - 1])
def test_unknown_instance_ids_make_kong_start_the_instance(kong: Kong, instance_id: int) -> None:
    with pytest.raises(RemoteError, match="no plugin instance"):
        kong.handle_event(instance_id)


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        (ABSENT, "Name, Config"),
        (None, "Name, Config"),
        (7, "Name, Config"),
        ([], "Name, Config"),
        ({}, "no plugin None"),
        ({"Name": "hello"}, "Config"),
        ({"Name": "hello", "Config": None}, "Config"),
        ({"Name": "hello", "Config": {"message": "hi"}}, "Config"),
        ({"Name": "hello", "Config": "{"}, "Config"),
        ({"Name": "hello", "Config": ""}, "Config"),
        ({"Name": "hello", "Config": b"\xff"}, "hello"),
        ({"Name": "hello", "Config": "[" * 100_000}, "StartInstance"),
        ({"Name": "absent", "Config": "{}"}, "no plugin 'absent' here (known: author, hello)"),
        ({"Name": ["hello"], "Config": "{}"}, "no plugin"),
        ({"Name": {"a": 1}, "Config": "{}"}, "no plugin"),
        ({"Name": b"hello", "Config": "{}"}, "no plugin"),
        ({"Name": "../hello", "Config": "{}"}, "no plugin"),
    ],
)
def test_start_instance_refuses_with_a_reason(kong: Kong, argument: object, text: str) -> None:
    arguments = [] if argument is ABSENT else [argument]
    with pytest.raises(RemoteError) as caught:
        kong.call("plugin.StartInstance", *arguments)
    assert text in str(caught.value)
    assert "no plugin instance" not in str(caught.value).lower()


def test_a_plugin_may_change_the_configuration_that_it_was_given(kong: Kong) -> None:
    source = """
def start(self, config):
    config["compiled"] = object()
    config.pop("source")

def access(self, kong):
    pass
"""
    instance = kong.start_author(source)
    status = kong.call("plugin.InstanceStatus", instance)
    assert status["Config"] == {"source": "REDACTED"}
    assert kong.close_instance(instance)["Config"] == {"source": "REDACTED"}


def test_plugin_info_and_names(kong: Kong) -> None:
    assert kong.call("plugin.GetPluginNames") == ["author", "hello"]
    assert kong.call("plugin.GetPluginInfo", "hello") == HELLO
    assert kong.call("plugin.GetPluginInfo", "author")["Phases"] == PHASES


@pytest.mark.parametrize("name", ["absent", "", None, 7, ["hello"], {}, b"hello", "Plugin"])
def test_plugin_info_of_no_plugin_is_an_error(kong: Kong, name: object) -> None:
    with pytest.raises(RemoteError, match="no plugin"):
        kong.call("plugin.GetPluginInfo", name)


def test_status_lists_plugins_and_instances(kong: Kong, server: Server) -> None:
    before = kong.call("plugin.GetStatus")
    assert before["Pid"] == server.pid
    assert set(before["Plugins"]) == {"author", "hello"}
    started = kong.call("plugin.StartInstance", start_argument({}))
    hello = kong.call("plugin.GetStatus")["Plugins"]["hello"]
    assert set(hello) == {
        "Name", "Version", "Priority", "Modtime", "LoadTime", "Instances", "LastStartInstance",
        "LastCloseInstance", "Events",
    }  # fmt: skip
    assert hello["Name"] == "hello"
    assert 0 < hello["Modtime"] <= hello["LoadTime"] <= hello["LastStartInstance"]
    mine = [one for one in hello["Instances"] if one["Id"] == started["Id"]]
    assert mine == [{"Name": "hello", "Id": started["Id"], "StartTime": started["StartTime"]}]
    kong.close_instance(started["Id"])
    hello = kong.call("plugin.GetStatus")["Plugins"]["hello"]
    assert hello["LastCloseInstance"] >= hello["LastStartInstance"]
    assert started["Id"] not in [one["Id"] for one in hello["Instances"]]


@pytest.mark.parametrize(
    "method",
    [
        "plugin.SetPluginDir", "plugin.Cleanup", "plugin._load", "plugin.__init__", "plugin.config",
        "plugin._loadPlugins", "plugin.__class__", "plugin.", "plugin", "", "StartInstance",
        "plugin.loadPlugins", "plugin.LoadPlugin", "plugin.cleanup", "plugin.__dict__",
        "plugin.__getattribute__", "plugin.__reduce__", "plugin._methods", "plugin.answer",
        "plugin.plugins", "plugin.instances", "plugin.run_event", "plugin.exec_handler",
        "plugin.set_plugin_dir", "plugin.setPluginDir", "plugin.StartInstance.__call__",
        "plugin.StartInstance.__globals__", "__class__", "__init__", "os.system", "eval",
        "kong.log", "PLUGIN.GetStatus", "plugin..GetStatus", "plugin/GetStatus",
        "plugin.startinstance", "plugin.StartInstance ", "service.answer", "plugin.GetStatus\0",
        "plugin.handle_event", "\udcff", 7, None, True, 1.5, b"plugin.GetStatus",
        ["plugin.GetStatus"], {"a": 1},
    ],
)  # fmt: skip
@pytest.mark.parametrize("argument", ["/etc", {"Name": "hello", "Config": "{}"}, ABSENT])
def test_other_methods_are_refused(kong: Kong, method: object, argument: object) -> None:
    with kong.connect() as connection:
        with pytest.raises(RemoteError, match="no method"):
            connection.call(method, *([] if argument is ABSENT else [argument]))
        assert connection.call("plugin.GetPluginNames") == ["author", "hello"]


def test_the_methods_are_those_that_are_documented(kong: Kong) -> None:
    """Each name of Python's that could lead to something is in no table."""
    names = {name for kind in (object, type, dict, type(lambda: 0)) for name in dir(kind)}
    with kong.connect() as connection:
        for name in sorted(names):
            for method in (name, f"plugin.{name}"):
                with pytest.raises(RemoteError, match="no method"):
                    connection.call(method, "/etc")


def test_set_plugin_dir_loads_nothing(kong: Kong) -> None:
    with pytest.raises(RemoteError, match=r"no method 'plugin\.SetPluginDir'"):
        kong.call("plugin.SetPluginDir", "/etc")
    assert kong.call("plugin.GetPluginNames") == ["author", "hello"]


@pytest.mark.parametrize(
    "phase",
    [
        "config", "__init__", "__class__", "author", "_load", "", "ACCESS", "access ", "start",
        "init_worker", "header_filter", "body_filter", "\udcff", "configure", "__dict__",
        "__reduce__", "__getattribute__", "_methods", "access.__call__", "access.__globals__",
        "access\0", "rewrite,access", "close",
    ],
)  # fmt: skip
def test_only_phases_are_run(kong: Kong, phase: str) -> None:
    instance = kong.start_author("def start(self, config): pass\n" + QUIET)
    with pytest.raises(RemoteError) as caught:
        kong.handle_event(instance, phase)
    assert "no phase" in str(caught.value)
    assert "author" in str(caught.value)
    assert "no plugin instance" not in str(caught.value).lower()
    assert kong.handle_event(instance).is_return


def test_a_phase_that_the_plugin_does_not_have_is_refused(kong: Kong) -> None:
    instance = kong.start_instance("hello", {})
    with pytest.raises(RemoteError, match="hello has no phase 'log'"):
        kong.handle_event(instance, "log")


@pytest.mark.parametrize("phase", PHASES)
def test_each_phase_runs_its_own_method(kong: Kong, phase: str) -> None:
    source = "\n".join(f"def {one}(self, kong): kong.log({one!r})" for one in PHASES)
    run = kong.run_event(kong.start_author(source), phase)
    assert run.calls == [("kong.log", [phase])]


@pytest.mark.parametrize(
    "argument",
    [
        ABSENT, None, 7, "access", [], {}, {"InstanceId": 1}, {"EventName": "access"},
        {"InstanceId": "1", "EventName": "access"}, {"InstanceId": 1.5, "EventName": "access"},
        {"InstanceId": None, "EventName": "access"}, {"InstanceId": 1, "EventName": ["access"]},
        {"InstanceId": 1, "EventName": None},
    ],
)  # fmt: skip
def test_malformed_events_are_answered(kong: Kong, argument: object) -> None:
    arguments = [] if argument is ABSENT else [argument]
    with pytest.raises(RemoteError) as caught:
        kong.call("plugin.HandleEvent", *arguments)
    assert "HandleEvent wants {InstanceId, EventName}" in str(caught.value)


@pytest.mark.parametrize("params", [[None], [1, 2], ["access", {"EventId": 1}], [[], []]])
@pytest.mark.parametrize("method", ["plugin.Step", "plugin.StepError", "plugin.StepMultiMap"])
def test_malformed_steps_are_answered(kong: Kong, method: str, params: list[object]) -> None:
    with pytest.raises(RemoteError):
        kong.call(method, *params)


def test_a_method_nested_nearly_too_deep_is_refused_like_any_other(kong: Kong) -> None:
    with kong.connect() as connection:
        connection.send_raw(b"\x94\x00\x01" + nested(1008) + b"\x90")
        reply = connection.reply()
        assert reply.msgid == 1
        assert isinstance(reply.error, str)
        assert connection.call("plugin.GetPluginNames") == ["author", "hello"]


@pytest.mark.parametrize("method", ["plugin.StartInstance", "plugin.CloseInstance", "plugin.X"])
def test_an_argument_nested_nearly_too_deep_is_answered(kong: Kong, method: str) -> None:
    with kong.connect() as connection:
        name = bytes((0xA0 | len(method),)) + method.encode()
        connection.send_raw(b"\x94\x00\x01" + name + b"\x91" + nested(1007))
        assert isinstance(connection.reply().error, str)
        assert connection.call("plugin.GetPluginNames") == ["author", "hello"]


@pytest.mark.parametrize("msgid", [0, 1, 127, 128, 2**16, 2**32, 2**53, 2**64 - 1, -1, -(2**63)])
def test_replies_carry_the_msgid_of_the_request(kong: Kong, msgid: int) -> None:
    with kong.connect() as connection:
        assert connection.call("plugin.GetPluginNames", msgid=msgid) == ["author", "hello"]
        with pytest.raises(RemoteError):
            connection.call("plugin.X", msgid=msgid)
        instance = kong.start_author("def access(self, kong): kong.log('x')")
        event = {"InstanceId": instance, "EventName": "access"}
        called = connection.call("plugin.HandleEvent", event, msgid=msgid)
        step = {"EventId": called["EventId"]}
        assert connection.call("plugin.Step", step, msgid=msgid)["Data"] == "ret"


def test_notifications_of_kong_are_not_answered(kong: Kong) -> None:
    with kong.connect() as connection:
        for _ in range(3):
            connection.send_raw(b"\x93\x02\xa5hello\x90")
            assert connection.call("plugin.GetPluginNames") == ["author", "hello"]


def test_a_notification_while_an_event_waits_is_not_answered(kong: Kong) -> None:
    instance = kong.start_author("def access(self, kong): kong.log('x')")
    with kong.connect() as connection:
        turn = connection.handle_event(instance)
        connection.send_raw(b"\x93\x02\xa5hello\x90")
        assert connection.step(turn.event_id).is_return


def test_ids_are_not_used_again_after_a_restart(start: Start) -> None:
    seen: set[int] = set()
    for _ in range(2):
        server = start()
        with server.kong() as kong:
            instances = [kong.start_author(QUIET) for _ in range(20)]
            events = [kong.handle_event(instance).event_id for instance in instances]
        for ids in (instances, events):
            assert len(set(ids)) == 20
            assert all(0 < one <= 2**53 for one in ids)  # what Lua's numbers hold exactly
            assert not seen.intersection(ids)
            seen.update(ids)
        with server.kong() as kong:
            for old in seen.difference(instances):
                with pytest.raises(RemoteError, match="no plugin instance"):
                    kong.handle_event(old)
        server.stop()


def test_the_pid_is_announced_on_each_connection_if_asked_for(start: Start) -> None:
    server = start("--announce-pid")
    with server.kong() as kong:
        for _ in range(2):
            with kong.connect() as connection:
                connection.call("plugin.GetPluginNames")
                connection.call("plugin.GetPluginNames")
                assert connection.notifications == [("serverPid", server.pid)]


def test_no_pid_is_announced_unless_asked_for(kong: Kong) -> None:
    with kong.connect() as connection:
        connection.call("plugin.GetPluginNames")
        connection.call("plugin.GetPluginNames")
        assert connection.notifications == []

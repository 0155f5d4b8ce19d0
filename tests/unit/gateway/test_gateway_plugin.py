"""The plugin to be tried: its file, its dump and its configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kong_pdk.gateway import GatewayError, ServerFailed, SettingsError
from kong_pdk.gateway.plugin import PluginInfo, calls_starter, parse_dump, plan
from kong_pdk.schema.values import complete, config_fields

FIELDS = [
    {"name": {"type": "string", "required": True}},
    {"count": {"type": "integer", "default": 3, "between": [1, 5]}},
    {"rate": {"type": "number", "gt": 0}},
    {"mode": {"type": "string", "one_of": ["a", "b"]}},
    {"tags": {"type": "set", "elements": {"type": "string"}}},
    {"hosts": {"type": "array", "elements": {"type": "string"}, "len_min": 1}},
    {"limits": {"type": "map", "keys": {"type": "string"}, "values": {"type": "integer"}}},
    {"on": {"type": "boolean"}},
    {
        "inner": {
            "type": "record",
            "required": True,
            "fields": [{"depth": {"type": "integer", "default": 1}}],
        }
    },
    {"free": {"type": "any"}},
]


def test_defaults_are_filled_in_and_nulls_left_out() -> None:
    assert complete({"name": "x", "rate": None}, FIELDS) == {
        "name": "x",
        "count": 3,
        "inner": {"depth": 1},
    }


def test_values_that_fit_are_kept() -> None:
    config = {
        "name": "x",
        "count": 5.0,
        "rate": 0.5,
        "mode": "b",
        "tags": ["p", "p", "q"],
        "hosts": ["h"],
        "limits": {"a": 1},
        "on": False,
        "inner": {"depth": 2},
        "free": [None, {}],
    }
    assert complete(config, FIELDS) == {**config, "tags": ["p", "q"]}


@pytest.mark.parametrize(
    ("config", "field", "word"),
    [
        ({}, "name", "required"),
        ({"name": "x", "nmae": 1}, "nmae", "unknown"),
        ({"name": 5}, "name", "string"),
        ({"name": ""}, "name", "length"),
        ({"name": "x", "count": "3"}, "count", "integer"),
        ({"name": "x", "count": 1.5}, "count", "integer"),
        ({"name": "x", "count": True}, "count", "boolean"),
        ({"name": "x", "count": 6}, "count", "between"),
        ({"name": "x", "rate": 0}, "rate", "above"),
        ({"name": "x", "mode": "c"}, "mode", "one of"),
        ({"name": "x", "tags": "p"}, "tags", "set"),
        ({"name": "x", "tags": ["p", 1]}, "tags[2]", "string"),
        ({"name": "x", "hosts": []}, "hosts", "length"),
        ({"name": "x", "limits": {"a": "b"}}, "limits[a]", "integer"),
        ({"name": "x", "on": 1}, "on", "boolean"),
        ({"name": "x", "inner": {"x": 1}}, "inner.x", "unknown"),
        ({"name": "x", "inner": 1}, "inner", "record"),
        ([1], "config", "record"),
    ],
)
def test_a_bad_configuration_names_the_field(config: Any, field: str, word: str) -> None:
    with pytest.raises(SettingsError) as caught:
        complete(config, FIELDS)
    assert caught.value.field == field
    assert field in str(caught.value) and word in str(caught.value)


def test_fields_are_found_in_the_dumped_schema() -> None:
    dumped = {"name": "p", "fields": [{"protocols": {}}, {"config": {"fields": FIELDS}}]}
    assert config_fields(dumped) == FIELDS
    assert config_fields(None) == [] and config_fields({"fields": []}) == []


def test_dump_is_read_as_kong_reads_it() -> None:
    entry = {"Name": "p", "Version": "1.0.0", "Priority": 5, "Phases": ["access"], "Schema": {}}
    plugin = parse_dump(json.dumps([entry, {"Name": "other"}]).encode())
    assert (plugin.name, plugin.version, plugin.priority) == ("p", "1.0.0", 5)
    assert plugin.phases == ("access",)
    assert parse_dump(json.dumps({"Protocol": "MsgPack:1", "Plugins": [entry]}).encode()) == plugin
    sent = json.loads(plugin.config_text({}, "the-id"))
    assert sent["__plugin_id"] == "the-id" and sent["__seq__"] == 1 and "__key__" in sent


@pytest.mark.parametrize("text", [b"", b"x", b"[]", b"{}", b"[1]", b'[{"Version": "1"}]'])
def test_what_is_no_dump_is_refused(text: bytes) -> None:
    with pytest.raises(ServerFailed):
        parse_dump(text)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from kong_pdk.cli import start_dedicated_server\nstart_dedicated_server('x', P)", True),
        ("import kong_pdk.cli as c\nif 1:\n    c.start_dedicated_server('x', P)", True),
        ("# start_dedicated_server()\nclass Plugin: pass", False),
        ("from kong_pdk.cli import start_dedicated_server", False),
    ],
)
def test_a_file_that_starts_its_own_server_is_recognised(source: str, expected: bool) -> None:
    assert calls_starter(source) is expected


def test_an_embedded_plugin_is_run_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("start_dedicated_server('mine', Plugin)")
    launch = plan(str(file), tmp_path, ["--x"], python="py")
    assert launch.start[:2] == ("py", str(file)) and launch.start[-1] == "--x"
    assert launch.query[:3] == ("py", str(file), "--dump")
    assert launch.socket == tmp_path / "try.sock"
    assert launch.start[4:6] == ("--socket-name", "try.sock")


@pytest.mark.parametrize("kind", ["file", "package", "installed"])
def test_any_other_plugin_is_for_the_server_of_this_package(tmp_path: Path, kind: str) -> None:
    plugin = str(tmp_path / "mine") if kind == "package" else str(tmp_path / "mine.py")
    if kind == "package":
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "__init__.py").touch()
    elif kind == "file":
        (tmp_path / "mine.py").write_text("class Plugin: pass")
    else:
        plugin = "mine"
    launch = plan(plugin, tmp_path, ["--x"], python="py")
    for command in (launch.start, launch.query):
        assert command[0] == "py"
        assert Path(command[1]).name == "kong-python-pluginserver"
        assert command[2:4] == ("--plugin", plugin)
    assert "--dump-all-plugins" in launch.query and "--x" not in launch.query
    folder = {"file": str(tmp_path), "package": plugin, "installed": ""}
    assert launch.folder == folder[kind]


def test_what_is_no_plugin_is_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("x = (")
    for path in (tmp_path / "none.py", bad, tmp_path):
        with pytest.raises(GatewayError):
            plan(str(path), tmp_path)


SECRET = {"type": "string", "referenceable": True}
WITH_SECRETS = [
    {"token": SECRET},
    {"plain": {"type": "string"}},
    {"list": {"type": "array", "elements": SECRET}},
    {"map": {"type": "map", "keys": {"type": "string"}, "values": SECRET}},
    {"inner": {"type": "record", "fields": [{"token": SECRET}]}},
]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"token": "{vault://env/my-token}"}, {"token": "s3cret"}),
        ({"token": "{vault://env/my-json/inner}"}, {"token": "deep"}),
        ({"token": "{vault://env/none-such}"}, {"token": ""}),
        ({"token": "{vault://aws/my-token}"}, {"token": ""}),
        ({"token": "s3cret too"}, {"token": "s3cret too"}),
        ({"plain": "{vault://env/my-token}"}, {"plain": "{vault://env/my-token}"}),
        ({"list": ["a", "{vault://env/my-token}"]}, {"list": ["a", "s3cret"]}),
        ({"map": {"k": "{vault://env/my-token}"}}, {"map": {"k": "s3cret"}}),
        ({"inner": {"token": "{vault://env/my-token}"}}, {"inner": {"token": "s3cret"}}),
    ],
)
def test_references_in_a_configuration(given: Any, expected: Any) -> None:
    schema = {"fields": [{"config": {"type": "record", "fields": WITH_SECRETS}}]}
    plugin = PluginInfo("p", "1.0.0", 1, ("access",), schema)
    environment = {"MY_TOKEN": "s3cret", "MY_JSON": '{"inner": "deep"}'}
    text = json.loads(plugin.config_text(given, "id", environment))
    assert {name: text[name] for name in given} == expected

"""Plugins: what is checked when one is defined, each refusal with file and field."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from kong_pdk.exception import PluginError
from kong_pdk.pdk.functions import PHASES
from kong_pdk.plugins import Plugin, define_plugin, plugin_of_class


class Good:
    def __init__(self, config: Any) -> None:
        self.config = config

    def access(self, kong: Any) -> None:
        """Nothing."""

    def helper(self) -> None:
        """No phase."""


def define(**changes: Any) -> Plugin:
    fields: dict[str, Any] = {
        "name": "good", "factory": Good, "version": "1.0.0", "priority": 0, "schema": (),
        "where": "/plugins/good.py",
    }  # fmt: skip
    return define_plugin(**{**fields, **changes})


def with_phase(**members: Any) -> type:
    return type("Plugin", (), members)


@pytest.fixture(autouse=True)
def same_imports() -> Iterator[None]:
    """What a test loads is not there for the next one."""
    path, modules = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]


# --- one plugin -----------------------------------------------------------------------------------


def test_what_kong_is_told() -> None:
    field = {"message": {"type": "string", "required": True}}
    plugin = define(schema=(field,), priority=-5, version="10.0.12")
    assert plugin.describe() == {
        "Name": "good",
        "Phases": ["access"],
        "Priority": -5,
        "Version": "10.0.12",
        "Schema": {
            "name": "good",
            "fields": [{"config": {"type": "record", "fields": [field]}}],
        },
    }
    json.dumps(plugin.describe())


def test_phases_are_found_in_kongs_order() -> None:
    def phase(self: Any, kong: Any) -> None:
        """Any phase."""

    names = ("log", "preread", "response", "access", "rewrite", "certificate")
    assert define(factory=with_phase(**dict.fromkeys(names, phase))).phases == PHASES
    assert set(names) == set(PHASES)
    child = type("Child", (Good,), {"log": phase})
    assert define(factory=child).phases == ("access", "log")
    assert define(factory=type("Off", (child,), {"access": None})).phases == ("log",)


@pytest.mark.parametrize("name", ["a", "my-plugin", "my_plugin2", "0day", "A" * 100])
def test_names(name: str) -> None:
    assert define(name=name).name == name


@pytest.mark.parametrize("version", ["0.0.0", "1.2.3", "10.20.30"])
def test_versions(version: str) -> None:
    assert define(version=version).version == version


@pytest.mark.parametrize(
    "schema",
    [
        (),
        [],
        ({"a": {"type": "string"}},),
        [{"a": {"type": "map", "keys": {"type": "string"}, "values": {"type": "number"}}}],
    ],
)
def test_schemas(schema: Any) -> None:
    assert define(schema=schema).schema == list(schema)


def test_a_schema_is_copied_as_json() -> None:
    inner: dict[str, Any] = {
        "type": "array",
        "elements": {"type": "string"},
        "default": ("a", "b"),
    }
    plugin = define(schema=({"keys": inner},))
    inner["type"] = "changed"
    assert plugin.schema == [
        {"keys": {"type": "array", "elements": {"type": "string"}, "default": ["a", "b"]}}
    ]


def coroutine_phase() -> type:
    async def access(self: Any, kong: Any) -> None:
        """async."""

    return with_phase(access=access)


def generator_phase() -> type:
    def access(self: Any, kong: Any) -> Any:
        yield

    return with_phase(access=access)


def async_generator_phase() -> type:
    async def access(self: Any, kong: Any) -> Any:
        yield

    return with_phase(access=access)


def closing(close: Any) -> type:
    return type("Plugin", (Good,), {"close": close})


def test_close_is_no_phase() -> None:
    assert not define().closes
    assert not define(factory=closing(None)).closes
    plugin = define(factory=closing(lambda self: None))
    assert plugin.closes
    assert plugin.phases == ("access",)
    assert "close" not in json.dumps(plugin.describe())
    with pytest.raises(PluginError, match="Plugin has no phase"):
        define(factory=with_phase(close=lambda self: None))


A_TEXT = {"a": {"type": "string"}}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "name_none": ({"name": None}, "plugin's name must consist of .* got None"),
    "name_empty": ({"name": ""}, "plugin's name must .* got ''"),
    "name_number": ({"name": 5}, "plugin's name must .* got 5"),
    "name_dash_first": ({"name": "-a"}, "plugin's name must .* got '-a'"),
    "name_slash": ({"name": "a/b"}, "plugin's name must .* got 'a/b'"),
    "name_dot": ({"name": "a.b"}, "plugin's name must .* got 'a.b'"),
    "name_space": ({"name": "a b"}, "plugin's name must .* got 'a b'"),
    "name_newline": ({"name": "a\n"}, "plugin's name must .* got 'a"),
    "name_not_ascii": ({"name": "ä"}, "plugin's name must .* got 'ä'"),
    "class_instance": ({"factory": Good({})}, "Plugin must be a class, got <"),
    "class_function": ({"factory": len}, "Plugin must be a class, got <"),
    "class_none": ({"factory": None}, "Plugin must be a class, got None"),
    "version_none": ({"version": None}, r"version is missing: .* '1\.0\.0'"),
    "version_number": ({"version": 1.0}, r"version must be a string .* got 1\.0"),
    "version_two": ({"version": "1.0"}, r"version must be .* got '1\.0'"),
    "version_four": ({"version": "1.0.0.0"}, "version must be "),
    "version_letters": ({"version": "1.0.0rc1"}, "version must be .* got '1.0.0rc1'"),
    "version_v": ({"version": "v1.0.0"}, "version must be "),
    "version_newline": ({"version": "1.0.0\n"}, "version must be "),
    "version_arabic_digits": ({"version": "١.٢.٣"}, "version must be "),
    "version_tuple": ({"version": (1, 0, 0)}, r"version must be .* got \(1, 0, 0\)"),
    "priority_none": ({"priority": None}, "priority is missing: "),
    "priority_text": ({"priority": "10"}, "priority must be an integer, got '10'"),
    "priority_float": ({"priority": 1.5}, r"priority must be an integer, got 1\.5"),
    "priority_true": ({"priority": True}, "priority must be an integer, got True"),
    "schema_dict": ({"schema": {"a": {}}}, "Schema must be a tuple or list .* comma missing"),
    "schema_text": ({"schema": "a"}, "Schema must be a tuple or list of fields, got str"),
    "schema_set": ({"schema": {"a"}}, "Schema must be a tuple or list of fields, got set"),
    "field_text": ({"schema": (A_TEXT, "b")}, "Schema: field 2 must be a dict .* got 'b'"),
    "field_empty": ({"schema": ({},)}, "Schema: field 1 must be a dict with one key"),
    "field_two_keys": ({"schema": ({"a": {}, "b": {}},)}, "Schema: field 1 must be a dict"),
    "field_key_number": ({"schema": ({1: {}},)}, "Schema: the name of field 1 must be a text"),
    "field_value_text": ({"schema": ({"a": "string"},)}, "Schema: field 'a': must be a dict"),
    "field_twice": ({"schema": (A_TEXT, A_TEXT)}, "Schema: field 'a': is there twice"),
    "schema_object": ({"schema": ({"a": {"default": object()}},)}, "Schema cannot be .* JSON: "),
    "schema_bytes": ({"schema": ({"a": {"default": b"x"}},)}, "Schema cannot be .* JSON: "),
    "schema_nan": ({"schema": ({"a": {"default": float("nan")}},)}, "Schema cannot be .* JSON: "),
    "no_phase": (
        {"factory": with_phase(acess=Good.access)},
        "Plugin has no phase .acess is none.: .* access",
    ),
    "phase_no_method": ({"factory": with_phase(log="x")}, "Plugin.log must be a method, got 'x'"),
    "phase_async": ({"factory": coroutine_phase()}, "Plugin.access must be a plain method: async"),
    "phase_generator": ({"factory": generator_phase()}, "Plugin.access must be a plain method"),
    "close_no_method": ({"factory": closing("x")}, "Plugin.close must be a method, got 'x'"),
    "close_async": (
        {"factory": closing(coroutine_phase().access)},  # type: ignore[attr-defined]
        "Plugin.close must be a plain method: async",
    ),
    "phase_async_generator": ({"factory": async_generator_phase()}, "Plugin.access must be a "),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "text"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_names_file_and_field(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(PluginError, match=f"^/plugins/good.py: (the )?{text}"):
        define(**changes)


def test_a_schema_that_contains_itself() -> None:
    field: dict[str, Any] = {}
    field["a"] = {"fields": field}
    with pytest.raises(PluginError, match="Schema cannot be written as JSON"):
        define(schema=(field,))


def test_an_error_of_a_plugin_fits_a_builtin() -> None:
    with pytest.raises(ValueError):
        define(name="")


# --- the embedded server's ------------------------------------------------------------------------


def module_class(**members: Any) -> type:
    """A plugin's class in a module of its own, with further names in it."""
    module = types.ModuleType("kong_pdk_test_module")
    sys.modules[module.__name__] = module
    vars(module).update(members)
    return type("Plugin", (Good,), {"__module__": module.__name__})


def test_the_schema_of_the_classs_module() -> None:
    """The documented example leaves the fifth argument out and expects its option to be known."""
    schema = ({"message": {"type": "string"}},)
    factory = module_class(Schema=schema)
    assert plugin_of_class("a", factory, "1.0.0", 0, None).schema == list(schema)
    other = [{"other": {"type": "number"}}]
    assert plugin_of_class("a", factory, "1.0.0", 0, other).schema == other
    assert plugin_of_class("a", factory, "1.0.0", 0, ()).schema == []
    assert plugin_of_class("a", module_class(), "1.0.0", 0, None).schema == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("a b", Good, "1.0.0", 0, ()), r"^plugin 'a b': the plugin's name must"),
        (("a", 5, "1.0.0", 0, ()), r"^plugin 'a': Plugin must be a class, got 5"),
        (("a", Good, None, 0, ()), r"^plugin 'a': version is missing"),
        (("a", Good, "1", 0, ()), r"^plugin 'a': version must be"),
        (("a", Good, "1.0.0", None, ()), r"^plugin 'a': priority is missing"),
        (("a", Good, "1.0.0", 0, {"x": {}}), r"^plugin 'a': Schema must be a tuple or list"),
    ],
)
def test_what_the_embedded_server_refuses(arguments: Any, text: str) -> None:
    with pytest.raises(PluginError, match=text):
        plugin_of_class(*arguments)

"""What a plugin's class asks for, by the annotation of its ``__init__``."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Optional

import pytest

from kong_pdk.exception import PluginError, RPCError, SettingsError
from kong_pdk.plugins.definition import Plugin, define_plugin
from kong_pdk.runtime.instances import Instance
from kong_pdk.schema import field, kong_keys, schema_of
from kong_pdk.schema.asking import asked_for

if TYPE_CHECKING:
    from elsewhere import Unknown  # type: ignore[import-not-found]


@dataclass
class Config:
    host: str
    retries: Optional[int] = 3
    tags: list[str] = field([])


SCHEMA = schema_of(Config)
BY_HAND: tuple[Any, ...] = (
    {"host": {"type": "string", "required": True}},
    {"retries": {"type": "integer"}},
)


class Typed:
    def __init__(self, config: Config) -> None:
        self.config = config

    def access(self, kong: Any) -> None:
        """Nothing."""


class Other(Typed):
    pass


class MayBe(Typed):
    def __init__(self, config: Optional[Config]) -> None:
        self.config = config  # type: ignore[assignment]


class Marked(Typed):
    def __init__(self, settings: Annotated[Config, "anything"], more: int = 0) -> None:
        self.config = settings


@dataclass
class IsOne(Typed):
    config: Config


class Untyped(Typed):
    def __init__(self, config: Any) -> None:
        self.config = config


class Bare(Typed):
    def __init__(self, config):  # type: ignore[no-untyped-def]
        self.config = config


class AsDict(Typed):
    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config  # type: ignore[assignment]


class Strange(Typed):
    def __init__(self, config: Unknown) -> None:
        self.config = config


def define(factory: type, schema: Any = None) -> Plugin:
    return define_plugin("p", factory, "1.0.0", 1, schema, where="p.py")


@pytest.mark.parametrize("factory", [Typed, Other, MayBe, Marked, IsOne])
@pytest.mark.parametrize("schema", [None, SCHEMA])
def test_who_gets_an_object(factory: type, schema: Any) -> None:
    plugin = define(factory, schema)
    assert plugin.schema == list(SCHEMA)
    made = plugin.configure({"host": "h", "retries": 5, "__plugin_id": "id"})
    assert made == Config("h", 5)
    assert kong_keys(made) == {"__plugin_id": "id"}
    assert plugin.configure({"host": "h"}) == Config("h", None)


@pytest.mark.parametrize("factory", [Untyped, Bare, AsDict])
@pytest.mark.parametrize("schema", [None, SCHEMA, BY_HAND])
def test_who_gets_a_dict(factory: type, schema: Any, caplog: pytest.LogCaptureFixture) -> None:
    plugin = define(factory, schema)
    sent = {"host": "h", "tags": ["a"], "__plugin_id": "id"}
    got = plugin.configure(sent)
    assert got == sent
    got["tags"].append("b")  # it is the plugin's own
    assert sent["tags"] == ["a"]
    assert plugin.schema == list(schema or ())
    assert caplog.records == []


def test_a_plugin_without_an_init() -> None:
    plain = type("Plugin", (), {"access": lambda self, kong: None})
    assert define(plain).schema == []
    with_class = type("Plugin", (dict,), {"access": lambda self, kong: None})
    assert define(with_class).configure({"a": 1}) == {"a": 1}


def test_an_annotation_that_nobody_knows(caplog: pytest.LogCaptureFixture) -> None:
    plugin = define(Strange, BY_HAND)
    assert plugin.configure({"host": "h"}) == {"host": "h"}
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "'Unknown'" in record.getMessage() and "p.py" in record.getMessage()


def test_the_name_of_the_class_that_the_schema_was_made_of() -> None:
    """It may be one that the module does not have under that name."""

    class Unknown(Config):
        pass

    assert asked_for(Strange, schema_of(Unknown)).make({"host": "h"}) == Unknown("h", None)


def test_an_object_of_a_schema_by_hand(caplog: pytest.LogCaptureFixture) -> None:
    plugin = define(Typed, BY_HAND)
    assert plugin.schema == list(BY_HAND)
    # Kong does not know the class's defaults here.
    assert plugin.configure({"host": "h"}) == Config("h", 3)
    assert caplog.records == []
    define(Typed, (*BY_HAND, {"more": {"type": "string"}}))
    assert "field 'more' is none of Config" in caplog.text


def test_a_schema_by_hand_that_lacks_what_is_needed() -> None:
    with pytest.raises(
        PluginError, match=r"^p\.py: Config\.host has no default and is not in Schema"
    ):
        define(Typed, ({"retries": {"type": "integer"}},))


def test_a_class_that_kong_has_no_words_for() -> None:
    @dataclass
    class Odd:
        value: complex

    odd = type("Plugin", (Typed,), {"__init__": lambda self, config: None})
    odd.__init__.__annotations__["config"] = Odd  # type: ignore[misc]
    with pytest.raises(PluginError, match=r"^p\.py: Odd\.value: Kong has no type for complex"):
        define(odd)


def test_relations_of_fields_are_told_kong() -> None:
    schema = schema_of(Config, entity_checks=[{"at_least_one_of": ["retries", "tags"]}])
    plugin = define(Typed, schema)
    assert plugin.describe()["Schema"]["fields"] == [
        {
            "config": {
                "type": "record",
                "fields": list(SCHEMA),
                "entity_checks": [{"at_least_one_of": ["retries", "tags"]}],
            }
        }
    ]
    with pytest.raises(SettingsError):
        plugin.configure({"host": "h"})
    assert "entity_checks" not in str(define(Typed).describe())


def test_mistakes_in_a_schema(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(PluginError) as caught:
        define(Bare, ({"a": {"type": "str"}}, {"b": {"type": "string", "requird": True}}))
    assert str(caught.value).startswith("p.py: Schema: field 'a'")
    assert "'string'" in str(caught.value) and "'requird'" in str(caught.value)
    assert caplog.records == []
    define(Bare, ({"a": {"type": "string", "match": r"^\d$"}},))
    assert "p.py: Schema: field 'a': match is a Lua pattern" in caplog.text
    caplog.clear()
    define(Bare, ({"a": {"type": "string", "description": "long enough"}},))
    assert caplog.records == []  # for whoever has an older Kong, kong-pdk check tells it


def test_an_instance_with_an_object() -> None:
    plugin = define(IsOne)
    sent = {"host": "h", "retries": 1, "tags": ["a"]}
    instance = Instance(2, plugin, sent)
    assert instance.describe()["Config"] is sent
    with pytest.raises(RPCError, match="plugin p: config field 'host': required field missing"):
        Instance(2, plugin, {"retries": 1})

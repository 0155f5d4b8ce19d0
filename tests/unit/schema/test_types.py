"""A Schema made of a dataclass, and objects of that class made of what Kong sends."""

from __future__ import annotations

import enum
import json
import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, make_dataclass
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NewType,
    Optional,
    Union,
)

import pytest

from kong_pdk.exception import SchemaError, SettingsError
from kong_pdk.schema import ConfigSchema, check_fields, field, kong_keys, schema_of
from kong_pdk.schema.values import complete

Name = NewType("Name", str)
Path = Annotated[str, field(starts_with="/")]


class Mode(enum.Enum):
    FAST = "fast"
    SAFE = "safe"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass(frozen=True)
class Limit:
    count: int = field(5, gt=0)
    window: Optional[float] = None


@dataclass
class Config:
    host: str
    paths: list[Path]
    message: str = field("hello", len_max=80, description="What is said to clients.")
    port: Optional[int] = field(None, between=(1, 65535))
    retries: Optional[int] = 3
    ratio: float = 0.5
    on: bool = True
    mode: Mode = Mode.SAFE
    level: Level = Level.LOW
    way: Literal["in", "out"] = "in"
    empty: str = ""
    key: Annotated[Optional[str], field(referenceable=True, encrypted=True)] = None
    name: Name = Name("x")
    tags: set[Mode] = field({Mode.SAFE, Mode.FAST})
    frozen: frozenset[str] = frozenset()
    pair: tuple[int, int] = (1, 2)
    many: tuple[str, ...] = ()
    headers: dict[str, str] = field(default_factory=dict, len_max=3)
    limits: Mapping[str, Limit] = field({})
    limit: Limit = Limit()
    other: Limit = Limit(count=7)
    spare: Optional[Limit] = None
    steps: Sequence[Limit] = field([Limit(1), Limit(2, 0.5)])
    anything: Annotated[Any, field(json_schema={"inline": {"type": "object"}})] = None
    shared: ClassVar[int] = 5


LIMIT_FIELDS = [
    {"count": {"type": "integer", "gt": 0, "required": True, "default": 5}},
    {"window": {"type": "number"}},
]
LIMIT = {"type": "record", "fields": LIMIT_FIELDS}
TEXT = {"type": "string"}

EXPECTED = {
    "host": {"type": "string", "required": True},
    "paths": {"type": "array", "elements": {**TEXT, "starts_with": "/"}, "required": True},
    "message": {"type": "string", "len_max": 80, "description": "What is said to clients.",
                "required": True, "default": "hello"},
    "port": {"type": "integer", "between": [1, 65535]},
    "retries": {"type": "integer", "default": 3},
    "ratio": {"type": "number", "required": True, "default": 0.5},
    "on": {"type": "boolean", "required": True, "default": True},
    "mode": {**TEXT, "one_of": ["fast", "safe"], "required": True, "default": "safe"},
    "level": {"type": "integer", "one_of": [1, 2], "required": True, "default": 1},
    "way": {**TEXT, "one_of": ["in", "out"], "required": True, "default": "in"},
    "empty": {**TEXT, "len_min": 0, "required": True, "default": ""},
    "key": {**TEXT, "referenceable": True, "encrypted": True},
    "name": {**TEXT, "required": True, "default": "x"},
    "tags": {"type": "set", "elements": {**TEXT, "one_of": ["fast", "safe"]}, "required": True,
             "default": ["fast", "safe"]},
    "frozen": {"type": "set", "elements": TEXT, "required": True, "default": []},
    "pair": {"type": "array", "elements": {"type": "integer"}, "len_eq": 2, "required": True,
             "default": [1, 2]},
    "many": {"type": "array", "elements": TEXT, "required": True, "default": []},
    "headers": {"type": "map", "keys": TEXT, "values": TEXT, "len_max": 3, "required": True,
                "default": {}},
    "limits": {"type": "map", "keys": TEXT, "values": LIMIT, "required": True, "default": {}},
    "limit": {**LIMIT, "required": True},
    "other": {**LIMIT, "required": True, "default": {"count": 7}},
    "spare": {**LIMIT, "required": False},
    "steps": {"type": "array", "elements": LIMIT, "required": True,
              "default": [{"count": 1}, {"count": 2, "window": 0.5}]},
    "anything": {"type": "json", "json_schema": {"inline": {"type": "object"}}},
}  # fmt: skip

SCHEMA = schema_of(Config)


@pytest.mark.parametrize("name", EXPECTED)
def test_what_kong_is_told_of_a_field(name: str) -> None:
    assert {key: value for entry in SCHEMA for key, value in entry.items()}[name] == EXPECTED[name]


def test_a_schema_is_what_a_module_states() -> None:
    assert isinstance(SCHEMA, tuple) and isinstance(SCHEMA, ConfigSchema)
    assert [name for entry in SCHEMA for name in entry] == list(EXPECTED)
    assert json.loads(json.dumps(SCHEMA)) == list(SCHEMA)
    assert [each for each in check_fields(SCHEMA) if each.level != "note"] == []
    assert SCHEMA.config_class is Config and SCHEMA.entity_checks == []


def sent(**config: Any) -> dict[str, Any]:
    """A configuration as Kong sends it: with the defaults, and without what is null."""
    return complete({"host": "h", "paths": ["/a"], **config}, SCHEMA)


def test_an_object_with_all_defaults() -> None:
    assert SCHEMA.make(sent()) == Config("h", ["/a"])


def test_an_object_of_everything() -> None:
    config = sent(
        port=80, ratio=1, on=False, mode="fast", level=2, way="out", key="k", name="n",
        tags=["fast"], frozen=["p", "q"], pair=[3, 4], many=["m"], headers={"a": "b"},
        limits={"l": {"count": 1}}, limit={"count": 9, "window": 2}, other={}, spare={},
        steps=[{"window": 1}], anything={"a": [1]},
    )  # fmt: skip
    made = SCHEMA.make(json.loads(json.dumps(config)))
    assert made == Config(
        "h", ["/a"], port=80, ratio=1.0, on=False, mode=Mode.FAST, level=Level.HIGH, way="out",
        key="k", name=Name("n"), tags={Mode.FAST}, frozen=frozenset("pq"), pair=(3, 4),
        many=("m",), headers={"a": "b"}, limits={"l": Limit(1)}, limit=Limit(9, 2.0),
        other=Limit(), spare=Limit(), steps=[Limit(5, 1.0)], anything={"a": [1]},
    )  # fmt: skip
    for name, kind in {"ratio": float, "mode": Mode, "level": Level, "tags": set}.items():
        assert type(getattr(made, name)) is kind
    assert isinstance(made.frozen, frozenset) and isinstance(made.pair, tuple)
    assert type(made.limit.window) is float


def test_null_is_null_if_kong_knows_the_default() -> None:
    """What is not there, was null: Kong has filled in all defaults."""
    assert SCHEMA.make(sent(retries=None)).retries is None
    assert SCHEMA.make({"host": "h", "paths": [], "retries": None}).retries is None
    by_hand = SCHEMA.make({"host": "h", "paths": []}, derived=False)
    assert by_hand == Config("h", [])
    assert SCHEMA.make({"host": "h", "paths": [], "message": None}).message == "hello"


def test_a_schema_by_hand_says_whether_texts_may_be_empty() -> None:
    config = {"host": "", "paths": []}
    assert SCHEMA.make(config, derived=False).host == ""
    with pytest.raises(SettingsError, match="host"):
        SCHEMA.make(config)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"host": None}, "host"),
        ({"host": 5}, "host"),
        ({"paths": ["a"]}, "paths[1]"),
        ({"port": 0}, "port"),
        ({"ratio": "1"}, "ratio"),
        ({"mode": "slow"}, "mode"),
        ({"level": 3}, "level"),
        ({"tags": ["slow"]}, "tags[1]"),
        ({"pair": [1]}, "pair"),
        ({"limits": {"a": {"count": 0}}}, "limits[a].count"),
        ({"limit": {"window": "x"}}, "limit.window"),
        ({"steps": [{}, {"count": 0}]}, "steps[2].count"),
    ],
)
def test_what_does_not_fit_is_named(config: dict[str, Any], name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        SCHEMA.make({"host": "h", "paths": [], **config})
    assert caught.value.field == name and repr(name) in str(caught.value)


def test_values_are_not_shown() -> None:
    with pytest.raises(SettingsError) as caught:
        SCHEMA.make({"host": "h", "paths": ["topsecret"], "level": 4711})
    assert "topsecret" not in str(caught.value) and "4711" not in str(caught.value)


def test_what_a_class_checks_itself() -> None:
    @dataclass
    class Inner:
        low: int = 1
        high: int = 2

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low is above high")

    Outer = make_dataclass("Outer", [("inner", Inner), ("many", list[Inner], field([]))])
    schema = schema_of(Outer)
    with pytest.raises(SettingsError) as caught:
        schema.make({"inner": {"low": 3}})
    assert caught.value.problems == [("inner", "low is above high")]
    with pytest.raises(SettingsError) as caught:
        schema.make({"inner": {}, "many": [{}, {"high": 0}]})
    assert caught.value.field == "many[2]"


# --- what Kong adds -------------------------------------------------------------------------------


def test_keys_of_kong() -> None:
    config = {**sent(), "__plugin_id": "id", "route_id": "r"}
    config["limit"]["$refs"] = {}
    config["$refs"] = {"key": "{vault://env/x}"}
    made = SCHEMA.make(config)
    assert kong_keys(made) == {"__plugin_id": "id", "route_id": "r", "$refs": config["$refs"]}
    kong_keys(made).clear()
    assert kong_keys(made)["route_id"] == "r"
    assert kong_keys(Config("h", [])) == {}
    other = SCHEMA.make({**sent(), "__plugin_id": "other"})
    assert kong_keys(other) == {"__plugin_id": "other"} and made == other


def test_keys_are_forgotten_with_their_object() -> None:
    from kong_pdk.schema import types

    before = len(types._added)
    made = [SCHEMA.make({**sent(), "__plugin_id": str(n)}) for n in range(5)]
    assert len(types._added) == before + 5
    del made
    assert len(types._added) == before


def test_keys_of_an_object_with_slots() -> None:
    @dataclass
    class Slots:
        __slots__ = ("a",)
        a: int

    made = schema_of(Slots).make({"a": 1, "__plugin_id": "x"})
    assert made.a == 1
    with pytest.raises(TypeError, match="Slots has slots"):
        kong_keys(made)


# --- classes that Kong has no words for -----------------------------------------------------------


def config_of(hint: Any, **kwargs: Any) -> type:
    default = kwargs.get("default", ...)
    members: dict[str, Any] = {"__annotations__": {"f": hint}}
    if default is not ...:
        members["f"] = default
    return dataclass(type("Config", (), members))


@pytest.mark.parametrize(
    ("hint", "word"),
    [
        (bytes, "no type for bytes"),
        (complex, "no type for complex"),
        (object, "no type for anything"),
        (Any, "json_schema"),
        (list, "list[str]"),
        (set, "set[str]"),
        (dict, "dict[str, str]"),
        (Union[str, int], "str or int"),
        (Optional[Union[str, int]], "str or int"),
        (dict[int, str], "must be texts"),
        (list[Optional[str]], "no null inside"),
        (tuple[int, str], "tuple[str, ...]"),
        (Literal["a", 1], "'a', 1"),
        (enum.Enum("Odd", {"A": "a", "B": 1}), "all be texts"),
        (enum.Enum("Objects", {"A": object()}), "all be texts"),
        (list[bytes], "no type for bytes"),
        ("Missing", "Missing"),
    ],
)
def test_types_that_kong_has_no_words_for(hint: Any, word: str) -> None:
    with pytest.raises(SchemaError) as caught:
        schema_of(config_of(hint))
    text = str(caught.value)
    assert text.startswith("Config.f" if hint != "Missing" else "Config: ") and word in text


@pytest.mark.parametrize(
    ("hint", "default", "word"),
    [
        (str, None, "Optional"),
        (int, "x", "default does not fit"),
        (str, field("x", between=(1, 2)), "between is for the types"),
        (str, field("xyz", len_max=2), "default does not fit"),
        (str, field("x", lenmax=2), "did you mean"),
        (int, field(5, gt=5), "default does not fit"),
        (str, field("x", description="short"), "10 to 500"),
        (list[str], field([""]), "[1]"),
    ],
)
def test_fields_that_make_no_sense(hint: Any, default: Any, word: str) -> None:
    with pytest.raises(SchemaError) as caught:
        schema_of(config_of(hint, default=default))
    assert str(caught.value).startswith("Config.f") and word in str(caught.value)


def test_the_newer_way_to_write_optional() -> None:
    newer = config_of("int | None", default=None)
    if sys.version_info >= (3, 10):
        assert list(schema_of(newer)) == [{"f": {"type": "integer"}}]
    else:
        with pytest.raises(SchemaError, match=r"Python 3\.9 needs Optional"):
            schema_of(newer)


def test_a_class_that_contains_itself() -> None:
    with pytest.raises(SchemaError, match=r"Node\.next: Node contains itself"):
        schema_of(Node)


@dataclass
class Node:
    next: Optional[Node] = None


@pytest.mark.parametrize("what", [str, dict, Mode, 5, Config("h", []), None])
def test_what_is_no_class_of_fields(what: Any) -> None:
    with pytest.raises(SchemaError, match="needs a dataclass"):
        schema_of(what)


@dataclass
class Keys:
    key: Optional[str] = None
    file: Optional[str] = None


def test_relations_of_fields() -> None:
    @dataclass
    class Outer:
        keys: Keys = field(Keys("k"), entity_checks=[{"only_one_of": ["key", "file"]}])
        a: Optional[str] = None

    schema = schema_of(Outer, entity_checks=[{"at_least_one_of": ["a", "keys.file"]}])
    assert schema[0]["keys"]["entity_checks"] == [{"only_one_of": ["key", "file"]}]
    assert schema.make({"a": "x", "keys": {"key": "k"}}) == Outer(Keys("k"), "x")
    for config in ({"keys": {"key": "k"}}, {"a": "x", "keys": {}}):
        with pytest.raises(SettingsError):
            schema.make(config)
    with pytest.raises(SchemaError, match="entity_checks: there is no entity check"):
        schema_of(Keys, entity_checks=[{"only_one": ["key"]}])


def test_the_former_names_of_types() -> None:
    for old, new in [
        (typing.List[str], list[str]),  # noqa: UP006
        (typing.Set[int], set[int]),  # noqa: UP006
        (typing.Dict[str, int], dict[str, int]),  # noqa: UP006
    ]:
        assert list(schema_of(config_of(old))) == list(schema_of(config_of(new)))


def test_a_list_as_a_default_is_copied() -> None:
    @dataclass
    class Lists:
        a: list[str] = field(["x"])

    Lists().a.append("y")
    assert Lists().a == ["x"]
    with pytest.raises(ValueError):
        field("x", default_factory=str)


def test_required_can_be_said() -> None:
    @dataclass
    class Said:
        a: Annotated[Optional[str], field(required=True)]
        b: str = field("x", required=False)

    assert list(schema_of(Said)) == [
        {"a": {"type": "string", "required": True}},
        {"b": {"type": "string", "default": "x"}},
    ]


def test_a_value_without_a_type() -> None:
    @dataclass
    class Config:
        host: str
        port = 80

    with pytest.raises(SchemaError, match=r"Config\.port has no type.* port: int = "):
        schema_of(Config)


def test_what_is_meant_for_the_class() -> None:
    @dataclass
    class Base:
        host: str = "h"

    @dataclass
    class Config(Base):
        LIMIT = 7
        known: ClassVar[list[str]] = ["a"]
        _inner = 3

        @property
        def port(self) -> int:
            return 80

        def address(self) -> str:
            return f"{self.host}:{self.port}"

    assert [name for each in schema_of(Config) for name in each] == ["host"]

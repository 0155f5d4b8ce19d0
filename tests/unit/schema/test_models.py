"""pydantic models as configurations."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Annotated, Any, Literal, Optional

import pytest

from kong_pdk.exception import SchemaError, SettingsError
from kong_pdk.schema import check_fields, field, kong_keys, schema_of
from kong_pdk.schema.values import complete

pydantic = pytest.importorskip("pydantic")
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, PositiveInt, SecretStr  # noqa: E402


class Mode(enum.Enum):
    FAST = "fast"
    SAFE = "safe"


class Inner(BaseModel):
    count: int = Field(5, ge=1)


@dataclass
class Plain:
    x: int = 1


class Config(BaseModel):
    url: HttpUrl
    name: str = Field("abc", min_length=2, max_length=5, pattern=r"^\w+$")
    port: int = Field(80, ge=1, lt=65536, description="Where the service listens.")
    ratio: float = Field(0.5, gt=0, le=1)
    low: float = Field(0, ge=-1.5)
    high: int = Field(0, le=9)
    many: PositiveInt = 4
    mode: Mode = Mode.SAFE
    way: Literal["in", "out"] = "in"
    secret: Annotated[Optional[SecretStr], field(referenceable=True)] = None
    tags: set[Annotated[str, Field(max_length=3)]] = {"b", "a"}
    names: list[str] = Field([], max_length=2)
    inner: Inner = Inner()
    spare: Optional[Inner] = Field(None, description="short")
    limits: dict[str, Inner] = {"a": Inner(count=2)}
    plain: Plain = Plain(2)
    since: Optional[datetime] = None
    kind: str = Field("x", alias="type")


TEXT = {"type": "string"}
INNER = {
    "type": "record",
    "fields": [{"count": {"type": "integer", "gt": 0, "required": True, "default": 5}}],
}

EXPECTED = {
    "url": {**TEXT, "required": True},
    # pydantic counts characters and Kong bytes; the regular expression is no Lua pattern.
    "name": {**TEXT, "len_min": 2, "len_max": 20, "required": True, "default": "abc"},
    "port": {"type": "integer", "between": [1, 65535], "description": "Where the service listens.",
             "required": True, "default": 80},
    "ratio": {"type": "number", "gt": 0, "between": [0, 1], "required": True, "default": 0.5},
    "low": {"type": "number", "between": [-1.5, 2**53], "required": True, "default": 0},
    "high": {"type": "integer", "between": [-(2**53), 9], "required": True, "default": 0},
    "many": {"type": "integer", "gt": 0, "required": True, "default": 4},
    "mode": {**TEXT, "one_of": ["fast", "safe"], "required": True, "default": "safe"},
    "way": {**TEXT, "one_of": ["in", "out"], "required": True, "default": "in"},
    "secret": {**TEXT, "referenceable": True},
    "tags": {"type": "set", "elements": {**TEXT, "len_max": 12}, "required": True,
             "default": ["a", "b"]},
    "names": {"type": "array", "elements": TEXT, "len_max": 2, "required": True, "default": []},
    "inner": {**INNER, "required": True},
    "spare": {**INNER, "required": False},
    "limits": {"type": "map", "keys": TEXT, "values": INNER, "required": True,
               "default": {"a": {"count": 2}}},
    "plain": {"type": "record", "required": True, "default": {"x": 2},
              "fields": [{"x": {"type": "integer", "required": True, "default": 1}}]},
    "since": TEXT,
    "type": {**TEXT, "required": True, "default": "x"},
}  # fmt: skip

SCHEMA = schema_of(Config)


@pytest.mark.parametrize("name", EXPECTED)
def test_what_kong_is_told_of_a_field(name: str) -> None:
    told = {key: dict(value) for entry in SCHEMA for key, value in entry.items()}[name]
    if name == "url":
        told.pop("len_max", None)  # which some versions of pydantic have for it
    assert told == EXPECTED[name]


def test_nothing_else_is_told() -> None:
    assert [name for entry in SCHEMA for name in entry] == list(EXPECTED)
    assert [each for each in check_fields(SCHEMA) if each.level != "note"] == []


def test_an_object_with_all_defaults() -> None:
    sent = complete({"url": "http://a/"}, SCHEMA)
    assert SCHEMA.make(sent) == Config(url=HttpUrl("http://a/"))


def test_an_object_of_everything() -> None:
    made = SCHEMA.make(
        {
            "url": "http://a/", "name": "böö", "mode": "fast", "secret": "s", "tags": ["x"],
            "names": ["a", "b"], "inner": {"count": 2, "$refs": 1}, "spare": {}, "type": "t",
            "limits": {"q": {"count": 9}}, "plain": {"x": 7}, "since": "2024-01-01T00:00:00Z",
            "__plugin_id": "id",
        }
    )  # fmt: skip
    assert isinstance(made, Config)
    assert made.mode is Mode.FAST and made.tags == {"x"} and made.kind == "t"
    assert made.secret is not None and made.secret.get_secret_value() == "s"
    assert made.spare == Inner() and made.limits == {"q": Inner(count=9)} and made.plain.x == 7
    assert made.since == datetime(2024, 1, 1, tzinfo=timezone.utc)
    assert kong_keys(made) == {"__plugin_id": "id"}


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({}, "url"),
        ({"url": "no url"}, "url"),
        ({"name": "a-b"}, "name"),
        ({"name": "äöüäöü"}, "name"),
        ({"port": 0}, "port"),
        ({"port": "80"}, "port"),
        ({"tags": ["äöüß"]}, "tags[1]"),
        ({"names": ["a", "b", "c"]}, "names"),
        ({"inner": {"count": 0}}, "inner.count"),
        ({"limits": {"a": {"count": 0}}}, "limits[a].count"),
        ({"since": "yesterday"}, "since"),
    ],
)
def test_what_does_not_fit_is_named(config: dict[str, Any], name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        SCHEMA.make({**({"url": "http://a/"} if config else {}), **config})
    assert caught.value.field == name
    # what was given may be a secret
    for value in config.values():
        assert not isinstance(value, str) or value not in str(caught.value)


def test_a_schema_by_hand_leaves_all_to_the_model() -> None:
    class Loose(BaseModel):
        count: int
        name: str = ""

    made = schema_of(Loose).make({"count": "5", "route_id": "r"}, derived=False)
    assert made == Loose(count=5)


def test_what_a_model_checks_itself() -> None:
    class Own(BaseModel):
        model_config = ConfigDict(extra="forbid")
        low: int = 1
        high: int = 2

        @pydantic.model_validator(mode="after")
        def ordered(self) -> Own:
            if self.low > self.high:
                raise ValueError("low is above high")
            return self

    schema = schema_of(Own)
    assert schema.make({"low": 0, "__seq__": 1}) == Own(low=0)
    with pytest.raises(SettingsError, match="low is above high") as caught:
        schema.make({"low": 3})
    assert caught.value.field == "config"


def test_a_model_inside_of_a_dataclass() -> None:
    @dataclass
    class Outer:
        inner: Inner
        more: list[Inner] = field([])

    Outer.__annotations__.update(inner=Inner, more=list[Inner])
    schema = schema_of(Outer)
    assert schema.make({"inner": {"count": 3}, "more": [{}]}) == Outer(Inner(count=3), [Inner()])
    with pytest.raises(SettingsError) as caught:
        schema.make({"inner": {}, "more": [{"count": 0}]})
    assert caught.value.field == "more[1].count"


@pytest.mark.parametrize("hint", [object, Any, Callable])
def test_types_that_kong_has_no_words_for(hint: Any) -> None:
    model = pydantic.create_model(
        "Model", f=(hint, ...), __config__={"arbitrary_types_allowed": True}
    )
    with pytest.raises(SchemaError, match=r"^Model\.f: "):
        schema_of(model)

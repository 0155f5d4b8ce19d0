"""Configurations that are made up for a Schema."""

from __future__ import annotations

from typing import Any

import pytest

from kong_pdk.checking import samples
from kong_pdk.schema.values import complete


def made(*fields: dict[str, Any], **given: Any) -> tuple[dict[str, Any], list[str]]:
    return samples.make({"fields": list(fields)}, given or None)


REQUIRED: list[dict[str, Any]] = [
    {"type": "string"},
    {"type": "string", "one_of": ["b", "a"]},
    {"type": "string", "len_min": 300},
    {"type": "string", "len_eq": 7},
    {"type": "string", "match": "^https://"},
    {"type": "string", "match_none": [{"pattern": "example", "err": "no"}]},
    {"type": "number", "between": [5000, 6000]},
    {"type": "integer", "gt": 12345},
    {"type": "number", "one_of": [3.5]},
    {"type": "boolean"},
    {"type": "boolean", "eq": False},
    {"type": "array", "elements": {"type": "string"}},
    {"type": "array", "elements": {"type": "integer", "gt": 5}, "len_min": 3},
    {"type": "set", "elements": {"type": "string"}, "len_min": 2},
    {"type": "map", "keys": {"type": "string"}, "values": {"type": "number"}},
    {"type": "record", "fields": [{"b": {"type": "string", "required": True}}]},
]


@pytest.mark.parametrize("definition", REQUIRED, ids=str)
def test_a_required_field_gets_a_value_that_kong_takes(definition: dict[str, Any]) -> None:
    field = {"a": {**definition, "required": True}}
    config, names = made(field)
    assert names
    assert complete(config, [field])["a"] is not None


def test_what_is_not_needed_is_left_out() -> None:
    config, names = made(
        {"a": {"type": "string"}},
        {"b": {"type": "string", "required": True, "default": "x"}},
        {"c": {"type": "record", "required": False, "fields": [{"d": {"type": "string"}}]}},
    )
    assert (config, names) == ({}, [])


def test_what_is_given_stays() -> None:
    fields = {"a": {"type": "string", "required": True}}, {"b": {"type": "string"}}
    assert made(*fields, a="mine", b="too") == ({"a": "mine", "b": "too"}, [])


def test_a_record_that_kong_makes_of_its_defaults() -> None:
    inner = [{"b": {"type": "string", "required": True}}, {"c": {"type": "number"}}]
    config, names = made({"a": {"type": "record", "fields": inner}})
    assert config == {"a": {"b": "example"}}
    assert names == ["a.b"]


@pytest.mark.parametrize("kind", ["at_least_one_of", "only_one_of"])
def test_one_of_several_that_must_be_set(kind: str) -> None:
    fields = [{"a": {"type": "string"}}, {"b": {"type": "string"}}]
    record = {"fields": fields, "entity_checks": [{kind: ["a", "b"]}]}
    assert samples.make(record) == ({"a": "example"}, ["a"])
    assert samples.make(record, {"b": "mine"}) == ({"b": "mine"}, [])


@pytest.mark.parametrize(
    ("fields", "given", "text"),
    [
        ([{"a": {"type": "string", "match": "^zzzz$", "required": True}}], {}, "for a"),
        ([{"a": {"type": "string"}}], {"b": 1}, "b"),
        ([{"a": {"type": "string"}}], {"a": 1}, "a"),
    ],
)
def test_what_cannot_be_made_up(fields: list[Any], given: dict[str, Any], text: str) -> None:
    with pytest.raises(samples.NoSample, match=text):
        made(*fields, **given)

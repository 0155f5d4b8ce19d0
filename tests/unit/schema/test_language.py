"""Kong's schema language: what is a mistake in a schema, and what is said about it."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from kong_pdk.schema.language import ERROR, NOTE, WARNING, Problem, Release, check_fields

RECORD = {"type": "record", "fields": [{"x": {"type": "string"}}, {"y": {"type": "string"}}]}


def found(
    definition: Any, kong: Optional[Release] = None, level: Optional[str] = None
) -> list[Problem]:
    problems = check_fields([{"f": definition}], kong=kong)
    return [problem for problem in problems if level in (None, problem.level)]


SOUND: list[dict[str, Any]] = [
    {"type": "string", "required": True, "default": "a", "len_max": 5},
    {"type": "string", "len_min": 0, "default": ""},
    {"type": "string", "default": "{vault://env/x}", "referenceable": True, "encrypted": True},
    {"type": "string", "match": "^%d+$", "not_match": "%s", "starts_with": "a", "err": "no"},
    {"type": "string", "match_all": [{"pattern": "a", "err": "b"}]},
    {"type": "string", "match_any": {"patterns": ["a"]}},
    {"type": "string", "one_of": ["a", "b"], "not_one_of": ["c"], "default": "b"},
    {"type": "string", "uuid": True, "auto": True},
    {"type": "string", "is_regex": True},
    {"type": "string", "default": None},
    {"type": "integer", "between": [1, 5], "default": 3, "gt": 0},
    {"type": "number", "timestamp": True, "one_of": [1, 2.5]},
    {"type": "boolean", "default": False, "eq": False},
    {"type": "boolean", "ne": None},
    {"type": "array", "elements": {"type": "string", "len_min": 2}, "default": ["ab"], "len_eq": 1},
    {"type": "set", "elements": {"type": "integer"}, "contains": 1, "default": [1]},
    {"type": "set", "elements": {"type": "string"}, "mutually_exclusive_subsets": [["a"], ["b"]]},
    {"type": "map", "keys": {"type": "string"}, "values": RECORD, "default": {"a": {"x": "b"}}},
    {**RECORD, "entity_checks": [{"only_one_of": ["x", "y"]}], "default": {"x": "a"}},
    {"type": "record", "fields": ({"x": {"type": "string"}},)},
    {"type": "array", "elements": {"type": "string"}, "default": {}},
]  # fmt: skip


@pytest.mark.parametrize("definition", SOUND, ids=str)
def test_what_is_as_it_should_be(definition: dict[str, Any]) -> None:
    assert found(definition) == []
    assert found({"type": "array", "elements": definition}) == []
    assert found({"type": "record", "fields": [{"inner": definition}]}) == []


#: What Kong does not start with, and a word of what is said.
ERRORS: list[tuple[Any, str]] = [
    ("string", 'like {"type": "string"}'),
    (None, "must be a dict"),
    ({}, "type is missing"),
    ({"type": "str"}, "'string'"),
    ({"type": int}, "'integer'"),
    ({"type": "bool"}, "'boolean'"),
    ({"type": "list"}, "'array'"),
    ({"type": "dict"}, "'map'"),
    ({"type": "strng"}, "did you mean 'string'"),
    ({"type": 5}, "there is no type 5"),
    ({"type": "string", "requird": True}, "did you mean 'required'"),
    ({"type": "string", "nilable": True}, "no attribute 'nilable'"),
    ({"type": "string", 5: True}, "no attribute 5"),
    ({"type": "string", "required": "true"}, "True or False"),
    ({"type": "string", "required": 1}, "True or False"),
    ({"type": "string", "required": True, "default": None}, "leave default out"),
    ({"type": "string", "default": ""}, "len_min = 0"),
    ({"type": "string", "default": 5}, "the default does not fit"),
    ({"type": "string", "len_max": 2, "default": "abc"}, "the default does not fit"),
    ({"type": "string", "match": "^%d+$", "default": "abc"}, "the default does not fit"),
    ({"type": "string", "one_of": ["a"], "default": "b"}, "the default does not fit"),
    ({"type": "integer", "between": [1, 2], "default": 3}, "the default does not fit"),
    ({"type": "array", "elements": {"type": "string"}, "default": ["a", 1]}, "at [2]"),
    ({**RECORD, "default": {"z": "a"}}, "at z: unknown field"),
    ({"type": "string", "between": [1, 2]}, "integer, number"),
    ({"type": "integer", "match": "%d"}, "string"),
    ({"type": "integer", "len_eq": 1}, "array, map, set, string"),
    ({"type": "boolean", "one_of": [True]}, "integer, number, string"),
    ({"type": "array", "elements": {"type": "string"}, "one_of": ["a"]}, "leave it out"),
    ({"type": "string", "contains": "a"}, "array, set"),
    ({"type": "integer", "between": 5}, "[1, 10]"),
    ({"type": "integer", "between": [1, 2, 3]}, "[1, 10]"),
    ({"type": "integer", "between": ["1", "2"]}, "[1, 10]"),
    ({"type": "integer", "gt": "1"}, "must be a number"),
    ({"type": "string", "len_min": 1.5}, "must be an integer"),
    ({"type": "string", "len_max": True}, "must be an integer"),
    ({"type": "string", "one_of": "a"}, "must be a list"),
    ({"type": "string", "one_of": ["a", None]}, "None"),
    ({"type": "string", "match": 5}, "Lua pattern"),
    ({"type": "string", "match": ""}, "Lua pattern"),
    ({"type": "string", "match_all": ["^a"]}, "match_all must be a dict of pattern"),
    ({"type": "string", "match_all": {"pattern": "a"}}, "must be a list"),
    ({"type": "string", "match_none": [{"patern": "a"}]}, "did you mean 'pattern'"),
    ({"type": "string", "match_any": ["a"]}, "match_any must be a dict"),
    ({"type": "string", "match_any": {"err": "a"}}, "patterns"),
    ({"type": "string", "err": 5}, "text"),
    ({"type": "string", "err": ""}, "text"),
    ({"type": "string", "description": "short"}, "10 to 500 bytes"),
    ({"type": "string", "description": "x" * 501}, "it has 501"),
    ({"type": "string", "custom_validator": "f"}, "Lua function"),
    ({"type": "string", "unique_across_ws": True}, "unique = True"),
    ({"type": "array"}, "needs elements"),
    ({"type": "set", "elements": None}, "elements is null"),
    ({"type": "array", "elements": "string"}, 'like {"type": "string"}'),
    ({"type": "map", "keys": {"type": "string"}}, "needs values"),
    ({"type": "map", "values": {"type": "string"}}, "needs keys"),
    ({"type": "record"}, "needs fields"),
    ({"type": "record", "fields": {"a": {"type": "string"}}}, "got one dict"),
    ({"type": "record", "fields": [{"a": {"type": "string"}, "b": {"type": "string"}}]}, "one key"),
    ({"type": "record", "fields": ["a"]}, "one key"),
    ({"type": "record", "fields": [{"": {"type": "string"}}]}, "name of field 1"),
    ({"type": "json"}, "needs json_schema"),
    ({"type": "string", "deprecation": {"message": "m"}}, "removal_in_version"),
    ({**RECORD, "entity_checks": {"only_one_of": ["x"]}}, "must be a list"),
    ({**RECORD, "entity_checks": [{"only_one": ["x"]}]}, "did you mean 'only_one_of'"),
    ({**RECORD, "entity_checks": [{"only_one_of": "x"}]}, "list of names"),
    ({**RECORD, "entity_checks": [{"conditional": {"if": "x"}}]}, "no 'if'"),
    ({**RECORD, "entity_checks": [{"custom_entity_check": {"fn": "x"}}]}, "Lua function"),
    ({**RECORD, "entity_checks": ["x"]}, "one key"),
    ({**RECORD, "shorthand_fields": [{"a": {"type": "string"}}]}, "Lua function"),
]  # fmt: skip


@pytest.mark.parametrize(("definition", "word"), ERRORS, ids=str)
def test_what_kong_does_not_start_with(definition: Any, word: str) -> None:
    texts = [problem.text for problem in found(definition, level=ERROR)]
    assert any(word in text for text in texts), texts
    for release in [(2, 8), (3, 9)]:
        assert found(definition, kong=release, level=ERROR)
    nested = check_fields([{"a": {"type": "array", "elements": definition}}])
    if not isinstance(definition, dict) or "unique_across_ws" not in definition:
        assert [each for each in nested if each.level == ERROR]


#: What Kong starts with, and is a mistake.
WARNINGS: list[tuple[dict[str, Any], str]] = [
    ({"type": "string", "match": r"^\d+$"}, "write \\d as %d"),
    ({"type": "string", "match": "^(a|b)$"}, "match_any"),
    ({"type": "string", "match": "[a"}, "no Lua pattern"),
    ({"type": "string", "match_all": [{"pattern": "(a"}]}, "no Lua pattern"),
    ({"type": "string", "required": None}, "leave it out"),
    ({"type": "string", "gt": 5}, "integer, number"),
    ({"type": "integer", "len_min": 5}, "array, map, set, string"),
    ({"type": "integer", "starts_with": "a"}, "string"),
    ({"type": "integer", "referenceable": True}, "does nothing"),
    ({"type": "string", "elements": {"type": "string"}}, "does nothing"),
    ({"type": "string", "fields": []}, "does nothing"),
    ({"type": "string", "abstract": True}, "no value"),
    ({"type": "string", "uuid": False}, "same as True"),
    ({"type": "string", "one_of": []}, "no value fits"),
    ({"type": "integer", "one_of": ["1"]}, "nothing equals it"),
    ({"type": "string", "not_one_of": [1]}, "nothing equals it"),
    ({"type": "string", "len_min": 5, "len_max": 4}, "no value fits"),
    ({"type": "integer", "between": [5, 1]}, "lower number"),
    ({"type": "array", "elements": {"type": "string", "required": False}}, "does nothing"),
    ({"type": "array", "elements": {"type": "string"}, "contains": ["a"]}, "no value equal"),
    ({"type": "map", "keys": {"type": "integer"}, "values": {"type": "string"}}, "keys of a map"),
    ({"type": "record", "fields": []}, "no fields"),
    ({"type": "record", "fields": [{"a.b": {"type": "string"}}]}, "a dot"),
    ({"type": "record", "fields": [{"a": {"type": "string"}}] * 2}, "there twice"),
    ({"type": "record", "fields": [{"$refs": {"type": "string"}}]}, "of its own"),
    ({"type": "function"}, "function"),
    ({"type": "foreign", "reference": "consumers"}, "other entities"),
    ({**RECORD, "entity_checks": [{"only_one_of": ["x", "z"]}]}, "'z'"),
    ({**RECORD, "entity_checks": [{"custom_entity_check": {}}]}, "Lua function"),
    ({**RECORD, "entity_checks": [{"distinct": ["x", "y.a"]}]}, "'y.a'"),
]  # fmt: skip


@pytest.mark.parametrize(("definition", "word"), WARNINGS, ids=str)
def test_what_is_a_mistake_all_the_same(definition: dict[str, Any], word: str) -> None:
    assert found(definition, level=ERROR) == []
    texts = [problem.text for problem in found(definition, level=WARNING)]
    assert any(word in text for text in texts), texts


@pytest.mark.parametrize("name", ["route_id", "__plugin_id", "plugin_instance_name", "$refs"])
def test_names_that_kong_uses_itself(name: str) -> None:
    (problem,) = check_fields([{name: {"type": "string"}}])
    assert problem.level == WARNING and problem.path == name
    inside = check_fields([{"a": {"type": "record", "fields": [{name: {"type": "string"}}]}}])
    assert bool(inside) is (name == "$refs")


@pytest.mark.parametrize(
    ("definition", "since"),
    [
        ({"type": "string", "description": "long enough"}, (3, 4)),
        ({"type": "string", "examples": ["a"]}, (3, 6)),
        ({"type": "string", "transient": True}, (3, 8)),
        ({"type": "string", "deprecation": {"message": "m", "removal_in_version": "4"}}, (3, 7)),
        ({"type": "json", "json_schema": {"inline": {"type": "object"}}}, (3, 5)),
        ({"type": "number", "between": [0.5, 1]}, (3, 4)),
    ],
)
def test_what_only_newer_releases_know(definition: dict[str, Any], since: Release) -> None:
    assert {problem.level for problem in found(definition)} == {NOTE}
    assert found(definition, kong=since) == []
    before = found(definition, kong=(since[0], since[1] - 1))
    assert before and {problem.level for problem in before} == {ERROR}


def test_what_only_old_releases_know() -> None:
    legacy = {"type": "string", "legacy": True}
    assert [problem.level for problem in found(legacy)] == [NOTE]
    assert found(legacy, kong=(2, 8)) == []
    assert [problem.level for problem in found(legacy, kong=(3, 0))] == [ERROR]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"a": {"type": "string"}}, "got one dict"),
        ("a", "must be a list"),
        (None, "must be a list"),
        ([{"a": {"type": "string"}}, {"a": {"type": "string"}}], "there twice"),
        ([{}], "one key"),
        ([[{"a": {"type": "string"}}]], "one key"),
    ],
)
def test_lists_of_fields(fields: Any, word: str) -> None:
    (problem,) = check_fields(fields)
    assert problem.level == ERROR and word in str(problem)


def test_the_path_of_what_is_inside() -> None:
    inner = {"type": "record", "fields": [{"b": {"type": "array", "elements": {"type": "nil"}}}]}
    (problem,) = check_fields([{"a": {"type": "map", "keys": {"type": "string"}, "values": inner}}])
    assert problem.path == "a.values.b.elements"
    assert str(problem).startswith("Schema: field 'a.values.b.elements': there is no type 'nil'")


def test_relations_of_the_whole_configuration() -> None:
    fields = [{"a": {"type": "string"}}]
    assert check_fields(fields, [{"only_one_of": ["a"]}]) == []
    (problem,) = check_fields(fields, [{"only_one_of": ["b"]}])
    assert (problem.level, problem.path) == (WARNING, "")
    (problem,) = check_fields(fields, "x")
    assert problem.level == ERROR and str(problem).startswith("Schema: entity_checks")

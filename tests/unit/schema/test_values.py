"""Configurations against schemas: what Kong takes, what it refuses, and what it makes of them.

Each line has been seen in Kong's own code.
"""

from __future__ import annotations

from typing import Any

import pytest

from kong_pdk.exception import SettingsError
from kong_pdk.schema.values import complete, config_fields, config_record

PATTERNS = [{"pattern": "^a"}, {"pattern": "z$", "err": "must end in z"}]

#: A field's attributes, and values that fit.
TAKEN: list[tuple[dict[str, Any], list[Any]]] = [
    ({"type": "string"}, ["a", "ä"]),
    ({"type": "string", "len_min": 0}, [""]),
    ({"type": "string", "len_eq": 2}, ["ab", "ä"]),
    ({"type": "string", "uuid": True}, ["01234567-89AB-cdef-0123-456789abcdef"]),
    ({"type": "string", "is_regex": True}, ["^a+", "(?>a)b", "a++"]),
    ({"type": "string", "starts_with": "ab"}, ["ab", "abc"]),
    ({"type": "string", "match": "^%a+$"}, ["abc"]),
    ({"type": "string", "not_match": "%s"}, ["abc"]),
    ({"type": "string", "match_all": PATTERNS}, ["abz"]),
    ({"type": "string", "match_none": PATTERNS}, ["bcd"]),
    ({"type": "string", "match_any": {"patterns": ["^a", "^b"]}}, ["a", "b"]),
    ({"type": "string", "eq": "a"}, ["a"]),
    ({"type": "string", "ne": "a"}, ["b"]),
    ({"type": "string", "one_of": ["a", "b"]}, ["a", "b"]),
    ({"type": "string", "not_one_of": ["a"]}, ["b"]),
    ({"type": "string", "referenceable": True, "len_max": 2}, ["{vault://env/long-name}"]),
    ({"type": "integer"}, [0, -5, 2**53]),
    ({"type": "integer", "one_of": [1, 2]}, [1]),
    ({"type": "number", "between": [0.5, 2]}, [0.5, 1, 2.0]),
    ({"type": "number", "gt": 0}, [0.1]),
    ({"type": "number", "timestamp": True}, [1]),
    ({"type": "boolean"}, [True, False]),
    ({"type": "boolean", "eq": True}, [True]),
    ({"type": "array", "elements": {"type": "string"}}, [[], ["a", "a"]]),
    ({"type": "array", "elements": {"type": "string"}, "contains": "a"}, [["b", "a"]]),
    ({"type": "array", "elements": {"type": "integer"}, "len_min": 1, "len_max": 2}, [[1], [1, 2]]),
    ({"type": "map", "keys": {"type": "string"}, "values": {"type": "boolean"}}, [{}, {"a": True}]),
    ({"type": "map", "keys": {"type": "string", "match": "^%l$"}, "values": {"type": "number"},
      "len_eq": 2}, [{"a": 1, "b": 2}]),
    ({"type": "set", "elements": {"type": "string"},
      "mutually_exclusive_subsets": [["a", "b"], ["c"]]}, [["a", "b"], ["c"], ["x", "c"]]),
    ({"type": "json", "json_schema": {"inline": {}}}, ["a", 1, {"any": ["thing"]}]),
]  # fmt: skip

#: A field's attributes, a value that does not fit, and a word of the error.
REFUSED: list[tuple[dict[str, Any], Any, str]] = [
    ({"type": "string"}, "", "length"),
    ({"type": "string"}, 1, "string"),
    ({"type": "string", "len_max": 1}, "ä", "length"),
    ({"type": "string", "len_eq": 2}, "abc", "length"),
    ({"type": "string", "uuid": True}, "abc", "UUID"),
    ({"type": "string", "is_regex": True}, "(a", "regular"),
    ({"type": "string", "starts_with": "ab"}, "ba", "start"),
    ({"type": "string", "match": "^%a+$"}, "a1", "pattern"),
    ({"type": "string", "match": r"^\d+$"}, "12", "pattern"),
    ({"type": "string", "match": "(a"}, "a", "cannot be checked"),
    ({"type": "string", "not_match": "%s"}, "a c", "pattern"),
    ({"type": "string", "match_all": PATTERNS}, "aby", "must end in z"),
    ({"type": "string", "match_all": PATTERNS}, "bz", "pattern"),
    ({"type": "string", "match_none": PATTERNS}, "bz", "must end in z"),
    ({"type": "string", "match_none": PATTERNS}, "ab", "pattern"),
    ({"type": "string", "match_any": {"patterns": ["^a"], "err": "no a"}}, "b", "no a"),
    ({"type": "string", "match_any": {"patterns": ["^a"]}}, "b", "pattern"),
    ({"type": "string", "eq": "a"}, "b", "must be"),
    ({"type": "string", "ne": "a"}, "a", "must not"),
    ({"type": "string", "one_of": ["a", "b"]}, "c", "a, b"),
    ({"type": "string", "not_one_of": ["a"]}, "a", "none of"),
    ({"type": "string", "one_of": ["a"], "err": "only a"}, "b", "only a"),
    ({"type": "string", "gt": 1}, "a", "cannot be checked"),
    ({"type": "string", "eq": None}, "a", "null"),
    ({"type": "integer"}, 1.5, "integer"),
    ({"type": "integer"}, "1", "integer"),
    ({"type": "integer"}, True, "boolean"),
    ({"type": "number"}, False, "number"),
    ({"type": "number", "one_of": [1]}, True, "number"),
    ({"type": "number", "between": [0.5, 2]}, 2.1, "between"),
    ({"type": "number", "gt": 0}, 0, "above"),
    ({"type": "number", "timestamp": True}, 0, "timestamp"),
    ({"type": "boolean"}, "true", "boolean"),
    ({"type": "boolean"}, 1, "boolean"),
    ({"type": "boolean", "eq": True}, False, "must be"),
    ({"type": "array", "elements": {"type": "string"}}, "a", "array"),
    ({"type": "array", "elements": {"type": "string"}}, {"a": 1}, "array"),
    ({"type": "array", "elements": {"type": "string"}, "contains": "a"}, ["b"], "contain"),
    ({"type": "array", "elements": {"type": "string"}, "len_min": 1}, [], "length"),
    ({"type": "set", "elements": {"type": "string"}, "len_min": 2}, ["a", "a"], "length"),
    ({"type": "set", "elements": {"type": "string"},
      "mutually_exclusive_subsets": [["a", "b"], ["c"]]}, ["a", "c"], "exclude"),
    ({"type": "map", "keys": {"type": "string"}, "values": {"type": "string"}}, ["a"], "map"),
    ({"type": "record", "fields": []}, "a", "record"),
    ({"type": "function"}, "a", "function"),
    ({"type": "string", "abstract": True}, "a", "abstract"),
]  # fmt: skip


def one(definition: dict[str, Any], value: Any) -> Any:
    return complete({"f": value}, [{"f": definition}])["f"]


@pytest.mark.parametrize(("definition", "values"), TAKEN, ids=str)
def test_values_that_fit(definition: dict[str, Any], values: list[Any]) -> None:
    for value in values:
        assert one(definition, value) == value


@pytest.mark.parametrize(("definition", "value", "word"), REFUSED, ids=str)
def test_values_that_do_not(definition: dict[str, Any], value: Any, word: str) -> None:
    with pytest.raises(SettingsError) as caught:
        one(definition, value)
    assert caught.value.field == "f"
    assert word in str(caught.value)


def test_where_inside_it_is() -> None:
    record = {"type": "record", "fields": [{"n": {"type": "integer", "required": True}}]}
    fields = [
        {"list": {"type": "array", "elements": record}},
        {"map": {"type": "map", "keys": {"type": "string", "len_max": 2}, "values": record}},
        {"in": {"type": "record", "fields": [{"side": record}]}},
    ]
    config = {
        "list": [{"n": 1}, {"n": "x"}, None],
        "map": {"long": {"n": 1}, "b": {"x": 1, "n": 2}},
        "in": {"side": {}},
        "other": 1,
    }
    with pytest.raises(SettingsError) as caught:
        complete(config, fields)
    assert [place for place, _ in caught.value.problems] == [
        "other", "list[2].n", "list[3]", "map[long]", "map[b].x", "in.side.n",
    ]  # fmt: skip
    for place, text in caught.value.problems:
        assert f"config field {place!r}: {text}" in str(caught.value)


def test_defaults_and_null() -> None:
    fields = [
        {"a": {"type": "string", "default": "x"}},
        {"b": {"type": "string"}},
        {"c": {"type": "array", "elements": {"type": "string"}, "default": ["p"]}},
        {"d": {"type": "boolean", "default": False}},
    ]
    assert complete({}, fields) == {"a": "x", "c": ["p"], "d": False}
    # What is null on purpose does not get the default, and Kong does not send it.
    assert complete({"a": None, "c": None}, fields) == {"d": False}
    again = complete({}, fields)["c"]
    again.append("q")
    assert complete({}, fields)["c"] == ["p"]
    needed = [{"a": {"type": "string", "required": True, "default": "x"}}]
    with pytest.raises(SettingsError, match="required field missing"):
        complete({"a": None}, needed)


@pytest.mark.parametrize(
    ("attributes", "is_made"),
    [({}, True), ({"required": True}, True), ({"required": False}, False)],
)
def test_a_record_is_made_of_its_defaults(attributes: dict[str, Any], is_made: bool) -> None:
    inner = {"type": "record", "fields": [{"x": {"type": "integer", "default": 1}}], **attributes}
    outer = {"type": "record", "fields": [{"inner": inner}]}
    expected: dict[str, Any] = {"outer": {"inner": {"x": 1}} if is_made else {}}
    assert complete({}, [{"outer": outer}]) == expected


def test_a_record_in_a_list_is_not() -> None:
    inner = {"type": "record", "fields": [{"x": {"type": "integer", "default": 1}}]}
    element = {"type": "record", "fields": [{"inner": inner}]}
    fields = [{"list": {"type": "array", "elements": element}}]
    assert complete({"list": [{}]}, fields) == {"list": [{}]}
    assert complete({"list": [{"inner": {}}]}, fields) == {"list": [{"inner": {"x": 1}}]}


def test_what_kong_makes_of_values() -> None:
    fields = [
        {"i": {"type": "integer"}},
        {"s": {"type": "set", "elements": {"type": "number"}}},
        {"r": {"type": "set", "elements": {"type": "record", "fields": []}}},
        {"m": {"type": "map", "keys": {"type": "string"}, "values": {"type": "string"}}},
        {"u": {"type": "string", "auto": True, "uuid": True}},
    ]
    got = complete({"i": 2.0, "s": [1, 2, 1.0], "r": [{}, {}], "m": []}, fields)
    assert repr(got["i"]) == "2"
    assert got["s"] == [1, 2]
    assert got["r"] == [{}, {}]  # no two tables are equal
    assert got["m"] == {}  # an empty table is one of any kind
    assert len(got["u"]) == 36


def test_secrets_are_not_shown() -> None:
    for mark in ("referenceable", "encrypted"):
        with pytest.raises(SettingsError) as caught:
            one({"type": "string", "match": "^%d+$", mark: True}, "topsecret")
        assert "topsecret" not in str(caught.value)
    with pytest.raises(SettingsError) as caught:
        complete({"f": "topsecret"}, [{"f": {"type": "string", "one_of": ["a"]}}], shown=False)
    assert "topsecret" not in str(caught.value)
    with pytest.raises(SettingsError, match="'shown'"):
        one({"type": "string", "one_of": ["a"]}, "shown")


def test_the_record_in_what_is_dumped() -> None:
    record = {"type": "record", "fields": [{"a": {"type": "string"}}], "entity_checks": []}
    dumped = {"name": "p", "fields": [{"protocols": {}}, {"config": record}]}
    assert config_record(dumped) == record
    assert config_fields(dumped) == record["fields"]
    assert config_record({}) == {} and config_fields(None) == []


# --- entity checks --------------------------------------------------------------------------------

TEXTS = [{name: {"type": "string", "len_min": 0}} for name in "abc"] + [
    {"r": {"type": "record", "fields": [{"x": {"type": "string", "referenceable": True}}]}}
]
CONDITIONAL = {"if_field": "a", "if_match": {"one_of": ["x"]}, "then_field": "b",
               "then_match": {"required": True, "match": "^%d"}}  # fmt: skip
AT_LEAST = {"if_field": "a", "if_match": {"eq": "x"}, "then_at_least_one_of": ["b", "c"],
            "then_err": "set one of %s", "else_match": {"eq": "y"},
            "else_then_at_least_one_of": ["c"]}  # fmt: skip

#: A check, configurations that pass it, and those that do not.
CHECKS: list[tuple[dict[str, Any], list[Any], list[Any]]] = [
    ({"at_least_one_of": ["a", "b"]}, [{"a": "x"}, {"a": "x", "b": "x"}], [{}, {"a": ""}]),
    ({"only_one_of": ["a", "b"]}, [{"a": "x"}, {"b": "x", "a": ""}], [{}, {"a": "x", "b": "y"}]),
    ({"only_one_of": ["a", "r.x"]}, [{"r": {"x": "x"}}], [{"a": "a", "r": {"x": "x"}}]),
    ({"distinct": ["a", "b"]}, [{}, {"a": "x"}, {"a": "x", "b": "y"}], [{"a": "x", "b": "x"}]),
    ({"mutually_required": ["a", "b"]}, [{}, {"a": "x", "b": "x"}], [{"a": "x"}]),
    ({"mutually_exclusive": ["a", "b"]}, [{}, {"a": "x"}], [{"a": "x", "b": "x"}]),
    ({"mutually_exclusive_sets": {"set1": ["a"], "set2": ["b", "c"]}},
     [{}, {"a": "x"}, {"b": "x", "c": "x"}], [{"a": "x", "c": "x"}]),
    # For Kong null fits whatever a field that is not required has to match.
    ({"conditional": CONDITIONAL}, [{"a": "y"}, {"a": "x", "b": "1"}],
     [{}, {"a": "x"}, {"a": "x", "b": "y"}]),
    ({"conditional_at_least_one_of": AT_LEAST},
     [{"a": "x", "b": "1"}, {"a": "z"}, {"a": "y", "c": "1"}], [{"a": "x"}, {"a": "y", "b": "1"}]),
]  # fmt: skip


@pytest.mark.parametrize(("check", "taken", "refused"), CHECKS, ids=str)
def test_relations_of_fields(check: dict[str, Any], taken: list[Any], refused: list[Any]) -> None:
    for config in taken:
        complete(config, TEXTS, [check])
    for config in refused:
        with pytest.raises(SettingsError) as caught:
            complete(config, TEXTS, [check])
        assert caught.value.field == "config"
        inner = [{"in": {"type": "record", "fields": TEXTS, "entity_checks": [check]}}]
        with pytest.raises(SettingsError) as caught:
            complete({"in": config}, inner)
        assert caught.value.field == "in"


def test_a_check_waits_for_what_a_reference_stands_for() -> None:
    check = {"only_one_of": ["a", "r.x"]}
    complete({"a": "a", "r": {"x": "{vault://env/x}"}}, TEXTS, [check])


def test_the_text_that_the_author_has_given() -> None:
    with pytest.raises(SettingsError, match="set one of b, c"):
        complete({"a": "x"}, TEXTS, [{"conditional_at_least_one_of": AT_LEAST}])

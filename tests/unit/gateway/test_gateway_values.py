"""Values, headers and bodies: what they become on their way through Lua."""

from __future__ import annotations

import pytest

from kong_pdk.gateway import body, error_pages, values
from kong_pdk.gateway.headers import Headers


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (2.0, 2),
        (-0.0, 0),
        (1.5, 1.5),
        (2**53 - 1, 2**53 - 1),
        (2**53, float(2**53)),
        ("a\udcff", "a\udcff"),
        (b"a\xff", "a\udcff"),
        ({}, []),
        ([], []),
        ({"a": None}, []),
        ({1: "x", 2: "y"}, ["x", "y"]),
        ({0: "x", 1: "y"}, {0: "x", 1: "y"}),
        (["x", None, "y"], {1: "x", 3: "y"}),
        ({"a": {"b": [1.0]}}, {"a": {"b": [1]}}),
    ],
)
def test_to_wire_is_what_kong_packs(value: object, expected: object) -> None:
    packed = values.to_wire(value)
    assert packed == expected
    assert type(packed) is type(expected)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], []),
        (None, []),
        ("one", ["one"]),
        ({1: "a", 2: "b"}, ["a", "b"]),
        ({"a": 1}, []),
        (["a", None], ["a"]),
        ([None, "b"], [None, "b"]),
        (["a", None, "c"], ["a"]),
        ([None, None, "c"], []),
        (["a", None, "c", "d"], ["a", None, "c", "d"]),
        (["a", None, "c", None, None, None], ["a", None, "c"]),
        ([b"\xff"], ["\udcff"]),
    ],
)
def test_arguments_are_cut_where_luajit_cuts_them(args: object, expected: object) -> None:
    assert values.arguments(args) == expected


def test_to_string_is_luas() -> None:
    shown = [values.to_string(v) for v in (None, True, False, 3, 3.0, 0.1, "x", b"\xff")]
    assert shown == ["nil", "true", "false", "3", "3", "0.1", "x", "\udcff"]
    assert values.to_string({}).startswith("table: 0x")


def test_json_has_no_null_members_and_empty_tables_are_objects() -> None:
    table = {"a": None, "b": [], "c": [1.0, None], 5: True}
    assert values.to_json(table) == '{"b":{},"c":[1,null],"5":true}'
    with pytest.raises(ValueError):
        values.to_json({"a": float("nan")})


def test_headers_are_found_without_regard_to_case_and_underscores() -> None:
    headers = Headers([("X-One", "1"), ("x_one", "2"), ("Other", "3")])
    assert headers.get("x-ONE") == "1"
    assert headers.get_all("x_one") == ["1", "2"]
    assert headers.get("none") is None
    assert "X_ONE" in headers and 1 not in headers
    headers.set("X-ONE", "4", "5")
    assert list(headers) == [("Other", "3"), ("X-ONE", "4"), ("X-ONE", "5")]
    assert headers.as_map() == {"other": ["3"], "x-one": ["4", "5"]}
    assert headers.as_map(2) == {"other": ["3"], "x-one": ["4"]}
    headers.remove("missing")
    assert len(headers) == 3


def test_hop_by_hop_headers_include_those_that_connection_names() -> None:
    headers = Headers(
        [("Connection", "close, X-Own"), ("X-Own", "1"), ("TE", "trailers"), ("Keep", "2")]
    )
    assert list(headers.without_hop_by_hop()) == [("Keep", "2")]


def test_query_arguments() -> None:
    parsed = body.parse_query("a=1&b&a=%FF+x&=nameless&c=")
    assert parsed == [("a", "1"), ("b", True), ("a", "\udcff x"), ("c", "")]
    assert body.multimap(parsed) == {"a": ["1", "\udcff x"], "b": [], "c": [""]}
    assert body.simple_map(parsed) == {"a": ["1", "\udcff x"], "b": True, "c": ""}
    assert body.parse_query("a&b&c", 2) == [("a", True), ("b", True)]


def test_encoded_query_is_sorted() -> None:
    assert body.encode_query({"b": [1, True], "a": "ä /", "c": False}) == "a=%C3%A4%20%2F&b=1&b"
    bad: object
    for bad in ({1: "x"}, {"a": {"b": {}}}):
        with pytest.raises(ValueError):
            body.encode_query(bad)


@pytest.mark.parametrize(
    ("content_type", "data", "expected"),
    [
        ("application/x-www-form-urlencoded", b"a=1&b", {"a": "1", "b": True}),
        ("application/json; charset=utf-8", b'{"a": [1]}', {"a": [1]}),
        ("application/json", b"3", None),
        ("application/json", b"{", None),
        ("text/plain", b"x", None),
        ("multipart/form-data", b"no boundary", None),
    ],
)
def test_bodies_are_decoded(content_type: str, data: bytes, expected: object) -> None:
    assert body.decode(content_type, data, 100) == expected


def test_multipart_survives_a_round_trip() -> None:
    encoded = body.encode("multipart/form-data; boundary=xyz", {"b": 1, "a": "line\r\nline"})
    assert encoded is not None
    data, content_type = encoded
    assert content_type == "multipart/form-data; boundary=xyz"
    assert body.decode(content_type, data, 100) == {"a": "line\r\nline", "b": "1"}
    default = body.encode("multipart/form-data", {})
    assert default is not None and "boundary=" in default[1]
    with pytest.raises(ValueError):
        body.encode("multipart/form-data", {"a": []})


def test_bodies_are_encoded() -> None:
    assert body.encode("application/json", {}) == (b"{}", "application/json")
    form = "application/x-www-form-urlencoded"
    assert body.encode(form, {"a": 1}) == (b"a=1", form)
    assert body.encode("text/plain", {}) is None


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "application/json; charset=utf-8"),
        ("text/html;q=0.5, text/plain", "text/plain; charset=utf-8"),
        ("text/html", "text/html; charset=utf-8"),
        ("image/png", "application/json; charset=utf-8"),
    ],
)
def test_errors_are_written_as_the_client_likes(accept: str | None, expected: str) -> None:
    assert error_pages.accepted_type(accept) == expected
    page = error_pages.render("oops", expected, "id1")
    assert "oops" in page and "id1" in page

"""What authors naturally hand over is converted, what Kong would not take is refused."""

from __future__ import annotations

import collections
import enum
import fractions
import http
import numbers
import types
from typing import Any

import pytest
from pdkcalls import UUID, Caller, Pdk

from kong_pdk.exception import ArgumentError, ArgumentValueError
from kong_pdk.pdk.checks import SHOWN


class Text(str):
    """A str of a subclass."""


class Name(str, enum.Enum):
    HOST = "host"
    GET = "GET"


class Plain(enum.Enum):
    HOST = "host"
    OK = 200
    MANY = ("a", "b")
    DEEP = {"k": "v"}
    NOTHING = None


class Lazy(collections.abc.Mapping):
    """A mapping that is no dict."""

    def __init__(self, **values: Any) -> None:
        self.values_ = values

    def __getitem__(self, key: str) -> Any:
        return self.values_[key]

    def __iter__(self) -> Any:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)


class ForeignInt:
    """A whole number as a library for arrays has them."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __int__(self) -> int:
        return self.value


class ForeignReal:
    """Another one, that is not whole."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return self.value


class Numberless(ForeignInt):
    """Says that it is a number, and has none."""

    def __int__(self) -> int:
        raise ValueError("no number")


numbers.Integral.register(ForeignInt)
numbers.Real.register(ForeignReal)


def sent(pdk: Pdk, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """The arguments of a call as they go out."""
    caller = pdk.caller()
    pdk.method(name, caller)(*args, **kwargs)
    return caller.sent


def refusal(pdk: Pdk, name: str, *args: Any, phase: Any = None, **kwargs: Any) -> str:
    """The text of the error of a call that is not made."""
    caller = pdk.caller(phase)
    with pytest.raises((ArgumentError, ArgumentValueError)) as caught:
        pdk.method(name, caller)(*args, **kwargs)
    assert caller.calls == []
    return str(caught.value)


CONVERTED: dict[str, list[tuple[Any, Any]]] = {
    "kong.request.get_header": [  # a string
        (b"host", b"host"),
        (bytearray(b"host"), bytearray(b"host")),
        (Text("host"), "host"),
        (Name.HOST, "host"),
        (Plain.HOST, "host"),
        ("\udcff", "\udcff"),
        ("", ""),
    ],
    "kong.response.set_status": [  # a number
        (http.HTTPStatus.NOT_FOUND, 404),
        (Plain.OK, 200),
        (ForeignInt(201), 201),
        (ForeignReal(203.5), 203.5),
        (fractions.Fraction(401, 2), 200.5),
        (200.0, 200.0),
    ],
    "kong.service.set_retries": [  # an integer
        (5.0, 5),
        (ForeignInt(5), 5),
        (fractions.Fraction(5), 5),
        (http.HTTPStatus.OK, 200),
        (True + 4, 5),
        (-0.0, 0),
    ],
    "kong.service.request.set_body": [  # a table
        ({"a": 1}, {"a": 1}),
        ([1], [1]),
        ((1, 2), (1, 2)),
        (Lazy(a=1), {"a": 1}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (collections.OrderedDict(a=1), {"a": 1}),
        ({}, {}),
        (Plain.DEEP, {"k": "v"}),
        (Plain.MANY, ("a", "b")),
    ],
    "kong.response.set_header": [  # a header's value
        (("a", "b"), ["a", "b"]),
        (["a", Plain.HOST, Name.GET, b"c", Text("d")], ["a", "host", "GET", b"c", "d"]),
        (Plain.MANY, ["a", "b"]),
        (Plain.HOST, "host"),
        (Text("a"), "a"),
        (b"a", b"a"),
        (bytearray(b"a"), bytearray(b"a")),
        (ForeignInt(5), 5),
        (fractions.Fraction(1, 2), 0.5),
        (5, 5),
        (True, True),
        ([], []),
    ],
    "kong.response.set_headers": [
        (Lazy(a="b"), {"a": "b"}),
        ({"a": ("b", "c")}, {"a": ["b", "c"]}),
        ({"a": Plain.OK, Plain.HOST: "x"}, {"a": 200, "host": "x"}),
        ({Text("a"): Text("b")}, {"a": "b"}),
        ({b"a": [b"b"]}, {b"a": [b"b"]}),
        ({"a": ForeignInt(5)}, {"a": 5}),
        ([], {}),
        ((), {}),
        ({}, {}),
    ],
    "kong.service.request.set_query": [
        ({"a": (True, "x", Plain.HOST)}, {"a": [True, "x", "host"]}),
        (Lazy(a=[True]), {"a": [True]}),
        ([], {}),
    ],
}


@pytest.mark.parametrize(
    ("name", "given", "arrives"),
    [(name, *pair) for name, pairs in CONVERTED.items() for pair in pairs],
    ids=repr,
)
def test_what_authors_hand_over(pdk: Pdk, name: str, given: Any, arrives: Any) -> None:
    parameters = pdk.proxy.SPECS[name].params
    before = () if len(parameters) == 1 or name.endswith("set_body") else ("x-name",)
    value = sent(pdk, name, *before, given)[-1]
    assert value == arrives
    if not isinstance(given, (str, bytes, dict, list, tuple)):
        assert type(value) is type(arrives)


@pytest.mark.parametrize(
    "body", ["text", b"\xff", bytearray(b"\xff"), {"a": 1}, ["a"], ("a",), Text("t"), None, {}]
)
def test_a_body(pdk: Pdk, body: Any) -> None:
    assert sent(pdk, "kong.response.exit", 200, body) == (200, body)
    assert sent(pdk, "kong.response.exit", 200, body, {"a": "b"}) == (200, body, {"a": "b"})
    assert sent(pdk, "kong.response.exit", 200, Lazy(a=1)) == (200, {"a": 1})


def test_an_enum_of_none(pdk: Pdk) -> None:
    assert sent(pdk, "kong.response.exit", 200, Plain.NOTHING) == (200, None)
    text = refusal(pdk, "kong.response.exit", Plain.NOTHING)
    assert text.endswith("status must be a number, got None")


@pytest.mark.parametrize("value", [True, False], ids=repr)
@pytest.mark.parametrize(
    "name", ["kong.response.set_status", "kong.service.set_retries", "kong.request.get_headers"]
)
def test_a_boolean_is_no_number(pdk: Pdk, name: str, value: bool) -> None:
    assert refusal(pdk, name, value).endswith(f"got {value} (bool)")


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), -float("inf"), 0.5, fractions.Fraction(1, 2), 1j, "5", b"5"],
    ids=repr,
)
def test_what_is_no_integer(pdk: Pdk, value: Any) -> None:
    text = refusal(pdk, "kong.service.set_retries", value)
    assert text.startswith("kong.service.set_retries: retries must be an integer, got ")


@pytest.mark.parametrize("power", [63, 64, 65, 400, 20_000])
@pytest.mark.parametrize("sign", [1, -1])
def test_huge_integers(pdk: Pdk, power: int, sign: int) -> None:
    value = sign * 2**power
    shown = repr(value) if power < 64 else f"an integer of {power + 1} bits"
    for name, bounds in (
        ("kong.response.set_status", "status must be between 100 and 599"),
        ("kong.service.set_retries", "retries must be between 0 and 32767"),
    ):
        assert refusal(pdk, name, value) == f"{name}: {bounds}, got {shown}"
    assert refusal(pdk, "kong.request.get_header", value).endswith(f"got {shown} (int)")
    assert sent(pdk, "kong.request.get_raw_body", value) == (value,)  # refused when it is encoded


def test_numbers_that_have_no_value(pdk: Pdk) -> None:
    for value in (Numberless(1), fractions.Fraction(10**400)):
        for name in ("kong.response.set_status", "kong.service.set_retries"):
            assert refusal(pdk, name, value).endswith(f"an object of type {type(value).__name__}")


def test_the_result_of_a_call_in_lua_style(pdk: Pdk) -> None:
    """``set_header("x", kong.request.get_header("y"))``: the most frequent mistake of all."""
    advice = "; a PDK call returns data and error, and only the data is wanted here"
    for given in (("y", None), (None, "failed")):
        text = refusal(pdk, "kong.response.set_header", "x", given)
        assert text.endswith(f"got tuple of length 2{advice}")
        assert refusal(pdk, "kong.request.get_header", given).endswith(advice)
        assert advice in refusal(pdk, "kong.response.set_headers", {"x": given})
    assert advice not in refusal(pdk, "kong.request.get_header", ("a", "b"))


def test_the_header_that_is_wrong_is_named(pdk: Pdk) -> None:
    text = refusal(pdk, "kong.response.set_headers", {"a": "b", "x-wrong": {"c": 1}})
    assert "(the value of 'x-wrong' (str) is dict of length 1), got dict of length 2" in text
    text = refusal(pdk, "kong.response.set_headers", {"a": "b", 5: "c"})
    assert "(one name is 5 (int)), got dict of length 2" in text


def test_header_values_of_lists_in_a_query_only(pdk: Pdk) -> None:
    assert sent(pdk, "kong.service.request.set_query", {"a": [True]}) == ({"a": [True]},)
    refusal(pdk, "kong.response.set_headers", {"a": [True]})


# --- what errors show -----------------------------------------------------------------------------


SECRETS: list[Any] = [
    "hunter2", Text("hunter2"), b"hunter2", bytearray(b"hunter2"), ["hunter2", 5], ("hunter2", 5),
    {"hunter2": "hunter2"},
    {"hunter2"}, frozenset(["hunter2"]), Lazy(hunter2="hunter2"), collections.deque(["hunter2"]),
    types.SimpleNamespace(hunter2="hunter2"), ValueError("hunter2"),
]  # fmt: skip


@pytest.mark.parametrize("value", SECRETS, ids=lambda value: type(value).__name__)
def test_texts_and_containers_are_shown_by_type_and_length(pdk: Pdk, value: Any) -> None:
    texts = [refusal(pdk, "kong.response.set_status", value)]
    texts.append(refusal(pdk, "kong.service.set_tls_verify", value))
    if not isinstance(value, (str, bytes, bytearray)):
        texts.append(refusal(pdk, "kong.request.get_header", value))
        texts.append(refusal(pdk, "kong.response.set_headers", {"authorization": [value]}))
    for text in texts:
        assert "hunter2" not in text
        assert type(value).__name__ in text or "list of length 1" in text


def test_texts_that_may_be_anything_are_not_shown(pdk: Pdk) -> None:
    for name, given in (
        ("kong.client.load_consumer", "hunter2"),  # wants a UUID
        ("kong.service.request.set_path", "hunter2"),  # wants a slash
        ("kong.service.request.set_path", b"hunter2"),
    ):
        assert "got str of length 7" in refusal(pdk, name, given)
        assert "hunter2" not in refusal(pdk, name, given)


def test_long_texts_are_cut(pdk: Pdk) -> None:
    for text in (
        refusal(pdk, "kong.service.request.set_method", "x" * 100_000),
        refusal(pdk, "kong.service.request.set_body", {}, b"x" * 100_000),
    ):
        assert "x" * SHOWN + "..." in text
        assert len(text) < 500


def test_lone_surrogates_can_be_shown(pdk: Pdk) -> None:
    refusal(pdk, "kong.response.set_status", "\ud800").encode()
    refusal(pdk, "kong.service.request.set_scheme", "\ud800").encode()
    refusal(pdk, "kong.service.request.set_scheme", b"\xff").encode()


def test_the_nearest_choice(pdk: Pdk) -> None:
    assert refusal(pdk, "kong.service.request.set_method", "get").endswith("did you mean 'GET'?")
    assert refusal(pdk, "kong.service.request.set_method", "PSOT").endswith("did you mean 'POST'?")
    assert refusal(pdk, "kong.service.request.set_scheme", "htps").endswith("'https'?")
    assert "did you mean" not in refusal(pdk, "kong.service.request.set_method", "zzzzz")


# --- rules of single functions --------------------------------------------------------------------


@pytest.mark.parametrize("given", [UUID, UUID.upper(), UUID.encode(), Text(UUID)], ids=repr)
def test_a_consumer_by_id(pdk: Pdk, given: Any) -> None:
    assert sent(pdk, "kong.client.load_consumer", given) == (given,)
    assert sent(pdk, "kong.client.load_consumer", given, False) == (given, False)


@pytest.mark.parametrize(
    "given",
    ["", "alice", b"alice", "\ud800", b"\xff", UUID[:-1], UUID + "0", UUID.replace("-", ""),
     "{" + UUID + "}", "urn:uuid:" + UUID, " " + UUID],
    ids=repr,
)  # fmt: skip
def test_a_consumer_by_name(pdk: Pdk, given: Any) -> None:
    name = "kong.client.load_consumer"
    for rest in ((), (None,), (False,)):
        text = refusal(pdk, name, given, *rest)
        assert text.startswith(f"{name}: consumer_id must be a UUID, got ")
        assert text.endswith("pass search_by_username=True to look for a name")
    assert sent(pdk, name, given, search_by_username=True) == (given, True)


def test_a_consumer_or_a_credential(pdk: Pdk) -> None:
    name = "kong.client.authenticate"
    for args in ((), (None,), (None, None)):
        assert refusal(pdk, name, *args) == f"{name}: a consumer or a credential must be given"
    assert sent(pdk, name, {"id": "c"}) == ({"id": "c"},)
    assert sent(pdk, name, credential={"id": "k"}) == (None, {"id": "k"})


@pytest.mark.parametrize("v", ["SUCCESS", "NONE", "FAILED:expired", "FAILED:", b"FAILED:x"])
def test_the_result_of_client_verification(pdk: Pdk, v: Any) -> None:
    assert sent(pdk, "kong.client.tls.set_client_verify", v) == (v,)


@pytest.mark.parametrize("v", ["", "success", "FAILED", "XFAILED:", b"none"])
def test_no_result_of_client_verification(pdk: Pdk, v: Any) -> None:
    text = refusal(pdk, "kong.client.tls.set_client_verify", v)
    assert "v must be SUCCESS, NONE or FAILED:<reason>, got " in text


@pytest.mark.parametrize(
    "mimetype",
    ["application/json", "application/json; charset=utf-8", b"multipart/form-data",
     "application/x-www-form-urlencoded;x", None],
)  # fmt: skip
def test_mime_types(pdk: Pdk, mimetype: Any) -> None:
    assert sent(pdk, "kong.service.request.set_body", {}, mimetype) == ({}, mimetype)


@pytest.mark.parametrize(
    "mimetype",
    ["", "text/plain", "json", b"application/xml", "application/json ;x", " application/json",
     "\ud800"],
)  # fmt: skip
def test_other_mime_types(pdk: Pdk, mimetype: Any) -> None:
    text = refusal(pdk, "kong.service.request.set_body", {}, mimetype)
    assert "mimetype must be one of application/x-www-form-urlencoded, application/json" in text


def test_a_status_of_a_stream_connection(pdk: Pdk) -> None:
    for status in (200, 400, 403, 500, 502, 503, http.HTTPStatus.FORBIDDEN, 403.0):
        caller = pdk.caller("preread")
        pdk.kong(caller).response.exit(status)
        assert caller.sent == (status,)
    text = refusal(pdk, "kong.response.exit", 404, phase="preread")
    assert text.endswith("one of 200, 400, 403, 500, 502, 503 in preread, got 404 (int)")
    assert "between 100 and 599" in refusal(pdk, "kong.response.exit", 99, phase="preread")
    caller = pdk.caller("access")
    pdk.kong(caller).response.exit(404)
    assert caller.sent == (404,)


# --- what is logged -------------------------------------------------------------------------------


def test_what_a_deprecation_tells(caller: Caller, kong: Any) -> None:
    kong.log.deprecation("old", Lazy(after="2.8"))
    kong.log.deprecation({"not": "last"}, 5, {"after": "2.8", "removal": "4.0"})
    assert [args for _, args in caller.calls] == [
        ("old", {"after": "2.8"}),
        ("{'not': 'last'}", "5", {"after": "2.8", "removal": "4.0"}),
    ]


def test_a_value_of_the_record_for_logging_keeps_its_type(pdk: Pdk) -> None:
    for value in (5, 1.5, True, None, [1], {"a": {"b": 1}}, "text"):
        args = sent(pdk, "kong.log.set_serialize_value", "key", value)
        assert args[1] is value

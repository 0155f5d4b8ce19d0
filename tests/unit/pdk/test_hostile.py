"""Objects that lie, raise or call back: an exception at worst, never a crash or a hang."""

from __future__ import annotations

import enum
import sys
import threading
from typing import Any

import pytest
from pdkcalls import Caller, Pdk, right_arguments

from kong_pdk.exception import ArgumentError, PDKException
from kong_pdk.pdk._table import FUNCTIONS


class Liar:
    """Says that it is of another type."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        if isinstance(self.kind, BaseException):
            raise self.kind
        return self.kind


class Raises:
    """Raises whatever it is asked."""

    def fail(self, *_: Any) -> Any:
        raise RuntimeError("hostile")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = __bool__ = __len__ = fail
    __iter__ = __getitem__ = __contains__ = __int__ = __float__ = __index__ = __str__ = fail
    __repr__ = __getattr__ = __instancecheck__ = __format__ = __bytes__ = fail


class FalseText(str):
    """Agrees to everything."""

    def startswith(self, *_: Any) -> bool:  # type: ignore[override]
        return True

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("GET")

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: Any) -> str:
        return "x"


class RaisingText(str):
    """Is a text, and can do nothing that texts do."""

    def fail(self, *_: Any) -> Any:
        raise RuntimeError("hostile")

    __eq__ = __hash__ = __len__ = __getitem__ = startswith = lower = encode = fail  # type: ignore
    __str__ = __repr__ = fail  # type: ignore[assignment]


class RaisingDict(dict):  # type: ignore[type-arg]
    """A dict that cannot be walked."""

    def items(self) -> Any:
        raise RuntimeError("hostile")

    keys = values = __iter__ = __len__ = items  # type: ignore[assignment]


class OtherItems(dict):  # type: ignore[type-arg]
    """A dict whose items are others than it holds."""

    def items(self) -> Any:
        return [("a", 1), 5]


class Number(int):
    """Cannot be compared or written."""

    def fail(self, *_: Any) -> Any:
        raise RuntimeError("hostile")

    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = __int__ = __repr__ = fail  # type: ignore


class Odd(enum.Enum):
    """Values that nobody expects."""

    OBJECT = object()
    TYPE = (int,)
    RAISES = Raises
    FLOAT = float("nan")


HOSTILE: dict[str, Any] = {
    **{f"liar_{kind.__name__}": Liar(kind) for kind in (str, int, bool, dict, list, tuple, bytes)},
    "liar_enum": Liar(enum.Enum),
    "liar_raises": Liar(RuntimeError("hostile")),
    "liar_nonsense": Liar(5),
    "raises": Raises(),
    "false_text": FalseText("x"),
    "raising_text": RaisingText("x"),
    "raising_dict": RaisingDict(a=1),
    "other_items": OtherItems(a=1),
    "number": Number(5),
    "enum_object": Odd.OBJECT,
    "enum_type": Odd.TYPE,
    "enum_class": Odd.RAISES,
    "enum_nan": Odd.FLOAT,
    "dict_of_hostile": {FalseText("a"): FalseText("b"), "c": [FalseText("d"), Raises()]},
    "list_of_hostile": [Raises(), Liar(str)],
}
hostile = pytest.mark.parametrize("which", HOSTILE)  # pytest itself looks at values


@hostile
def test_hostile_arguments(pdk: Pdk, which: str) -> None:
    value = HOSTILE[which]
    for spec in FUNCTIONS:
        args = right_arguments(spec)
        for index in range(len(args)):
            given = (*args[:index], value, *args[index + 1 :])
            caller = pdk.caller("access")
            try:
                pdk.method(spec.name, caller)(*given)
            except (PDKException, TypeError, ValueError, AttributeError, RuntimeError):
                assert caller.calls == []
            else:
                encode(pdk, spec.name, caller.sent)


def encode(pdk: Pdk, name: str, args: tuple[Any, ...]) -> None:
    try:
        pdk.codec.encode_call(1, 2, name, args)
    except ArgumentError as exc:
        str(exc).encode()


@hostile
def test_fits_asks_hostile_values_nothing(pdk: Pdk, which: str) -> None:
    """What is plainly right is known by its exact type."""
    value = HOSTILE[which]
    for spec in FUNCTIONS:
        args = right_arguments(spec)
        for index in range(len(args)):
            assert type(pdk.function(spec.name).fits((*args[:index], value))) is bool


def test_names_that_are_subclasses_of_str(pdk: Pdk) -> None:
    for name in (FalseText("name"), RaisingText("name")):
        with pytest.raises((ArgumentError, TypeError, RuntimeError)):
            pdk.kong(pdk.caller()).request.get_header(**{name: "x"})


def test_a_text_that_cannot_be_had(caller: Caller, kong: Any) -> None:
    for log in (kong.log, kong.log.err, kong.log.inspect):
        with pytest.raises(ArgumentError, match=r"argument 2, of type Raises, has no text: its"):
            log("a", Raises())
    assert caller.calls == []


def test_a_text_that_is_none(kong: Any) -> None:
    class Textless:
        def __str__(self) -> Any:
            return 5

    with pytest.raises(ArgumentError, match="__str__ raised TypeError"):
        kong.log(Textless())


def test_a_text_that_ends_the_handler(kong: Any) -> None:
    """What is no error of the argument goes through."""

    class Ends:
        def __str__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kong.log(Ends())


def test_a_text_that_makes_calls_itself(caller: Caller, kong: Any) -> None:
    class Talks:
        def __str__(self) -> str:
            kong.log("inner")
            return "outer"

    kong.log(Talks())
    assert [args for _, args in caller.calls] == [("inner",), ("outer",)]


def test_a_text_that_logs_itself(caller: Caller, kong: Any) -> None:
    class Endless:
        def __str__(self) -> str:
            kong.log(self)
            return "never"

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(400)
    try:
        with pytest.raises((ArgumentError, RecursionError)):
            kong.log(Endless())
    finally:
        sys.setrecursionlimit(limit)
    assert caller.calls == []


def test_a_list_that_holds_itself(pdk: Pdk) -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    nested: dict[str, Any] = {}
    nested["x"] = nested
    for value in (cycle, nested):
        caller = pdk.caller()
        pdk.kong(caller).service.request.set_body(value)
        with pytest.raises(ArgumentError, match=r"^kong\.service\.request\.set_body: args, of"):
            pdk.codec.encode_call(1, 2, *caller.calls[0])
        with pytest.raises(ArgumentError):
            pdk.kong(caller).response.set_headers({"a": value})


def test_arguments_that_change_while_they_are_checked(pdk: Pdk) -> None:
    headers: dict[str, Any] = {"a": "b", "c": ["d"]}

    class Value:
        @property
        def __class__(self) -> Any:  # type: ignore[override]
            headers.clear()
            headers["z"] = "y"
            return str

    headers["v"] = Value()
    with pytest.raises((ArgumentError, RuntimeError)):
        pdk.kong(pdk.caller()).response.set_headers(headers)


def test_threads_share_a_method(pdk: Pdk) -> None:
    caller = pdk.caller()
    kong = pdk.kong(caller)
    method, headers = kong.response.set_headers, {str(n): ["a", "b"] for n in range(50)}
    errors: list[BaseException] = []
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        barrier.wait(30)
        try:
            for turn in range(300):
                if number == 0:  # changes what the others check
                    headers[f"extra{turn}"] = "x"
                    headers.pop(f"extra{turn - 5}", None)
                else:
                    try:
                        method(headers if turn % 2 else {"a": "b"})
                    except RuntimeError:  # the dict has changed while it was walked
                        pass
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert {name for name, _ in caller.calls} == {"kong.response.set_headers"}

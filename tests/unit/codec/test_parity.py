"""The two codecs are one: same names, same attributes, same errors, same answer to wrong use.

What they do with bytes is held by every other file here, which runs on both, and by the properties.
"""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

import msgpack
import pytest

import kong_pdk
from kong_pdk import _codec, _fallback, _wire, exception

Both = tuple[ModuleType, ModuleType]

CLASSES = [name for name in _codec.CODEC_API if name[0].isupper()]
FUNCTIONS = [name for name in _codec.CODEC_API if name[0].islower()]

#: In the compiled codec alone: for the process's fork hook, and a class that only C code can use.
COMPILED_ONLY = {"Writer", "reset_gate"}


def public(module_or_class: object) -> set[str]:
    return {name for name in dir(module_or_class) if not name.startswith("_")}


def defined(module: ModuleType) -> set[str]:
    """Public names that are the module's own."""
    return {
        name
        for name in public(module)
        if getattr(getattr(module, name), "__module__", None) == module.__name__
    }


def parameters(function: Callable[..., Any]) -> list[tuple[Any, ...]]:
    return [
        (each.name, each.kind, each.default)
        for each in inspect.signature(function).parameters.values()
    ]


def package_file(name: str) -> Path:
    return Path(_fallback.__file__).with_name(name)


# --- surface --------------------------------------------------------------------------------------


def test_each_offers_the_api_and_nothing_else(both: Both) -> None:
    compiled, pure = both
    assert defined(pure) == set(_codec.CODEC_API)
    assert defined(compiled) - COMPILED_ONLY == set(_codec.CODEC_API)


def test_the_selector_hands_on_the_whole_api(both: Both) -> None:
    chosen = both[0] if _codec.is_compiled() else both[1]
    assert kong_pdk.is_compiled() == _codec.is_compiled()
    for name in _codec.CODEC_API:
        assert getattr(_codec, name) is getattr(chosen, name)


@pytest.mark.parametrize("name", CLASSES)
def test_same_attributes(both: Both, name: str) -> None:
    compiled, pure = (getattr(module, name) for module in both)
    assert public(compiled) == public(pure)
    for attribute in public(pure):
        is_method = inspect.isroutine(getattr(pure, attribute))
        assert inspect.isroutine(getattr(compiled, attribute)) == is_method, attribute


@pytest.mark.parametrize("name", CLASSES)
def test_same_methods(both: Both, name: str) -> None:
    compiled, pure = (getattr(module, name) for module in both)
    for attribute in public(pure):
        if inspect.isroutine(getattr(pure, attribute)):
            assert parameters(getattr(compiled, attribute)) == parameters(getattr(pure, attribute))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_same_signatures(both: Both, name: str) -> None:
    compiled, pure = (getattr(module, name) for module in both)
    assert parameters(compiled) == parameters(pure)


#: Their instances have the documentation of a PDK function, so the class has none of its own.
DOCUMENTED_BY_INSTANCE = {"Function", "Method"}


@pytest.mark.parametrize("name", sorted(set(_codec.CODEC_API) - DOCUMENTED_BY_INSTANCE))
def test_same_documentation(both: Both, name: str) -> None:
    compiled, pure = (getattr(module, name) for module in both)
    first = [inspect.getdoc(each).partition("\n")[0] for each in (compiled, pure)]
    assert first[0] == first[1] != ""


def test_same_inheritance(both: Both) -> None:
    for module in both:
        assert issubclass(module.Connection, module.Decoder)


def test_constructors_take_the_same_names_and_defaults(both: Both) -> None:
    """Compiled constructors cannot be inspected: so they are called."""
    for module in both:
        module.Decoder(max_message=1, max_depth=2)
        module.Decoder(1, 2)
        one = module.Request(kind=1, msgid=2, target=3, value=4)
        assert (one.kind, one.msgid, one.target, one.value) == (1, 2, 3, 4)
        ours, theirs = socket.socketpair()
        with theirs:
            module.Connection(sock=ours, max_message=1, max_depth=2).close()


def test_the_stub_of_the_compiled_one_describes_both(both: Both) -> None:
    stub = ast.parse(package_file("_speedups.pyi").read_text(encoding="utf-8"))
    described = {node.name: node for node in stub.body if hasattr(node, "name")}
    assert set(described) == set(_codec.CODEC_API) | {"reset_gate"}

    def assert_same_parameters(node: Any, function: Callable[..., Any]) -> None:
        args = node.args
        described = [*args.posonlyargs, *args.args, args.vararg, *args.kwonlyargs, args.kwarg]
        names = [each.arg for each in described if each is not None]
        assert names == [each[0] for each in parameters(function)]

    for name in FUNCTIONS:
        assert_same_parameters(described[name], getattr(both[1], name))
    for name in CLASSES:
        kind, members = getattr(both[1], name), set()
        for node in described[name].body:
            member = node.target.id if isinstance(node, ast.AnnAssign) else node.name
            members.add(member)
            if isinstance(node, ast.FunctionDef) and not node.decorator_list:
                assert_same_parameters(node, getattr(kind, member))
        members = {member for member in members if not member.startswith("__")}
        inherited = {member for base in kind.__mro__[1:] for member in public(base)}
        members.discard("_caller")
        assert members == public(kind) - inherited, name


# --- one source for what both use -----------------------------------------------------------------


def test_no_exception_is_defined_in_either(both: Both) -> None:
    for module in both:
        for name in dir(module):
            value = getattr(module, name)
            if isinstance(value, type) and issubclass(value, BaseException):
                assert value is getattr(exception, name)


def bytes_literals(tree: ast.AST) -> set[bytes]:
    found = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {value for value in found if isinstance(value, bytes)}


def test_the_words_of_the_wire_are_written_once() -> None:
    """Method names, keys and heads of replies stand in _wire; the twin only puts them together."""
    pure = ast.parse(package_file("_fallback.py").read_text(encoding="utf-8"))
    assert bytes_literals(pure) <= {b"", b"\xdc"}
    texts = {
        node.value
        for node in ast.walk(pure)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not [text for text in texts if text.startswith("plugin.")]
    numbers = {_wire.MAX_MESSAGE, _wire.MAX_DEPTH, _wire.READ_SIZE, _wire.SEND_TIMEOUT_MS}
    used = {node.value for node in ast.walk(pure) if isinstance(node, ast.Constant)}
    assert not numbers & {number for number in used if type(number) is int}


# --- wrong use ------------------------------------------------------------------------------------

WRONG: dict[str, Callable[[ModuleType], Any]] = {
    "decoder_text": lambda m: m.Decoder("x"),
    "decoder_none": lambda m: m.Decoder(None),
    "decoder_negative": lambda m: m.Decoder(-1),
    "decoder_negative_depth": lambda m: m.Decoder(1, -1),
    "decoder_three_arguments": lambda m: m.Decoder(1, 2, 3),
    "decoder_unknown_keyword": lambda m: m.Decoder(limit=3),
    "feed_nothing": lambda m: m.Decoder().feed(),
    "feed_text": lambda m: m.Decoder().feed("x"),
    "feed_none": lambda m: m.Decoder().feed(None),
    "feed_number": lambda m: m.Decoder().feed(5),
    "feed_list": lambda m: m.Decoder().feed([1, 2]),
    "next_argument": lambda m: m.Decoder().next(1),
    "set_consumed": lambda m: setattr(m.Decoder(), "consumed", 1),
    "set_pending": lambda m: setattr(m.Decoder(), "pending", 1),
    "decoder_attribute": lambda m: setattr(m.Decoder(), "other", 1),
    "request_nothing": lambda m: m.Request(),
    "request_five": lambda m: m.Request(1, 2, 3, 4, 5),
    "request_attribute": lambda m: setattr(m.Request(1, 2, 3, 4), "other", 1),
    "waiter_argument": lambda m: m.Waiter(1),
    "waiter_attribute": lambda m: setattr(m.Waiter(), "other", 1),
    "wake_argument": lambda m: m.Waiter().wake(1),
    "connection_nothing": lambda m: m.Connection(),
    "connection_text": lambda m: m.Connection("x"),
    "connection_number": lambda m: m.Connection(1),
    "call_two": lambda m: m.encode_call(1, 2),
    "call_list": lambda m: m.encode_call(1, 2, "kong.f", [1]),
    "call_no_arguments": lambda m: m.encode_call(1, 2, "kong.f", None),
    "call_function_number": lambda m: m.encode_call(1, 2, 3, ()),
    "call_function_none": lambda m: m.encode_call(1, 2, None, ()),
    "call_function_surrogate": lambda m: m.encode_call(1, 2, "\ud800", ()),
    "call_msgid_set": lambda m: m.encode_call({1}, 2, "kong.f", ()),
    "call_msgid_large": lambda m: m.encode_call(2**64, 2, "kong.f", ()),
    "call_event_large": lambda m: m.encode_call(1, 2**64, "kong.f", ()),
    "call_argument_set": lambda m: m.encode_call(1, 2, "kong.f", (1, {2})),
    "call_argument_large": lambda m: m.encode_call(1, 2, "kong.f", (2**64,)),
    "call_argument_surrogate": lambda m: m.encode_call(1, 2, "kong.f", ("a\ud800",)),
    "call_argument_object": lambda m: m.encode_call(1, 2, "kong.f", ([len],)),
    "call_arguments_65536": lambda m: m.encode_call(1, 2, "kong.f", (0,) * 65536),
    "return_one": lambda m: m.encode_return(1),
    "return_large": lambda m: m.encode_return(1, 2**64),
    "result_set": lambda m: m.encode_result(1, {1}),
    "result_large": lambda m: m.encode_result(1, -(2**63) - 1),
    "result_surrogate": lambda m: m.encode_result(1, "\ud800"),
    "error_set": lambda m: m.encode_error(1, {1}),
    "notification_one": lambda m: m.encode_notification("x"),
    "notification_set": lambda m: m.encode_notification("x", {1}),
}


def outcome(function: Callable[[ModuleType], Any], module: ModuleType) -> tuple[Any, ...]:
    try:
        function(module)
    except Exception as exc:
        return type(exc), str(exc)
    return (None,)


@pytest.mark.parametrize("function", WRONG.values(), ids=WRONG)
def test_wrong_use_is_the_same_error(both: Both, function: Callable[[ModuleType], Any]) -> None:
    compiled, pure = (outcome(function, module) for module in both)
    assert compiled[0] is pure[0]
    assert pure[0] is not None, "both accept it: it is not wrong"
    if issubclass(pure[0], exception.KongPDKError):
        assert compiled == pure


SOCKET_WRONG: dict[str, Callable[[Any, ModuleType], Any]] = {
    "send_text": lambda c, m: c.send("x"),
    "send_none": lambda c, m: c.send(None),
    "send_number": lambda c, m: c.send(5),
    "send_bytearray": lambda c, m: c.send(bytearray(b"x")),
    "exchange_text": lambda c, m: c.exchange("x", m.Waiter()),
    "exchange_no_waiter": lambda c, m: c.exchange(b"x", None),
    "receive_argument": lambda c, m: c.receive(1),
    "send_nowait_text": lambda c, m: c.send_nowait("x"),
}


@pytest.fixture
def connections(both: Both) -> Iterator[list[tuple[Any, ModuleType]]]:
    """One connection of each codec, to a peer that has sent a request already."""
    opened, peers = [], []
    for module in both:
        ours, theirs = socket.socketpair()
        theirs.sendall(msgpack.packb([0, 1, "plugin.GetStatus", []]))
        opened.append((module.Connection(ours), module))
        peers.append(theirs)
    yield opened
    for (connection, _), theirs in zip(opened, peers):
        connection.close()
        theirs.close()


@pytest.mark.parametrize("function", SOCKET_WRONG.values(), ids=SOCKET_WRONG)
def test_wrong_use_of_a_connection(connections: Any, function: Callable[[Any, Any], Any]) -> None:
    found = []
    for connection, module in connections:
        try:
            found.append(("accepted", function(connection, module)))
        except Exception as exc:
            found.append((type(exc).__name__,))
    assert found[0] == found[1]


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps], ids=lambda f: f.__name__)
def test_neither_decoder_can_be_copied(both: Both, how: Callable[[Any], Any]) -> None:
    """A copy of a buffer's address would free it twice."""
    decoder = both[0].Decoder()
    with pytest.raises(TypeError):
        how(decoder)


# --- errors ---------------------------------------------------------------------------------------


def test_golden_refused_is_the_same_error_in_both(both: Both, golden_refused: Any) -> None:
    found = []
    for module in both:
        decoder = module.Decoder()
        decoder.feed(golden_refused.data + b"behind")
        with pytest.raises(exception.ProtocolError) as caught:
            decoder.next()
        cause = caught.value.__cause__
        found.append((
            type(caught.value), str(caught.value), type(cause), str(cause), decoder.consumed,
            decoder.pending,
        ))  # fmt: skip
    assert found[0] == found[1]


def test_state_while_requests_come_and_after_failure(both: Both, golden_refused: Any) -> None:
    """Byte by byte, with a request before and one behind: equal after every single byte."""
    good = msgpack.packb([0, 77, "plugin.GetStatus", []])
    decoders = [module.Decoder() for module in both]
    for byte in good + golden_refused.data[-300:] + good:
        states = []
        for decoder in decoders:
            decoder.feed(bytes((byte,)))
            try:
                request = decoder.next()
                found: Any = request and (request.kind, request.msgid)
            except exception.ProtocolError as exc:
                found = (type(exc), str(exc))
            states.append((found, decoder.consumed, decoder.pending))
        assert states[0] == states[1]

"""Targets within the process: what one codec says of an input, the other one must say too.

Each target is a function of the input's bytes alone, so that a finding can be repeated.
"""

from __future__ import annotations

import functools
import sys
import zlib
from collections.abc import Mapping
from enum import Enum
from numbers import Integral, Real
from random import Random
from types import ModuleType
from typing import Any, Optional

import msgpack

from kong_pdk import _fallback, _wire
from kong_pdk.exception import ArgumentError, EventEnded, HandlerExit, PDKException, ProtocolError
from kong_pdk.pdk import proxy

from . import corpus
from .values import Reader


def allow_depth() -> None:
    """Let Python recurse as deep as inputs nest; for processes that do nothing else."""
    sys.setrecursionlimit(20_000)


class Finding(AssertionError):
    """The codecs disagree, or what they say is wrong."""


@functools.cache
def codecs() -> tuple[ModuleType, ...]:
    """The pure codec, and the compiled one if it is there."""
    try:
        from kong_pdk import _speedups
    except ImportError:
        return (_fallback,)
    return _fallback, _speedups


def same(first: Any, second: Any, *what: Any) -> None:
    """Raise Finding unless the two are the same to the letter; ``what`` says of what they are."""
    # Equal numbers of two types, and NaN, are told apart by their text.
    if repr(first) != repr(second):
        raise Finding(f"{what}:\n  {first!r}\n  {second!r}")


class DecoderTarget:
    """Bytes of a connection, whole and cut, with the usual and with tight bounds."""

    name = "decoder"
    BOUNDS = ((_wire.MAX_MESSAGE, _wire.MAX_DEPTH),) * 7 + ((60, 4),)

    def make(self, random: Random) -> bytes:
        """A mutated golden frame."""
        return corpus.mutate(random, corpus.seeds())

    def check(self, data: bytes) -> None:
        """Both codecs say the same, wherever the bytes are cut; only ProtocolError escapes."""
        dice = zlib.crc32(data)
        bounds = self.BOUNDS[dice & 7]
        size = len(data)
        first, second = sorted(((dice >> 3) % (size + 1), (dice >> 14) % (size + 1)))
        parts = (data[:first], data[first:second], data[second:])
        # The pure codec has a way of its own for a message that arrives whole.
        pure = self.said(_fallback, (data,) if dice & 0x8000_0000 else parts, bounds)
        for module in codecs()[1:]:
            same(pure, self.said(module, (data,), bounds), "whole")
            same(pure, self.said(module, parts, bounds), "cut at", first, second)

    @staticmethod
    def said(module: ModuleType, parts: tuple[bytes, ...], bounds: tuple[int, int]) -> list[Any]:
        """The requests, the error if there is one, and how much was consumed and is left."""
        said: list[Any] = []
        decoder = module.Decoder(*bounds)
        for part in parts:
            decoder.feed(part)
            while True:
                try:
                    request = decoder.next()
                except ProtocolError as exc:
                    said.append((type(exc), str(exc), decoder.consumed))
                    try:
                        decoder.next()
                    except ProtocolError as again:
                        if again is exc:
                            return said
                    raise Finding("after an error the stream has a meaning again") from exc
                if request is None:
                    break
                kind, msgid, target, value = (
                    request.kind, request.msgid, request.target, request.value
                )  # fmt: skip
                if type(msgid) is not int or (kind != _wire.CALL and type(target) not in _TARGETS):
                    raise Finding(f"a request of wrong types: {request!r}")
                said.append((kind, msgid, target, value))
        said.append((decoder.consumed, decoder.pending))
        return said


_TARGETS = (int, type(None))


class EncoderTarget:
    """Values to bytes: the same bytes or the same error, and msgpack reads what was given."""

    name = "encoder"

    def make(self, random: Random) -> bytes:
        """Bytes that values are taken from."""
        return random.getrandbits(8 * 64).to_bytes(64, "big")[: 4 + int(random.random() * 61)]

    def check(self, data: bytes) -> None:
        """Both codecs write the same."""
        reader = Reader(data)
        msgid, event_id = reader.choice((0, 3, 200, 70000, 2**32 - 1)), reader.byte() << 45
        function = reader.text()
        args = tuple([reader.argument() for _ in range(reader.byte() % 7)])
        if reader.byte() == 255:
            args = (args or (None,)) * 20
        pure, *others = (self.call(module, msgid, event_id, function, args) for module in codecs())
        for compiled in others:
            same(pure, compiled, "encode_call", function, args)
        if type(pure) is bytes:
            self.read_back(pure, msgid, event_id, function, args)
        value, text = reader.value(), reader.text()
        for name, given in (
            ("encode_result", (msgid, value)),
            ("encode_error", (msgid, text)),
            ("encode_notification", (text, value)),
            ("encode_return", (msgid, event_id)),
        ):
            pure, *others = (self.write(module, name, given) for module in codecs())
            for compiled in others:
                same(pure, compiled, name, given)

    @staticmethod
    def call(
        module: ModuleType, msgid: int, event_id: int, function: str, args: tuple[Any, ...]
    ) -> Any:
        """The frame, or the error, which is an ArgumentError unless the name itself is no text."""
        try:
            return module.encode_call(msgid, event_id, function, args)
        except ArgumentError as exc:
            return type(exc), str(exc), type(exc.__cause__)
        except UnicodeEncodeError as exc:
            _unless_unsendable(function, exc)
            return type(exc), str(exc)

    @staticmethod
    def write(module: ModuleType, name: str, given: tuple[Any, ...]) -> Any:
        """The bytes; what cannot be sent raises what msgpack raises."""
        try:
            return getattr(module, name)(*given)
        except (ValueError, TypeError, OverflowError) as exc:
            return type(exc), str(exc)

    @staticmethod
    def read_back(
        frame: bytes, msgid: int, event_id: int, function: str, args: tuple[Any, ...]
    ) -> None:
        """What msgpack reads is what was given, in the form that MessagePack has for it."""
        options: dict[str, Any] = {"unicode_errors": _wire.ERRORS, "strict_map_key": False}
        try:
            read = msgpack.unpackb(frame, **options)
        except msgpack.StackError:  # it packs one or two levels more than it unpacks
            return
        except TypeError as exc:  # a tuple as a map's key: nothing can read that
            if "unhashable" not in str(exc):
                raise
            return
        if _wire.has_hole(args):
            args = _wire.pad_holes(args)
        wanted = {"Data": {"Method": function, "Args": [plain(one) for one in args]}}
        same([1, msgid, None, {**wanted, "EventId": event_id}], read, "read back")


def plain(value: Any) -> Any:
    """A value as it comes back from MessagePack."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, (bool, msgpack.ExtType, msgpack.Timestamp)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, (list, tuple)):
        nested, depth = value, 0
        while type(nested) is list and len(nested) == 1:  # deep ones are of this shape
            nested, depth = nested[0], depth + 1
        if depth > 5:
            result = plain(nested)
            for _ in range(depth):
                result = [result]
            return result
        return [plain(one) for one in value]
    if isinstance(value, Mapping):
        return {plain(key): plain(one) for key, one in value.items()}
    if isinstance(value, Integral):
        return int(value)
    assert isinstance(value, Real), value
    return float(value)


def from_the_wire(value: Any) -> Any:
    """A value as Kong would send it; None if it cannot be sent."""
    try:
        return _wire.decode_value(_wire.pack_value(value))
    except (ValueError, TypeError, OverflowError, ProtocolError):
        return None


def _unless_unsendable(text: str, exc: UnicodeEncodeError) -> None:
    """Raise ``exc`` if the text could have been sent."""
    try:
        text.encode("utf-8", _wire.ERRORS)
    except UnicodeEncodeError:
        return
    raise exc


class _Mode:
    """Answers each PDK call with the same value."""

    def __init__(self, module: ModuleType, kind: int, value: Any) -> None:
        self._module, self._kind, self._value = module, kind, value
        self.frames: list[bytes] = []

    def exchange(self, event: Any, frame: bytes) -> Any:
        self.frames.append(frame)
        return self._module.Request(self._kind, 1, event.id, self._value)

    def send_last(self, event: Any, frame: bytes) -> None:
        self.frames.append(frame)


@functools.cache
def _functions(module: ModuleType) -> tuple[Any, ...]:
    """All PDK functions, made of one codec's ``Function``."""
    chosen, proxy.Function = proxy.Function, module.Function  # type: ignore[attr-defined]
    try:
        return tuple([proxy._function.__wrapped__(name) for name in sorted(proxy.SPECS)])
    finally:
        proxy.Function = chosen  # type: ignore[attr-defined]


class FunctionTarget:
    """Arguments of every PDK function: fit or not, settled or refused, and what comes back."""

    name = "function"
    make = EncoderTarget.make
    PHASES = ("access", "rewrite", "log", "preread", "certificate", "response")

    def check(self, data: bytes) -> None:
        """Both codecs send the same and return the same; only documented errors escape."""
        reader = Reader(data)
        index = reader.choice(range(len(proxy.SPECS)))
        options, phase = reader.byte(), reader.choice(self.PHASES)
        parameters = proxy.SPECS[sorted(proxy.SPECS)[index]].params
        args = tuple([reader.argument() for _ in range(reader.byte() % (len(parameters) + 2))])
        kwargs: dict[str, Any] = {}
        if options & 0x30 == 0x30:
            names = [one.name for one in parameters] + ["odd"]
            kwargs = {reader.choice(names): reader.argument() for _ in range(1 + options % 2)}
        kind = _wire.STEP_ERROR if options & 0xC0 == 0xC0 else _wire.STEP
        value = reader.text() if kind == _wire.STEP_ERROR else from_the_wire(reader.value())
        said = []
        for module in codecs():
            function = _functions(module)[index]
            said.append((
                function.fits(args),
                self.called(module, function, options, phase, args, kwargs, (kind, value)),
            ))  # fmt: skip
        for compiled in said[1:]:
            same(said[0], compiled, function.name, args, kwargs, phase)

    @staticmethod
    def called(
        module: ModuleType, function: Any, options: int, phase: str, args: tuple[Any, ...],
        kwargs: dict[str, Any], answer: tuple[int, Any],
    ) -> tuple[Any, ...]:  # fmt: skip
        """What was sent, and what came back."""
        events = module.Events(
            5, lua_style=bool(options & 1), checks=bool(options & 2), log_level=(options >> 2) & 7
        )
        mode = _Mode(module, *answer)
        event = module.Event(events, None, phase, None, 9, mode, None)
        returned: Optional[Any] = None
        try:
            returned = module.Method(function, event)(*args, **kwargs)
        except (PDKException, HandlerExit) as exc:
            returned = type(exc), str(exc)
        try:
            over = event.end()
            module.Method(function, event)("a")
        except (EventEnded, PDKException, HandlerExit) as exc:
            return mode.frames, returned, over, type(exc), str(exc)
        return mode.frames, returned, over


#: Those that need no server.
TARGETS: dict[str, Any] = {
    one.name: one for one in (DecoderTarget, EncoderTarget, FunctionTarget)
}  # fmt: skip

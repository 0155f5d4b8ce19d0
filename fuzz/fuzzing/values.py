"""Python values out of bytes: whatever a plugin may pass to a PDK call."""

from __future__ import annotations

import enum
import struct
from collections import OrderedDict
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import msgpack


class Color(enum.Enum):
    """An enum of texts."""

    RED = "red"


class Code(enum.IntEnum):
    """An enum of numbers."""

    OK = 200


class Text(str):
    """A subclass."""


class Number(int):
    """A subclass."""


class Voiceless:
    """Has no text."""

    def __repr__(self) -> str:
        return "<Voiceless>"

    def __str__(self) -> str:
        raise RuntimeError("no text")


VOICELESS = Voiceless()
EDGES = (
    0, 1, -1, 31, 32, 127, 128, 255, 256, 65535, 65536, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1,
    2**63, 2**64 - 1, 2**64, -32, -33, -128, -129, -32768, -32769, -(2**31), -(2**31) - 1, -(2**63),
    -(2**63) - 1, 10**40, 99, 100, 199, 200, 404, 503, 599, 600, 8000,
)  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, 1.5, 200.0, float("inf"), float("-inf"), float("nan"), 1e308, 2.0**63)
WORDS = (
    "", "a", "host", "x-header", "/", "/path", "GET", "http", "SUCCESS", "FAILED:x", "127.0.0.1",
    "application/json", "multipart/form-data; boundary=x", "\x00", "\udcff", "\ud800", "\u00e9",
    "0dc6f45b-8f8d-40d2-a504-473544ee190b", "kong", "{vault://env/x}", "a" * 31, "a" * 32,
    "a" * 300,
)  # fmt: skip
ODD = (
    Color.RED, Code.OK, Text("sub"), Number(7), VOICELESS, Ellipsis, {1, 2}, 1j, range(3), int,
    Fraction(1, 2), Decimal("1.5"), bytearray(b"ba"), memoryview(b"mv"), OrderedDict(a=1),
    MappingProxyType({"a": 1}), msgpack.ExtType(5, b"x"), msgpack.Timestamp(1, 2), (1, None),
    (None, "error"), frozenset((1,)),
)  # fmt: skip


class Reader:
    """Takes values out of bytes; what is missing at their end is zero.

    Args:
        data: any bytes.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        """The next byte."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def take(self, size: int) -> bytes:
        """So many bytes."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def choice(self, these: Any) -> Any:
        """One of a sequence."""
        return these[(self.byte() << 8 | self.byte()) % len(these)]

    def text(self) -> str:
        """A text, with surrogates where the bytes are no UTF-8."""
        if self.byte() & 1:
            return str(self.choice(WORDS))
        return self.take(self.byte() & 0x1F).decode("utf-8", "surrogateescape")

    def scalar(self) -> Any:
        """A value that MessagePack can carry, most times."""
        kind = self.byte() % 10
        if kind == 0:
            return None
        if kind == 1:
            return bool(self.byte() & 1)
        if kind == 2:
            return self.byte()
        if kind == 3:
            return self.choice(EDGES)
        if kind == 4:
            return self.choice(FLOATS)
        if kind == 5:
            return struct.unpack(">d", self.take(8).ljust(8, b"\0"))[0]
        if kind == 6:
            return self.take(self.byte())
        return self.text()

    def value(self, depth: int = 0) -> Any:
        """Any value.

        Args:
            depth: containers around it.
        """
        kind = self.byte() % 16
        if kind < 9 or depth > 6:
            return self.scalar()
        if kind < 11:
            return [self.value(depth + 1) for _ in range(self.byte() % 5)]
        if kind < 13:
            return {self.key(): self.value(depth + 1) for _ in range(self.byte() % 5)}
        if kind == 13:
            return tuple([self.value(depth + 1) for _ in range(self.byte() % 4)])
        if kind == 14:
            return self.choice(ODD)
        nested: Any = self.scalar()
        for _ in range(self.byte() * 4):  # more than msgpack packs, or nearly so
            nested = [nested]
        return nested

    def key(self) -> Any:
        """The key of a map; most are texts."""
        return self.text() if self.byte() & 7 else self.scalar()

    def headers(self) -> Any:
        """A map as header functions take it, with a mistake now and then."""
        return {
            self.text(): self.scalar() if self.byte() & 1 else [self.scalar() for _ in range(2)]
            for _ in range(self.byte() % 4)
        }

    def argument(self) -> Any:
        """A value for an argument of a PDK call."""
        kind = self.byte() & 3
        if kind == 0:
            return self.text()
        if kind == 1:
            return self.headers()
        return self.scalar() if kind == 2 else self.value()

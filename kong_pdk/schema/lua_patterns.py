"""Lua's patterns, which ``match`` and its like in a schema are written in.

They are no regular expressions: ``%`` escapes, there is no alternation, and a quantifier follows a
single character or set. What is here is what Kong's LuaJIT does. Patterns work on bytes, so ``.``
is one byte of a character that takes several in UTF-8, and ``%a`` is ASCII's letters alone.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple, Optional, Union

Text = Union[str, bytes]
#: What a capture holds: the bytes, or for ``()`` the place, counted from 1.
Capture = Union[bytes, int]

_MOST_CAPTURES = 32
_PUNCTUATION = b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_DIGITS = b"0123456789"
_LOWER = b"abcdefghijklmnopqrstuvwxyz"
_CLASSES: dict[int, frozenset[int]] = {
    ord(letter): frozenset(members)
    for letter, members in {
        "a": _LOWER + _LOWER.upper(),
        "c": bytes([*range(32), 127]),
        "d": _DIGITS,
        "g": bytes(range(33, 127)),
        "l": _LOWER,
        "p": _PUNCTUATION,
        "s": b" \t\n\v\f\r",
        "u": _LOWER.upper(),
        "w": _DIGITS + _LOWER + _LOWER.upper(),
        "x": _DIGITS + b"abcdefABCDEF",
        "z": b"\0",
    }.items()
}
_ALL = frozenset(range(256))


class PatternError(ValueError):
    """A text is no Lua pattern; the message says what is wrong with it."""


class _Item(NamedTuple):
    """One step of a pattern.

    ``what`` is "one", with the bytes that fit and a quantifier or ""; "open" or "close", with the
    number of the capture; "place", "back", with the same; "balance" with two bytes; "frontier" with
    bytes; or "end".
    """

    what: str
    fits: frozenset[int] = frozenset()
    quantifier: str = ""
    number: int = 0
    pair: tuple[int, int] = (0, 0)


class _Pattern(NamedTuple):
    anchored: bool
    items: tuple[_Item, ...]
    captures: int


def _bytes(text: Text) -> bytes:
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text


def _class(letter: int) -> frozenset[int]:
    """What ``%`` and a byte stand for."""
    members = _CLASSES.get(letter | 0x20) if bytes([letter]).isalpha() else None
    if members is None:
        return frozenset((letter,))
    return members if letter & 0x20 else _ALL - members


def _read_set(pattern: bytes, start: int) -> tuple[frozenset[int], int]:
    """The bytes of a set that begins at ``[``, and where it has ended."""
    at = start + 1
    negated = pattern[at : at + 1] == b"^"
    at += negated
    end = at
    while True:  # the first one is a member even if it is "]"
        if end >= len(pattern):
            raise PatternError("a set misses its ]")
        end += 2 if pattern[end] == ord("%") and end + 1 < len(pattern) else 1
        if pattern[end : end + 1] == b"]":
            break
    members: set[int] = set()
    while at < end:
        byte = pattern[at]
        if byte == ord("%"):
            members |= _class(pattern[at + 1])
            at += 2
        elif pattern[at + 1] == ord("-") and at + 2 < end:
            members.update(range(byte, pattern[at + 2] + 1))
            at += 3
        else:
            members.add(byte)
            at += 1
    return frozenset(_ALL - members if negated else members), end + 1


@functools.lru_cache(maxsize=256)
def _compile(pattern: bytes) -> _Pattern:
    pattern = pattern.partition(b"\0")[0]  # which ends a pattern for LuaJIT; what is meant is %z
    items: list[_Item] = []
    captures, unclosed, places = 0, [], set()
    anchored = pattern[:1] == b"^"
    at = int(anchored)
    while at < len(pattern):
        byte = pattern[at : at + 1]
        after = pattern[at + 1 : at + 2]
        if byte == b"(":
            if captures == _MOST_CAPTURES:
                raise PatternError(f"more than {_MOST_CAPTURES} captures")
            if after == b")":
                places.add(captures)
            else:
                unclosed.append(captures)
            items.append(_Item("place" if after == b")" else "open", number=captures))
            captures += 1
            at += 2 if after == b")" else 1
            continue
        if byte == b")":
            if not unclosed:
                raise PatternError("a ) without its (")
            items.append(_Item("close", number=unclosed.pop()))
            at += 1
            continue
        if byte == b"$" and at + 1 == len(pattern):
            items.append(_Item("end"))
            break
        if byte == b"%":
            if not after:
                raise PatternError("ends with %: write %% for a percent sign")
            if after == b"b":
                if at + 4 > len(pattern):
                    raise PatternError("%b needs two characters behind it")
                items.append(_Item("balance", pair=(pattern[at + 2], pattern[at + 3])))
                at += 4
                continue
            if after == b"f":
                if pattern[at + 2 : at + 3] != b"[":
                    raise PatternError("%f needs a set behind it")
                fits, at = _read_set(pattern, at + 2)
                items.append(_Item("frontier", fits))
                continue
            if after.isdigit():
                number = int(after) - 1
                if not 0 <= number < captures or number in unclosed or number in places:
                    raise PatternError(f"%{int(after)} refers to no capture before it")
                items.append(_Item("back", number=number))
                at += 2
                continue
            fits, at = _class(after[0]), at + 2
        elif byte == b"[":
            fits, at = _read_set(pattern, at)
        else:
            fits, at = _ALL if byte == b"." else frozenset(byte), at + 1
        quantifier = pattern[at : at + 1].decode("latin-1")
        quantifier = quantifier if quantifier and quantifier in "*+-?" else ""
        at += len(quantifier)
        items.append(_Item("one", fits, quantifier))
    if unclosed:
        raise PatternError("a ( without its )")
    return _Pattern(anchored, tuple(items), captures)


class _Match:
    def __init__(self, subject: bytes, pattern: _Pattern) -> None:
        self.subject = subject
        self.items = pattern.items
        self.starts = [0] * pattern.captures
        self.ends: list[Optional[int]] = [None] * pattern.captures

    def run(self, at: int, index: int) -> Optional[int]:
        """Where the items from ``index`` on end if they fit at a place; None if they do not."""
        subject = self.subject
        while index < len(self.items):
            item = self.items[index]
            what = item.what
            if what == "one":
                fits = at < len(subject) and subject[at] in item.fits
                if item.quantifier:
                    return self._repeat(item, at, index + 1, fits)
                if not fits:
                    return None
                at += 1
            elif what in ("open", "place"):
                self.starts[item.number] = at
                self.ends[item.number] = None
            elif what == "close":
                before = self.ends[item.number]
                self.ends[item.number] = at
                end = self.run(at, index + 1)
                if end is None:
                    self.ends[item.number] = before
                return end
            elif what == "back":
                stop = self.ends[item.number]
                text = subject[self.starts[item.number] : stop]
                if not subject.startswith(text, at):
                    return None
                at += len(text)
            elif what == "balance":
                balanced = self._balance(item.pair, at)
                if balanced is None:
                    return None
                at = balanced
            elif what == "frontier":
                before_it = subject[at - 1] if at else 0
                behind_it = subject[at] if at < len(subject) else 0
                if before_it in item.fits or behind_it not in item.fits:
                    return None
            elif at != len(subject):  # "end"
                return None
            index += 1
        return at

    def _repeat(self, item: _Item, at: int, index: int, fits: bool) -> Optional[int]:
        subject, quantifier = self.subject, item.quantifier
        if quantifier == "?":
            end = self.run(at + 1, index) if fits else None
            return self.run(at, index) if end is None else end
        if quantifier == "-":
            while True:
                end = self.run(at, index)
                if end is not None:
                    return end
                if at >= len(subject) or subject[at] not in item.fits:
                    return None
                at += 1
        most = at
        while most < len(subject) and subject[most] in item.fits:
            most += 1
        for stop in range(most, at - (quantifier == "*"), -1):
            end = self.run(stop, index)
            if end is not None:
                return end
        return None

    def _balance(self, pair: tuple[int, int], at: int) -> Optional[int]:
        subject = self.subject
        if at >= len(subject) or subject[at] != pair[0]:
            return None
        depth = 1
        for place in range(at + 1, len(subject)):
            if subject[place] == pair[1]:
                depth -= 1
                if not depth:
                    return place + 1
            elif subject[place] == pair[0]:
                depth += 1
        return None


def match(subject: Text, pattern: Text) -> Optional[tuple[Capture, ...]]:
    """Look for a pattern in a text, as Lua's ``string.match`` does.

    Args:
        subject: the text; a str stands for its UTF-8.
        pattern: the pattern.

    Returns:
        The captures of the first match, the whole of it if the pattern has none; None if there is
        no match.

    Raises:
        PatternError: that is no pattern.
    """
    text, compiled = _bytes(subject), _compile(_bytes(pattern))
    for start in range(1 if compiled.anchored else len(text) + 1):
        found = _Match(text, compiled)
        end = found.run(start, 0)
        if end is not None:
            if not compiled.captures:
                return (text[start:end],)
            return tuple(
                begin + 1 if stop is None else text[begin:stop]
                for begin, stop in zip(found.starts, found.ends)
            )
    return None


def check(pattern: Text) -> None:
    """See that a text is a Lua pattern.

    Raises:
        PatternError: it is none; the text says why.
    """
    _compile(_bytes(pattern))


#: What looks like Python's or Perl's regular expressions, and what Lua has for it.
_FOREIGN = (
    (r"\\[dDsSwW]", "a backslash means nothing in a Lua pattern: write {} as %{}"),
    (r"\\[bB]", "a backslash means nothing in a Lua pattern: {} has %f[set] as its nearest"),
    (r"\\[AZzG]", "a backslash means nothing in a Lua pattern: {} is ^ at its begin, $ at its end"),
    (r"\\.", "a backslash means nothing in a Lua pattern: write {} as %{}"),
    (r"\(\?[:=!<P]", "Lua patterns have no {} groups"),
    (r"(?<!%)\|", "Lua patterns have no alternatives: {} is the character itself; use match_any"),
    (r"(?<!%)\{\d+(,\d*)?\}", "Lua patterns have no {}: repeat the character, or use len_min"),
    (r"(?<!%)\)[*+?]", "a quantifier of a Lua pattern follows one character or set, no group: {}"),
)


def foreign_parts(pattern: str) -> list[str]:
    """What in a pattern is probably meant as a regular expression, each with the way out.

    Args:
        pattern: a Lua pattern that may have been written by somebody who thought of ``re``.
    """
    outside = re.sub(r"(?<!%)\[\^?.[^\]]*\]", "[]", pattern)
    found = []
    for expression, text in _FOREIGN:
        # Inside a set | and { are nothing special anywhere, but a backslash is.
        place = re.search(expression, pattern if expression.startswith(r"\\") else outside)
        if place:
            found.append(text.format(place[0], place[0][1:]))
    return found[:1] if found and found[0].startswith("a backslash") else found

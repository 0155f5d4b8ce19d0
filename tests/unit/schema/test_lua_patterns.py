"""Lua's patterns, by examples and beside a real LuaJIT."""

from __future__ import annotations

from typing import Any, Optional

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kong_pdk.schema.lua_patterns import PatternError, check, foreign_parts, match

MATCHES: list[tuple[str, str, tuple[Any, ...]]] = [
    ("hello", "l+", (b"ll",)),
    ("hello", "^h.-l", (b"hel",)),
    ("hello", "^h.*l", (b"hell",)),
    ("hello", "lo$", (b"lo",)),
    ("a.b", "%.", (b".",)),
    ("key=value", "^(%w+)=(%w*)$", (b"key", b"value")),
    ("key=", "^(%w+)=(%w*)$", (b"key", b"")),
    ("f(a(b)c)d", "%b()", (b"(a(b)c)",)),
    ("THE (quick) fox", "%f[%a]%a+%f[%A]", (b"THE",)),
    ('say "it\'s" now', "([\"'])(.-)%1", (b'"', b"it's")),
    ("abc", "()b()", (2, 3)),
    ("x-1", "[%a-]+", (b"x-",)),
    ("]", "[]]", (b"]",)),
    ("]", "[^a]", (b"]",)),
    ("a^b", "[a^]+", (b"a^",)),
    ("a]b", "^[^]]", (b"a",)),
    ("b-", "[a-]$", (b"-",)),
    ("colour", "colou?r", (b"colour",)),
    ("color", "colou?r", (b"color",)),
    ("", "", (b"",)),
    ("abc", "", (b"",)),
    ("a$b", "a$b", (b"a$b",)),
    ("a+b", "a%+b", (b"a+b",)),
    ("50%", "%d+%%", (b"50%",)),
    ("ä", "^..$", ("ä".encode(),)),
    ("0x1F", "^0x%x+$", (b"0x1F",)),
    ("a\0b", "%z", (b"\0",)),
    ("((a))", "((a))", (b"a", b"a")),
    ("hello world", "o w", (b"o w",)),
    ("aaab", "a-b", (b"aaab",)),
    ("aXb", "%u", (b"X",)),
    ("tab\there", "%c", (b"\t",)),
    (" !", "%g", (b"!",)),
    ("qq", "%q+", (b"qq",)),
]  # fmt: skip

NO_MATCH = [
    ("hello", "^l"), ("hello", "l$"), ("Ä", "%a"), ("abc", "%d"), ("a", "aa+"), ("(a", "%b()"),
    ("abc", "^b"), ("abc", "(a)%1"), ("", "."), ("a", "[^a]"), ("THE", "%l"), ("a|b", "^a$|^b$"),
    (r"5", r"\d"), ("aa", "^a{2}$"), ("xy", "%f[%a]y"), ("a\nb", "^%g+$"),
]  # fmt: skip

#: A malformed pattern, and a word of what is said about it.
MALFORMED = [
    ("abc%", "ends with %"), ("[a", "]"), ("[", "]"), ("[^]", "]"), ("[%]", "]"),
    ("(a", "( without"), ("a)", ") without"), ("%b", "%b"), ("%ba", "%b"), ("%f", "%f"),
    ("%fa", "%f"), ("%1", "%1"),
    ("(a%1)", "%1"), ("(a)%2", "%2"), ("%0", "%0"), ("()" * 33, "32"),
]  # fmt: skip


@pytest.mark.parametrize(("subject", "pattern", "captures"), MATCHES)
def test_what_matches(subject: str, pattern: str, captures: tuple[Any, ...]) -> None:
    assert match(subject, pattern) == captures
    assert match(subject.encode(), pattern.encode()) == captures
    check(pattern)


@pytest.mark.parametrize(("subject", "pattern"), NO_MATCH)
def test_what_does_not(subject: str, pattern: str) -> None:
    assert match(subject, pattern) is None


@pytest.mark.parametrize(("pattern", "word"), MALFORMED)
def test_what_is_no_pattern(pattern: str, word: str) -> None:
    with pytest.raises(PatternError) as caught:
        check(pattern)
    assert word in str(caught.value)


@pytest.mark.parametrize("letter", "acdglpsuwxz")
def test_a_class_and_its_opposite_share_no_byte(letter: str) -> None:
    for number in range(256):
        byte = bytes([number])
        assert (match(byte, f"%{letter}") is None) is (match(byte, f"%{letter.upper()}") == (byte,))
        assert (match(byte, f"[%{letter}]") is None) is (match(byte, f"[^%{letter}]") == (byte,))


@pytest.mark.parametrize(
    ("pattern", "remedy"),
    [
        (r"^\d+$", "%d"),
        (r"a\.b", "%."),
        (r"^\w+@\w+$", "%w"),
        (r"\bword\b", "%f"),
        (r"[\w.]+", "%w"),
        ("^(?:a)$", "groups"),
        ("^(a|b)$", "match_any"),
        ("^a{3}$", "{3}"),
        ("^a{1,3}$", "{1,3}"),
        ("^(ab)+$", "group"),
    ],
)
def test_what_was_meant_as_a_regular_expression(pattern: str, remedy: str) -> None:
    (found, *_) = foreign_parts(pattern)
    assert remedy in found


@pytest.mark.parametrize("pattern", [one[1] for one in MATCHES] + ["%|", "[|{}]", "%{1}", "%)+"])
def test_what_was_meant_as_it_is(pattern: str) -> None:
    assert foreign_parts(pattern) == []


# --- beside LuaJIT --------------------------------------------------------------------------------

PIECES = (
    "a", "b", ".", "%a", "%d", "%W", "%S", "[ab]", "[^a]", "[a-c%d]", "[]]", "[^]x]", "*", "+",
    "-", "?", "(", ")", "()", "%b()", "%bab", "%f[a]", "%f[%W]", "%1", "%2", "^", "$", "%", "[",
    "]", "%g", "%z", "%p", "%q", "[%a-]", "[a-]", "\xc3", "\0", "%x", "%c", "%U", "1", "%l", "%u",
)  # fmt: skip
patterns = st.lists(st.sampled_from(PIECES), max_size=7).map("".join)
subjects = st.text(alphabet="abcx1() \0\xc3]-A\n%", max_size=8)


@pytest.fixture(scope="module")
def luajit() -> Any:
    lupa = pytest.importorskip("lupa.luajit21")
    lua = lupa.LuaRuntime(encoding=None)
    return lua.eval(b"function(s, p) return {pcall(string.match, s, p)} end")


def in_luajit(
    luajit: Any, subject: bytes, pattern: bytes
) -> tuple[bool, Optional[tuple[Any, ...]]]:
    """Whether it takes the pattern, and what it finds."""
    found = luajit(subject, pattern)
    if not found[1]:
        return False, None
    values = tuple(found[number] for number in range(2, len(found) + 1))
    return True, values if values and values[0] is not None else None


@settings(max_examples=600, deadline=None)
@given(pattern=patterns, subject=subjects)
@example(pattern="^(%w+)=(%w*)$", subject="a=1")
@example(pattern="%f[%w]%w+", subject=" ab")
def test_it_is_what_luajit_does(luajit: Any, pattern: str, subject: str) -> None:
    text, expression = subject.encode("latin-1"), pattern.encode("latin-1")
    taken, found = in_luajit(luajit, text, expression)
    try:
        ours = match(text, expression)
    except PatternError:
        # LuaJIT meets the mistake only if it gets there.
        assert found is None
    else:
        assert taken
        assert ours == found


@settings(max_examples=100, deadline=None)
@given(subject=st.text(max_size=20))
def test_every_text_matches_itself_escaped(subject: str) -> None:
    escaped = "".join(
        f"%{c}" if c.isascii() and not c.isalnum() and c != "\0" else c for c in subject
    )
    escaped = escaped.replace("\0", "%z")
    assert match(subject, f"^{escaped}$") == (subject.encode("utf-8", "surrogateescape"),)

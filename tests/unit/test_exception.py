"""The tree of exceptions is the one that its module draws, and each is what it stands for."""

from __future__ import annotations

import re

import pytest

from kong_pdk import exception

NAMES = [name for name in exception.__all__ if name != "PluginServerException"]


def drawn() -> dict[str, tuple[int, str]]:
    """Depth in the drawing and the line's text, by name."""
    found = {}
    for line in (exception.__doc__ or "").splitlines():
        match = re.match(r"([\s│├└─]*)(\w+) (.*)", line)
        if match and hasattr(exception, match[2]):
            found[match[2]] = (len(match[1]) // 4 - 1, match[3])
    return found


def test_every_exception_is_drawn_and_exported() -> None:
    defined = {
        name
        for name, value in vars(exception).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    assert defined == set(exception.__all__)
    assert set(drawn()) == set(NAMES)


def test_the_drawing_tells_the_truth() -> None:
    path: list[str] = []
    for name, (depth, text) in drawn().items():
        kind = getattr(exception, name)
        path[depth:] = [name]
        if depth:
            assert path[depth - 1] in [base.__name__ for base in kind.__bases__], name
        for builtin in re.findall(r"also (\w+)", text):
            assert builtin in [base.__name__ for base in kind.__mro__], name


@pytest.mark.parametrize("name", NAMES)
def test_each_has_a_text(name: str) -> None:
    error = getattr(exception, name)("what has happened")
    assert "what has happened" in str(error)
    assert getattr(exception, name).__doc__


def test_what_ends_a_handler_is_no_exception_that_plugins_catch() -> None:
    for kind in (exception.HandlerExit, exception.ResponseSent, exception.EventAbandoned):
        assert not issubclass(kind, Exception)


def test_the_published_packages_names() -> None:
    assert exception.PluginServerException is exception.KongPDKError
    assert issubclass(exception.PDKException, Exception)

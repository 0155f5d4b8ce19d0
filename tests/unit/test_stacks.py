"""The stacks of threads: as large as under glibc, whatever the C library gives."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, Optional

import pytest

from kong_pdk.config import ServerConfig
from kong_pdk.modes.stacks import STACK, make_room
from kong_pdk.modes.threads import Mode
from kong_pdk.runtime.service import Service
from kong_pdk.server.loop import Loop

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux alone")


@pytest.fixture(autouse=True)
def default_stack() -> Iterator[None]:
    before = threading.stack_size(0)
    yield
    threading.stack_size(before)


def let_libc_be(monkeypatch: pytest.MonkeyPatch, answer: Optional[str]) -> None:
    def confstr(name: Any) -> Optional[str]:
        if answer == "unknown":
            raise ValueError("unrecognized configuration name")
        return answer

    monkeypatch.setattr(os, "confstr", confstr)


@pytest.mark.parametrize("answer", [None, "", "unknown"])
def test_a_c_library_other_than_glibc(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    let_libc_be(monkeypatch, answer)
    make_room()
    assert threading.stack_size() == STACK


def test_glibc_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    let_libc_be(monkeypatch, "glibc 2.36")
    make_room()
    assert threading.stack_size() == 0


def test_a_size_that_somebody_has_set_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    let_libc_be(monkeypatch, "")
    threading.stack_size(1 << 20)
    make_room()
    assert threading.stack_size() == 1 << 20


def test_each_mode_sees_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    let_libc_be(monkeypatch, "")
    config = ServerConfig()
    Mode(Service({}, config), Loop(config), config)
    assert threading.stack_size() == STACK


def calls_itself(depth: int) -> int:
    return sorted([depth], key=lambda left: calls_itself(left - 1))[0] if depth else 0


def test_calls_through_c_that_nest_some_hundred_deep_are_no_trouble() -> None:
    make_room()
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(5000)  # Python 3.9 counts what sorted() does, too
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(calls_itself(300)))
    thread.start()
    thread.join()
    sys.setrecursionlimit(before)
    assert found == [300]

"""A free-threaded Python: the server wants the global interpreter lock."""

from __future__ import annotations

import sys
from typing import NoReturn

import pytest

from kong_pdk import cli
from kong_pdk.config import ServerConfig
from kong_pdk.exception import ConfigError
from kong_pdk.modes import check_gil


def load() -> NoReturn:
    raise AssertionError("plugins are loaded")


@pytest.mark.parametrize("workers", [0, 2])
def test_without_the_lock_no_server_starts(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    with pytest.raises(ConfigError, match="PYTHON_GIL=1"):
        cli._serve(load, ServerConfig(workers=workers))


def test_a_free_threaded_python_with_the_lock_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)
    check_gil()


def test_a_python_that_knows_of_no_other_kind_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys, "_is_gil_enabled", raising=False)
    check_gil()

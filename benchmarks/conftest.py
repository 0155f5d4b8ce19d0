"""What the benchmarks share: both codecs, and the messages of tests/data/frames.json.

Timed by ``python3 dev.py bench``; elsewhere each is run once, so that none of them rots.
"""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Callable

import pytest

_PURE_ONLY = os.environ.get("KONG_PDK_TEST_PURE_ONLY", "0") not in ("", "0")
_FRAMES = Path(__file__).parents[1] / "tests" / "data" / "frames.json"


@pytest.fixture(params=["compiled", "pure"])
def codec(request: pytest.FixtureRequest) -> ModuleType:
    """The module of the codec that is measured; a compiled one that is missing is an error."""
    if request.param == "pure":
        return importlib.import_module("kong_pdk._fallback")
    if _PURE_ONLY:
        pytest.skip("KONG_PDK_TEST_PURE_ONLY=1: the compiled codec is not measured")
    return importlib.import_module("kong_pdk._speedups")


@pytest.fixture(scope="session")
def frame() -> Callable[[str], bytes]:
    """A function: the bytes of a golden message, by name."""
    parts = json.loads(_FRAMES.read_text(encoding="utf-8"))
    entries = [*parts["requests"], *parts["replies"]]
    by_name = {entry["name"]: bytes.fromhex(entry["hex"]) for entry in entries}
    assert len(by_name) == len(entries)
    return by_name.__getitem__

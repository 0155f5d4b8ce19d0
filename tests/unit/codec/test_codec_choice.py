"""Which codec is used: the environment says, in a fresh process each."""

from __future__ import annotations

import os
import subprocess
import sys
from types import ModuleType

import pytest

REPORT = "import kong_pdk, kong_pdk._codec as c; print(kong_pdk.is_compiled(), c.codec.__name__)"
WITHOUT = "import sys; sys.modules['kong_pdk._speedups'] = None; "

COMPILED = "True kong_pdk._speedups"
PURE = "False kong_pdk._fallback"


def run(script: str, **environment: str) -> tuple[int, str, str]:
    """Status, output and last line of the errors of a fresh Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KONG_PDK_")}
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], env={**kept, **environment},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout.strip(), (done.stderr.strip().splitlines() or [""])[-1]


@pytest.mark.parametrize("value", [None, "", "0"])
def test_the_compiled_one_is_the_default(
    both: tuple[ModuleType, ModuleType], value: str | None
) -> None:
    environment = {} if value is None else {"KONG_PDK_PUREPYTHON": value}
    assert run(REPORT, **environment) == (0, COMPILED, "")


@pytest.mark.parametrize("value", ["1", "yes"])
def test_the_environment_forces_the_pure_one(value: str) -> None:
    assert run(REPORT, KONG_PDK_PUREPYTHON=value) == (0, PURE, "")
    forced = run(REPORT, KONG_PDK_PUREPYTHON=value, KONG_PDK_REQUIRE_EXTENSIONS="1")
    assert forced == (0, PURE, "")


def test_the_compiled_one_is_not_even_loaded_then() -> None:
    script = "import sys, kong_pdk._codec; print('kong_pdk._speedups' in sys.modules)"
    assert run(script, KONG_PDK_PUREPYTHON="1") == (0, "False", "")


def test_without_a_compiled_one_the_pure_one_is_used() -> None:
    assert run(WITHOUT + REPORT) == (0, PURE, "")
    assert run(WITHOUT + REPORT, KONG_PDK_REQUIRE_EXTENSIONS="0") == (0, PURE, "")


def test_without_a_compiled_one_that_is_required_there_is_an_error() -> None:
    status, output, error = run(WITHOUT + REPORT, KONG_PDK_REQUIRE_EXTENSIONS="1")
    assert (status, output) == (1, "")
    assert "_speedups" in error

"""What a request costs in a test of a plugin: the harness in-process, with three PDK calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kong_pdk.testing import Gateway

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "py-hello.py"


def test_a_request_with_three_calls(benchmark: Any) -> None:
    gateway = Gateway(EXAMPLE, {"message": "hi"})
    assert gateway.get("/").round_trips == 3
    result = benchmark(gateway.get, "/orders?page=2", headers={"X-Key": "k"})
    assert result.status == 200

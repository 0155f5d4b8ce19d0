"""That figures.py, which is run by hand, still measures."""

from __future__ import annotations

import os

import figures
import gateway_side
import pytest


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """As little of everything as there can be."""
    for name, value in (
        ("RUNS", 1),
        ("EVENTS", 20),
        ("BATCH", 10),
        ("IDLE", 0.0),
        ("CALLS", 20),
        ("ROUNDS", 1),
        ("SECONDS", 0.1),
        ("UNDER_WAY", 4),
        ("REQUESTS", 16),
    ):
        monkeypatch.setattr(figures, name, value)
    monkeypatch.setattr(figures, "MODES", {"threads": ()})


@pytest.mark.parametrize("what", list(figures.FIGURES))
def test_a_table_is_printed(capsys: pytest.CaptureFixture[str], what: str) -> None:
    lacks = gateway_side.missing() if what == "gateway" else None
    if lacks is not None:
        if os.environ.get("KONG_PDK_REQUIRE_E2E") == "1":
            pytest.fail(lacks)
        pytest.skip(lacks)
    getattr(figures, what)()
    head, line, *rows = [row for row in capsys.readouterr().out.splitlines() if row[:1] == "|"]
    assert rows and {row.count("|") for row in (head, line, *rows)} == {head.count("|")}

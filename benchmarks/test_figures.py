"""That figures.py, which is run by hand, still measures."""

from __future__ import annotations

import figures
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
    ):
        monkeypatch.setattr(figures, name, value)
    monkeypatch.setattr(figures, "MODES", {"threads": ()})


@pytest.mark.parametrize("what", ["start", "abandoned", "observing"])
def test_a_table_is_printed(capsys: pytest.CaptureFixture[str], what: str) -> None:
    getattr(figures, what)()
    head, line, *rows = [row for row in capsys.readouterr().out.splitlines() if row[:1] == "|"]
    assert rows and {row.count("|") for row in (head, line, *rows)} == {head.count("|")}

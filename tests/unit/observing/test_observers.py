"""What all observers have in common: outcomes, questions to Kong, and bugs that harm nobody."""

from __future__ import annotations

import time
from typing import Any, Optional

import pytest
from observed import ended

from kong_pdk._codec import Event
from kong_pdk.config import ServerConfig
from kong_pdk.exception import HandlerTimeout, PDKException
from kong_pdk.observing import open_observer
from kong_pdk.observing.base import Observer, Observers, ask, outcome_of


@pytest.mark.parametrize(
    ("event", "failed", "outcome"),
    [
        (ended(), False, "ok"),
        (ended(exited=200), False, "exit"),
        (ended(exited=500, error="ValueError"), True, "error"),
        (ended(expired=True), True, "timeout"),
        (ended(error="ValueError", late=True), True, "timeout"),
        (ended(error="HandlerTimeout"), True, "error"),
        (ended(abandoned=True), False, "abandoned"),
    ],
)
def test_outcomes(event: Event, failed: bool, outcome: str) -> None:
    assert outcome_of(event, failed) == outcome


@pytest.mark.parametrize(
    ("result", "text"),
    [(("x", None), "x"), ("x", "x"), ((None, "no such"), None), (None, None), (5, None)],
)
def test_what_a_question_gives_in_both_styles(result: Any, text: Optional[str]) -> None:
    class Asked:
        def call(self, function: str, args: Any) -> Any:
            return result

    event: Any = Asked()
    assert ask(event, "kong.f", "x") == text


def test_a_question_that_kong_does_not_understand() -> None:
    class Asked:
        def call(self, function: str, args: Any) -> Any:
            raise PDKException("no")

    event: Any = Asked()
    assert ask(event, "kong.f", "x") is None


# --- several observers, and bugs in them ----------------------------------------------------------


class Broken(Observer):
    def begin(self, event: Event) -> None:
        raise ValueError("begin")

    def fail(self, event: Event, exc: BaseException) -> None:
        raise ValueError("fail")

    def end(self, event: Event, seconds: float, failed: bool) -> None:
        raise KeyboardInterrupt("end")

    def close(self) -> None:
        raise ValueError("close")


class Noting(Observer):
    def __init__(self) -> None:
        self.told: list[str] = []

    def begin(self, event: Event) -> None:
        self.told.append("begin")

    def fail(self, event: Event, exc: BaseException) -> None:
        self.told.append("fail")

    def end(self, event: Event, seconds: float, failed: bool) -> None:
        self.told.append("end")

    def close(self) -> None:
        self.told.append("close")


@pytest.mark.parametrize("order", [1, -1])
def test_a_broken_observer_harms_nobody(order: int, caplog: pytest.LogCaptureFixture) -> None:
    noting = Noting()
    both = Observers([Broken(), noting][::order])
    event = ended()
    both.begin(event)
    both.fail(event, ValueError("x"))
    assert event.record.error == "ValueError"
    both.end(event, 0.1, True)
    both.close()
    assert noting.told == ["begin", "fail", "end", "close"]
    assert len(caplog.records) == 1  # once a second
    both.tick()
    both.close()
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    ("exc", "expired", "late"),
    [
        (HandlerTimeout("no"), False, True),
        (ValueError("in its place"), True, True),
        (ValueError("no"), False, False),
        (type("HandlerTimeout", (Exception,), {})(), False, False),
    ],
    ids=repr,
)
def test_whether_a_handler_that_has_raised_had_had_its_time(
    exc: BaseException, expired: bool, late: bool
) -> None:
    event = ended(expired=expired)
    both = Observers([])
    both.begin(event)
    both.fail(event, exc)
    assert event.record.late is late


class Strange(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Reading(Observer):
    def fail(self, event: Event, exc: BaseException) -> None:
        str(exc)


def test_an_exception_whose_text_raises_anything_does_not_get_through(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The request of an event that has failed is closed after it has been told of."""
    both = Observers([Reading()])
    event = ended()
    both.begin(event)
    both.fail(event, Strange())
    assert event.record.error == "Strange"
    assert "could not be told of" in caplog.text


def test_nobody_wants_to_know() -> None:
    assert open_observer(ServerConfig(), lambda function: None, time.sleep) is None

"""What a PDK call costs up to where it is encoded: run by compare.py in each Python it compares.

    python time_calls.py [--quick]

Prints JSON: nanoseconds by case and by variant, "checked" and "unchecked" for this package, "call"
for the published one. Nothing of this repository is imported, so that the published package's
Python can run it.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Callable

HEADERS = {f"x-header-{number}": f"value {number}" for number in range(10)}

#: Each gets the root of the PDK and makes one call, which ends nothing.
CASES: dict[str, Callable[[Any], Any]] = {
    "chain": lambda kong: kong.service.request.set_header,
    "get_header": lambda kong: kong.request.get_header("host"),
    "set_header": lambda kong: kong.service.request.set_header("x-name", "value"),
    "set_status": lambda kong: kong.response.set_status(404),
    "set_headers": lambda kong: kong.response.set_headers(HEADERS),
    "set_target": lambda kong: kong.service.set_target("example.com", 8443),
    "set_method": lambda kong: kong.service.request.set_method("POST"),
    "set_path": lambda kong: kong.service.request.set_path("/orders"),
    "set_body": lambda kong: kong.service.request.set_body({"a": 1}, "application/json"),
    "load_consumer": lambda kong: kong.client.load_consumer("bob", True),
    "authenticate": lambda kong: kong.client.authenticate({"id": "x"}),
    "keywords": lambda kong: kong.service.set_target(host="example.com", port=8443),
    "log": lambda kong: kong.log.info("a line ", 5),
}


class Published:
    """The published package's channel to the process that speaks to Kong."""

    def put(self, call: Any) -> None:
        pass

    def get(self) -> tuple[Any, Any]:
        return "example.com", None


def roots() -> dict[str, Any]:
    """The root of the PDK in each variant that this Python's package has."""
    try:
        from kong_pdk.pdk.proxy import root_class
    except ImportError:
        from kong_pdk.pdk import Kong  # type: ignore[attr-defined]

        return {"call": Kong(Published(), True).kong}
    from kong_pdk._codec import Event, Events, Request

    step = Request(2, 1, 1, "example.com")  # the result of a PDK call

    class Mode:
        """Has the answer to a call at once."""

        def exchange(self, event: Any, frame: bytes) -> Any:
            return step

    def root(checks: bool) -> Any:
        events = Events(1, 1, True, checks)
        return root_class()(Event(events, None, "access", None, 1, Mode(), None))

    return {"checked": root(True), "unchecked": root(False)}


def measure(quick: bool) -> dict[str, dict[str, float]]:
    """The best of some rounds, in which the variants take turns, nanoseconds."""
    found: dict[str, dict[str, float]] = {}
    kinds = roots()
    count, rounds = (10, 1) if quick else (20_000, 15)
    for name, case in CASES.items():
        if name == "keywords" and "call" in kinds:
            continue  # the published package has none
        best = dict.fromkeys(kinds, float("inf"))
        for _ in range(rounds):
            for variant, kong in kinds.items():
                begin = time.perf_counter_ns()
                for _ in range(count):
                    case(kong)
                took = (time.perf_counter_ns() - begin) / count
                best[variant] = min(best[variant], took)
        found[name] = {variant: round(took, 1) for variant, took in best.items()}
    return found


if __name__ == "__main__":
    print(json.dumps(measure("--quick" in sys.argv)))

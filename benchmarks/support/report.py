"""Tables of a comparison, in Markdown, from what results.json holds."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any, Callable, Optional

BEGIN, END = "<!-- begin: written by dev.py compare -->", "<!-- end: written by dev.py compare -->"
NOTHING = "–"

#: What is said about the scenarios that have a table of their own.
SPECIAL = {
    "scatter": "scattered steps, 64",
    "workers": "4 workers of nginx, 64",
    "sleep": "handler sleeps 5 ms, 64",
    "burn": "handler computes 5 ms, 16",
    "body": "body of 100 kB, 64",
}

#: The benchmarks of test_steps_bench.py, in the order of a PDK call.
STEPS = {
    "test_read": "**read** a step: recv, scan, decode",
    "test_scan": "– of that, scan and decode",
    "test_dispatch": "**dispatch** an event: find the instance, empty handler, encode the return",
    "test_handler one-call": "**handler**: `kong.request.get_header()` up to the encoding",
    "test_handler documented-plugin": "– all of the documented handler, three such calls",
    "test_encode": "**encode** a call of set_header",
    "test_write": "**write** it: send",
    "test_wake": "**wake** another thread through its waiter, and run there",
    "test_wake_through_a_socket": "– the same through a plain socket",
    "test_whole_event": "an event with one PDK call in one thread, with a client's 2 sends, 1 recv",
}


#: The cases of time_calls.py.
CALLS = {
    "chain": "`kong.service.request.set_header`, not called",
    "get_header": '`request.get_header("host")`',
    "set_header": '`service.request.set_header("x-name", "value")`',
    "set_status": "`response.set_status(404)`",
    "set_target": '`service.set_target("example.com", 8443)`',
    "keywords": "the same with keywords",
    "set_method": '`service.request.set_method("POST")`, one of 15',
    "set_path": '`service.request.set_path("/orders")`',
    "set_headers": "`response.set_headers(…)` with 10 headers",
    "set_body": '`service.request.set_body({"a": 1}, "application/json")`',
    "authenticate": '`client.authenticate({"id": "x"})`',
    "load_consumer": '`client.load_consumer("bob", True)`, which a rule decides about',
    "log": '`log.info("a line ", 5)`',
}


class Results:
    """The cells of a comparison, by scenario and server.

    Args:
        data: what results.json holds.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.contenders: list[dict[str, str]] = data["contenders"]
        self.names = [one["name"] for one in self.contenders]
        self._cells: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
        for cell in data["cells"]:
            rounds = self._cells.setdefault((cell["scenario"], cell["contender"]), {})
            rounds[cell["round"]] = cell
        self.scenarios = list(dict.fromkeys(cell["scenario"] for cell in data["cells"]))

    def rounds(self, scenario: str, name: str, key: str) -> dict[int, float]:
        """A value in each round that has one."""
        cells = self._cells.get((scenario, name), {})
        return {number: cell[key] for number, cell in cells.items() if key in cell}

    def median(self, scenario: str, name: str, key: str) -> Optional[float]:
        """The median of a value over the rounds."""
        values = self.rounds(scenario, name, key).values()
        return statistics.median(values) if values else None

    def ratio(self, scenario: str, name: str, other: str, key: str) -> Optional[float]:
        """The median over the rounds of one server's value by another's in the same round."""
        mine, theirs = (self.rounds(scenario, one, key) for one in (name, other))
        found = [mine[number] / theirs[number] for number in mine if theirs.get(number)]
        return statistics.median(found) if found else None

    def published(self, one: dict[str, str]) -> Optional[str]:
        """The name of the published server in the same mode; None for others than ours."""
        if one["project"] != "ours":
            return None
        for other in self.contenders:
            if other["project"] == "published" and other["mode"] == one["mode"]:
                return other["name"]
        return None

    def troubles(self, scenario: str, name: str) -> list[str]:
        """What went wrong in the rounds of a cell."""
        found = []
        for number, cell in sorted(self._cells.get((scenario, name), {}).items()):
            if "failed" in cell:
                found.append(f"round {number}: {cell['failed']}")
            elif cell["errors"]:
                found.append(f"round {number}: {cell['errors']} errors, {cell['first_error']}")
        return found


def number(value: Optional[float], digits: int = 3) -> str:
    """A number with so many significant digits, and commas between thousands."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    places = max(0, digits - 1 - int(f"{value:e}".partition("e")[2]))
    if places == 0:
        power = 10 ** max(0, len(str(int(value))) - digits)
        return f"{round(value / power) * power:,}"
    return f"{value:.{places}f}"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A table whose columns but the first hold numbers."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def times(value: Optional[float]) -> str:
    """A ratio."""
    return NOTHING if value is None else f"{number(value, 2)}×"


def per_load(results: Results, hello: list[str], cell: Callable[[str, str], str]) -> str:
    """A table of all servers by the number of events under way."""
    rows = []
    for name in results.names:
        marks = ["*" if results.troubles(one, name) else "" for one in hello]
        texts = [cell(one, name) + mark for one, mark in zip(hello, marks)]
        rows.append([name, *texts])
    return table(["events under way", *[one.partition("-")[2] for one in hello]], rows)


def side_by_side(results: Results, scenario: str) -> str:
    """The table of one scenario in which everything is compared."""
    floor = next((one["name"] for one in results.contenders if one["project"] == "floor"), "")
    rows = []
    for one in results.contenders:
        name, other = one["name"], results.published(one)

        def median(key: str, name: str = name) -> Optional[float]:
            return results.median(scenario, name, key)

        def mebibytes(at: str, key: str, name: str = name) -> str:
            value = results.median(at, name, key)
            return NOTHING if value is None else number(value / 1024)

        speed = "events_per_s"
        share = results.ratio(scenario, name, floor, speed)
        rows.append([
            name,
            number(median(speed)) + ("*" if results.troubles(scenario, name) else ""),
            NOTHING if share is None else f"{100 * share:.0f} %",
            times(results.ratio(scenario, name, other, speed) if other else None),
            number(median("p50_us")),
            number(median("p99_us")),
            number(median("server_cpu_us_per_event")),
            mebibytes(scenario, "peak_memory_kib"),
            mebibytes(results.scenarios[0], "idle_memory_kib"),
        ])  # fmt: skip
    heads = ["server", "events/s", "of the floor", "times published", "p50, µs", "p99, µs",
             "CPU, µs/event", "peak, MiB", "idle, MiB"]  # fmt: skip
    return table(heads, rows)


def special(results: Results) -> str:
    """The table of the other scenarios: events a second, and how many times the published."""
    scenarios = [one for one in SPECIAL if one in results.scenarios]
    rows = []
    for one in results.contenders:
        name, other = one["name"], results.published(one)
        row = [name]
        for scenario in scenarios:
            text = number(results.median(scenario, name, "events_per_s"))
            ratio = other and results.ratio(scenario, name, other, "events_per_s")
            text += f" ({times(ratio)})" if ratio else ""
            row.append(text + ("*" if results.troubles(scenario, name) else ""))
        rows.append(row)
    return table(["events/s (times published)", *[SPECIAL[one] for one in scenarios]], rows)


def steps(measured: dict[str, dict[str, float]]) -> str:
    """The table of what each step costs.

    Args:
        measured: nanoseconds, by a key of :data:`STEPS` and codec; "" is any codec.
    """
    rows = []
    for key, label in STEPS.items():
        found = measured.get(key, {})
        values = [found.get(codec, found.get("")) for codec in ("compiled", "pure")]
        rows.append([label, *[number(value) for value in values]])
    return table(["step", "compiled, ns", "pure, ns"], rows)


def calls(measured: dict[str, dict[str, float]]) -> str:
    """The table of what PDK calls cost up to their encoding.

    Args:
        measured: nanoseconds, by a key of :data:`CALLS` and variant.
    """
    rows = []
    for key, label in CALLS.items():
        found = measured.get(key, {})
        compiled, unchecked = found.get("compiled checked"), found.get("compiled unchecked")
        pure, published = found.get("pure checked"), found.get("published call")
        checks = None if compiled is None or unchecked is None else max(compiled - unchecked, 0.0)
        ratio = published / compiled if published and compiled else None
        cells = [number(value) for value in (compiled, checks, pure, published)]
        rows.append([label, *cells, times(ratio) if ratio else NOTHING])
    head = ["call", "compiled, ns", "of that checks", "pure, ns", "published, ns", "compiled is"]
    return table(head, rows)


def echo_note(results: Results) -> str:
    """What the load client itself can do."""
    speed = results.median("hello-64", "echo", "rpcs_per_s")
    servers = [one["name"] for one in results.contenders if one["project"] != "floor"]
    found = [(results.median("hello-64", name, "rpcs_per_s") or 0.0, name) for name in servers]
    fastest = max(found, default=(0.0, ""))
    if not speed or not fastest[0]:
        return ""
    return (
        f"The load client against a trivial echo, 64 events under way: {number(speed)} calls/s, "
        f"{number(speed / fastest[0], 2)} times what the fastest server ({fastest[1]}) asks of it."
    )


def troubles(results: Results) -> str:
    """What the stars in the tables stand for."""
    lines = []
    for scenario in results.scenarios:
        for name in results.names:
            found = results.troubles(scenario, name)
            if found:
                lines.append(f"- {name}, {scenario}: " + "; ".join(found))
    return "\n".join(lines)


def text(data: dict[str, Any]) -> str:
    """The generated part of the README."""
    results = Results(data)
    machine, found = data["machine"], data["versions"]
    parts = [
        f"{data['date']}, commit {data['commit']}: {machine['cpu']}, {machine['cores']} cores, "
        f"Linux {machine['kernel']}, load {machine['load_before']} before. "
        f"Medians of {data['rounds']} rounds of {data['seconds']:g} s."
    ]
    for whose, which in found.items():
        parts.append(f"{whose}: " + ", ".join(f"{name} {one}" for name, one in which.items()))
    parts[1:] = ["  \n".join(parts[1:])]
    hello = [one for one in results.scenarios if one.startswith("hello-")]

    def speed(scenario: str, name: str) -> str:
        return number(results.median(scenario, name, "events_per_s"))

    def latency(scenario: str, name: str) -> str:
        values = [results.median(scenario, name, key) for key in ("p50_us", "p99_us")]
        return " / ".join(number(value) for value in values)

    middle = "hello-64" if "hello-64" in hello else hello[-1]
    parts += [
        f"### {middle.partition('-')[2]} events under way",
        side_by_side(results, middle),
        "### Events a second",
        per_load(results, hello, speed),
        "### Latency of an event, p50 / p99, µs",
        per_load(results, hello, latency),
    ]
    if any(one in results.scenarios for one in SPECIAL):
        parts += ["### Other loads", special(results)]
    if "steps" in data:
        parts += ["### Where the time goes", steps(data["steps"])]
    if "calls" in data:
        parts += ["### A call, from its name to its encoding", calls(data["calls"])]
    parts += [echo_note(results)]
    for name, reason in data["unavailable"].items():
        parts.append(f"Not available: {name} ({reason}).")
    if wrong := troubles(results):
        parts += ["A star marks cells in which something went wrong:", wrong]
    return "\n\n".join(part for part in parts if part)


def insert(path: Path, generated: str) -> None:
    """Put the generated part between its marks in a file.

    Raises:
        ValueError: the marks are not there.
    """
    content = path.read_text(encoding="utf-8")
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no lines {BEGIN!r} and {END!r} to write between")
    path.write_text(f"{before}{BEGIN}\n\n{generated}\n\n{END}{after}", encoding="utf-8")

"""The server's log: what each line is made of."""

from __future__ import annotations

import datetime
import json
import re
from typing import Any

from failures import failure, indented
from servers import Start, wait_until


def objects(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines()]


def test_json(start: Start) -> None:
    server = start("--log-format", "json")
    with server.kong() as kong:
        instance = kong.start_author(indented("raise ValueError('oops')"))
        with kong.connect() as connection:
            failure(connection, instance)
        wait_until(lambda: "oops" in server.log, "the failure to be logged")
    server.stop()
    lines = objects(server.log)
    for line in lines:
        assert {"time", "level", "logger", "pid", "message"} <= set(line)
        moment = datetime.datetime.strptime(line["time"], "%Y-%m-%dT%H:%M:%S.%fZ")
        now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
        assert abs(now - moment) < datetime.timedelta(minutes=10)
    (told,) = [line for line in lines if "raised" in line["message"]]
    assert (told["level"], told["plugin"], told["phase"]) == ("error", "author", "access")
    assert told["instance"] == instance and type(told["event"]) is int
    assert told["exception"].endswith("ValueError: oops")
    assert any(line["message"].startswith("serving author, hello on ") for line in lines)


def test_text(start: Start) -> None:
    server = start()
    server.stop()
    for line in server.log.splitlines():
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \[[A-Z]+\] kong_pdk\.", line), line

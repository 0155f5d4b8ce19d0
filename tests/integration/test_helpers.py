"""The example that uses the helpers, behind the gateway of ``kong-pdk try``."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path
from typing import Optional

import pytest
from servers import EXAMPLES, clean_environment

pytest.importorskip("aiohttp")

COMMAND = Path(sysconfig.get_path("scripts")) / "kong-pdk"
CONFIG = {"tokens": ["good"], "hidden": ["user-agent", "secret"]}


def ask(token: Optional[str], body: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to one request."""
    header = [] if token is None else ["--header", f"Authorization: Bearer {token}"]
    done = subprocess.run(
        [
            str(COMMAND), "try", str(EXAMPLES / "py-orders.py"), "--config", json.dumps(CONFIG),
            "--request", "POST /orders", *header, "--header", "X-Kept: yes", "--data", body,
        ],
        capture_output=True,
        timeout=100,
        env=clean_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    head, _, content = done.stdout.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines)}
    return int(status.split()[1]), headers, content


def test_the_answer_has_another_body() -> None:
    status, headers, content = ask("good", '{"secret": 1, "kept": [{"secret": 2, "x": 3}]}')
    answer = json.loads(content)
    assert status == 200
    assert "x-kept" in str(answer).lower() and "user-agent" not in str(answer).lower()
    assert headers["content-type"].startswith("application/json")
    assert int(headers["content-length"]) == len(content)


def test_no_token_no_body() -> None:
    status, headers, content = ask(None, "{}")
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert json.loads(content) == {"message": "unauthorized"}


@pytest.mark.parametrize(("body", "message"), [("{", "no JSON"), ("[1]", "an object")])
def test_a_body_that_is_not_wanted(body: str, message: str) -> None:
    status, _, content = ask("good", body)
    assert status == 400
    assert message in json.loads(content)["message"]

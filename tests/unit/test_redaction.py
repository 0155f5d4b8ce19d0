"""Configurations that are shown: what Kong adds to them, and no value besides."""

from __future__ import annotations

from typing import Any

import pytest

from kong_pdk.runtime.redaction import KONGS_OWN, redact


def test_fields_lose_their_values_and_kongs_keys_keep_them() -> None:
    kongs = {**{name: f"its {name}" for name in KONGS_OWN}, "__seq__": 5}
    config = {"token": "hunter2", "pin": 1234, "on": True, "list": ["hunter2"], "no": None}
    shown = redact({**config, **kongs, "map": {"hunter2": {"hunter2": 1}}})
    assert shown == {**dict.fromkeys([*config, "map"], "REDACTED"), "no": None, **kongs}
    assert config["token"] == "hunter2"


def test_a_field_that_only_looks_like_kongs() -> None:
    config = {"__plugin_id": {"hunter2": 1}, "__mine": "hunter2", "route_id": ["hunter2"]}
    assert redact(config) == dict.fromkeys(config, "REDACTED")


@pytest.mark.parametrize("config", ["hunter2", 5, None, ["hunter2"], True])
def test_what_is_no_configuration(config: Any) -> None:
    assert redact(config) == "REDACTED"

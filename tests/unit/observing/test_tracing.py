"""Where spans go."""

from __future__ import annotations

import pytest

from kong_pdk.exception import ConfigError
from kong_pdk.observing.tracing import endpoint_of


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
        ("https://[::1]", "https://[::1]/v1/traces"),
        ("https://collector/own/path", "https://collector/own/path"),
        ("http://collector:4318?key=x", "http://collector:4318/v1/traces?key=x"),
        ("env", None),
    ],
)
def test_the_path_is_added_where_there_is_none(given: str, endpoint: object) -> None:
    assert endpoint_of(given) == endpoint


@pytest.mark.parametrize("given", ["", "collector", "grpc://collector", "http://:80", "http://a:0"])
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(ConfigError, match=r"--tracing .* http://127.0.0.1:4318") as caught:
        endpoint_of(given)
    assert repr(given) in str(caught.value)

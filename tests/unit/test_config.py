"""ServerConfig: every setting has a default that works, and a wrong one is refused by name."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from kong_pdk import _wire
from kong_pdk.config import DEFAULT_PREFIX, MAX_SOCKET_PATH, MAX_WORKERS, MODES, ServerConfig
from kong_pdk.exception import ConfigError


def test_defaults() -> None:
    config = ServerConfig()
    assert config.prefix == DEFAULT_PREFIX == "/usr/local/kong"
    assert config.socket_paths == (
        "/usr/local/kong/python_pluginserver.sock",
        "/usr/local/kong/python_pluginserver.socket",
    )
    assert config.lua_style is True
    assert config.mode in MODES
    assert (config.max_message, config.max_depth) == (_wire.MAX_MESSAGE, _wire.MAX_DEPTH)


def test_the_slot_of_a_handler_is_free_before_kong_gives_up() -> None:
    assert ServerConfig().event_timeout < 60


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"workers": 0}, "is of use with --multiprocessing (-m) or --supervise only: add one"),
        ({"workers": 1, "reload": True}, "--reload for those who write plugins: leave one of the"),
        ({"workers": MAX_WORKERS}, "there may be 1023 workers, got 1024"),
        ({"workers": 1, "worker_memory": -1}, "worker_memory must be 0 or more bytes, got -1"),
    ],
)
def test_a_limit_of_workers_memory(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)):
        ServerConfig(**{"worker_memory": 1 << 20, **settings})


def test_there_is_a_place_more_where_workers_are_replaced() -> None:
    assert ServerConfig(workers=2).places == 2
    assert ServerConfig(workers=2, worker_memory=1 << 20).places == 3


def test_memory_that_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.exists", lambda path: False)
    with pytest.raises(ConfigError, match=r"--worker-memory is not available: .* leave it out"):
        ServerConfig(workers=1, worker_memory=1 << 20)


def test_settings_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ServerConfig().threads = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "name", ["listen_queue_size", "threads", "max_starts", "max_message", "max_depth"]
)
@pytest.mark.parametrize("value", [0, -1])
def test_what_must_be_at_least_one(name: str, value: int) -> None:
    assert getattr(ServerConfig(**{name: 1}), name) == 1
    with pytest.raises(ConfigError, match=rf"^{name} must be at least 1, got {value}$"):
        ServerConfig(**{name: value})


@pytest.mark.parametrize(
    "name", ["idle_timeout", "event_timeout", "graceful_timeout", "instance_ttl"]
)
@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_what_must_not_be_negative(name: str, value: float) -> None:
    assert getattr(ServerConfig(**{name: 0}), name) == 0
    with pytest.raises(ConfigError, match=rf"^{name} must be 0 s or more, got {value}$"):
        ServerConfig(**{name: value})


def test_depth_ends_where_msgpack_ends() -> None:
    ServerConfig(max_depth=_wire.MAX_DEPTH_LIMIT)
    with pytest.raises(ConfigError, match=rf"max_depth must be at most {_wire.MAX_DEPTH_LIMIT}"):
        ServerConfig(max_depth=_wire.MAX_DEPTH_LIMIT + 1)


def test_unknown_mode() -> None:
    with pytest.raises(ConfigError, match=r"^mode must be one of .*threads.*, got 'fast'$"):
        ServerConfig(mode="fast")


def test_no_socket() -> None:
    with pytest.raises(ConfigError, match="at least one socket"):
        ServerConfig(socket_names=())


@pytest.mark.parametrize("filler", ["x", "ä"], ids=["ascii", "two_bytes"])
def test_the_kernel_bounds_a_sockets_path_in_bytes(filler: str) -> None:
    room = MAX_SOCKET_PATH - len("/p/")
    fits = filler * (room // len(filler.encode()))
    config: Any = ServerConfig(prefix="/p", socket_names=(fits,))
    assert config.socket_paths == (f"/p/{fits}",)
    with pytest.raises(ConfigError, match=r"longer than the 107 bytes.*--kong-prefix"):
        ServerConfig(prefix="/p", socket_names=("ok.sock", fits + filler))


def test_an_error_of_the_configuration_fits_a_builtin() -> None:
    with pytest.raises(ValueError):
        ServerConfig(threads=0)


@pytest.mark.parametrize("mode", [-1, 0o1000, 0o4755])
def test_permissions_are_those_of_files(mode: int) -> None:
    assert ServerConfig(socket_mode=0o777).socket_mode == 0o777
    with pytest.raises(ConfigError, match=r"^socket_mode must be 0 to 0o777, got "):
        ServerConfig(socket_mode=mode)

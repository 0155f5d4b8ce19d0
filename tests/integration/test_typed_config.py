"""A configuration arrives as the object that the plugin asks for, in each mode."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kongwire import Kong, RemoteError
from servers import Flavour, Server, directory_command, run_command, running, short_directory

from kong_pdk.schema.values import complete, config_fields

ONE_CODEC = True  # none of this is the codec's

PLUGINS = Path(__file__).parent / "plugins_typed"

pytest.importorskip("pydantic")


@pytest.fixture(scope="module")
def server(flavour: Flavour) -> Iterator[Server]:
    """A directory server with the plugins that ask for objects."""
    with short_directory() as prefix:
        command = directory_command(PLUGINS, prefix, *flavour.flags)
        with running(command, prefix, env=flavour.env) as server:
            yield server


@pytest.fixture
def schemas(kong: Kong) -> dict[str, Any]:
    """The fields of each plugin, as Kong is told of them."""
    names = kong.call("plugin.GetPluginNames")
    return {
        name: config_fields(kong.call("plugin.GetPluginInfo", name)["Schema"]) for name in names
    }


def start(kong: Kong, schemas: dict[str, Any], name: str, config: dict[str, Any]) -> int:
    """An instance as Kong starts it, with the defaults and with keys of its own."""
    own = {"__plugin_id": "id", "__seq__": 1, "route_id": "r"}
    return kong.start_instance(name, {**complete(config, schemas[name]), **own})


def test_a_dataclass(kong: Kong, schemas: dict[str, Any]) -> None:
    config = {"host": "h", "mode": "fast", "limits": {"l": {"window": 1}}, "tags": [], "paths": []}
    run = kong.run_event(start(kong, schemas, "typed", config))
    assert run.headers == {
        "x-config": "Config(host='h', mode=<Mode.FAST: 'fast'>, port=80, tags=set(), "
        "limits={'l': Limit(count=5, window=1.0)}, first=Limit(count=5, window=None), paths=[])",
        "x-keys": ["__plugin_id", "__seq__", "route_id"],
    }


def test_each_worker_makes_its_own(kong: Kong, schemas: dict[str, Any]) -> None:
    instance = start(kong, schemas, "typed", {"host": "h", "port": None})
    for _ in range(8):
        connection = kong.connect()  # which may be another worker's
        turn = connection.handle_event(instance)
        assert "port=None, tags={'a'}" in turn.args[1]
        while not turn.is_return:
            turn = connection.step(turn.event_id)


def test_a_model(kong: Kong, schemas: dict[str, Any]) -> None:
    run = kong.run_event(start(kong, schemas, "modelled", {"secret": "s3cret"}))
    assert run.headers == {"x-config": "Config(name='abc', secret=SecretStr('**********'))"}


@pytest.mark.parametrize(
    ("name", "config", "field"),
    [
        ("typed", {}, "host"),
        ("typed", {"host": "h", "limits": {"l": {"count": "topsecret"}}}, "limits[l].count"),
        ("modelled", {"name": "topsecret!"}, "name"),
    ],
)
def test_what_does_not_fit(
    kong: Kong, server: Server, name: str, config: dict[str, Any], field: str
) -> None:
    """Kong answers the request with status 500, for it has no instance to send it to."""
    with pytest.raises(RemoteError) as caught:
        kong.start_instance(name, config)
    assert f"plugin {name}: config field {field!r}: " in str(caught.value)
    server.wait_log(f"plugin {name}: config field {field!r}: ")
    assert "topsecret" not in str(caught.value) + server.log
    assert "Traceback" not in server.log


@pytest.mark.modes("threads")
def test_what_is_dumped(flavour: Flavour, prefix: Path) -> None:
    done = run_command(*directory_command(PLUGINS, prefix, "--dump-all-plugins"))
    dumped = {entry["Name"]: config_fields(entry["Schema"]) for entry in json.loads(done.stdout)}
    assert sorted(dumped) == ["modelled", "typed"]
    assert {"host": {"type": "string", "required": True}} in dumped["typed"]
    assert {"port": {"type": "integer", "between": [1, 65535], "default": 80}} in dumped["typed"]
    assert {"secret": {"type": "string"}} in dumped["modelled"]

"""Instances: made from a JSON text, found by id, and never met again under an old one."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from kong_pdk.exception import RPCError, UnknownInstance
from kong_pdk.plugins import Plugin, define_plugin
from kong_pdk.runtime.instances import ID_BITS, Instances


class Remembering:
    """Keeps its configuration."""

    def __init__(self, config: Any) -> None:
        self.config = config
        if config == "refuse":
            raise KeyError("no such option")

    def access(self, kong: Any) -> Any:
        return self.config

    def log(self, kong: Any) -> None:
        """Nothing."""


@pytest.fixture
def plugin() -> Plugin:
    return define_plugin("remember", Remembering, "1.0.0", 1, (), where="test")


@pytest.fixture
def instances(plugin: Plugin) -> Instances:
    return Instances({"remember": plugin})


def test_start(instances: Instances, plugin: Plugin) -> None:
    before = time.time()
    one = instances.start("remember", '{"a": [1, null, "\\u00e4"]}')
    assert before <= one.started <= time.time()
    assert plugin.last_start == one.started
    assert list(one.handlers) == ["access", "log"]
    assert one.handlers["access"](None) == {"a": [1, None, "ä"]}
    assert one.describe() == {
        "Name": "remember", "Id": one.id, "Config": {"a": [1, None, "ä"]}, "StartTime": one.started,
    }  # fmt: skip
    assert instances.by_id.get(one.id) is one
    assert instances.get(one.id) is one
    assert list(instances) == [one]


def test_a_config_of_bytes(instances: Instances) -> None:
    assert instances.start("remember", b'{"a": 1}').config == {"a": 1}


def test_each_start_is_an_instance_of_its_own(instances: Instances) -> None:
    started = [instances.start("remember", json.dumps({"n": n})) for n in range(20)]
    assert len({one.id for one in started}) == 20
    assert [one.handlers["access"](None)["n"] for one in started] == list(range(20))
    assert list(instances) == started


def test_ids_are_exact_in_lua(instances: Instances) -> None:
    assert all(0 < instances.start("remember", "{}").id < 2**53 for _ in range(100))
    assert ID_BITS == 51, "and one for the policy"


def test_ids_of_a_restarted_server_are_new(plugin: Plugin) -> None:
    """No run of ids of one server meets that of another: they begin anywhere in 2^52."""
    seen: set[int] = set()
    for _ in range(50):
        instances = Instances({"remember": plugin})
        ids = {instances.start("remember", "{}").id for _ in range(100)}
        assert not ids & seen
        seen |= ids


@pytest.mark.parametrize(
    "name", ["other", "", None, 5, ["remember"], {"a": 1}, "no plugin instance"]
)
def test_unknown_plugin(instances: Instances, name: Any) -> None:
    with pytest.raises(RPCError, match=r"there is no plugin .*\(known: remember\)") as caught:
        instances.start(name, "{}")
    assert repr(name) in str(caught.value)
    assert not isinstance(caught.value, UnknownInstance)


def test_unknown_plugin_where_there_is_none() -> None:
    with pytest.raises(RPCError, match=r"\(known: none\)"):
        Instances({}).start("a", "{}")


@pytest.mark.parametrize("text", [None, 5, {"a": 1}, ["{}"]])
def test_a_config_that_is_no_text(instances: Instances, text: Any) -> None:
    with pytest.raises(RPCError, match="plugin remember: Config must be a JSON text"):
        instances.start("remember", text)


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", "nope", b"\xff\xfe\xff", "{}{}", "\udcff"])
def test_a_config_that_is_no_json(instances: Instances, text: Any) -> None:
    with pytest.raises(RPCError, match="plugin remember: Config is no JSON: "):
        instances.start("remember", text)


def test_what_the_authors_init_raises_comes_out_and_leaves_nothing(
    instances: Instances, plugin: Plugin
) -> None:
    with pytest.raises(KeyError, match="no such option"):
        instances.start("remember", '"refuse"')
    assert list(instances) == []
    assert plugin.last_start == 0.0


def test_close(instances: Instances, plugin: Plugin) -> None:
    one, other = (instances.start("remember", "{}") for _ in range(2))
    assert plugin.last_close == 0.0
    assert instances.close(one.id) is one
    assert plugin.last_close >= one.started
    assert list(instances) == [other]
    assert instances.by_id.get(one.id) is None
    with pytest.raises(UnknownInstance):
        instances.close(one.id)
    assert one.handlers["access"](None) == {}  # an event that runs on it goes on


@pytest.mark.parametrize("instance_id", [0, -1, 2**70, "1", None, 1.5, [1], {"Id": 1}])
def test_unknown_ids_say_what_kong_looks_for(instances: Instances, instance_id: Any) -> None:
    instances.start("remember", "{}")
    for method in (instances.get, instances.close):
        with pytest.raises(UnknownInstance) as caught:
            method(instance_id)
        assert str(caught.value) == f"no plugin instance {instance_id!r}"


def test_an_id_is_an_integer_and_nothing_that_equals_it(instances: Instances) -> None:
    one = instances.start("remember", "{}")
    with pytest.raises(UnknownInstance):
        instances.get(float(one.id))


def test_instances_may_come_and_go_while_somebody_looks(instances: Instances) -> None:
    started = [instances.start("remember", "{}") for _ in range(3)]
    for one in instances:
        instances.close(one.id)
        instances.start("remember", "{}")
    assert len(list(instances)) == 3
    assert not set(started) & set(instances)

"""A service with a mode that answers from a list, for tests of what happens inside of an event."""

from __future__ import annotations

from typing import Any, Callable

import msgpack
import pytest

from kong_pdk import _wire
from kong_pdk._codec import Request
from kong_pdk.config import ServerConfig
from kong_pdk.plugins import define_plugin
from kong_pdk.runtime.events import Event
from kong_pdk.runtime.service import Service


class FakeMode:
    """Kong on the other side: answers PDK calls from a list, and notes them."""

    def __init__(self) -> None:
        self.answers: list[Any] = []  # values; a Request or an error is taken as it is
        self.calls: list[tuple[int, str, list[Any]]] = []  # msgid, function, arguments
        self.last: list[tuple[int, str, list[Any]]] = []

    def _note(self, event: Event, frame: bytes) -> tuple[int, str, list[Any]]:
        kind, msgid, error, result = msgpack.unpackb(frame, unicode_errors=_wire.ERRORS)
        assert (kind, error, result["EventId"]) == (1, None, event.id)
        return msgid, result["Data"]["Method"], result["Data"]["Args"]

    def exchange(self, event: Event, frame: bytes) -> Request:
        self.calls.append(self._note(event, frame))
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, BaseException):
            event.over = True
            raise answer
        if not isinstance(answer, Request):
            answer = Request(_wire.STEP, event.msgid + 1, event.id, answer)
        event.msgid = answer.msgid
        return answer

    def send_last(self, event: Event, frame: bytes) -> None:
        self.last.append(self._note(event, frame))


class Handling:
    """A plugin whose phases run the function that the test gives."""

    body: Callable[[Any], Any]

    def __init__(self, config: Any) -> None:
        self.config = config

    def access(self, kong: Any) -> Any:
        return type(self).body(kong)

    certificate = rewrite = response = preread = log = access


@pytest.fixture
def mode() -> FakeMode:
    return FakeMode()


@pytest.fixture
def plugin_class() -> type[Handling]:
    return type("Plugin", (Handling,), {})


class Bench:
    """A service, and what it takes to run events on it."""

    def __init__(self, factory: Any, mode: FakeMode, lua_style: bool) -> None:
        self.factory, self.mode = factory, mode
        plugin = define_plugin("mine", factory, "1.0.0", 1, (), where="test")
        self.service = Service({"mine": plugin}, ServerConfig(lua_style=lua_style))
        self.instance = self.service.instances.start("mine", "{}")

    def run(
        self, body: Callable[[Any], Any], phase: str = "access", instance_id: Any = None
    ) -> tuple[Any, Any, Any]:
        """Message id, error and data of the last reply; three times None where there is none."""
        self.factory.body = staticmethod(body)
        request = Request(_wire.HANDLE_EVENT, 10, instance_id or self.instance.id, phase)
        reply, self.event = self.service.run_event(request, self, self.mode, "runner")
        if not reply:
            return None, None, None
        kind, msgid, error, result = msgpack.unpackb(reply, unicode_errors=_wire.ERRORS)
        assert kind == 1
        if result is not None:
            assert result["EventId"] == self.event.id
        return msgid, error, result and result["Data"]


@pytest.fixture(params=[True, False], ids=["lua_style", "python_style"])
def either(request: pytest.FixtureRequest, plugin_class: Any, mode: FakeMode) -> Bench:
    """In either style of results."""
    return Bench(plugin_class, mode, request.param)


@pytest.fixture
def bench(plugin_class: Any, mode: FakeMode) -> Bench:
    return Bench(plugin_class, mode, True)


@pytest.fixture
def plain(plugin_class: Any, mode: FakeMode) -> Bench:
    """Without Lua's style."""
    return Bench(plugin_class, mode, False)

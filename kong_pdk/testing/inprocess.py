"""The real server in this process, without a socket.

A handler runs in the thread of the test. Each of its PDK calls is encoded as for Kong, and the
answer is decoded as if it had come from there; so what it may send, what it gets, and what becomes
of it when it fails, are the server's own doing.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Awaitable
from typing import Any, NoReturn, Optional, TypeVar

from .. import _wire
from .._codec import Decoder, Event, Request
from ..config import ServerConfig
from ..exception import EventAbandoned
from ..gateway import functions
from ..gateway.exchange import Exchange
from ..gateway.functions import Reply
from ..plugins import Plugin
from ..runtime.service import Service, error_text
from .result import NOT_STARTED, Failure

T = TypeVar("T")


def run_now(work: Awaitable[T]) -> T:
    """Return the result of a coroutine that waits for nothing."""
    steps = work.__await__()
    try:
        next(steps)
    except StopIteration as end:
        result: T = end.value
        return result
    raise RuntimeError("something waited where there is nothing to wait for")


class _Kong:
    """Kong on the other side of one event; what :class:`..runtime.events.Mode` is to a mode."""

    def __init__(self, exchange: Exchange, failures: list[Failure]) -> None:
        self.exchange_ = exchange
        self.failures = failures
        #: What went wrong in the test's own code: it is to come out there.
        self.problem: Optional[BaseException] = None

    def exchange(self, event: Event, frame: bytes) -> Request:
        """Run a PDK function, and return the step with its result."""
        reply = self._call(frame)
        if reply is None or reply.step is None:
            why = "the test's own code has failed" if reply is None else "Kong has ended the phase"
            self._abandon(event, why)
        argument = {"EventId": event.id}
        if reply.value is not None:  # Lua's tables have no nil
            argument["Data"] = reply.value
        step = decode(event.msgid + 1, reply.step, argument)
        event.msgid = step.msgid
        return step

    def send_last(self, event: Event, frame: bytes) -> None:
        """Run a PDK function that ends the request."""
        self._call(frame)

    def too_late(self, event: Event) -> NoReturn:
        """Never called: a handler takes as long as it likes here."""
        raise AssertionError(event)

    drop_late = too_late

    def _call(self, frame: bytes) -> Optional[Reply]:
        data = _wire.decode_value(frame)[3]["Data"]
        try:
            return functions.call(self.exchange_, data["Method"], data["Args"])
        except BaseException as error:
            self.problem = error
            return None

    def _abandon(self, event: Event, why: str) -> NoReturn:
        event.over = event.abandoned = True
        raise EventAbandoned(why)


def decode(msgid: int, method: object, argument: dict[str, Any]) -> Request:
    """Return a call as the server reads it."""
    decoder = Decoder()
    decoder.feed(_wire.pack_value([_wire.REQUEST, msgid, method, [argument]]))
    request = decoder.next()
    assert request is not None
    return request


class _Service(Service):
    """Notes what handlers raise, and lets through what is meant for the tests."""

    def _event_failed(self, event: Event, exc: BaseException) -> str:
        if _is_the_tests(exc):
            event.mode.problem = exc
            event.over = True
            return ""
        event.mode.failures.append(Failure(event.phase, error_text(exc)))
        return super()._event_failed(event, exc)


def _is_the_tests(exc: BaseException) -> bool:
    """Whether this is an end of the test, which came while a handler ran: Ctrl-C, a time-out."""
    return isinstance(exc, KeyboardInterrupt) or type(exc).__module__.split(".")[0] == "_pytest"


class InProcess:
    """Runs the handlers of one plugin with one configuration.

    Args:
        plugin: the plugin.
        config_text: its configuration, as JSON.
        settings: of the server.
    """

    def __init__(self, plugin: Plugin, config_text: str, settings: ServerConfig) -> None:
        self.plugin = plugin
        self._config_text = config_text
        self._service = _Service({plugin.name: plugin}, settings)
        # At the end of a test there is nothing else to do.
        self._service.instances.closer.spawn = lambda work: work()
        self._instance: Any = None
        self._starting = threading.Lock()
        self._msgids = itertools.count(1)

    async def run_handler(self, exchange: Exchange, phase: str, failures: list[Failure]) -> None:
        """Run the handler of one phase, as :meth:`..gateway.rpc.PluginClient.run_phase`.

        Raises:
            BaseException: what a fake or another function of the test has raised.
        """
        with self._starting:  # a test may have several threads
            if self._instance is None and not self._start_instance(exchange, phase, failures):
                return
        request = decode(
            next(self._msgids) << 16, _wire.METHOD_HANDLE_EVENT,
            {"InstanceId": self._instance, "EventName": phase},
        )  # fmt: skip
        kong = _Kong(exchange, failures)
        reply, _ = self._service.run_event(request, None, kong, None)
        if kong.problem is not None:
            raise kong.problem
        if not reply:
            return
        _, _, error, result = _wire.decode_value(reply)
        if error is not None:
            exchange.log("err", error)
        elif result["Data"] != "ret":
            functions.call(exchange, result["Data"]["Method"], result["Data"]["Args"])

    def _start_instance(self, exchange: Exchange, phase: str, failures: list[Failure]) -> bool:
        argument = {"Name": self.plugin.name, "Config": self._config_text}
        request = decode(next(self._msgids) << 16, "plugin.StartInstance", argument)
        _, _, error, result = _wire.decode_value(self._service.answer(request))
        if error is not None:
            text = f"{NOT_STARTED}{error}"
            failures.append(Failure(phase, error))
            exchange.abort(text)
            return False
        self._instance = result["Id"]
        return True

    def run(self, work: Awaitable[None]) -> None:
        """Take a request through its life."""
        run_now(work)

    def close(self) -> None:
        """Have the ``close`` of the plugin's object called."""
        self._service.instances.drop_all()

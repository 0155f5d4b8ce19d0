"""The calls that Kong makes: a fixed table of methods, and every error's way into an answer."""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Mapping
from typing import Any, Callable, Optional, Protocol, Union

from .. import _columns, _wire
from .._codec import (
    Connection,
    Dispatcher,
    Event,
    Request,
    encode_error,
    encode_result,
)
from ..config import ServerConfig
from ..exception import (
    HandlerExit,
    HandlerTimeout,
    KongPDKError,
    PDKException,
    ResponseSent,
    RPCError,
    UnknownInstance,
)
from ..observing.base import SHED, UNSTARTED, Observer
from ..pdk.proxy import root_class
from ..plugins.definition import Plugin
from ..refusals import BUSY, FAILURE, FAILURE_STATUS, is_closed_id, refuse
from .events import Events, new_events
from .failures import fields_of, log_failure, plugin_log
from .instances import Instance, Instances
from .redaction import redact
from .status import describe_plugins, describe_server
from .tally import Table

server_log = logging.getLogger("kong_pdk.server")

#: Longest text of an error that Kong gets to read, characters; the log has all of it.
MAX_ERROR_TEXT = 2000

#: The call that is answered whatever else there is to do; see :meth:`Service.is_about_status`.
STATUS = "plugin.GetStatus"

_RESTART = re.compile("no plugin instance", re.IGNORECASE)


def error_text(exc: BaseException) -> str:
    """What Kong gets to read of an error.

    Kong starts instances anew and repeats the event, without end, if a certain phrase occurs in an
    error. It is replaced here: only the server itself may say it, not a plugin or its client.
    """
    try:
        text = str(exc)
    except BaseException:  # an author's own class may do anything
        text = "(its text cannot be had)"
    if not isinstance(exc, KongPDKError):
        text = f"{type(exc).__name__}: {text}"
    if len(text) > MAX_ERROR_TEXT:
        text = text[:MAX_ERROR_TEXT] + "..."
    text = text.encode("utf-8", "backslashreplace").decode()  # not all surrogates can be sent
    return _RESTART.sub("no_plugin_instance", text)


class Forward(Protocol):
    """Hands a step to another process."""

    def __call__(self, request: Request, connection: Connection, wait: bool) -> bool:
        """Have another process take a step, and answer it on the connection that it came on.

        Args:
            request: a step.
            connection: that it came on.
            wait: block for a while if that process is slow to take it.

        Returns:
            Whether it is taken; False if no other process runs such an event, or if it is too slow
            and ``wait`` is False.

        Raises:
            RPCError: the process has not taken it in time.
        """
        ...


def no_event_text(event_id: object) -> str:
    """What Kong gets to read of a step that nobody waits for."""
    return f"no event {event_id} is waiting for a step (here or any more)"


def _describe_to_others(instance: Instance) -> dict[str, Any]:
    """What is told of an instance to those who need not know its configuration already."""
    description = instance.describe()
    description["Config"] = redact(description["Config"])
    return description


class Service:
    """Answers Kong's requests for one process that runs plugin code.

    Args:
        plugins: the plugins that this server offers, by name.
        config: the server's settings.
        instances: keeps the instances; those of this process alone if None.
        events: keeps the events; those of a server of one process if None.
        forward: hands on the steps of events that other processes run, if there are any.
        table: counts the events; one of this process alone if None.
        worker: the index of this process there.
        numbers: of the plugins there; their order by name if None.
        observer: is told of the events, if there is one.

    Attributes:
        pid: the process that Kong knows as the server.
        table: what has been counted.
        worker: the index of this process there.
        measure: notes in it what is under way in this process; the mode's.

    Raises:
        ConfigError: there are too many plugins.
    """

    def __init__(
        self,
        plugins: dict[str, Plugin],
        config: ServerConfig,
        instances: Optional[Instances] = None,
        events: Optional[Events] = None,
        forward: Optional[Forward] = None,
        table: Optional[Table] = None,
        worker: int = 0,
        numbers: Optional[Mapping[str, int]] = None,
        observer: Optional[Observer] = None,
    ) -> None:
        self.plugins = plugins
        self._observer = observer
        if table is None:
            table = Table()
            table.start()
            table.note_process(0, os.getpid(), True)
        self.table, self.worker = table, worker
        for number, (name, rows) in enumerate(table.rows(worker, plugins, numbers).items()):
            plugins[name].rows = rows
            plugins[name].number = number if numbers is None else numbers[name]
        self._tally = table.tally()
        self._shed_place = table.shed_place(worker)
        self.measure: Callable[[], None] = lambda: None
        self.instances = instances or Instances(plugins, config)
        self.events = events or new_events(config)
        self.forward = forward
        self.pid = os.getpid()
        self._config = config
        self._late = config.answer_timeout or math.inf
        #: Runs an event; see :meth:`kong_pdk._fallback.Dispatcher.run`.
        self.run_event = Dispatcher(
            self.events,
            self.instances.by_id,
            root_class(),
            self.instances.find_elsewhere,
            self._refuse_event,
            self._event_failed,
            self.instances.left,
            self._tally,
            observer,
        ).run
        self._methods: dict[str, Callable[[Any], Any]] = {
            "plugin.StartInstance": self._start_instance,
            "plugin.CloseInstance": self._close_instance,
            "plugin.InstanceStatus": self._instance_status,
            "plugin.HandleEvent": self._malformed_event,
            "plugin.GetPluginInfo": self._plugin_info,
            "plugin.GetPluginNames": lambda _: sorted(self.plugins),
            STATUS: self._status,
        }

    # --- calls -----------------------------------------------------------------------------------

    def answer(self, request: Request, connection: Optional[Connection] = None) -> bytes:
        """Answer any request but the beginning of an event; may run a plugin's ``__init__``.

        Args:
            request: of Kong.
            connection: that it came on; needed if it may be for another process.

        Returns:
            The reply, b"" if there is none to give.
        """
        if request.kind == _wire.IGNORE:
            return b""
        if request.kind in _wire.STEPS:
            return self._answer_step(request, connection)
        reply = self._answer_call(request)
        if time.monotonic() - request.at > self._late and connection is not None:
            server_log.error("%s took too long: its answer is not sent", request.target)
            connection.shutdown()
            return b""
        return reply

    def _answer_call(self, request: Request) -> bytes:
        """Answer a call of a method; may run a plugin's ``__init__``."""
        method, params = request.target, request.value
        try:
            if not isinstance(method, str):
                raise RPCError(f"there is no method of type {type(method).__name__}")
            handler = self._methods.get(method)
            if handler is None:
                raise RPCError(f"there is no method {method!r}")
            return encode_result(request.msgid, handler(params[0] if params else None))
        except RPCError as exc:
            # StartInstance runs an author's code, whose errors may pretend to be anything.
            unknown = isinstance(exc, UnknownInstance) and method != "plugin.StartInstance"
            text = str(exc) if unknown else error_text(exc)
            server_log.warning("a call is refused: %s", text)
            return encode_error(request.msgid, text)
        except BaseException as exc:  # sys.exit() in a plugin's __init__ must not go unanswered
            log_failure(exc, "%s failed", method)
            return encode_error(request.msgid, f"{method}: {error_text(exc)}")

    def _answer_step(self, request: Request, connection: Optional[Connection]) -> bytes:
        """Hand on a step that no event of this process waits for, or refuse it."""
        text = no_event_text(request.target)
        if self.forward is not None and connection is not None and not connection.borrowed:
            try:
                if self.forward(request, connection, wait=True):
                    return b""
            except Exception as exc:  # a value of a kind that cannot be handed on
                text = error_text(exc)
                server_log.warning("a step is refused: %s", text)
        if is_closed_id(request.target):  # its handler has been given up, or is no more
            return refuse(request.msgid, request.target)
        return encode_error(request.msgid, text)

    def _start_instance(self, argument: Any) -> dict[str, Any]:
        if not isinstance(argument, dict):
            raise RPCError("StartInstance wants {Name, Config}")
        instance = self.instances.start(argument.get("Name"), argument.get("Config"))
        server_log.info("plugin %s: started instance %d", instance.plugin.name, instance.id)
        return instance.describe()

    def _close_instance(self, argument: Any) -> dict[str, Any]:
        instance = self.instances.close(argument)
        server_log.info("plugin %s: closed instance %d", instance.plugin.name, instance.id)
        result = _describe_to_others(instance)
        del result["StartTime"]
        return result

    def _instance_status(self, argument: Any) -> dict[str, Any]:
        return _describe_to_others(self.instances.look_up(argument))

    def _malformed_event(self, argument: Any) -> Any:
        raise RPCError("HandleEvent wants {InstanceId, EventName}")

    def _plugin_info(self, argument: Any) -> dict[str, Any]:
        plugin = self.plugins.get(argument) if isinstance(argument, str) else None
        if plugin is None:
            raise RPCError(f"there is no plugin {argument!r} here")
        return plugin.describe()

    def _status(self, _: Any) -> dict[str, Any]:
        self.measure()
        return {
            "Pid": self.pid,
            **describe_server(self._config, self.table),
            "Plugins": describe_plugins(self.plugins.values(), self.instances.report(), self.table),
        }

    @staticmethod
    def is_about_status(request: Request) -> bool:
        """Whether this asks how the server is: that is told at once, and runs no plugin."""
        return request.kind == _wire.CALL and request.target == STATUS

    # --- events ----------------------------------------------------------------------------------

    def _refuse_event(self, request: Request, instance: Union[Instance, Exception, None]) -> bytes:
        """The answer to an event that cannot begin."""
        if isinstance(instance, Exception):
            log_failure(instance, "instance %s cannot be had", request.target)
            self._turn_away(request, UNSTARTED)
            if is_closed_id(request.target) and request.value in _wire.CLOSABLE:
                return refuse(request.msgid)
            return encode_error(request.msgid, error_text(instance))
        if instance is None:
            server_log.info("instance %s is not known here: Kong will start it", request.target)
            return encode_error(request.msgid, str(UnknownInstance(request.target)))
        text = f"plugin {instance.plugin.name} has no phase {request.value!r}"
        return encode_error(request.msgid, error_text(RPCError(text)))

    def _event_failed(self, event: Event, exc: BaseException) -> str:
        """Close the request of a handler that has raised; returns the text of its last answer."""
        if self.events.running is not None:
            self.events.running.pop(event.id, None)  # it is about to be answered
        if self._observer is not None:
            self._observer.fail(event, exc)
        event.expired = False  # what follows may make PDK calls
        self._close_request(event, exc)
        return f"plugin {event.instance.plugin.name}: {event.phase} raised {error_text(exc)}"

    def _close_request(self, event: Event, exc: BaseException) -> None:
        """End a request whose plugin has failed: what it guards must not be open because of that.

        Kong itself lets a request go on after an error. Where it takes an answer for the client, it
        gets one, unless the policy is "open"; and a line at a level of its log that nobody hides.
        """
        instance = event.instance
        log_failure(
            exc, "plugin %s: %s raised %s (instance %d, event %d)",
            instance.plugin.name, event.phase, type(exc).__name__, instance.id, event.id,
            **fields_of(event),
        )  # fmt: skip
        if event.over or not is_closed_id(event.id):
            return  # Kong logs the error that is its answer
        line = f"{event.phase} failed, the request is refused: {error_text(exc)}"
        end = ("kong.response.exit", FAILURE)
        for function, args in (("kong.log.err", (line,)), end, end):
            try:
                event.call(function, args)
            except PDKException:
                pass  # Kong does not take the line: the request is refused all the same
            except HandlerTimeout:
                # The loop was about to look at this event, and has kept a call from being sent, or
                # from returning: the request is refused all the same, or that was its doing.
                event.expired = False
            except ResponseSent:
                self._count_refused(event)
                return
            except HandlerExit:
                return  # Kong is not there any more
            except BaseException:  # a gevent.Timeout that the handler has left behind, say
                if event.over:
                    return
                # Else its step has come all the same, and the next call can be made.

    def refuse_expired(self, event: Event) -> bytes:
        """The answer in place of a handler that has had its time and is not at a PDK call."""
        plugin = event.instance.plugin
        text = f"plugin {plugin.name}: {event.phase} has taken too long"
        plugin_log.error("%s (instance %d, event %d)", text, event.instance.id, event.id)
        if not is_closed_id(event.id):
            return encode_error(event.msgid, text)
        self._count_refused(event)
        event.exited = FAILURE_STATUS
        return refuse(event.msgid, event.id)

    def _count_refused(self, event: Event) -> None:
        row = (event.instance.rows or {}).get(event.phase)
        if row is not None:
            self._tally.add(row + _columns.REFUSED, 1)

    def _turn_away(self, request: Request, outcome: str) -> None:
        """Tell the observer of an event that does not begin."""
        if self._observer is not None and request.kind == _wire.HANDLE_EVENT:
            instance = self.instances.by_id.get(request.target)
            name = "" if instance is None else instance.plugin.name
            self._observer.turn_away(name, request.value, request.target, outcome)

    def tick(self, tick: int) -> None:
        """What is to be done from time to time, about once a second: counted by ``tick``."""
        self.instances.tick(tick)
        if self._observer is not None:
            self._observer.tick()

    def refuse_busy(self, request: Request) -> bytes:
        """The answer to a request for which there is no room."""
        self._tally.add(self._shed_place, 1)
        self._turn_away(request, SHED)
        event = request.kind == _wire.HANDLE_EVENT and request.value in _wire.CLOSABLE
        if (event or request.kind in _wire.STEPS) and is_closed_id(request.target):
            return refuse(request.msgid, response=BUSY)
        return encode_error(request.msgid, "the plugin server has too much to do (--max-events)")

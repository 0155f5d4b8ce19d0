"""Every request is answered, whatever the handler does; and how an event ends."""

from __future__ import annotations

import pytest
from failures import PHASES, end_of_failure, failure, indented, refused, still_works
from kongwire import Kong, RemoteError
from servers import Server

#: Handlers that go wrong, with what Kong gets to read of it.
WRONG = {
    "raise ValueError('oops')": "ValueError: oops",
    "raise KeyboardInterrupt": "KeyboardInterrupt",
    "raise SystemExit": "SystemExit",
    "raise BaseException('odd')": "BaseException: odd",
    "raise GeneratorExit": "GeneratorExit",
    "raise StopIteration": "StopIteration",
    "raise Exception('\\udcff')": "Exception: \\udcff",
    "raise TimeoutError": "TimeoutError",
    "import sys; sys.exit(3)": "SystemExit: 3",
    "assert False, 'never'": "AssertionError: never",
    "def again(): again()\n    again()": "RecursionError",
    "kong.request.no_such_function()": "kong.request.no_such_function",
    "kong.no_such_namespace.get()": "kong.no_such_namespace",
    "absent": "NameError",
    "1 / 0": "ZeroDivisionError",
}


@pytest.mark.parametrize("phase", ["access", "log"])
@pytest.mark.parametrize("statement", WRONG)
def test_a_handler_that_raises_before_its_first_call(
    kong: Kong, statement: str, phase: str
) -> None:
    instance = kong.start_author(indented(statement, phase))
    with kong.connect() as connection:
        for _ in range(3):  # the same connection goes on
            assert WRONG[statement] in failure(connection, instance, phase)
    still_works(kong)


@pytest.mark.parametrize("phase", ["access", "log"])
@pytest.mark.parametrize("statement", WRONG)
def test_a_handler_that_raises_after_a_call(kong: Kong, statement: str, phase: str) -> None:
    source = indented(f"kong.log('x'); kong.log('y')\n    {statement}", phase)
    instance = kong.start_author(source)
    with kong.connect() as connection:
        for _ in range(3):
            assert WRONG[statement] in failure(connection, instance, phase, calls=2)
    still_works(kong)


@pytest.mark.parametrize("phase", PHASES)
def test_a_plugin_that_fails_ends_the_request_where_that_can_be(kong: Kong, phase: str) -> None:
    instance = kong.start_author(indented("raise ValueError('secret')", phase))
    with kong.connect() as connection:
        assert "ValueError: secret" in failure(connection, instance, phase)


def test_a_failure_is_of_no_account_after_exit(kong: Kong) -> None:
    source = """
def access(self, kong):
    try:
        kong.response.exit(403)
    finally:
        raise ValueError("after the exit")
"""
    instance = kong.start_author(source)
    with kong.connect() as connection:
        for _ in range(5):
            turn = connection.handle_event(instance)
            assert (turn.function, turn.args) == ("kong.response.exit", [403])
        assert connection.call("plugin.GetPluginNames") == ["author", "hello"]


def test_a_long_error_is_shortened_for_kong(kong: Kong, server: Server) -> None:
    instance = kong.start_author(indented("raise ValueError('x' * 1_000_000)", "log"))
    with kong.connect() as connection:
        assert len(failure(connection, instance, "log")) < 3000


def test_the_traceback_is_in_the_servers_log(kong: Kong, server: Server) -> None:
    instance = kong.start_author(indented("raise LookupError('for the log only once')"))
    with kong.connect() as connection:
        failure(connection, instance)
    server.wait_log("LookupError: for the log only once")
    assert f"plugin author: access raised LookupError (instance {instance}" in server.log
    assert 'File "<source>", line 2, in access' in server.log


@pytest.mark.parametrize(
    "statement",
    [
        "raise ValueError('boom')",
        "raise KeyboardInterrupt('boom')",
        "import sys; sys.exit('boom')",
        "raise BaseException('boom')",
    ],
)
def test_an_init_that_raises_is_answered(kong: Kong, statement: str) -> None:
    source = f"def start(self, config):\n    {statement}\n"
    before = kong.call("plugin.GetStatus")["Plugins"]["author"]["Instances"]
    with pytest.raises(RemoteError, match="boom"):
        kong.start_author(source)
    assert kong.call("plugin.GetStatus")["Plugins"]["author"]["Instances"] == before
    still_works(kong)


@pytest.mark.parametrize(
    "value", ["None", "7", "'ret'", "object()", "{'Data': 'x'}", "NotImplemented", "kong"]
)
def test_what_a_handler_returns_is_of_no_account(kong: Kong, value: str) -> None:
    assert kong.handle_event(kong.start_author(indented(f"return {value}"))).is_return


#: Of these nothing has run when they return; a decorator hides from the loader what they are.
UNRUN = """
def plain(function):
    return lambda self, kong: function(self, kong)

@plain
{kind} {phase}(self, kong):
    {statement}
"""


@pytest.mark.parametrize("phase", ["access", "log"])
@pytest.mark.parametrize(
    ("kind", "statement", "name"),
    [
        ("async def", "kong.response.exit(403)", "coroutine"),
        ("def", "yield kong.response.exit(403)", "generator"),
        ("async def", "yield kong.response.exit(403)", "async_generator"),
    ],
)
def test_a_handler_that_only_promises_to_run(
    kong: Kong, kind: str, statement: str, name: str, phase: str
) -> None:
    instance = kong.start_author(UNRUN.format(kind=kind, statement=statement, phase=phase))
    with kong.connect() as connection:
        text = failure(connection, instance, phase)
    assert f"TypeError: the handler has not run, it returned a {name}" in text
    still_works(kong)


@pytest.mark.parametrize("phase", ["access", "log"])
@pytest.mark.parametrize("calls", [0, 1])
@pytest.mark.parametrize("name", ["HandlerExit", "ResponseSent", "EventAbandoned"])
def test_the_end_of_another_event_ends_this_one_as_a_failure(
    kong: Kong, name: str, calls: int, phase: str
) -> None:
    """As from a future that handlers share, whose own event Kong has abandoned."""
    source = f"""
from concurrent.futures import Future
from kong_pdk.exception import {name}

def start(self, config):
    self.shared = Future()
    self.shared.set_exception({name}("of another event"))

def {phase}(self, kong):
    {"kong.log('x')" if calls else "pass"}
    self.shared.result()
"""
    instance = kong.start_author(source)
    with kong.connect() as connection:
        for _ in range(2):
            text = failure(connection, instance, phase, calls)
            assert f"{name}: of another event" in text
    still_works(kong)


@pytest.mark.parametrize("function", ["exit", "error"])
def test_exit_ends_the_event_and_no_step_follows(kong: Kong, function: str) -> None:
    source = indented(f"kong.response.{function}(403); raise ValueError('went on')")
    instance = kong.start_author(source)
    with kong.connect() as connection:
        ids = set()
        for _ in range(20):  # the connection goes on being usable
            turn = connection.handle_event(instance)
            assert (turn.function, turn.args) == (f"kong.response.{function}", [403])
            ids.add(turn.event_id)
        assert len(ids) == 20
        assert connection.call("plugin.GetPluginNames") == ["author", "hello"]
        assert refused(connection.step(turn.event_id)), "Kong would not step on"


@pytest.mark.parametrize("how", ["except Exception: pass", "finally: self.notes.append('finally')"])
def test_a_handler_does_not_go_on_after_exit(kong: Kong, how: str) -> None:
    source = f"""
def start(self, config): self.notes = []

def access(self, kong):
    try:
        kong.log("x")
        kong.response.exit(403)
    {how}
    self.notes.append("went on")

def log(self, kong): kong.log(self.notes)
"""
    instance = kong.start_author(source)
    run = kong.run_event(instance)
    assert run.functions == ["kong.log", "kong.response.exit"]
    (left,) = kong.run_event(instance, "log").calls[0][1]
    assert left == ("['finally']" if "finally" in how else "[]")


def test_calls_after_exit_raise(kong: Kong) -> None:
    source = """
from kong_pdk.exception import EventEnded

def start(self, config): self.notes = []

def access(self, kong):
    for status in (403, 200):
        try:
            kong.response.exit(status)
        except EventEnded as exc:
            self.notes.append(str(exc))
        except BaseException as exc:
            self.notes.append(type(exc).__name__)
    try:
        kong.log("x")
    finally:
        self.notes.append("finally")

def log(self, kong): kong.log(*self.notes)
"""
    instance = kong.start_author(source)
    with kong.connect() as connection:
        turn = connection.handle_event(instance)
        assert (turn.function, turn.args) == ("kong.response.exit", [403])
        # Neither another call nor an error follows on this connection: the next reply is its own.
        turn = connection.handle_event(instance, "log")
        first, second, third = turn.args
        assert first == "ResponseSent"
        assert second.startswith("kong.response.exit: this event is over")
        assert third == "finally"
        assert connection.step(turn.event_id).is_return


def test_kong_is_of_no_use_after_the_end_of_its_handler(kong: Kong) -> None:
    source = """
from kong_pdk.exception import EventEnded, PDKException

def access(self, kong):
    self.kong = kong
    self.header = kong.response.set_header

def log(self, kong):
    kong_ = self.kong
    for call, *args in (kong_.log, "x"), (self.header, "x", "y"), (kong_.response.exit, 200):
        try:
            call(*args)
        except PDKException as exc:
            assert isinstance(exc, EventEnded) and isinstance(exc, RuntimeError)
            kong.log(str(exc))
"""
    instance = kong.start_author(source)
    assert kong.handle_event(instance).is_return
    calls = kong.run_event(instance, "log").calls
    names = [args[0].partition(":")[0] for _, args in calls]
    assert names == ["kong.log", "kong.response.set_header", "kong.response.exit"]


def test_calls_from_a_thread_of_the_plugin(kong: Kong) -> None:
    source = """
import threading

def access(self, kong):
    def work(number):
        kong.response.set_header(f"x-{number}", kong.request.get_header(f"x-{number}")[0])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kong.response.set_header("done", "yes")
"""
    instance = kong.start_author(source)
    for _ in range(20):
        run = kong.run_event(instance, answers={"kong.request.get_header": lambda name: name * 2})
        assert run.headers == {**{f"x-{n}": f"x-{n}" * 2 for n in range(5)}, "done": "yes"}


def test_an_exit_from_a_thread_of_the_plugin_ends_the_event(kong: Kong) -> None:
    source = """
import threading

def access(self, kong):
    def work():
        try:
            kong.response.exit(403)
        except BaseException:
            pass
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    kong.log("not any more")
"""
    instance = kong.start_author(source)
    with kong.connect() as connection:
        for _ in range(5):
            turn = connection.handle_event(instance)
            assert (turn.function, turn.args) == ("kong.response.exit", [403])
        assert connection.call("plugin.GetPluginNames") == ["author", "hello"]


def test_a_call_from_a_thread_that_outlives_the_handler(kong: Kong) -> None:
    source = """
import threading

def access(self, kong):
    ended = self.ended = threading.Event()

    def work():
        ended.wait()
        try:
            kong.log("too late")
        except Exception as exc:
            self.caught = type(exc).__name__

    self.thread = threading.Thread(target=work, daemon=True)
    self.thread.start()

def log(self, kong):
    self.ended.set()
    self.thread.join()
    kong.log(self.caught)
"""
    instance = kong.start_author(source)
    assert kong.handle_event(instance).is_return
    assert kong.run_event(instance, "log").calls == [("kong.log", ["EventEnded"])]


@pytest.mark.one_process
@pytest.mark.parametrize("phase", ["access", "log"])
def test_a_handler_that_ends_while_its_thread_is_in_a_call(kong: Kong, phase: str) -> None:
    """The call is under way, so what ends the event has to wait for its step."""
    source = """
import threading

def start(self, config): self.go = threading.Event()

def PHASE(self, kong):
    threading.Thread(target=kong.log, args=("first",), daemon=True).start()
    self.go.wait()
    raise LookupError("the handler's own end")

def certificate(self, kong): self.go.set()
"""
    for _ in range(5):
        instance = kong.start_author(source.replace("PHASE", phase))
        with kong.connect() as connection:
            turn = connection.handle_event(instance, phase)
            assert turn.args == ["first"]
            assert kong.handle_event(instance, "certificate").is_return
            msgid = connection.send_step(turn.event_id)
            assert "the handler's own end" in end_of_failure(connection, msgid, phase)
            assert connection.call("plugin.GetPluginNames") == ["author", "hello"]

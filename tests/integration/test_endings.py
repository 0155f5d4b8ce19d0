"""Every request is answered, whatever the handler does; and how an event ends."""

from __future__ import annotations

import pytest
from kongwire import Connection, Kong, RemoteError
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

#: Handlers whose exceptions cannot be shown or sent as they are.
HOSTILE = {
    "str fails": """
class Hostile(Exception):
    def __str__(self): raise RuntimeError("no text")
""",
    "str is none": """
class Hostile(Exception):
    def __str__(self): return 7
""",
    "str exits": """
class Hostile(Exception):
    def __str__(self): raise SystemExit(1)
""",
    "not UTF-8": """
class Hostile(Exception):
    def __str__(self): return "\\ud800 alone"
""",
    "repr fails": """
class Hostile(Exception):
    def __repr__(self): raise RuntimeError("no text")
""",
    "equal to all": """
class Hostile(Exception):
    def __eq__(self, other): raise RuntimeError("not comparable")
    def __bool__(self): raise RuntimeError("not true")
    __hash__ = None
""",
}

UNSENDABLE = {
    "object()": "object",
    "{1, 2}": "set",
    "2 ** 64": "int",
    "-2 ** 63 - 1": "int",
    "'\\ud800'": "str",
    "[1, [2, {'a': object()}]]": "list",
    "{'a': {3}}": "dict",
    "lambda: 0": "function",
    "1j": "complex",
    "kong": "kong",
    "self": "Plugin",
}


#: In these the client can still be answered, so a plugin that fails ends the request.
CLOSABLE = ("rewrite", "access", "response", "preread")
PHASES = (*CLOSABLE, "certificate", "log")
BODY = '{"message":"An unexpected error occurred"}'


def indented(statement: str, phase: str = "access") -> str:
    return f"def {phase}(self, kong):\n    {statement}\n"


def failure(on: Connection, instance: int, phase: str = "access", calls: int = 0) -> str:
    """Run a handler that fails after some calls; returns what Kong gets to read of it."""
    msgid = on.send_event(instance, phase)
    for _ in range(calls):
        turn = on.turn(msgid)
        assert turn.function == "kong.log", turn
        msgid = on.send_step(turn.event_id)
    return end_of_failure(on, msgid, phase)


def end_of_failure(on: Connection, msgid: int, phase: str) -> str:
    """What follows when a handler has failed; returns what Kong gets to read of it."""
    if phase not in CLOSABLE:
        with pytest.raises(RemoteError) as caught:
            on.result(msgid)
        assert f"plugin author: {phase} raised" in str(caught.value)
        return str(caught.value)
    turn = on.turn(msgid)
    assert turn.function == "kong.log.err"
    (text,) = turn.args
    assert isinstance(text, str)
    assert text.startswith(f"{phase} failed, the request is refused: ")
    turn = on.step(turn.event_id)
    assert turn.function == "kong.response.exit"
    assert turn.args[:2] == [500, BODY]
    assert turn.args[2] == {"Content-Type": "application/json; charset=utf-8"}
    return text


def still_works(kong: Kong) -> None:
    assert kong.run_event(
        kong.start_instance("hello", {"message": "hi"}),
        answers={"kong.request.get_header": "example.com"},
    ).headers == {"x-hello": "hi to example.com"}


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


@pytest.mark.parametrize("phase", ["access", "log"])
@pytest.mark.parametrize("calls", [0, 1])
@pytest.mark.parametrize("hostile", HOSTILE)
def test_an_exception_that_cannot_be_shown(
    kong: Kong, hostile: str, calls: int, phase: str
) -> None:
    statement = "kong.log('x'); " * calls + "raise Hostile('x')"
    instance = kong.start_author(HOSTILE[hostile] + indented(statement, phase))
    with kong.connect() as connection:
        for _ in range(2):
            failure(connection, instance, phase, calls)
    still_works(kong)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_an_exception_of_init_that_cannot_be_shown_is_answered(kong: Kong, hostile: str) -> None:
    with pytest.raises(RemoteError):
        kong.start_author(HOSTILE[hostile] + "def start(self, config): raise Hostile('x')\n")
    still_works(kong)


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


@pytest.mark.parametrize(
    "text", ["no plugin instance", "No Plugin Instance 7", "x NO PLUGIN INSTANCE y"]
)
@pytest.mark.parametrize(
    "statement",
    [
        "raise ValueError({text!r})",
        "kong.log('x'); raise KeyError({text!r})",
        "from kong_pdk.exception import KongPDKError; raise KongPDKError({text!r})",
        "from kong_pdk.exception import UnknownInstance; raise UnknownInstance({text!r})",
        "raise type({text!r}, (Exception,), dict())",
        "getattr(kong, {text!r})()",
    ],
)
def test_a_plugin_cannot_make_kong_repeat_the_event(kong: Kong, statement: str, text: str) -> None:
    """Kong would do so without a limit and without a pause."""
    for phase in ("access", "log"):
        instance = kong.start_author(indented(statement.format(text=text), phase))
        with kong.connect() as connection:
            told = failure(connection, instance, phase, calls=statement.count("kong.log"))
        assert "no plugin instance" not in told.lower()


@pytest.mark.parametrize(
    "statement",
    [
        "raise ValueError('No plugin instance')",
        "from kong_pdk.exception import UnknownInstance; raise UnknownInstance(7)",
    ],
)
def test_an_init_cannot_make_kong_repeat_the_event(kong: Kong, statement: str) -> None:
    with pytest.raises(RemoteError) as caught:
        kong.start_author(f"def start(self, config):\n    {statement}\n")
    assert "no plugin instance" not in str(caught.value).lower()


@pytest.mark.parametrize("name", ["plugin.no plugin instance", "No Plugin Instance"])
def test_a_caller_cannot_make_itself_repeat(kong: Kong, name: str) -> None:
    for method, argument in (
        (name, 1),
        ("plugin.GetPluginInfo", name),
        ("plugin.StartInstance", {"Name": name, "Config": "{}"}),
        ("plugin.HandleEvent", {"InstanceId": kong.start_author(""), "EventName": name}),
    ):
        with pytest.raises(RemoteError) as caught:
            kong.call(method, argument)
        assert "no plugin instance" not in str(caught.value).lower()


@pytest.mark.parametrize("value", UNSENDABLE)
def test_an_argument_that_cannot_be_sent(kong: Kong, value: str) -> None:
    instance = kong.start_author(indented(f"kong.response.set_header('x', {value})"))
    with kong.connect() as connection:
        text = failure(connection, instance)
    assert "kong.response.set_header: argument 2" in text
    assert UNSENDABLE[value] in text


@pytest.mark.parametrize("value", ["object()", "2 ** 64", "'\\ud800'"])
def test_the_handler_can_catch_that_and_go_on(kong: Kong, value: str) -> None:
    source = f"""
from kong_pdk.exception import ArgumentError, PDKException

def access(self, kong):
    try:
        kong.response.exit(200, {value})
    except PDKException as exc:
        assert type(exc) is ArgumentError and isinstance(exc, TypeError)
        kong.response.exit(500, "caught")
"""
    run = kong.run_event(kong.start_author(source))
    assert run.calls == [("kong.response.exit", [500, "caught"])]


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
        with pytest.raises(RemoteError, match="no event"):
            connection.step(turn.event_id)


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

def log(self, kong): kong.log(*self.notes)
"""
    instance = kong.start_author(source)
    run = kong.run_event(instance)
    assert run.functions == ["kong.log", "kong.response.exit"]
    left = kong.run_event(instance, "log").calls[0][1]
    assert left == (["finally"] if "finally" in how else [])


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
    for call in (self.kong.log, self.header, self.kong.response.exit):
        try:
            call("x", "y")
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

"""Errors that cannot be shown, cannot be sent, or must not be read as something else."""

from __future__ import annotations

import pytest
from failures import failure, indented, still_works
from kongwire import Kong, RemoteError

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
    instance = kong.start_author(indented(f"kong.ctx.shared.set('x', {value})"))
    with kong.connect() as connection:
        text = failure(connection, instance)
    assert "kong.ctx.shared.set: v, of type" in text
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

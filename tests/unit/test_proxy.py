"""The kong object: names at any depth become PDK calls, misspelt ones errors that help."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import kong_pdk.pdk.kong as kong_module
from kong_pdk import _wire
from kong_pdk.pdk.functions import FUNCTIONS, LOGGING, NAMESPACES
from kong_pdk.pdk.proxy import Namespace, root_class


class Recorder:
    """Notes the PDK calls; each returns its number."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def call(self, function: str, args: tuple[Any, ...]) -> Any:
        self.calls.append((function, args))
        return len(self.calls)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def kong(recorder: Recorder) -> Any:
    return root_class()(recorder)


def reach(kong: Any, name: str) -> Any:
    """The attribute of that full name."""
    for part in name.split(".")[1:]:
        kong = getattr(kong, part)
    return kong


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_function_is_called_by_its_full_name(
    kong: Any, recorder: Recorder, name: str
) -> None:
    assert reach(kong, name)("a", "b") == 1
    assert reach(kong, name)() == 2
    assert recorder.calls == [(name, ("a", "b")), (name, ())]


@pytest.mark.parametrize("name", sorted(NAMESPACES))
def test_every_namespace_shows_where_it_is(kong: Any, name: str) -> None:
    space = reach(kong, name)
    assert repr(space) == f"<{name}>"
    assert isinstance(space, Namespace)
    names = set(NAMESPACES[name].split())
    assert names <= set(dir(space))


def test_the_functions_of_the_documented_example(kong: Any, recorder: Recorder) -> None:
    kong.request.get_header("host")
    kong.service.request.set_header("x", "y")
    kong.log.info("a")
    kong.log("b")
    assert [call[0] for call in recorder.calls] == [
        "kong.request.get_header", "kong.service.request.set_header", "kong.log.info", "kong.log",
    ]  # fmt: skip


def test_log_and_inspect_are_functions_and_hold_functions(kong: Any, recorder: Recorder) -> None:
    assert callable(kong.log) and callable(kong.log.inspect)
    kong.log.inspect("a")
    kong.log.inspect.on()
    kong.log.inspect.off()
    kong.log.serialize()
    assert [call[0] for call in recorder.calls] == [
        "kong.log.inspect", "kong.log.inspect.on", "kong.log.inspect.off", "kong.log.serialize",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["kong", "kong.request", "kong.service", "kong.ctx.shared"])
def test_other_namespaces_cannot_be_called(kong: Any, name: str) -> None:
    with pytest.raises(TypeError, match="not callable"):
        reach(kong, name)()


@pytest.mark.parametrize("name", sorted(LOGGING))
def test_what_is_logged_may_be_anything(kong: Any, recorder: Recorder, name: str) -> None:
    class Odd:
        def __str__(self) -> str:
            return "odd"

    reach(kong, name)("a", 1, 1.5, True, b"x", None, ["l"], {"k": 1}, Odd(), {1}, ValueError("v"))
    assert recorder.calls == [
        (name, ("a", 1, 1.5, True, b"x", "None", "['l']", "{'k': 1}", "odd", "{1}", "v"))
    ]
    assert recorder.calls[0][1][3] is True


def test_other_arguments_are_left_alone(kong: Any, recorder: Recorder) -> None:
    value: dict[str, Any] = {"a": [None]}
    kong.ctx.shared.set("k", value)
    assert recorder.calls[0][1][1] is value


def test_no_call_is_made_before_the_last_name(kong: Any, recorder: Recorder) -> None:
    assert kong.service.request.set_header
    assert kong.log.info
    assert recorder.calls == []


# --- wrong names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("kong.request.get_heder", "kong.request.get_header"),
        ("kong.reqest", "kong.request"),
        ("kong.service.request.set_headr", "kong.service.request.set_header"),
        ("kong.response.exti", "kong.response.exit"),
        ("kong.log.wran", "kong.log.warn"),
        ("kong.ctx.share", "kong.ctx.shared"),
    ],
)
def test_a_misspelt_name_gets_the_nearest(
    kong: Any, recorder: Recorder, name: str, nearest: str
) -> None:
    with pytest.raises(AttributeError) as caught:
        reach(kong, name)
    text = str(caught.value)
    assert text.startswith(f"there is no {name} in Kong's PDK; did you mean ")
    assert nearest in text.partition("did you mean")[2].replace("?", "").split()
    assert recorder.calls == []


def test_a_name_that_is_like_no_other(kong: Any) -> None:
    with pytest.raises(AttributeError, match=r"^there is no kong\.zzzzzzzz in Kong's PDK$"):
        _ = kong.zzzzzzzz


def test_a_function_has_no_functions(kong: Any) -> None:
    with pytest.raises(AttributeError):
        _ = kong.request.get_header.x


def test_questions_of_python_itself_get_plain_answers(kong: Any) -> None:
    for name in ("__wrapped__", "__array_interface__", "__len__"):
        assert not hasattr(kong, name)
        assert not hasattr(kong.request, name)
    assert not hasattr(kong, "request_")


def test_nothing_can_be_set(kong: Any) -> None:
    with pytest.raises(AttributeError):
        kong.mine = 1
    with pytest.raises(AttributeError):
        kong.request = None


# --- where it may be used -------------------------------------------------------------------------


def test_it_works_from_any_function_and_thread(kong: Any, recorder: Recorder) -> None:
    def helper(handed: Any) -> None:
        handed.request.get_method()

    helper(kong)
    get_path = kong.request.get_path  # a bound method, kept for later
    request = kong.request
    thread = threading.Thread(target=helper, args=(kong,))
    thread.start()
    thread.join(30)
    get_path()
    request.get_host()
    assert [call[0].rpartition(".")[2] for call in recorder.calls] == [
        "get_method", "get_method", "get_path", "get_host",
    ]  # fmt: skip


def test_two_events_are_two_objects() -> None:
    one, two = Recorder(), Recorder()
    first, second = root_class()(one), root_class()(two)
    first.log.info("1")
    second.log.info("2")
    assert one.calls == [("kong.log.info", ("1",))]
    assert two.calls == [("kong.log.info", ("2",))]


def test_the_class_is_made_once() -> None:
    assert root_class() is root_class()


def test_annotations(kong: Any) -> None:
    """``import kong_pdk.pdk.kong as kong`` and then ``kong: kong.kong``."""
    assert isinstance(kong, kong_module.kong)
    assert kong_module.__all__ == ["kong"]


def test_methods_say_what_they_call(kong: Any) -> None:
    assert kong.request.get_header.__name__ == "get_header"
    assert kong.request.get_header.__doc__ == "Call kong.request.get_header."


def test_the_tables_of_functions_fit_each_other() -> None:
    assert _wire.TERMINAL <= FUNCTIONS
    assert LOGGING <= FUNCTIONS
    for namespace in NAMESPACES:
        assert namespace.split(".")[0] == "kong"

"""The kong object: a tree of names, in which nothing but a call asks Kong."""

from __future__ import annotations

import copy
import inspect
import pickle
import pydoc
import threading
from typing import Any

import pytest
from pdkcalls import Caller, Pdk, reach

import kong_pdk.pdk.kong as kong_module
from kong_pdk.exception import PDKException, UnreachableError
from kong_pdk.pdk import proxy
from kong_pdk.pdk._table import FUNCTIONS, UNREACHABLE


class Nobody:
    """A caller that must not be asked."""

    phase = "access"

    def call(self, function: str, args: tuple[Any, ...]) -> Any:
        raise AssertionError(f"{function} was called")


@pytest.fixture
def silent(pdk: Pdk) -> Any:
    """The root of the PDK for an event in which any call is a failure."""
    return pdk.kong(Nobody())


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(proxy.NAMESPACES))
def test_every_namespace_shows_where_it_is(pdk: Pdk, silent: Any, name: str) -> None:
    space = reach(silent, name)
    assert repr(space) == f"<{name}>"
    assert isinstance(space, pdk.proxy.Namespace)
    assert isinstance(space, pdk.codec.Namespace)
    assert space.__doc__ == f"{name} of Kong's PDK."
    assert type(space) is pdk.proxy.namespace_class(name)
    below = {
        each[len(name) + 1 :].partition(".")[0]
        for each in (spec.name for spec in FUNCTIONS)
        if each.startswith(name + ".")
    }
    assert below <= set(dir(space))


def test_nothing_but_a_call_asks_kong(pdk: Pdk, silent: Any) -> None:
    """As editors, debuggers and help() go through the whole tree."""
    seen: set[str] = set()

    def walk(value: Any, path: str) -> None:
        seen.add(path)
        assert repr(value) == str(value)
        assert bool(value)
        assert value == value and value != 5
        hash(value)
        pydoc.render_doc(value)
        inspect.getdoc(value)
        inspect.isroutine(value), inspect.isclass(value), callable(value)
        hasattr(value, "no_such_name"), hasattr(value, "__wrapped__")
        for name in dir(value):
            member = getattr(value, name)
            if isinstance(member, (pdk.codec.Namespace, pdk.codec.Method)):
                walk(member, f"{path}.{name}")

    walk(silent, "kong")
    assert {spec.name for spec in FUNCTIONS} <= seen


def test_help_shows_the_members(silent: Any) -> None:
    for value in (silent.request, type(silent.request)):
        page = pydoc.plain(pydoc.render_doc(value))
        assert "kong.request of Kong's PDK." in page
        assert "get_header(self, /, name)" in page
        assert proxy.SPECS["kong.request.get_header"].doc.partition("\n")[0] in page


def test_log_and_inspect_are_functions_and_hold_functions(caller: Caller, kong: Any) -> None:
    assert callable(kong.log) and callable(kong.log.inspect)
    kong.log("a")
    kong.log.inspect("b")
    kong.log.inspect.on()
    kong.log.info("c")
    assert [name for name, _ in caller.calls] == [
        "kong.log", "kong.log.inspect", "kong.log.inspect.on", "kong.log.info",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["kong", "kong.request", "kong.service", "kong.ctx.shared"])
def test_other_namespaces_cannot_be_called(silent: Any, name: str) -> None:
    with pytest.raises(TypeError, match="not callable"):
        reach(silent, name)()


def test_other_arguments_are_left_alone(caller: Caller, kong: Any) -> None:
    value: dict[str, Any] = {"a": [None]}
    kong.ctx.shared.set("k", value)
    assert caller.sent[1] is value


def test_nothing_can_be_set(silent: Any) -> None:
    for space in (silent, silent.request, silent.ctx.shared):
        for name in ("mine", "request", "get_header", "get"):
            with pytest.raises(AttributeError):
                setattr(space, name, 1)
            with pytest.raises(AttributeError):
                delattr(space, name)
    with pytest.raises(AttributeError):
        silent.request.get_header.mine = 1


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps], ids=lambda f: f.__name__)
def test_copies(silent: Any, how: Any) -> None:
    """They may be refused, but make no call and do not hang."""
    for value in (silent, silent.request, silent.request.get_header, silent.ctx.shared):
        try:
            made = how(value)
        except (TypeError, AttributeError, pickle.PicklingError):
            continue
        assert isinstance(made, bytes) or repr(made) == repr(value)


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
        ("kong.log.inspect.onn", "kong.log.inspect.on"),
        ("kong.nginx.vars", "kong.nginx.var"),
    ],
)
def test_a_misspelt_name_gets_the_nearest(silent: Any, name: str, nearest: str) -> None:
    with pytest.raises(AttributeError) as caught:
        reach(silent, name)
    assert not isinstance(caught.value, UnreachableError)
    text = str(caught.value)
    assert text.startswith(f"there is no {name} in Kong's PDK; did you mean ")
    assert nearest in text.partition("did you mean")[2].replace("?", "").split()


def test_a_name_that_is_like_no_other(silent: Any) -> None:
    with pytest.raises(AttributeError, match=r"^there is no kong\.zzzzzzzz in Kong's PDK$"):
        _ = silent.zzzzzzzz


@pytest.mark.parametrize("name", sorted(UNREACHABLE))
def test_a_name_that_cannot_be_used_says_why(silent: Any, name: str) -> None:
    space, _, last = name.rpartition(".")
    parent = reach(silent, space)
    assert not hasattr(parent, last)
    with pytest.raises(UnreachableError) as caught:
        getattr(parent, last)
    assert isinstance(caught.value, AttributeError) and isinstance(caught.value, PDKException)
    reason = UNREACHABLE[name]
    assert str(caught.value) == f"{name} cannot be used from a plugin server: {reason}"
    assert last not in dir(parent)


def test_a_function_has_no_functions(silent: Any) -> None:
    with pytest.raises(AttributeError):
        _ = silent.request.get_header.x


def test_questions_of_python_itself_get_plain_answers(silent: Any) -> None:
    for space in (silent, silent.request, silent.ctx.shared, silent.log):
        for name in ("__wrapped__", "__array_interface__", "__len__", "__fspath__", "__index__"):
            assert not hasattr(space, name)
    assert not hasattr(silent, "request_")


# --- where it may be used -------------------------------------------------------------------------


def test_it_works_from_any_function_and_thread(caller: Caller, kong: Any) -> None:
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
    assert [name.rpartition(".")[2] for name, _ in caller.calls] == [
        "get_method", "get_method", "get_path", "get_host",
    ]  # fmt: skip


def test_two_events_are_two_objects(pdk: Pdk) -> None:
    one, two = pdk.caller(), pdk.caller()
    first, second = pdk.kong(one), pdk.kong(two)
    first.log.info("1")
    second.log.info("2")
    assert (one.sent, two.sent) == (("1",), ("2",))


def test_the_class_is_made_once(pdk: Pdk) -> None:
    assert pdk.proxy.root_class() is pdk.proxy.root_class()


def test_annotations() -> None:
    """``import kong_pdk.pdk.kong as kong`` and then ``kong: kong.kong``."""
    assert isinstance(proxy.root_class()(Nobody()), kong_module.kong)
    assert "kong" in kong_module.__all__


def test_a_caller_without_settings(pdk: Pdk) -> None:
    """A stand-in needs nothing but ``call``."""

    class Bare:
        def call(self, function: str, args: tuple[Any, ...]) -> Any:
            return function, args

    kong = pdk.kong(Bare())
    assert kong.request.get_header("x") == ("kong.request.get_header", ("x",))
    with pytest.raises(PDKException):
        kong.request.get_header(5)


# --- access by item -------------------------------------------------------------------------------

ITEMS = {
    "kong.ctx.shared": ("kong.ctx.shared.get", "kong.ctx.shared.set"),
    "kong.nginx.ctx": ("kong.nginx.get_ctx", "kong.nginx.set_ctx"),
    "kong.nginx.var": ("kong.nginx.get_var", None),
}
items = pytest.mark.parametrize("name", ITEMS)
mutable = pytest.mark.parametrize("name", [name for name, (_, set_) in ITEMS.items() if set_])
styles = pytest.mark.parametrize("lua_style", [True, False], ids=["lua_style", "python_style"])


@items
@styles
def test_an_item(pdk: Pdk, name: str, lua_style: bool) -> None:
    caller = pdk.caller("access", lua_style=lua_style)
    space, get = reach(pdk.kong(caller), name), ITEMS[name][0]
    for value in ("value", "", 0, False, [], {"a": 1}):
        caller.answer = value
        assert space["k"] is value
        assert "k" in space
    caller.answer = None
    with pytest.raises(KeyError) as caught:
        space["k"]
    assert caught.value.args == ("k",)
    assert "k" not in space
    assert caller.calls == [(get, ("k",))] * 14


@mutable
@styles
def test_setting_items(pdk: Pdk, name: str, lua_style: bool) -> None:
    caller = pdk.caller("access", lua_style=lua_style)
    space, (get, set_) = reach(pdk.kong(caller), name), ITEMS[name]
    value = {"a": 1}
    space["k"] = value
    space["k"] = None
    assert caller.calls == [(set_, ("k", value)), (set_, ("k", None))]
    assert caller.calls[0][1][1] is value
    caller.calls.clear()
    with pytest.raises(KeyError):
        del space["k"]
    assert caller.calls == [(get, ("k",))]
    caller.answer = "there"
    del space["k"]
    assert caller.calls[1:] == [(get, ("k",)), (set_, ("k", None))]


@items
def test_an_item_that_fails_in_lua_style(pdk: Pdk, name: str) -> None:
    caller = pdk.caller("access", lua_style=True)
    caller.error = "went wrong"
    space, get = reach(pdk.kong(caller), name), ITEMS[name][0]
    for access in (lambda: space["k"], lambda: "k" in space):
        with pytest.raises(PDKException, match=rf"^{get}: went wrong$"):
            access()


@items
def test_what_cannot_be_a_key(pdk: Pdk, name: str) -> None:
    caller = pdk.caller("access")
    space = reach(pdk.kong(caller), name)
    for access in (lambda: space["a", 5], lambda: ["a"] in space, lambda: space[None]):
        with pytest.raises(PDKException, match=ITEMS[name][0]) as caught:
            access()
        assert isinstance(caught.value, TypeError)
    assert caller.calls == []


@items
def test_items_cannot_be_listed(silent: Any, name: str) -> None:
    space = reach(silent, name)
    for use in (iter, list, len, reversed, dict, lambda space: [*space]):
        with pytest.raises(TypeError):
            use(space)


def test_variables_of_nginx_are_read_only(silent: Any) -> None:
    with pytest.raises(TypeError):
        silent.nginx.var["x"] = "y"
    with pytest.raises(TypeError):
        del silent.nginx.var["x"]


def test_items_in_a_wrong_phase(pdk: Pdk) -> None:
    caller = pdk.caller("log")
    with pytest.raises(PDKException, match="cannot be called in the log phase"):
        pdk.kong(caller).nginx.var["x"]
    assert caller.calls == []


def test_functions_stand_beside_items(caller: Caller, kong: Any) -> None:
    kong.ctx.shared.set("k", 1)
    assert kong.ctx.shared.get("k") is None
    assert [name for name, _ in caller.calls] == ["kong.ctx.shared.set", "kong.ctx.shared.get"]

"""The pytest plugin: a gateway for each test, in one mode or several.

It is loaded in every project that has kong-pdk installed, so it imports nothing else of it until a
test asks for the fixture.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import pytest

if TYPE_CHECKING:
    from .gateway import Gateway

MODES = ("in-process", "threads", "gevent", "multiprocessing")

_FIXTURE = "kong_gateway"
_MARKER = "kong_modes"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("kong-pdk", "tests of Kong plugins").addoption(
        "--kong-modes",
        metavar="MODES",
        type=_modes,
        default=None,
        help="run the tests that use kong_gateway in these modes, between commas: "
        f"{', '.join(MODES)}, or all (default: in-process, or what the test's kong_modes says)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{_MARKER}(*modes): the modes that a test with {_FIXTURE} is run in: "
        f"{', '.join(MODES)}, or all; --kong-modes chooses among them",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if _FIXTURE not in metafunc.fixturenames:
        return
    wanted: Sequence[str] | None = metafunc.config.getoption("--kong-modes")
    marker = metafunc.definition.get_closest_marker(_MARKER)
    if marker is None:
        modes = wanted
    else:
        try:
            known = _checked(marker.args)
        except ValueError as error:
            raise pytest.UsageError(f"{metafunc.definition.nodeid}: {_MARKER}: {error}") from None
        modes = known if wanted is None else [each for each in known if each in wanted]
        if not modes:
            reason = f"--kong-modes has none of the test's modes: {', '.join(known)}"
            modes = [pytest.param(known[0], marks=pytest.mark.skip(reason=reason))]  # type: ignore[list-item]
    if modes is not None:
        metafunc.parametrize(_FIXTURE, modes, indirect=True)


@pytest.fixture
def kong_gateway(request: pytest.FixtureRequest) -> Iterator[Callable[..., Gateway]]:
    """A function that makes a :class:`kong_pdk.testing.Gateway`, which is closed after the test.

    Its arguments are those of ``Gateway``; the mode is the one that the test is run in. A path that
    is not there is looked for beside the test's file and in pytest's root folder too.
    """
    from .gateway import Gateway
    from .live import ModeUnavailable

    mode: str = getattr(request, "param", MODES[0])
    made: list[Gateway] = []

    def make(plugin: Any, *args: Any, **options: Any) -> Gateway:
        options.setdefault("mode", mode)
        try:
            gateway = Gateway(_find(plugin, request), *args, **options)
        except ModeUnavailable as error:
            pytest.skip(str(error))
        made.append(gateway)
        return gateway

    yield make
    while made:
        made.pop().close()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    live = sys.modules.get("kong_pdk.testing.live")
    if live is not None:
        live.stop_all()


def _find(plugin: Any, request: pytest.FixtureRequest) -> Any:
    if isinstance(plugin, (str, os.PathLike)):
        path = Path(plugin)
        if not path.is_absolute() and not path.exists():
            for folder in (request.path.parent, request.config.rootpath):
                if (folder / path).exists():
                    return folder / path
    return plugin


def _modes(text: str) -> list[str]:
    try:
        return _checked(text.split(","))
    except ValueError as error:
        raise pytest.UsageError(f"--kong-modes: {error}") from None


def _checked(given: Sequence[Any]) -> list[str]:
    """Return modes, without doubles; "all" stands for each of them."""
    found: list[str] = []
    for each in given:
        names = MODES if each == "all" else (each,)
        for name in names:
            if name not in MODES:
                raise ValueError(f"there is no mode {name!r}, only {', '.join(MODES)}, and all")
            if name not in found:
                found.append(name)
    if not found:
        raise ValueError(f"no mode is named; there are {', '.join(MODES)}, and all")
    return found

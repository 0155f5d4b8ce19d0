"""Each test of the PDK's run time runs on both codecs: [compiled] and [pure]."""

from __future__ import annotations

import pytest
from pdkcalls import Caller, Pdk


@pytest.fixture(scope="session", params=["compiled", "pure"])
def pdk(request: pytest.FixtureRequest) -> Pdk:
    """The PDK, made of one codec."""
    return Pdk(request.param)


@pytest.fixture
def caller(pdk: Pdk) -> Caller:
    """A stand-in for an event whose calls return bare values, and whose phase is not known."""
    return pdk.caller()


@pytest.fixture
def kong(pdk: Pdk, caller: Caller) -> object:
    """The root of the PDK for that event."""
    return pdk.kong(caller)

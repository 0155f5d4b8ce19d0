"""Who may connect, and how often the log tells of those who may not."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from typing import Optional

import pytest

from kong_pdk.config import ServerConfig
from kong_pdk.exception import ConfigError
from kong_pdk.server import peers as module
from kong_pdk.server.peers import MOST_USERS, REPORT_PAUSE, Credentials, Peers, credentials

OWN = os.geteuid()
needs_credentials = pytest.mark.skipif(
    not hasattr(socket, "SO_PEERCRED"), reason="this system does not tell whose a connection is"
)


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    """A connection to this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        yield ours


class Crowd:
    """Peers of many users come to the door, while a clock stands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, sock: socket.socket) -> None:
        self.uid, self.now, self._sock = 0, 1000.0, sock
        self.peers = Peers(frozenset([OWN + 1]))
        monkeypatch.setattr(module, "credentials", self._tell)
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)

    def _tell(self, _: socket.socket) -> Optional[Credentials]:
        return Credentials(5, self.uid, 5)

    def come(self, uid: int, times: int = 1) -> list[bool]:
        self.uid = uid
        return [self.peers.admit(self._sock) for _ in range(times)]


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch, sock: socket.socket) -> Crowd:
    return Crowd(monkeypatch, sock)


@needs_credentials
def test_what_the_system_says(sock: socket.socket) -> None:
    assert credentials(sock) == (os.getpid(), OWN, os.getegid())


def test_without_a_list_everybody_may(sock: socket.socket) -> None:
    assert Peers(None).admit(sock) is True


@needs_credentials
def test_the_own_user_may_always(sock: socket.socket) -> None:
    assert Peers(frozenset()).admit(sock) is True


def test_those_on_the_list_and_nobody_else(crowd: Crowd) -> None:
    assert crowd.come(OWN + 1) == crowd.come(OWN) == [True]
    # Root of another container is no more than any other user.
    others = {0, OWN + 2, 65534, 2**32 - 2} - {OWN, OWN + 1}
    assert not any(crowd.come(uid)[0] for uid in others)


def test_a_peer_who_cannot_be_told_is_refused(
    monkeypatch: pytest.MonkeyPatch, sock: socket.socket
) -> None:
    monkeypatch.setattr(module, "credentials", lambda _: None)
    assert Peers(frozenset([OWN])).admit(sock) is False


@needs_credentials
def test_one_who_is_not_connected_is_refused() -> None:
    with socket.socket(socket.AF_INET) as alone:
        alone.close()
        assert Peers(frozenset([OWN])).admit(alone) is False


def test_a_user_is_named_once_and_counted_then(
    crowd: Crowd, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "kong_pdk")
    a, b = OWN + 10, OWN + 11
    crowd.come(a, 1001)
    crowd.come(b, 6)
    assert [one.getMessage() for one in caplog.records] == [
        f"refused a connection of user {uid}, who is not allowed by --allow-uid" for uid in (a, b)
    ]
    caplog.clear()
    for _ in range(3):
        crowd.peers.report()
    assert caplog.messages == [f"refused further connections: 1000 of user {a}, 5 of user {b}"]
    caplog.clear()
    crowd.come(a, 7)
    crowd.peers.report()
    assert caplog.messages == []  # not yet again
    crowd.now += REPORT_PAUSE
    crowd.peers.report()
    assert caplog.messages == [f"refused further connections: 7 of user {a}"]
    caplog.clear()
    crowd.come(b, 2)
    crowd.peers.report(at_once=True)
    assert caplog.messages == [f"refused further connections: 2 of user {b}"]
    crowd.peers.report(at_once=True)
    assert len(caplog.messages) == 1


def test_many_users_do_not_fill_the_log(crowd: Crowd, caplog: pytest.LogCaptureFixture) -> None:
    for uid in range(OWN + 100, OWN + 100 + 10 * MOST_USERS):
        crowd.come(uid, 2)
    assert len(caplog.messages) == MOST_USERS
    crowd.peers.report()
    assert caplog.messages[-1].endswith(f", {2 * 9 * MOST_USERS} of others")


def test_a_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_PEERCRED", raising=False)
    assert ServerConfig().allow_uids is None
    with pytest.raises(ConfigError, match=r"^--allow-uid is not available.*--socket-mode"):
        ServerConfig(allow_uids=frozenset([5]))
    with socket.socket(socket.AF_UNIX) as sock:
        assert credentials(sock) is None

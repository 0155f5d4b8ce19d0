"""What the parent does for workers that are no more."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from typing import Any, Optional

import msgpack
import pytest

from kong_pdk import _wire
from kong_pdk.config import ServerConfig
from kong_pdk.processes import crew as crew_module
from kong_pdk.processes.crew import BACK_OFF, BACK_OFF_SERVED, STEADY, Dealt, Worker
from kong_pdk.processes.ledger import Ledger
from kong_pdk.processes.poller import Poller
from kong_pdk.processes.rescue import PATIENCE, Rescue
from kong_pdk.server import drain as drain_module

EXIT, ERROR = _wire.OWES_EXIT, _wire.OWES_ERROR
LENT_TO_1 = _wire.OWES_LENT | 1 << _wire.OWES_OWNER


class Yard:
    """A parent with two workers without processes, and a connection of worker 0."""

    def __init__(self, config: ServerConfig) -> None:
        self.poller = Poller()
        self.ledger = Ledger(config)
        self.crew = [Worker(index, self.poller, self.ledger) for index in (0, 1)]
        self.rescue = Rescue(config, self.poller, self.ledger)
        ours, self.kong = socket.socketpair()
        self.kong.settimeout(5)
        self.dealt = Dealt(ours, self.ledger.open())
        self.crew[0].deal(self.dealt)
        self.poller.watch_end(self.dealt, lambda: None)

    def owe(self, owes: int, age: float = 0.0, missing: int = 0) -> None:
        """As a worker notes it."""
        numbers = memoryview(self.ledger._memory).cast("Q")
        index = _wire.DEBT_SIZE * self.dealt.slot
        since = int(1000 * (time.monotonic() - age))
        for number, value in enumerate((owes, since, missing)):
            numbers[index + number] = value
        numbers.release()

    def read(self, data: bytes) -> None:
        """Let the worker be in the middle of reading something."""
        begin = 8 * (_wire.DEBT_SIZE * self.dealt.slot + 4)
        self.ledger._memory[begin : begin + _wire.HEAD_SIZE] = data.ljust(_wire.HEAD_SIZE, b"\0")
        self.ledger._numbers[_wire.DEBT_SIZE * self.dealt.slot + 3] = 1

    def die(self, index: int = 0) -> int:
        """A worker has died; returns how many calls are answered for it."""
        return self.rescue.take_over(self.crew[index], self.crew, time.monotonic())

    def answer(self) -> Any:
        """What Kong gets to read: None for nothing, else msgid and what it is told."""
        self.kong.setblocking(False)
        try:
            data = self.kong.recv(10_000)
        except BlockingIOError:
            return None
        if not data:
            return "closed"
        _, msgid, error, result = msgpack.unpackb(data)
        return msgid, error or result["Data"]["Args"][0]

    def close(self) -> None:
        self.rescue.close()
        for worker in self.crew:
            worker.close()
        self.poller.close()
        self.ledger.release()
        self.dealt.sock.close()
        self.kong.close()


@pytest.fixture
def yard() -> Iterator[Yard]:
    made = Yard(ServerConfig(workers=2))
    yield made
    made.close()


def test_nothing_was_owed(yard: Yard) -> None:
    assert yard.die() == 0
    assert yard.answer() is None
    assert yard.rescue.take() is yard.dealt


@pytest.mark.parametrize(("owes", "told"), [(EXIT, 500), (ERROR, "has died")])
def test_an_answer_was_owed(yard: Yard, owes: int, told: Any) -> None:
    yard.owe(77 | owes)
    assert yard.die() == 1
    msgid, answer = yard.answer()
    assert msgid == 77
    assert answer == told or told in answer
    assert yard.ledger.look(yard.dealt.slot).owes == 0
    assert yard.rescue.take() is yard.dealt, "the connection goes on"


@pytest.mark.parametrize(("policy", "told"), [("closed", 500), ("open", "has died")])
def test_the_server_decides_where_the_event_is_not_known(policy: str, told: Any) -> None:
    yard = Yard(ServerConfig(workers=2, on_error=policy))
    yard.owe(77 | _wire.OWES_POLICY)
    yard.die()
    _, answer = yard.answer()
    assert answer == told or told in answer
    yard.close()


@pytest.mark.parametrize("read", [True, False])
def test_it_has_died_after_its_answer(yard: Yard, read: bool) -> None:
    """Kong has not read that yet, or has gone on."""
    yard.owe(77 | EXIT)
    yard.dealt.sock.send(b"x")
    if read:
        yard.kong.recv(1)
        call(yard, 78)
    assert yard.die() == 0
    assert read or yard.kong.recv(100) == b"x"
    assert yard.answer() is None
    assert yard.rescue.take() is yard.dealt


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ([0, 77, "plugin.HandleEvent", [{"InstanceId": 2**52 + 1, "EventName": "response"}]], 500),
        ([0, 77, "plugin.HandleEvent", [{"InstanceId": 2**52, "EventName": "response"}]], "died"),
        ([0, 77, "plugin.Step", [{"EventId": 9, "Data": "x"}]], 500),
        ([0, 77, "plugin.Step", [{"EventId": 8, "Data": "x"}]], "died"),
        ([0, 77, "plugin.GetStatus", []], "died"),
    ],
)
def test_it_has_died_in_the_middle_of_reading(yard: Yard, request_: Any, told: Any) -> None:
    """The kernel has put the request where the parent sees it."""
    yard.read(msgpack.packb(request_))
    assert yard.die() == 1
    msgid, answer = yard.answer()
    assert msgid == 77
    assert answer == told or told in answer
    assert yard.rescue.take() is yard.dealt


def test_it_has_died_in_the_middle_of_reading_a_long_request(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "QUIET", 0.0)
    yard.read(msgpack.packb([0, 77, "plugin.Step", [{"EventId": 9, "Data": "x" * 500}]])[:96])
    assert yard.die() == 1
    yard.rescue.tick(time.monotonic(), lonely=False)
    assert yard.answer() == (77, 500)


def test_it_has_died_before_it_has_read_anything(yard: Yard) -> None:
    yard.read(b"")
    call(yard, 5)
    assert yard.die() == 0
    assert yard.rescue.take() is yard.dealt
    assert yard.ledger._numbers[_wire.DEBT_SIZE * yard.dealt.slot + 3] == 0


def test_a_part_of_the_answer_may_be_out(yard: Yard) -> None:
    """Whole or half, Kong makes a failure of it."""
    yard.owe(77 | EXIT | _wire.OWES_CUT)
    assert yard.die() == 1
    assert yard.answer() == (77, 500)
    assert yard.answer() == "closed"


def test_kong_has_read_all_of_a_large_answer(yard: Yard) -> None:
    """Or it would not have sent the next request."""
    yard.owe(77 | EXIT | _wire.OWES_CUT)
    call(yard, 78)
    assert yard.die() == 0
    assert yard.answer() is None
    assert yard.rescue.take() is yard.dealt


def test_kong_has_given_up(yard: Yard) -> None:
    """The answer would be taken for another request's."""
    yard.owe(77 | EXIT, age=60.0)
    yard.die()
    assert yard.answer() == "closed"


def test_what_is_owed_cannot_be_told(yard: Yard) -> None:
    yard.owe(_wire.OWES_UNKNOWN)
    yard.die()
    assert yard.answer() == "closed"


def test_the_rest_of_the_request_is_read_first(yard: Yard) -> None:
    yard.owe(77 | EXIT | _wire.OWES_REST, missing=10)
    assert yard.die() == 1
    assert yard.answer() is None
    assert yard.rescue.take() is None
    yard.kong.send(b"x" * 10)
    yard.poller.turn(1.0)
    assert yard.answer() == (77, 500)
    yard.rescue.tick(time.monotonic(), lonely=False)
    assert yard.rescue.take() is yard.dealt


def test_what_was_lent_is_the_owners_business(yard: Yard) -> None:
    yard.owe(77 | EXIT | LENT_TO_1)
    assert yard.die(0) == 0
    assert yard.answer() is None
    assert yard.die(1) == 1, "and the parent's when that one dies too"
    assert yard.answer() == (77, 500)
    assert yard.rescue.take() is yard.dealt


def test_what_was_lent_to_a_worker_that_dies(yard: Yard) -> None:
    yard.owe(77 | EXIT | LENT_TO_1)
    assert yard.die(1) == 1
    assert yard.answer() == (77, 500)
    assert yard.crew[0].connections, "its reader goes on"


def test_a_step_in_the_inbox_of_a_dead_worker_is_answered_once(yard: Yard) -> None:
    owes = 77 | EXIT | LENT_TO_1
    yard.owe(owes)
    step = (_wire.STEP, 77, 5, None, yard.dealt.slot, owes, 0)
    yard.crew[1].outbox.send(step, [yard.dealt.fileno()])
    assert yard.die(1) == 1
    assert yard.answer() == (77, 500)
    assert yard.answer() is None
    yard.owe(owes + 1)
    step = (_wire.STEP, 78, 5, None, yard.dealt.slot, owes + 1, 0)
    yard.crew[1].outbox.send(step, [yard.dealt.fileno()])
    yard.rescue.read_inbox(yard.crew[1])
    assert yard.answer() == (78, 500)


def test_a_step_that_its_worker_could_not_take(yard: Yard) -> None:
    owes = 77 | EXIT | LENT_TO_1
    yard.owe(owes)
    yard.rescue.answer_missed(yard.crew, yard.dealt.slot, owes)
    assert yard.answer() == (77, 500)
    yard.rescue.answer_missed(yard.crew, yard.dealt.slot, owes)
    assert yard.answer() is None


# --- workers that are stuck -----------------------------------------------------------------------


def is_stuck(yard: Yard, index: int, silence: float) -> bool:
    yard.crew[index].ready = True
    numbers = yard.ledger._numbers
    numbers[len(numbers) - 1024 + index] = int(1000 * (time.monotonic() - silence))
    return yard.rescue.is_stuck(yard.crew[index], yard.crew)


@pytest.mark.parametrize(
    ("owes", "age", "silence", "stuck"),
    [
        (EXIT, 59.0, 10.0, True),
        (EXIT, 59.0, 1.0, False),  # its loop will see to it
        (EXIT, 50.0, 10.0, False),  # there is time
        (0, 59.0, 10.0, False),
        (EXIT | LENT_TO_1, 59.0, 10.0, False),  # another one's business
    ],
)
def test_a_worker_that_lets_kong_wait(
    yard: Yard, owes: int, age: float, silence: float, stuck: bool
) -> None:
    yard.owe(77 | owes if owes else 0, age)
    assert is_stuck(yard, 0, silence) is stuck


def test_a_worker_that_owes_on_another_ones_connection(yard: Yard) -> None:
    yard.owe(77 | EXIT | LENT_TO_1, 59.0)
    assert is_stuck(yard, 1, 10.0)


@pytest.mark.parametrize(("silence", "stuck"), [(59.0, True), (50.0, False)])
def test_a_worker_that_does_not_read(yard: Yard, silence: float, stuck: bool) -> None:
    assert not is_stuck(yard, 0, silence)
    call(yard, 5)
    assert is_stuck(yard, 0, silence) is stuck
    yard.die()
    if stuck:
        assert yard.answer() == (5, 500), "nobody knows how long it has waited"
        call(yard, 6)
        yard.poller.turn(0)
        assert yard.answer() is None, "the next one waits for a worker"
    assert yard.rescue.take() is yard.dealt


# --- while there is no worker ---------------------------------------------------------------------


def call(yard: Yard, msgid: int) -> None:
    yard.kong.send(
        msgpack.packb([0, msgid, "plugin.HandleEvent", [{"InstanceId": 7, "EventName": "access"}]])
    )


def test_calls_wait_for_a_while(yard: Yard) -> None:
    yard.die()
    call(yard, 5)
    now = time.monotonic()
    yard.rescue.tick(now + PATIENCE - 1, lonely=False)
    yard.poller.turn(0)
    assert yard.answer() is None
    yard.rescue.tick(now + PATIENCE + 1, lonely=False)
    assert yard.answer() == (5, 500)
    call(yard, 6)
    yard.poller.turn(1.0)
    assert yard.answer() == (6, 500)
    assert yard.rescue.take() is yard.dealt


def test_nobody_is_to_wait(yard: Yard) -> None:
    yard.die()
    call(yard, 5)
    yard.rescue.tick(time.monotonic(), lonely=True)
    assert yard.answer() == (5, 500)


def test_half_a_call_keeps_its_connection_here(yard: Yard) -> None:
    yard.die()
    yard.kong.send(b"\x94\x00")
    yard.rescue.tick(time.monotonic(), lonely=True)
    assert yard.rescue.take() is None, "no worker could make anything of the other half"
    yard.kong.send(b"\x05\xa1x\x90")
    yard.poller.turn(1.0)
    assert yard.answer()[0] == 5
    assert yard.rescue.take() is yard.dealt


def test_a_connection_that_is_closed_meanwhile(yard: Yard) -> None:
    yard.die()
    yard.kong.close()
    yard.poller.turn(1.0)
    assert len(yard.rescue) == 0
    assert yard.dealt.fileno() == -1


def test_what_waits_is_answered_at_the_end(yard: Yard) -> None:
    yard.die()
    call(yard, 5)
    yard.rescue.close()
    assert yard.answer() == (5, 500)
    assert yard.answer() == "closed"


# --- the ledger, and workers that die often -------------------------------------------------------


def test_places_are_used_again_as_late_as_can_be() -> None:
    ledger = Ledger(ServerConfig(workers=1))
    ledger._size = 3
    first, second = ledger.open(), ledger.open()
    ledger.close(first)
    assert ledger.open() not in (first, second)
    assert ledger.open() == first
    assert ledger.open() == -1, "and then there is none"
    assert ledger.look(-1).owes == _wire.OWES_UNKNOWN
    ledger.release()


class Ended:
    """A process that has."""

    pid = 1

    def poll(self) -> Optional[int]:
        return -9

    def kill(self) -> None: ...


def test_back_off(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    now, worker = 1000.0, yard.crew[0]
    monkeypatch.setattr(crew_module.time, "monotonic", lambda: now)

    def wait_after(life: float) -> float:
        worker.started, worker.process = now - life, Ended()
        assert "SIGKILL" in (worker.take_end() or "")
        return worker.due - now

    waits = [wait_after(0.1) for _ in range(len(BACK_OFF) + 2)]
    assert waits == [*BACK_OFF, BACK_OFF[-1], BACK_OFF[-1]]
    worker.served = True
    assert wait_after(0.1) == BACK_OFF_SERVED[-1]
    assert wait_after(STEADY) == 0
    assert wait_after(0.1) == 0


def test_the_memory_is_all_that_is_shared(yard: Yard) -> None:
    """A worker maps it by its descriptor."""
    assert os.fstat(yard.ledger.fd).st_size >= 8 * _wire.DEBT_SIZE * 65536

"""The fuzz targets themselves: they pass what is sound, and find and keep what is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from fuzzing import codecs, corpus

from kong_pdk import _fallback, _wire

ROOT = Path(__file__).parents[2]
PURE_ONLY = os.environ.get("KONG_PDK_TEST_PURE_ONLY", "0") not in ("", "0")


@pytest.mark.parametrize("name", codecs.TARGETS)
def test_sound_codecs_pass(name: str) -> None:
    assert PURE_ONLY or len(codecs.codecs()) == 2
    target, random = codecs.TARGETS[name](), Random(f"a test of {name}")
    for _ in range(300):
        target.check(target.make(random))


def test_the_same_seed_gives_the_same_frames() -> None:
    first, second = (
        [corpus.mutate(random, corpus.seeds()) for _ in range(200)]
        for random in (Random(1), Random(1))
    )
    assert first == second
    assert len(set(first)) > 190


class ForgetsRest(_fallback.Decoder):
    """Has a bug: what is behind the first message is lost."""

    def next(self) -> Any:
        request = super().next()
        if request is not None:
            self._buffer = bytearray()
            self._start = self._pos = 0
        return request


class RaisesAnything(_fallback.Decoder):
    """Has a bug: an error that is not documented."""

    def next(self) -> Any:
        try:
            return super().next()
        except _fallback.ProtocolError as exc:
            raise LookupError from exc


def encode_call_wrongly(msgid: int, event_id: int, function: str, args: tuple[Any, ...]) -> bytes:
    return _fallback.encode_call(msgid, event_id, function, args[:3])


class FitsTooMuch(_fallback.Function):
    """Has a bug: anything fits."""

    def fits(self, args: tuple[Any, ...]) -> bool:
        return True


@pytest.mark.parametrize(
    ("name", "broken", "error"),
    [
        ("decoder", {"Decoder": ForgetsRest}, codecs.Finding),
        ("decoder", {"Decoder": RaisesAnything}, LookupError),
        ("encoder", {"encode_call": encode_call_wrongly}, codecs.Finding),
        ("function", {"Function": FitsTooMuch}, codecs.Finding),
    ],
    ids=["decoder", "decoder_error", "encoder", "function"],
)
def test_a_bug_of_one_codec_is_found(
    monkeypatch: pytest.MonkeyPatch, name: str, broken: dict[str, Any], error: type[Exception]
) -> None:
    sound = {key: value for key, value in vars(_fallback).items() if key[0] != "_"}
    both = (_fallback, Module(**{**sound, **broken}))
    monkeypatch.setattr(codecs, "codecs", lambda: both)
    target, random = codecs.TARGETS[name](), Random(1)
    with pytest.raises(error):
        for _ in range(2000):
            target.check(target.make(random))


class Module(SimpleNamespace):
    """A codec that caches may keep."""

    __hash__ = object.__hash__


def test_a_value_that_msgpack_reads_otherwise_is_found() -> None:
    frame = _fallback.encode_call(1, 2, "kong.log", (1,))
    codecs.EncoderTarget.read_back(frame, 1, 2, "kong.log", (1,))
    for args in ((1.0,), (True,), (2,), (1, 1)):
        with pytest.raises(codecs.Finding):
            codecs.EncoderTarget.read_back(frame, 1, 2, "kong.log", args)


SCRIPT = """
import os
from fuzzing import runner

class Target:
    def make(self, random):
        return b"bad" if random.random() < 0.01 else b"good"

    def check(self, data):
        if data == b"bad":
            {failure}

runner.TARGETS["planted"], runner.BATCH["planted"] = Target, 50

if __name__ == "__main__":
    print(runner.run([runner.Job("planted", 1, 0, 1, 500, None, {folder!r})]))
"""


@pytest.mark.parametrize("failure", ["os.abort()", "raise ValueError('planted')"])
def test_an_input_that_fails_is_kept(tmp_path: Path, failure: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(failure=failure, folder=str(tmp_path / "found")))
    paths = os.pathsep.join(str(ROOT / name) for name in ("fuzz", "tests/support"))
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "False)" in done.stdout, done.stderr
    found = list((tmp_path / "found").iterdir())
    assert [one.read_bytes() for one in found] == [b"bad"]
    assert f"--target planted --replay {found[0]}" in done.stderr


def test_seeds_are_requests_and_what_is_refused() -> None:
    kinds = set()
    for seed in corpus.seeds():
        decoder = _fallback.Decoder()
        decoder.feed(seed)
        try:
            kinds.add(decoder.next().kind)  # type: ignore[union-attr]
        except _fallback.ProtocolError:
            kinds.add(None)
    assert kinds == {
        _wire.HANDLE_EVENT, _wire.STEP, _wire.STEP_ERROR, _wire.CALL, _wire.IGNORE, None
    }  # fmt: skip

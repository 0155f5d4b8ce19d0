"""The golden frames as seeds, and what breaks them: a small mutation engine."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[2]

#: The ids that the golden frames carry; the server's target puts those of a live server there.
EVENT_ID = 0x0010000000000003
INSTANCE_ID = 0x0008000000000003

#: Largest seed; the deep and the long ones would make all others slow.
MAX_SEED = 4096

#: Bytes that begin a value of a kind of its own.
TYPE_BYTES = bytes((
    0x00, 0x01, 0x7F, 0x80, 0x81, 0x82, 0x8F, 0x90, 0x91, 0x94, 0x9F, 0xA0, 0xA7, 0xBF, 0xC0, 0xC1,
    0xC2, 0xC3, 0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xCB, 0xCC, 0xCD, 0xCE, 0xCF, 0xD0, 0xD1,
    0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF, 0xE0, 0xFF,
))  # fmt: skip

_HEX = """
c0 c2 c3 00 7f ff e0 80 90 a0 c1 c400 cc00 ccff cdffff ceffffffff cfffffffffffffffff d080
d18000 d280000000 d38000000000000000 ca7fc00000 cb7ff8000000000000 cb7ff0000000000000
cb8000000000000000 a1ff a2c080 a3eda080 a4f4908080 a161 d90161 da000161 db0000000161 c50000
c600000000 c7000a c70001 c8000000 c900000000ff d4ff00 d6ff00000000 d7ffffffffffffffffff
c70cffffffffff0000000000000000 d40100 d80000 dc0000 dd00000000 de0000 df00000000 dcffff
ddffffffff deffff dfffffffff dbffffffff c6ffffffff c9ffffffff db07ffffff dd07ffffff
df03ffffff 81c001 81cb7ff800000000000001 8100c0 819001 818001 82a16101a16102
82a74576656e74496401a74576656e74496402 a74576656e744964 a444617461 aa496e7374616e63654964
a94576656e744e616d65
"""

#: Values, and heads of values, that stand where another one stood.
VALUES = (
    *map(bytes.fromhex, _HEX.split()),
    b"\x91" * 30 + b"\xc0",
    b"\x81\x01" * 30 + b"\xc0",
    b"\x91" * 1009 + b"\xc0",
)


@functools.cache
def seeds() -> tuple[bytes, ...]:
    """The golden requests, and the bytes that are refused."""
    frames = json.loads(ROOT.joinpath("tests", "data", "frames.json").read_text(encoding="utf-8"))
    found = [bytes.fromhex(one["hex"]) for one in (*frames["requests"], *frames["refused"])]
    return tuple(one for one in found if len(one) <= MAX_SEED)


@functools.cache
def tokens(frame: bytes) -> tuple[tuple[int, int], ...]:
    """Where the values of a frame begin, and how many bytes its type and length take.

    The payload of a str or bin is passed over; a container's values are listed one by one.
    """
    found, pos = [], 0
    while pos < len(frame):
        byte, head, payload = frame[pos], 1, 0
        if 0xA0 <= byte < 0xC0:
            payload = byte & 0x1F
        elif byte in (0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB):
            head = 1 + (1 << (byte - 0xC4 if byte < 0xD0 else byte - 0xD9))
            payload = int.from_bytes(frame[pos + 1 : pos + head], "big")
        elif byte in (0xC7, 0xC8, 0xC9):
            head = 1 + (1 << (byte - 0xC7))
            payload = 1 + int.from_bytes(frame[pos + 1 : pos + head], "big")
        elif byte in (0xDC, 0xDD, 0xDE, 0xDF):
            head = 3 if byte in (0xDC, 0xDE) else 5
        elif 0xCA <= byte <= 0xD3:
            payload = (4, 8, 1, 2, 4, 8, 1, 2, 4, 8)[byte - 0xCA]
        elif 0xD4 <= byte <= 0xD8:
            payload = 1 + (1 << (byte - 0xD4))
        found.append((pos, head))
        pos += head + payload
    return tuple(found)


def mutate(random: Random, frames: tuple[bytes, ...]) -> bytes:
    """One of the frames, broken in one to three places.

    Args:
        random: decides everything.
        frames: seeds.
    """
    seed = frames[int(random.random() * len(frames))]
    frame = bytearray(seed)
    kind = int(random.random() * 4)
    if kind < 2:  # where a value begins, while it is known
        places = tokens(seed)
        pos, head = places[int(random.random() * len(places))]
        if kind == 0:
            frame[pos : pos + head] = VALUES[int(random.random() * len(VALUES))]
        else:
            _edit_length(random, frame, pos, head)
        if random.random() < 0.5:
            return bytes(frame)
    for _ in range(1 + int(random.random() * 3)):
        size = len(frame)
        at = int(random.random() * (size + 1))
        what = int(random.random() * 8)
        if what == 0 and at < size:
            frame[at] ^= 1 << int(random.random() * 8)
        elif what == 1 and at < size:
            frame[at] = TYPE_BYTES[int(random.random() * len(TYPE_BYTES))]
        elif what == 2 and at < size:
            frame[at] = int(random.random() * 256)
        elif what == 3:
            frame[at:at] = VALUES[int(random.random() * len(VALUES))]
        elif what == 4:
            del frame[at : at + 1 + int(random.random() * 8)]
        elif what == 5:
            frame[at:at] = frame[at : at + 1 + int(random.random() * 40)]
        elif what == 6:  # the tail of another one
            other = frames[int(random.random() * len(frames))]
            frame[at:] = other[int(random.random() * len(other)) :]
        else:
            del frame[at:]
            if random.random() < 0.5:
                frame += frames[int(random.random() * len(frames))]
    return bytes(frame)


def _edit_length(random: Random, frame: bytearray, pos: int, head: int) -> None:
    """Make a value claim another length, or say it in another form."""
    if head > 1:
        length = int.from_bytes(frame[pos + 1 : pos + head], "big")
        limit = 1 << 8 * (head - 1)
        new = (length + 1, length - 1, 0, limit - 1, limit >> 1, 1 << int(random.random() * 32))[
            int(random.random() * 6)
        ]
        frame[pos + 1 : pos + head] = (new % limit).to_bytes(head - 1, "big")
        return
    byte = frame[pos]
    if 0x80 <= byte < 0xC0 and random.random() < 0.5:  # the same length, in a longer form
        first = 0xD9 if byte >= 0xA0 else 0xDC if byte >= 0x90 else 0xDE
        length = byte & (0x1F if byte >= 0xA0 else 0x0F)
        size = 1 + int(random.random() * 2) if first != 0xD9 else int(random.random() * 3)
        width = 1 << size
        code = first + (size if first == 0xD9 else size - 1)
        frame[pos : pos + 1] = bytes((code,)) + length.to_bytes(width, "big")
    else:
        frame[pos] = (byte + (1 if random.random() < 0.5 else -1)) & 0xFF

"""The codec alone: what decoding a request and encoding a reply costs, compiled and pure.

Each round feeds one message that came in one piece, as nearly all of Kong's do, and takes the
request out; or encodes one reply.
"""

from __future__ import annotations

from typing import Any, Callable

import pytest

EVENT = 4503599627370499  # ids as large as the server's own

Frame = Callable[[str], bytes]


@pytest.mark.benchmark(group="decode")
@pytest.mark.parametrize(
    "name",
    [
        "handle_event",
        "step_string",
        "step_no_data",
        "step_bin",
        "step_headers_15",
        "start_instance",
    ],
)
def test_decode(benchmark: Any, codec: Any, frame: Frame, name: str) -> None:
    data, decoder = frame(name), codec.Decoder()
    feed, take = decoder.feed, decoder.next

    def decode() -> Any:
        feed(data)
        return take()

    assert benchmark(decode) is not None
    assert decoder.pending == 0
    assert decoder.consumed % len(data) == 0


@pytest.mark.benchmark(group="decode")
def test_decode_many_in_one_feed(benchmark: Any, codec: Any, frame: Frame) -> None:
    """A hundred requests that arrive together."""
    data, decoder = frame("step_string") * 100, codec.Decoder()

    def decode() -> int:
        decoder.feed(data)
        return sum(1 for _ in iter(decoder.next, None))

    assert benchmark(decode) == 100


CALLS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "call_get_header": ("kong.request.get_header", ("host",)),
    "call_set_header": (
        "kong.response.set_header",
        ("x-hello-from-python", "Python says hello to example.com"),
    ),
    "call_exit": (
        "kong.response.exit",
        (403, '{"message":"no"}', {"Content-Type": "application/json", "X-A": ["1", "2"]}),
    ),
}


@pytest.mark.benchmark(group="encode")
@pytest.mark.parametrize("name", CALLS)
def test_encode_call(benchmark: Any, codec: Any, frame: Frame, name: str) -> None:
    function, args = CALLS[name]
    assert benchmark(codec.encode_call, 3, EVENT, function, args) == frame(name)


@pytest.mark.benchmark(group="encode")
def test_encode_return(benchmark: Any, codec: Any, frame: Frame) -> None:
    assert benchmark(codec.encode_return, 3, EVENT) == frame("return")

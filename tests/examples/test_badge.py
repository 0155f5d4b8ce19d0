"""examples/badge.py: pictures arrive whole, and only such that may be asked for."""

from __future__ import annotations

import io
from typing import Any, Callable
from urllib.parse import urlencode

import pytest
from PIL import Image

from kong_pdk.testing import Gateway, Result

BADGE = "examples/badge.py"
Make = Callable[..., Gateway]


def ask(gateway: Gateway, **arguments: str) -> Result:
    return gateway.get(f"/badge?{urlencode(arguments)}")


def picture(result: Result) -> Image.Image:
    """The picture, read by somebody who minds each byte."""
    assert (result.status, result.headers.get("content-type")) == (200, "image/png"), result
    assert result.headers.get("content-length") == str(len(result.body))
    with Image.open(io.BytesIO(result.body)) as image:
        image.verify()
    image = Image.open(io.BytesIO(result.body))
    image.load()
    return image


@pytest.mark.kong_modes("all")
def test_a_png_arrives_byte_by_byte(kong_gateway: Make) -> None:
    """In a mode with a socket, what has come over it is what the same plugin makes right here."""
    result = ask(kong_gateway(BADGE), label="build", value="passing", color="3a3")
    assert result.service_request is None
    image = picture(result)
    width, height = image.size
    assert width > 3 * height > 60
    # The corners, where no letter is.
    assert image.getpixel((0, 0)) == (0x55, 0x55, 0x55)
    assert image.getpixel((width - 1, height - 1)) == (0x33, 0xAA, 0x33)
    colors = image.getcolors(maxcolors=100_000)
    assert colors is not None and (255, 255, 255) in {color for _, color in colors}
    # Bytes that are no UTF-8, and zeros.
    assert b"\x89PNG" in result.body and b"\0" in result.body
    here = ask(kong_gateway(BADGE, mode="in-process"), label="build", value="passing", color="3a3")
    assert result.body == here.body


@pytest.mark.kong_modes("all")
def test_a_pdf_arrives_whole(kong_gateway: Make) -> None:
    result = ask(kong_gateway(BADGE), value="passing", format="pdf")
    assert (result.status, result.headers.get("content-type")) == (200, "application/pdf")
    assert result.body.startswith(b"%PDF-") and result.body.rstrip().endswith(b"%%EOF")
    # Where the table of its objects begins, counted in bytes: one that is lost would show.
    start = int(result.body.rpartition(b"startxref")[2].split()[0])
    assert result.body[start : start + 4] == b"xref"


def test_what_is_configured_is_the_default(kong_gateway: Make) -> None:
    gateway = kong_gateway(BADGE, {"label": "tests", "color": "rebeccapurple", "max_age": 7})
    result = ask(gateway, value="42")
    assert result.headers.get("cache-control") == "public, max-age=7"
    assert picture(result).getpixel((picture(result).width - 1, 0)) == (0x66, 0x33, 0x99)
    assert result.body == ask(gateway, label="tests", value="42").body
    assert result.body != ask(gateway, label="test", value="42").body
    assert result.body != ask(gateway, value="43").body


def test_texts_beyond_ascii(kong_gateway: Make) -> None:
    gateway = kong_gateway(BADGE)
    assert picture(ask(gateway, value="grün")).size != picture(ask(gateway, value="gr")).size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "value must be"),
        ({"value": ""}, "value must be"),
        ({"value": "x" * 41}, "value must be"),
        ({"value": "a\nb"}, "value must be"),
        ({"value": "\u4e2d"}, "value must be"),
        ({"value": b"\xff"}, "value must be"),
        ({"value": "1", "label": "x" * 10_000}, "label must be"),
        ({"value": "1", "color": "#fff"}, "color must be"),
        ({"value": "1", "color": "rgb(1,2,3)"}, "color must be"),
        ({"value": "1", "color": "ffff"}, "color must be"),
        ({"value": "1", "format": "bmp"}, "format must be one of png, pdf"),
    ],
    ids=str,
)
def test_what_is_not_taken(kong_gateway: Make, arguments: Any, message: str) -> None:
    result = ask(kong_gateway(BADGE), **arguments)
    assert (result.status, result.failures) == (400, [])
    assert result.json()["message"].startswith(message)


def test_an_argument_without_a_value_and_one_that_comes_twice(kong_gateway: Make) -> None:
    gateway = kong_gateway(BADGE)
    assert gateway.get("/?value").status == 400
    assert gateway.get("/?value=a&value=b").body == gateway.get("/?value=a").body

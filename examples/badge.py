#!/usr/bin/env python3
"""Draws a badge such as "build | passing": ``GET /badge?label=build&value=passing&color=3a3``.

Answers in access by itself, so its route needs no service. The picture is a PNG, or a PDF with
``&format=pdf``. Bytes go to Kong as they are: nothing is encoded, so nothing can be harmed.

PDK round trips:

- a badge, 2: request.get_query, response.exit
- a badge that is wrong, 2: request.get_query, response.exit

One call for all arguments, one for the answer with its headers. Whether the client has the picture
already is left to caches on the way, by ``Cache-Control``: to look at ``If-None-Match`` would be a
third call, and cost more than the bytes of a badge.

A badge is drawn once: those asked for last are kept. Drawing computes, which holds up all other
handlers with ``-g``, and in threads one core is all there is; ``-m`` draws on all of them.

What a client may ask for is bounded, in length and kind, so that nobody gets memory for nothing.
Anything else is a 400; if drawing fails the client gets a 500.
"""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageColor, ImageDraw, ImageFont

import kong_pdk.pdk.kong as kong
from kong_pdk.schema import field, schema_of

version = "1.0.0"
priority = 500

TYPES = {"png": "image/png", "pdf": "application/pdf"}
#: The fonts that Pillow brings have letters of these; what they do not have would be a box.
TEXT = re.compile(r"[ -~\u00a0-\u00ff]{1,40}")
HEXADECIMAL = re.compile(r"(?:[0-9a-fA-F]{3}){1,2}")
#: The size of letters, in pixels.
SIZE = 20
GREY = "#555"


@dataclass
class Config:
    label: str = field("status", match="^[%w%p ]+$", len_max=40)
    #: A color by its name in CSS or in hexadecimal, without the #.
    color: str = field("4c1", match="^%w+$")
    #: How many seconds caches may keep a badge.
    max_age: int = field(300, between=(0, 31_536_000))


Schema = schema_of(Config)


class Plugin:
    def __init__(self, config: Config) -> None:
        self.config = config

    def access(self, kong: kong.kong) -> None:
        query, _ = kong.request.get_query()

        def argument(name: str, default: str) -> str:
            values = query.get(name)
            return values[0] if values and isinstance(values[0], str) else default

        kind = argument("format", "png")
        try:
            picture = draw(
                argument("label", self.config.label),
                argument("value", ""),
                argument("color", self.config.color),
                kind,
            )
        except ValueError as error:
            kong.response.exit(400, {"message": str(error)})
        caching = f"public, max-age={self.config.max_age}"
        headers = {"Content-Type": TYPES[kind], "Cache-Control": caching}
        kong.response.exit(200, picture, headers)


@lru_cache(maxsize=1000)
def draw(label: str, value: str, color: str, kind: str) -> bytes:
    """A badge as a file; raises ValueError for arguments that are not taken."""
    if kind not in TYPES:
        raise ValueError(f"format must be one of {', '.join(TYPES)}")
    for name, text in (("label", label), ("value", value)):
        if not TEXT.fullmatch(text):
            raise ValueError(f"{name} must be 1 to 40 characters of Latin-1")
    background = color_of(color)
    font = ImageFont.load_default(SIZE)
    widths = [math.ceil(font.getlength(text)) + SIZE for text in (label, value)]
    image = Image.new("RGB", (sum(widths), 2 * SIZE), GREY)
    pen = ImageDraw.Draw(image)
    pen.rectangle((widths[0], 0, sum(widths), 2 * SIZE), fill=background)
    pen.text((widths[0] / 2, SIZE), label, fill="white", font=font, anchor="mm")
    pen.text((widths[0] + widths[1] / 2, SIZE), value, fill="white", font=font, anchor="mm")
    file = io.BytesIO()
    image.save(file, format=kind)
    return file.getvalue()


def color_of(text: str) -> tuple[int, ...]:
    """A color by its name in CSS, or in hexadecimal without the #; raises ValueError."""
    known = text.lower() in ImageColor.colormap
    if not known and not HEXADECIMAL.fullmatch(text):
        raise ValueError("color must be the name of one, or 3 or 6 hexadecimal digits without #")
    return ImageColor.getrgb(text if known else f"#{text}")


if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server

    start_dedicated_server("badge", Plugin, version, priority, Schema)

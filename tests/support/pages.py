"""The Markdown pages of the repository: their links, headings and code blocks.

A comment before a code block says what it is for; it is not shown anywhere:

    <!-- file: greeter.py -->       the block is a file of that name
    <!-- handler: access -->        the block is the body of a handler for that phase
    <!-- not run: the reason -->    the block is an excerpt

See test_examples.py and test_tutorial.py for what becomes of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
MARKDOWN = MarkdownIt("commonmark").enable("table")
COMMENT = re.compile(r"<!--\s*(?P<key>[a-z ]+?)\s*(:\s*(?P<value>.*?)\s*)?-->", re.DOTALL)


@dataclass
class Block:
    """A fenced code block, and what the comment right before it says."""

    page: Path
    line: int
    language: str
    text: str
    key: str
    value: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def all_pages() -> list[Path]:
    """Every page of the repository; not what was built or installed."""
    folders = [path for path in ROOT.iterdir() if path.is_dir()]
    built = ("build", "dist")
    folders = [path for path in folders if path.name[0] != "." and path.name not in built]
    pages = [*ROOT.glob("*.md"), *(page for path in folders for page in path.rglob("*.md"))]
    return sorted(page for page in pages if "findings" not in page.parts)


def written_pages() -> list[Path]:
    """README and docs, without the reference that is generated: its examples have own tests."""
    docs = (ROOT / "docs").rglob("*.md")
    return [ROOT / "README.md", *sorted(page for page in docs if not is_generated(page))]


def folder(page: Path) -> Path:
    """What links of a page are relative to; a fragment is read as part of CHANGELOG.md."""
    fragment = page.parent.name == "changelog.d" and page.name != "README.md"
    return ROOT if fragment else page.parent


def is_generated(page: Path) -> bool:
    return page.read_text(encoding="utf-8").startswith("<!-- Generated ")


def tokens(page: Path) -> list[Token]:
    return MARKDOWN.parse(page.read_text(encoding="utf-8"))


def blocks(page: Path) -> Iterator[Block]:
    """The code blocks of a page, in order."""
    key = value = ""
    for token in tokens(page):
        if token.type == "html_block":
            found = COMMENT.fullmatch(token.content.strip())
            key, value = (found["key"], found["value"] or "") if found else ("", "")
            continue
        if token.type == "fence":
            assert token.map is not None
            language = (token.info.split() or [""])[0]
            yield Block(page, token.map[0] + 1, language, token.content, key, value)
        if token.level == 0:
            key = value = ""


def links(page: Path) -> Iterator[str]:
    """The targets of all links and pictures of a page."""
    for token in tokens(page):
        for child in token.children or ():
            target = child.attrGet("href") or child.attrGet("src")
            if isinstance(target, str):
                yield target


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    counts: dict[str, int] = {}
    stream = tokens(page)
    for before, token in zip(stream, stream[1:]):
        if before.type != "heading_open":
            continue
        text = "".join(child.content for child in token.children or ())
        slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        number = counts.get(slug, 0)
        counts[slug] = number + 1
        found.add(f"{slug}-{number}" if number else slug)
    return found

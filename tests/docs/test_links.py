"""Links in the pages of the repository lead somewhere.

Links to other sites are looked at by ``python3 dev.py docs --links``, which needs the network.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pages
import pytest

DOCS = pages.ROOT / "docs"
anchors = lru_cache(maxsize=None)(pages.anchors)


@pytest.mark.parametrize(
    "page", pages.all_pages(), ids=lambda page: str(page.relative_to(pages.ROOT))
)
def test_links_of_a_page(page: Path) -> None:
    wrong = []
    for link in pages.links(page):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (pages.folder(page) / unquote(parts.path)).resolve() if parts.path else page
        if not target.is_file():
            wrong.append(f"{link}: there is no file {target.relative_to(pages.ROOT)}")
        elif parts.fragment and parts.fragment not in anchors(target):
            wrong.append(f"{link}: its page has no such heading")
    assert not wrong


def test_pages_are_found_and_so_are_their_links() -> None:
    """Otherwise the test above would pass on nothing."""
    found = pages.all_pages()
    assert {DOCS / "index.md", pages.ROOT / "README.md"} <= set(found)
    assert "docs/reference/server.md" in pages.links(pages.ROOT / "README.md")
    assert "time" in anchors(DOCS / "reference/server.md")


def test_anchors_are_those_of_github(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# `kong-pdk status`: what it *says*\n\n## kong.log.set_serialize_value\n\n## A\n\n## A\n"
    )
    wanted = {"kong-pdk-status-what-it-says", "konglogset_serialize_value", "a", "a-1"}
    assert pages.anchors(page) == wanted


def test_every_page_is_listed_in_the_index() -> None:
    """A page that is not would be found by nobody, and comes last in the site's menu."""
    listed = {(DOCS / link).resolve() for link in pages.links(DOCS / "index.md")}
    of_the_pdk = {page for page in DOCS.rglob("*.md") if pages.is_generated(page)}
    for page in DOCS.rglob("*.md"):
        if page.parent.name != "project" and page not in of_the_pdk and page.name != "index.md":
            assert page in listed, f"add {page.relative_to(DOCS)} to docs/index.md"

"""The site: ``python3 dev.py docs`` builds it into build/docs.

The pages are plain Markdown with relative links, so that they read as well on GitHub. What only the
site needs is added to them here, as they are read:

- The menu: the lists of links in index.md, section by section. A page that none of them names comes
  last in the section of its folder.
- The changelog shows what is not released, too.
- A page of project/ that says "This page of the site is ..." names a file outside of docs/, which
  the site shows in its place; links to that file lead to the page. Links to other files outside of
  docs/, such as examples, become downloads.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from kong_pdk import __version__
from release.changelog import with_pending

project = "kong-pdk"
author = "the authors of kong-pdk"
version = release = __version__
html_title = f"kong-pdk {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "index"
exclude_patterns = ["conf.py"]

#: Headings get the anchors that GitHub gives them.
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]

#: A list in a docstring that reads like that of the arguments.
napoleon_custom_sections = [
    ("The attributes that are of use in a configuration", "params_style"),
]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
nitpicky = True
#: Python's own types and those of plugins' authors have no page here; links between pages do.
nitpick_ignore_regex = [("py:.*", ".*")]
#: For `python3 dev.py docs --links`, which asks the network.
linkcheck_anchors = False
linkcheck_ignore = [r"http://(127\.0\.0\.1|localhost|\[::1\]).*"]

html_theme = "furo"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}

DOCS = Path(__file__).parent
LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
#: The sections of the menu whose folder is not in their name.
FOLDERS = {"How-to guides": "how-to", "Reference": "reference", "Explanation": "explanation"}
#: Pages that pdk.md lists, below it in the menu.
PDK = "reference/pdk"


def borrowed(page: Path) -> Path | None:
    """The file outside of docs/ that a page of project/ stands for."""
    _, stands_for, text = page.read_text(encoding="utf-8").partition("This page of the site is ")
    found = LINK.search(text) if stands_for else None
    return (page.parent / found[2]).resolve() if found else None


#: Files outside of docs/ that have a page, and that page.
PAGES = {
    origin: page
    for page in sorted((DOCS / "project").glob("*.md"))
    if (origin := borrowed(page)) is not None
}


def relink(text: str, base: Path, folder: Path) -> str:
    """Make links that are relative to one folder relative to another one."""

    def moved(match: re.Match[str]) -> str:
        target = (base / match[2]).resolve()
        target = PAGES.get(target, target)
        return match[1] + Path(os.path.relpath(target, folder)).as_posix() + match[3]

    return LINK.sub(moved, text)


def children_of_pdk() -> list[str]:
    """The generated pages, modules first."""
    pages = sorted(page.stem for page in (DOCS / "reference").glob("kong.*.md"))
    return [f"reference/{name}" for name in (*pages, "types")]


def menu() -> list[tuple[str, list[str]]]:
    """The sections of index.md, each with the pages that it lists."""
    sections: list[tuple[str, list[str]]] = []
    for line in (DOCS / "index.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            sections.append((line[3:], []))
        elif line.startswith("- ") and sections:
            found = LINK.search(line)
            if found:
                page = (DOCS / found[2]).resolve()
                page = PAGES.get(page, page)
                sections[-1][1].append(page.relative_to(DOCS).with_suffix("").as_posix())
    listed = {name for _, names in sections for name in names} | set(children_of_pdk())
    for title, names in sections:
        folder = FOLDERS.get(title)
        if folder:
            pages = (f"{folder}/{page.stem}" for page in sorted((DOCS / folder).glob("*.md")))
            names += [name for name in pages if name not in listed]
    return [(title, names) for title, names in sections if names]


def toctree(names: list[str], caption: str = "") -> str:
    """A hidden table of contents, which makes the menu."""
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["", "```{toctree}", *options, "", *(f"/{name}" for name in names), "```", ""])


def on_read(app: Any, name: str, source: list[str]) -> None:
    """Add to a page what only the site needs."""
    page = DOCS / f"{name}.md"
    origin = borrowed(page) if name.startswith("project/") else None
    if origin is not None:
        app.env.note_dependency(str(origin))
        text = origin.read_text(encoding="utf-8")
        if origin.name == "CHANGELOG.md":
            text = with_pending()
        source[0] = relink(text, origin.parent, page.parent)
    else:
        source[0] = relink(source[0], page.parent, page.parent)
    if name == root_doc:
        source[0] += "".join(toctree(names, caption=title) for title, names in menu())
    elif name == PDK:
        source[0] += toctree(children_of_pdk())


def setup(app: Any) -> None:
    """Connect to Sphinx."""
    app.connect("source-read", on_read)

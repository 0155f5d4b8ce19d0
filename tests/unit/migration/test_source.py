"""What plugins rely on that is so in the published package only, found in their source."""

from __future__ import annotations

from pathlib import Path

import pytest

from kong_pdk.migration.source import CHANGE, LOOK, NOTE, Style, examine

#: One handler, by its body.
HANDLER = """
class Plugin:
    def __init__(self, config):
        self.count = 0
    def access(self, kong):
{body}
"""


def look(folder: Path, source: str, style: Style | None = None) -> dict[str, str]:
    """The findings' levels by their codes."""
    path = folder / "plugin.py"
    path.write_text(source)
    found = examine(str(path), "Plugin", style or Style()).findings
    return {one.code: one.level for one in found}


def handler(body: str, before: str = "") -> str:
    return before + HANDLER.format(body="\n".join(f"        {line}" for line in body.split("\n")))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("kong.response.exit(200)\nkong.log('x')", "after-exit"),
        ("if 1:\n    kong.response.error(400)\n    self.done()", "after-exit"),
        ("kong.response.exit(200)\nreturn", None),
        ("return kong.response.exit(200)", None),
        ("if 1:\n    kong.response.exit(200)\nkong.log('x')", None),
        ("host, err = kong.request.get_host()\nif err:\n    return", "error-used"),
        ("host, _ = kong.request.get_host()\nreturn host", None),
        ("self.count += 1", "state"),
        ("self.seen.append(1)", "state"),
        ("with self.lock:\n    self.count += 1", None),
        ("SEEN['x'] = 1", "state"),
        ("SEEN = {}\nSEEN['x'] = 1", None),
        ("global TOTAL\nTOTAL = 1", "state"),
        ("kong.ctx.shared['x'] = 1", None),
        ("raise ValueError()", "fails-closed"),
        ("try:\n    raise ValueError()\nexcept ValueError:\n    pass", None),
    ],
)
def test_handlers(tmp_path: Path, body: str, code: str | None) -> None:
    found = look(tmp_path, handler(body, "SEEN = {}\nTOTAL = 0\n"))
    assert found == ({code: LOOK} if code else {})


def test_a_plugin_that_says_what_its_failure_is_may_raise(tmp_path: Path) -> None:
    assert look(tmp_path, handler("raise ValueError()", 'on_error = "open"\n')) == {}


def test_errors_are_not_in_results_in_python_style(tmp_path: Path) -> None:
    source = handler("host, err = kong.request.get_host()\nreturn err")
    assert look(tmp_path, source, Style(lua_style=False)) == {}


def test_state_in_workers(tmp_path: Path) -> None:
    style = Style(multiprocessing=True)
    assert look(tmp_path, handler("self.count += 1"), style) == {"state": LOOK}
    assert look(tmp_path, handler("SEEN.add(1)", "SEEN = set()\n"), style) == {"state": NOTE}
    assert look(tmp_path, handler("with LOCK:\n    self.n = 1"), style) == {"state": LOOK}


def test_patching_where_gevent_does_it(tmp_path: Path) -> None:
    source = handler("pass", "from gevent import monkey\nmonkey.patch_all()\n")
    assert look(tmp_path, source, Style(gevent=True)) == {"monkey-patch": LOOK}
    assert look(tmp_path, source) == {}


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("import kong_pdk.pdk.kong as kong", None),
        ("from kong_pdk.pdk.kong import kong", None),
        ("from kong_pdk.exception import PDKException", None),
        ("from kong_pdk.cli import start_dedicated_server", None),
        ("from kong_pdk import __version__", None),
        ("from kong_pdk.listener import DEFAULT_SOCKET_NAME", CHANGE),
        ("import kong_pdk.module", CHANGE),
        ("from kong_pdk.server import PluginServer", CHANGE),
        ("from kong_pdk.logger import Logger", CHANGE),
        ("from kong_pdk.const import __version__", CHANGE),
        ("from kong_pdk.pdk import Kong", CHANGE),
        ("from kong_pdk.pdk.kong.request import request", CHANGE),
        ("from kong_pdk.cli import parse", CHANGE),
        ("import kong_pdk.server", LOOK),
        ("import kong_pdkx", None),
    ],
)
def test_imports(tmp_path: Path, line: str, level: str | None) -> None:
    found = look(tmp_path, handler("pass", f"{line}\n"))
    assert found == ({"private-import": level} if level else {})


def test_how_a_script_starts_its_server(tmp_path: Path) -> None:
    start = handler("pass", "Schema = ()\n") + "start_dedicated_server({})\n"
    assert look(tmp_path, start.format("'n', Plugin, '1.0.0', 1, Schema")) == {}
    assert look(tmp_path, start.format("'n', Plugin, schema=Schema")) == {}
    assert look(tmp_path, start.format("'n', Plugin, '1.0.0'")) == {"schema-taken": LOOK}
    assert look(tmp_path, start.format("'n', Plugin, _version='1.0.0', _schema=Schema")) == {}


def test_modules_beside_the_plugin_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("HITS = []\ndef hit():\n    HITS.append(1)\n")
    path = tmp_path / "plugin.py"
    path.write_text(handler("helper.hit()", "import helper\n"))
    found = examine(str(path), "Plugin", Style())
    helper = str(tmp_path / "helper.py")
    assert found.state == {helper: 3}
    assert [(one.path, one.line, one.code) for one in found.findings] == [(helper, 3, "state")]

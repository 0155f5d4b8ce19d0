"""What can be seen of a plugin's PDK calls in its source, and that nothing is seen that is not."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from kong_pdk.checking.calls import Analysis

ROOT = Path(__file__).resolve().parents[3]
HEAD = "import kong_pdk.pdk.kong as kong\n"
PYTHON = "import kong_pdk.pdk.python_style as kong\n"


def indented(body: str) -> str:
    return textwrap.indent(textwrap.dedent(body).strip("\n"), " " * 8)


def handler(body: str, phase: str = "access", head: str = HEAD) -> str:
    """A plugin with one handler."""
    return f"{head}class Plugin:\n    def {phase}(self, kong: kong.kong):\n{indented(body)}\n"


def found(folder: Path, source: str, **options: object) -> list[tuple[str, int]]:
    """Code and line of each finding."""
    path = folder / "plugin.py"
    path.write_text(source)
    return [(one.code, one.line) for one in Analysis(str(path), **options).run()]  # type: ignore[arg-type]


def texts(folder: Path, source: str, **options: object) -> str:
    path = folder / "plugin.py"
    path.write_text(source)
    return "\n".join(map(str, Analysis(str(path), **options).run()))  # type: ignore[arg-type]


# --- what is wrong --------------------------------------------------------------------------------

WRONG = {
    "kong.request.get_heder('x')": ("unknown-function", "did you mean kong.request.get_header"),
    "kong.reqest.get_header('x')": ("unknown-function", "did you mean kong.request"),
    "kong.cache.get('x')": ("unreachable-function", "Keep what is to be cached"),
    "kong.response.get_raw_body()": ("unreachable-function", "while it sends the body"),
    "kong.request()": ("unknown-function", "is no function: it has"),
    "kong.request.get_header.lower()": ("unknown-function", "is () missing"),
    "kong.request['x']": ("unknown-function", "has no values"),
    "kong.ctx.shared.user = 1": ("unknown-function", "write kong.ctx.shared['user']"),
    "print(kong.ctx.shared.user)": ("unknown-function", "values are kong.ctx.shared['user']"),
    "kong.nginx.var['x'] = 1": ("unknown-function", "only read"),
    "kong.service.response.get_status()": ("wrong-phase", "access phase, only in: response"),
    "kong.request.get_header()": ("wrong-arguments", "name is missing"),
    "kong.request.get_header('a', 'b')": ("wrong-arguments", "takes one argument, got 2"),
    "kong.request.get_header(nam='a')": ("wrong-arguments", "did you mean name"),
    "kong.request.get_header('a', name='b')": ("wrong-arguments", "given twice"),
    "kong.response.exit('401')": ("wrong-arguments", "status must be a number"),
    "kong.response.exit(42)": ("wrong-arguments", "between 100 and 599"),
    "kong.log.info()": ("wrong-arguments", "nothing to log"),
    "kong.log.info(text='x')": ("wrong-arguments", "no keyword arguments"),
    "r = kong.request\nr.get_heder('x')": ("unknown-function", "did you mean"),
    "get = kong.request.get_header\nget()": ("wrong-arguments", "name is missing"),
    "getattr(kong.request, 'get_heder')": ("unknown-function", "did you mean"),
    "(k := kong.request).get_heder('x')": ("unknown-function", "did you mean"),
    "def inner():\n    kong.cache.get('x')\ninner()": ("unreachable-function", "kong.cache"),
    "run(lambda: kong.request.get_heder('x'))": ("unknown-function", "did you mean"),
    "[kong.cache.get(x) for x in ()]": ("unreachable-function", "kong.cache"),
    "self.kong = kong": ("stored-kong", "requests share the object"),
    "self.log = kong.log": ("stored-kong", "kong.log is kept in self.log"),
    "try:\n    kong.response.exit(401)\nexcept:\n    pass": ("swallowed-exit", "catch Exception"),
    "try:\n    kong.response.exit(401)\nexcept BaseException:\n    x = 1": (
        "swallowed-exit", "catch Exception",
    ),
    "try:\n    kong.response.exit(401)\nfinally:\n    return": (
        "swallowed-exit", "return in finally",
    ),
    "import contextlib\nwith contextlib.suppress(BaseException):\n    kong.response.exit(401)": (
        "swallowed-exit", "swallows what kong.response.exit",
    ),
}  # fmt: skip


@pytest.mark.parametrize("body", WRONG)
def test_what_is_wrong_is_found(tmp_path: Path, body: str) -> None:
    code, text = WRONG[body]
    said = texts(tmp_path, handler(body))
    assert f"[{code}]" in said
    assert text in said


def test_a_finding_has_its_place(tmp_path: Path) -> None:
    source = handler("x = 1\nkong.request.get_heder('x')")
    (tmp_path / "plugin.py").write_text(source)
    (one,) = Analysis(str(tmp_path / "plugin.py")).run()
    assert (one.path, one.line, one.column) == (str(tmp_path / "plugin.py"), 5, 9)
    assert one.as_dict()["level"] == "error"


PAIRS = [
    "if not kong.request.get_header('x'):\n    kong.response.exit(401)",
    "x = kong.request.get_header('x')\nif x:\n    pass",
    "x = kong.request.get_header('x') or ''",
    "x = 'a' if kong.request.get_header('x') else 'b'",
    "kong.request.get_header('x').lower()",
    "x = kong.request.get_header('x')\nx.lower()",
    "kong.request.get_headers()['x']",
    "x = kong.request.get_port() == 200",
    "x = kong.request.get_method() in ('GET', 'HEAD')",
    "x = 'a' in kong.request.get_path()",
    "kong.response.set_header('x', kong.request.get_method())",
    "kong.response.set_header('x', f'{kong.request.get_method()}')",
    "x = int(kong.request.get_header('x'))",
    "for x in kong.request.get_headers():\n    pass",
    "x = 'a' + kong.request.get_path()",
    "a, b, c = kong.request.get_path()",
    "while kong.request.get_header('x'):\n    pass",
    "assert kong.request.get_header('x')",
]


@pytest.mark.parametrize("body", PAIRS)
def test_a_pair_that_is_taken_for_data(tmp_path: Path, body: str) -> None:
    assert {code for code, _ in found(tmp_path, handler(body))} == {"tuple-as-value"}
    # Of the other style it is right, but for what unpacks.
    assert found(tmp_path, handler(body, head=PYTHON)) == []
    assert found(tmp_path, handler(body, head=""), lua_style=False) == []


def test_a_plugin_of_which_nobody_knows_the_style(tmp_path: Path) -> None:
    body = "a = kong.request.get_path() or ''\nb = kong.request.get_method() or ''"
    source = handler(body, head="").replace(": kong.kong", "")
    assert [code for code, _ in found(tmp_path, source)] == ["tuple-as-value"]
    said = texts(tmp_path, source)
    assert "1 other place." in said and "--python-style" in said
    body += "\nc, _ = kong.request.get_host()"  # which tells
    source = handler(body, head="").replace(": kong.kong", "")
    assert [code for code, _ in found(tmp_path, source)] == ["tuple-as-value"] * 2


def test_a_pair_in_python_style(tmp_path: Path) -> None:
    source = handler("data, err = kong.request.get_path()", head=PYTHON)
    assert found(tmp_path, source) == [("tuple-as-value", 4)]
    assert "returns the data alone" in texts(tmp_path, source)


# --- where calls come from ------------------------------------------------------------------------

FOLLOWED = """
import kong_pdk.pdk.kong as pdk
from kong_pdk.pdk import helpers

class Auth:
    def __init__(self, config): pass
    def check(self, kong):
        kong.client.get_consumer()

class Base:
    def shared(self, kong):
        kong.service.response.get_status()
    def access(self, kong):
        self.tell(kong, "x")

class Plugin(Base):
    def __init__(self, config):
        self.auth = Auth(config)
    def rewrite(self, kong):
        self.auth.check(kong)
    def access(self, kong):
        super().access(kong)
        outside(1, pdk=kong)
        self.shared(kong)
    def response(self, kong):
        self.shared(kong)
    def log(self, kong):
        self.tell(kong.response, 7)
        helpers.json_body(kong)
        Plugin.tell(self, kong.response)
    def tell(self, k, *rest):
        k.set_header("x", "y")
    def unused(self, kong):
        kong.cache.get()

def outside(x, pdk):
    pdk.service.response.get_header("x")
    if x:
        outside(x - 1, pdk)
"""


def test_calls_are_followed_into_methods_functions_and_classes(tmp_path: Path) -> None:
    said = texts(tmp_path, FOLLOWED).replace(str(tmp_path), "")
    assert [line.partition(" error: ")[2] for line in said.splitlines()] == [
        "kong.client.get_consumer cannot be called in the rewrite phase, only in: access, response,"
        " log (check is reached from rewrite) [wrong-phase]",
        "kong.service.response.get_status cannot be called in the access phase, only in: response, "
        "log (shared is reached from access) [wrong-phase]",
        "kong.request.get_raw_body cannot be called in the log phase, only in: rewrite, access, "
        "response (made by helpers.json_body) [wrong-phase]",
        "there is no kong.set_header in Kong's PDK; did you mean kong.request.get_header or "
        "kong.response.set_header or kong.response.get_header? [unknown-function]",
        "kong.response.set_header cannot be called in the log phase, only in: rewrite, access, "
        "response (tell is reached from log) [wrong-phase]",
        "kong.service.response.get_header cannot be called in the access phase, only in: response, "
        "log (outside is reached from access) [wrong-phase]",
    ]


def test_a_package_and_what_lies_beside_a_plugin(tmp_path: Path) -> None:
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("from .handler import Plugin\n")
    (package / "handler.py").write_text(
        "from . import work\nfrom .work import look\nimport mine.more\nfrom mine.more import far\n"
        "class Plugin:\n"
        "    def access(self, kong):\n"
        "        work.look(kong)\n        look(kong)\n        far(kong)\n"
    )
    (package / "work.py").write_text("def look(kong):\n    kong.cache.get()\n")
    (package / "more.py").write_text("def far(kong):\n    kong.request.get_heder('x')\n")
    for path in (package / "__init__.py", package / "handler.py"):
        seen = [(Path(one.path).name, one.line) for one in Analysis(str(path)).run()]
        assert seen == [("more.py", 2), ("work.py", 2)]


def test_a_release_that_does_not_know_a_function(tmp_path: Path) -> None:
    source = handler("kong.telemetry.log('a', {})")
    assert ("newer-function", 4) not in found(tmp_path, source)
    assert ("newer-function", 4) in found(tmp_path, source, kong_version=(3, 4))


def test_the_module_of_types_is_not_the_pdk(tmp_path: Path) -> None:
    source = HEAD + (
        "def tell():\n    kong.log.info('x')\n"
        "class Plugin:\n    def access(self, pdk: kong.kong):\n"
        "        tell()\n        kong.log.info('x')\n"
    )
    assert found(tmp_path, source) == [("unknown-function", 3), ("unknown-function", 7)]
    assert "is the module of the PDK's types" in texts(tmp_path, source)


# --- what is right, or not certain ----------------------------------------------------------------

RIGHT = {
    "data, err = kong.request.get_header('x')\nif not data:\n    kong.response.exit(401)",
    "x = kong.request.get_header('x')\nif x:\n    pass\ny = x[0]",
    "x = kong.request.get_header('x')\na, b = x\nassert x",
    "x = kong.request.get_header('x')[0]\nx.lower()",
    "x = kong.request.get_header('x')\nx = x[0]\nif x:\n    pass",
    "return kong.request.get_header('x')",
    "kong.log.info(kong.request.get_headers())",
    "kong.log.info(f'{kong.request.get_headers()}')",
    "kong = object()\nkong.request.nothing()",
    "r = kong.request\nr = make()\nr.nothing()",
    "for r in (kong.request,):\n    r.nothing()",
    "kong = kong or make()\nkong.nothing()",
    "call(kong)",
    "getattr(kong.request, 'nothing', None)",
    "getattr(kong.request, self.name)()",
    "kong.request.get_header(*self.args)",
    "kong.response.exit(**self.args)",
    "kong.response.exit(self.status, {'a': self.x}, {'x-a': self.x, 'x-b': None})",
    "kong.response.exit(403, None, {'x-why': 'closed'})",
    "kong.response.set_header('x', 5)",
    "kong.response.set_headers({'x': ['a', 'b']})",
    "kong.log('plain')",
    "kong.log.info('a', 1, None)",
    "kong.ctx.shared['a'] = 1\ndel kong.ctx.shared['a']\n'a' in kong.ctx.shared",
    "kong.ctx.shared.set('a', None)",
    "kong.nginx.var['request_id']",
    "kong.__class__",
    "try:\n    kong.response.exit(401)\nexcept Exception:\n    pass",
    "try:\n    kong.response.exit(401)\nexcept BaseException:\n    raise",
    "try:\n    kong.request.get_path()\nexcept:\n    pass",
    "try:\n    kong.request.new_function()\nexcept AttributeError:\n    pass",
    "class Inner:\n    def f(self):\n        kong.nothing()",
    "self.path = kong.request.get_path()[0]",
    "def run(kong):\n    kong.nothing()\nrun(object())",
    "global kong_of_all\nkong_of_all = 1",
    "import json as r\nr.dumps({})",
    "kong = kong",
    "x: int = 5\nx += 1\n(y := x)\nprint(y)",
    "async def later():\n    kong.request.get_path()",
}


@pytest.mark.parametrize("body", sorted(RIGHT))
def test_what_is_right_or_not_certain_is_passed_over(tmp_path: Path, body: str) -> None:
    assert found(tmp_path, handler(body)) == []


def test_recursion_and_depth_end(tmp_path: Path) -> None:
    names = range(60)
    chain = "".join(f"def f{n}(kong):\n    f{(n + 1) % 60}(kong)\n    f0(kong)\n" for n in names)
    source = f"{HEAD}{chain}" + handler("f0(kong)", head="")
    assert found(tmp_path, source) == []


def test_a_class_that_is_made_at_run_time_is_passed_over(tmp_path: Path) -> None:
    assert found(tmp_path, "Plugin = type('Plugin', (), {})\n") == []


PLUGINS = [
    *(ROOT / "examples").rglob("*.py"),
    *(ROOT / "benchmarks/plugins").glob("*.py"),
    *(ROOT / "tests/integration/plugins").glob("*.py"),
    *(ROOT / "soak").rglob("*plugin*.py"),
]


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.name)
def test_the_projects_own_plugins_are_right(path: Path) -> None:
    assert "Plugin" in path.read_text() or "soak" in path.parts or "examples" in path.parts
    assert [str(one) for one in Analysis(str(path)).run()] == []


@pytest.mark.parametrize("path", sorted((ROOT / "tests/e2e/plugins").glob("*.py")), ids=str)
def test_those_of_the_end_to_end_tests_in_python_style(path: Path) -> None:
    assert [str(one) for one in Analysis(str(path), lua_style=False).run()] == []

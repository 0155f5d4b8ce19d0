"""The examples of the reference: each is run by a real server, as a plugin in ``kong-pdk try``."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from servers import Flavour, Server, directory_command, running, short_directory

from kong_pdk.gateway import (
    Call,
    Exchange,
    Headers,
    PhaseRun,
    Request,
    Response,
    ServiceRequest,
    call,
)
from kong_pdk.gateway.driver import drive
from kong_pdk.gateway.plugin import PluginInfo
from kong_pdk.gateway.rpc import PluginClient
from kong_pdk.pdk._table import FUNCTIONS
from kong_pdk.pdk.functions import PHASES

pytestmark = pytest.mark.modes("threads")
ONE_CODEC = True

PAGES = Path(__file__).resolve().parents[2] / "docs" / "reference"
LIMIT = 20.0  # seconds for one request
WIDTH = 84
_UNKNOWN = "the PDK has no function called "

SPECS = {spec.name: spec for spec in FUNCTIONS}

_HEADING = re.compile(r"^## (kong\S*)$", re.MULTILINE)
_EXAMPLE = re.compile(r"^In `(\w+)`:\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """An example of a page: the function that it is about, its phase, and the handler's body."""

    name: str
    phase: str
    code: str


def collect(page: str) -> Iterator[Example]:
    """Yield the examples of a page, each with the function under whose heading it stands."""
    _, *parts = _HEADING.split(page)
    for name, text in zip(parts[::2], parts[1::2]):
        for phase, code in _EXAMPLE.findall(text):
            yield Example(name, phase, code)


TEXTS = [path.read_text(encoding="utf-8") for path in sorted(PAGES.glob("kong*.md"))]
EXAMPLES = [example for text in TEXTS for example in collect(text)]

#: Examples that must be found wanting, and what is said of them.
WRONG = {
    "raises": (
        Example("kong.request.get_host", "access", "kong.request.get_host().lower()\n"),
        "AttributeError",
    ),
    "raises in log": (
        Example("kong.log.serialize", "log", "kong.log.serialize()[2]\n"), "IndexError",
    ),
    "misspelt": (
        Example("kong.request.get_host", "access", "kong.request.get_hots()\n"),
        "there is no kong.request.get_hots",
    ),
    "not called": (
        Example("kong.request.get_host", "access", "host = 'example.com'\n"),
        "kong.request.get_host is not called",
    ),
    "wrong phase": (
        Example("kong.response.get_status", "rewrite", "kong.response.get_status()\n"),
        "PhaseError",
    ),
    "wrong argument": (
        Example("kong.ip.is_trusted", "preread", "kong.ip.is_trusted(1)\n"), "ArgumentError",
    ),
    "gives up": (
        Example("kong.log", "access", "kong.log('bye')\nraise SystemExit\n"), "SystemExit",
    ),
}  # fmt: skip

ALL = EXAMPLES + [example for example, _ in WRONG.values()]

_PLUGIN = '''\
"""The examples of the reference. Each instance runs the one that its configuration names."""

import traceback

from kong_pdk.exception import HandlerExit

version = "1.0.0"
priority = 1
Schema = ({{"example": {{"type": "integer", "required": True}}}},)

{functions}

def run(self, kong):
    try:
        globals()[f"example_{{self.config['example']}}"](self, kong)
    except HandlerExit:  # the answer has been given
        raise
    except BaseException:
        kong.ctx.shared.set("failure", traceback.format_exc())


class Plugin:
    def __init__(self, config):
        self.config = config

    {methods} = run
'''


def plugin_source(examples: list[Example]) -> str:
    """Return a plugin with all the examples."""
    functions = [
        f"def example_{index}(self, kong):  # {example.name}\n"
        + textwrap.indent(example.code, "    ")
        for index, example in enumerate(examples)
    ]
    return _PLUGIN.format(functions="\n\n".join(functions), methods=" = ".join(PHASES))


# --- requests that give the examples something to do ----------------------------------------------

CONSUMER = {
    "id": "b7a3b5de-7c43-4a3c-9f0d-1f0c8c1c8a11", "username": "guest", "custom_id": "g1",
}  # fmt: skip

#: What the environment of Kong holds.
SECRETS = {"DB_USER": "orders", "DB_PASSWORD": "secret", "SERVICE_TOKEN": "token"}

#: What the plugin's configuration holds, beside what the examples take if it does not.
CONFIG = {"password": "{vault://env/db-password}"}

#: What the service must answer, for examples that ask for it.
STATUSES = {"kong.response.set_status": 204, "kong.vault.flush": 401}


def rich_exchange() -> Exchange:
    """A request that has all that the examples look for."""
    lines = [
        ("Host", "shop.example.com:8000"),
        ("Content-Type", "application/json"),
        ("Accept", "application/json"),
        ("Cookie", "seen=1"),
        ("X-User", "guest"),
        ("X-Beta", "1"),
        ("X-Debug", "1"),
        ("X-Plain", "1"),
        ("X-Region", "eu"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-Internal-Id", "1"),
        ("X-Forwarded-For", "9.9.9.9"),
        ("X-Forwarded-Host", "public.example.com:444"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Prefix", "/shop"),
        ("X-Real-IP", "9.9.9.9:5555"),
    ]
    return Exchange(
        request=Request(
            method="POST",
            target="/reports/%61/..//2024?page=1&page=2&debug&token=abc&version=2",
            headers=Headers(lines),
            body=b'{"order": 1}',
        ),
        client_port=5000,
        trusted_ips=("127.0.0.0/8",),
        consumers=(CONSUMER,),
        consumer=CONSUMER,
        credential={"id": "c1", "consumer": {"id": CONSUMER["id"]}},
        captures={"named": {"user": "ann"}, "unnamed": {0: "/reports", 1: "ann"}},
        plugin_id="0f0d1f0c-7c43-4a3c-9f0d-8c1c8a11b7a3",
        route={"id": "r1", "name": "reports", "protocols": ["http", "https"]},
        service_entity={"id": "s1", "name": "orders", "tags": ["internal"]},
    )


def rich_response(status: int) -> Response:
    lines = [
        ("Content-Type", "application/json"),
        ("Server", "orders/1.0"),
        ("X-Powered-By", "Python"),
        ("X-Debug-Id", "5"),
        ("X-Version", "7"),
    ]
    return Response(status, Headers(lines), b'{"user": "ann", "password": "secret"}')


def bare_exchange() -> Exchange:
    """A request with nothing in it, for which nothing is set up."""
    return Exchange(request=Request(version=1.0))


def bare_response(status: int) -> Response:
    return Response(status)


# --- running them ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Runner:
    """Runs examples in one server, each as an instance of its own."""

    socket: Path

    def run(self, index: int, exchange: Exchange, answer: Response, **config: str) -> list[str]:
        """Run an example in a request, and return what was wrong with that."""
        example = ALL[index]
        settings = json.dumps({**config, "example": index})
        life = self._life(settings, example.phase, exchange, answer)
        return problems(example, exchange, asyncio.run(life))

    async def _life(self, settings: str, phase: str, exchange: Exchange, answer: Response) -> int:
        """Run the phase of a request; returns how often the server has failed."""
        info = PluginInfo("reference", "1.0.0", 1, PHASES)
        client = PluginClient(self.socket, info, settings)  # Python 3.9 wants a running loop here

        async def upstream(request: ServiceRequest, buffered: bool) -> Response:
            return answer

        async def send(response: Response) -> None:
            pass

        async def live() -> None:
            if phase in ("certificate", "preread"):  # before there is an HTTP request
                exchange.phase, exchange.tls = phase, phase == "certificate"
                exchange.runs.append(PhaseRun(phase))
                await client.run_phase(exchange, phase)
            else:
                await drive(exchange, (phase,), client.run_phase, upstream, send)

        try:
            await asyncio.wait_for(live(), LIMIT)
        finally:
            client.close()
        return client.failures


def problems(example: Example, exchange: Exchange, failures: int) -> list[str]:
    """Return what went wrong in a request; a call that was not made may be none of that."""
    found = []
    spec = SPECS[example.name]
    # The gateway is a Kong without Enterprise.
    expected = {spec.name} if spec.since == "Enterprise" else set()
    unknown = {
        line.message.rpartition(" ")[2] for line in exchange.logs if _UNKNOWN in line.message
    }
    if unknown != expected:
        found.append(f"the gateway does not know {unknown}, and should not know {expected}")
    if exchange.aborted is not None:
        found.append(f"{exchange.aborted} was aborted: {exchange.logs[-1].message}")
    if "failure" in exchange.shared:
        found.append(str(exchange.shared["failure"]))
    if failures:
        found.append(f"the server has failed: {exchange.logs[-1].message}")
    if [run.name for run in exchange.runs] != [example.phase]:
        found.append(f"{example.phase} was not run")
    return found


def not_called(example: Example, exchange: Exchange) -> list[str]:
    """Return what is wrong if the function of an example was not called."""
    called = {call.function for run in exchange.runs for call in run.calls}
    return [] if example.name in called else [f"{example.name} is not called, but {called}"]


@pytest.fixture(scope="module")
def server(flavour: Flavour, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "reference.py").write_text(plugin_source(ALL), encoding="utf-8")
    with short_directory() as prefix:
        command = directory_command(folder, prefix, *flavour.flags)
        with running(command, prefix, env=flavour.env) as server:
            yield server


@pytest.fixture
def runner(server: Server) -> Runner:
    return Runner(Path(server.paths[0]))


def test_every_function_has_one_example() -> None:
    headings = [name for text in TEXTS for name in _HEADING.findall(text)]
    assert [example.name for example in EXAMPLES] == headings
    assert sorted(headings) == sorted(SPECS)
    for example in EXAMPLES:
        assert example.phase in SPECS[example.name].phases, example


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_can_be_read_anywhere(example: Example) -> None:
    """By Python 3.9, and on a page without scrolling."""
    ast.parse(example.code, feature_version=(3, 9))
    assert max(map(len, example.code.splitlines())) <= WIDTH


@pytest.mark.parametrize("index", range(len(EXAMPLES)), ids=[each.name for each in EXAMPLES])
def test_an_example_works(runner: Runner, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    exchange, example = rich_exchange(), ALL[index]
    answer = rich_response(STATUSES.get(example.name, 200))
    found = runner.run(index, exchange, answer, **CONFIG)
    assert not found + not_called(example, exchange), example.code


@pytest.mark.parametrize("index", range(len(EXAMPLES)), ids=[each.name for each in EXAMPLES])
def test_an_example_takes_what_is_missing(runner: Runner, index: int) -> None:
    """No header, no body, no route, and a service that has failed."""
    assert not runner.run(index, bare_exchange(), bare_response(502)), EXAMPLES[index].code


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_example_is_noticed(runner: Runner, case: str) -> None:
    example, expected = WRONG[case]
    exchange = rich_exchange()
    found = runner.run(ALL.index(example), exchange, rich_response(200))
    assert expected in "\n".join(found + not_called(example, exchange))


def test_an_aborted_phase_is_noticed() -> None:
    example = EXAMPLES[0]
    made = Call(example.phase, example.name, [])
    exchange = Exchange(phase=example.phase, runs=[PhaseRun(example.phase, calls=[made])])
    assert not problems(example, exchange, 0) + not_called(example, exchange)
    exchange.abort("refused")
    (problem,) = problems(example, exchange, 0)
    assert "aborted: refused" in problem


def test_a_function_that_the_gateway_does_not_have_is_noticed() -> None:
    example = EXAMPLES[0]
    exchange = Exchange(phase=example.phase, runs=[PhaseRun(example.phase)])
    call(exchange, "kong.request.get_hots", [])
    (problem,) = problems(example, exchange, 0)
    assert "does not know {'kong.request.get_hots'}" in problem

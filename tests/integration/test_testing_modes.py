"""The harness over the real socket: the same test in each mode, and the ends of its processes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import pytest

from kong_pdk.exception import PluginError
from kong_pdk.gateway.errors import ServerFailed
from kong_pdk.schema import schema_of
from kong_pdk.testing import MODES, Gateway, ModeUnavailable

Schema = ({"message": {"type": "string", "default": "hello"}},)
version = "2.0.0"


class Guard:
    """A plugin that is defined in the file of its tests."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def access(self, kong: Any) -> None:
        key, _ = kong.request.get_header("x-key")
        kong.ctx.shared.set("pid", os.getpid())
        if key is None:
            kong.response.exit(401, {"message": "no key"}, {"X-Plugin": self.config["message"]})
        if key == "raise":
            raise ValueError("boom")
        if key == "ip":
            kong.client.get_ip()
        kong.service.request.set_header("X-Key-Was", key)

    def response(self, kong: Any) -> None:
        body, _ = kong.service.response.get_raw_body()
        kong.response.set_header("X-Length", str(len(body)))

    def log(self, kong: Any) -> None:
        kong.log.notice("done")


@dataclass
class Limits:
    """A configuration with types."""

    most: int = 10
    names: Optional[list[str]] = None


class Typed:
    """Gets an object, and has a Schema made of it."""

    def __init__(self, config: Limits) -> None:
        self.config = config

    def access(self, kong: Any) -> None:
        kong.response.set_header("X-Config", repr(self.config))


class Styled:
    """Raises in Python's style."""

    def __init__(self, config: Any) -> None:
        pass

    def access(self, kong: Any) -> None:
        kong.response.set_header("X-Path", kong.request.get_path())


def make(mode: str, **settings: Any) -> Gateway:
    try:
        return Gateway(Guard, {"message": "hi"}, mode=mode, **settings)
    except ModeUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=MODES)
def gateway(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    with make(request.param) as gateway:
        yield gateway


def test_the_life_of_a_request(gateway: Gateway) -> None:
    gateway.respond(200, body=b"\xff\x00bytes")
    result = gateway.get("/", headers={"X-Key": "caf\udce9"})
    assert (result.status, result.body) == (200, b"\xff\x00bytes")
    assert result.headers["x-length"] == "7"
    assert result.service_request is not None
    assert result.service_request.headers["x-key-was"] == "caf\udce9"
    assert result.messages("notice") == ["done"]
    assert result.phases == ("access", "response", "log")
    assert result.functions == [
        "kong.request.get_header",
        "kong.ctx.shared.set",
        "kong.service.request.set_header",
        "kong.service.response.get_raw_body",
        "kong.response.set_header",
        "kong.log.notice",
    ]
    assert (result.shared["pid"] == os.getpid()) == (gateway.mode == "in-process")


def test_an_end_in_the_plugin(gateway: Gateway) -> None:
    result = gateway.get()
    assert (result.status, result.ended, result.source) == (401, "access", "exit")
    assert result.headers["x-plugin"] == "hi"
    assert result.phases == ("access", "log")


def test_a_handler_that_raises(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    result = gateway.get(headers={"X-Key": "raise"})
    assert (result.status, result.ended) == (500, "access")
    assert result.failures == [("access", "ValueError: boom")]
    assert "ValueError: boom" in caplog.text


def test_a_function_that_fails_ends_the_phase_at_once(gateway: Gateway) -> None:
    with gateway.fake("kong.client.get_ip", raises="no address"):
        begun = time.monotonic()
        result = gateway.get(headers={"X-Key": "ip"})
        taken = time.monotonic() - begun
    assert (result.status, result.ended, result.source) == (500, "access", "error")
    assert result.messages("err") == ["kong.client.get_ip: no address"]
    assert result.failures == []
    assert taken < 5  # no time-out has been waited for


def test_what_a_fake_raises_comes_out(gateway: Gateway) -> None:
    def wrong(exchange: Any) -> Any:
        pytest.fail("not this")

    with gateway.fake("kong.client.get_ip", calls=wrong):  # noqa: SIM117
        with pytest.raises(pytest.fail.Exception, match="not this"):
            gateway.get(headers={"X-Key": "ip"})
    assert gateway.get(headers={"X-Key": "ip"}).status == 200


def test_one_phase_only(gateway: Gateway) -> None:
    assert gateway.run("log").functions == ["kong.log.notice"]


@pytest.mark.parametrize("mode", ["in-process", "threads"])
def test_settings_of_the_server(mode: str) -> None:
    with Gateway(Styled, mode=mode, python_style=True) as gateway:
        assert gateway.get("/a/b").headers["x-path"] == "/a/b"
    with make(mode, on_error="open") as gateway:
        result = gateway.get(headers={"X-Key": "raise"})
    assert (result.status, result.failures) == (200, [("access", "ValueError: boom")])


@pytest.mark.parametrize("mode", ["in-process", "threads"])
def test_a_typed_configuration(mode: str) -> None:
    with Gateway(Typed, {"names": ["a"]}, schema=schema_of(Limits), mode=mode) as gateway:
        assert gateway.config == {"most": 10, "names": ["a"]}
        assert gateway.get().headers["x-config"] == "Limits(most=10, names=['a'])"


def test_servers_are_shared_between_tests() -> None:
    pids = set()
    for _ in range(2):
        with make("threads") as gateway:
            pids.add(gateway.get(headers={"X-Key": "k"}).shared["pid"])
    assert len(pids) == 1


def test_gateways_in_several_threads() -> None:
    """They share one server, also if none is there yet; and so do their requests."""

    def work(number: int) -> tuple[Any, Any]:
        with make("threads", on_error="open", python_style=False) as gateway:
            result = gateway.get(headers={"X-Key": f"k{number}"})
            assert result.service_request is not None
            return result.shared["pid"], result.service_request.headers["x-key-was"]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(24)))
    assert len({pid for pid, _ in found}) == 1
    assert [key for _, key in found] == [f"k{number}" for number in range(24)]


def test_a_server_gets_the_environment_of_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    with make("threads") as gateway:
        first = gateway.get(headers={"X-Key": "k"}).shared["pid"]
        monkeypatch.setenv("KONG_PDK_TESTS_OWN", "1")
        with make("threads") as other:
            assert other.get(headers={"X-Key": "k"}).shared["pid"] != first


def test_a_class_that_cannot_be_imported() -> None:
    class Inner(Guard):
        pass

    with pytest.raises(PluginError, match=r"cannot import the class .*<locals>\.Inner: define it"):
        Gateway(Inner, mode="threads")


def test_a_file_that_cannot_be_loaded_there(tmp_path: Path) -> None:
    (tmp_path / "once.py").write_text(
        "import os, pathlib\n"
        f"if os.getpid() != {os.getpid()}:\n"
        "    raise RuntimeError('only in the tests')\n"
        "version, priority = '1.0.0', 1\n"
        "class Plugin:\n"
        "    def access(self, kong): pass\n"
    )
    with pytest.raises(ServerFailed, match="only in the tests"):
        Gateway(tmp_path / "once.py", mode="threads")


PLUGIN = """
version, priority = "1.0.0", 1
class Plugin:
    def __init__(self, config): self.config = config
    def access(self, kong): kong.response.set_header("X-Where", __name__)
    def close(self): open(self.config["file"], "w").close()
"""


def test_a_file_and_the_close_of_its_object(tmp_path: Path) -> None:
    plugin = tmp_path / "my-plugin.py"
    plugin.write_text(PLUGIN + 'Schema = ({"file": {"type": "string"}},)\n')
    for mode in ("in-process", "threads"):
        file = tmp_path / mode
        with Gateway(plugin, {"file": str(file)}, mode=mode) as gateway:
            assert gateway.get().status == 200
            assert not file.exists()
        deadline = time.monotonic() + 20
        while not file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)


SCRIPT = """
import os, signal, sys
from pathlib import Path
from kong_pdk.testing import Gateway
from kong_pdk.testing import live
gateway = Gateway(sys.argv[1], {{"file": "/dev/null"}}, mode=sys.argv[2])
gateway.get()
(server,) = live._servers._servers.values()
print(server.process.pid, server.folder, flush=True)
{end}
"""


@pytest.mark.parametrize("mode", ["threads", "multiprocessing"])
@pytest.mark.parametrize("end", ["pass", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_servers_end_with_the_tests(tmp_path: Path, mode: str, end: str) -> None:
    """Also if nobody has closed anything, and if the tests are killed."""
    plugin = tmp_path / "plugin.py"
    plugin.write_text(PLUGIN + 'Schema = ({"file": {"type": "string"}},)\n')
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(end=end))
    done = subprocess.run(
        [sys.executable, str(script), str(plugin), mode],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    pid, folder = done.stdout.split()
    deadline = time.monotonic() + 20
    while _is_there(int(pid)) or Path(folder).exists():
        assert time.monotonic() < deadline, "the server is still there, or its folder"
        time.sleep(0.05)


def _is_there(group: int) -> bool:
    """Whether a process of the group lives that the server leads."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False


def test_lines_of_the_server_have_their_level(caplog: pytest.LogCaptureFixture) -> None:
    with make("threads") as gateway, caplog.at_level(logging.ERROR, "kong_pdk.testing.server"):
        gateway.get(headers={"X-Key": "raise"})
    said = [record for record in caplog.records if record.name == "kong_pdk.testing.server"]
    (line,) = (record for record in said if "access raised ValueError" in record.message)
    assert line.levelno == logging.ERROR
    after = said[said.index(line) + 1]
    assert (after.levelno, after.message) == (logging.ERROR, "Traceback (most recent call last):")


SCRIPTED = """\
from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Optional

from kong_pdk.schema import field, schema_of


@dataclass
class Config:
    name: Optional[str] = field("somebody")
    closed: str = field("")


Schema = schema_of(Config)


class Plugin:
    def __init__(self, config: Config) -> None:
        self.config = config

    def access(self, kong):
        kong.response.set_header("X-Name", repr(self.config.name))

    def close(self):
        time.sleep(0.2)  # longer than the answer to CloseInstance takes
        with open(self.config.closed, "a") as file:
            file.write("closed\\n")


if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server

    start_dedicated_server("scripted", Plugin, "1.0.0", 1)
"""


@pytest.mark.parametrize("mode", MODES)
def test_a_script_has_its_own_configuration_and_is_closed(mode: str, tmp_path: Path) -> None:
    """A field that is set to nothing stays so, and close() has run when the gateway is closed."""
    path, closed = tmp_path / "scripted.py", tmp_path / "closed"
    path.write_text(SCRIPTED)
    with Gateway(path, {"name": None, "closed": str(closed)}, mode=mode) as gateway:
        assert gateway.get().headers["X-Name"] == "None"
    assert set(closed.read_text().splitlines()) == {"closed"}
    with Gateway(path, {"closed": str(closed)}, mode=mode) as gateway:
        assert gateway.get().headers["X-Name"] == "'somebody'"

"""Settings for Kong: what they are in each release, and that each form says the same."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import yaml
from kongsettings import from_environment, plugin_servers, read_conf, read_exports

from kong_pdk.exception import ConfigError
from kong_pdk.kongconf import formats
from kong_pdk.kongconf.releases import KNOWN, Release, release
from kong_pdk.kongconf.settings import Server, Settings, settings

ODD = "/srv/it's a #1 $HOME/päth"


def server(*names: str, socket: str = "s.socket", start: tuple[str, ...] = ("/bin/s",)) -> Server:
    queries = {name: (*start, "--one", name) for name in names}
    return Server(queries, (*start, "--all"), start, socket, ("-g",))


def read(made: Settings) -> dict[str, str]:
    """The settings as Kong reads them, after all forms have been seen to say the same."""
    found = read_conf(formats.conf(made))
    assert from_environment(read_exports(formats.env(made))) == found
    document: dict[str, Any] = yaml.safe_load(formats.compose(made, [], ["kong-pdk"]))
    environment = {
        name: value.replace("$$", "$")
        for name, value in document["services"]["kong"]["environment"].items()
        if name.startswith("KONG_PLUGIN")
    }
    assert from_environment(environment) == found
    return found


# --- releases -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", KNOWN)
def test_all_known_releases(version: tuple[int, int]) -> None:
    text = ".".join(map(str, version))
    for each in (text, f"{text}.1", f"{text}.0.2", f" {text} ", f"{text}.x"):
        assert release(each) == Release(version)
    assert str(release(text)) == text


def test_a_newer_release_is_taken_for_the_newest_and_said_to_be() -> None:
    made = settings([server("a")], release("3.12.0.1"))
    assert made.release == Release((3, 12), newer=True)
    assert "newer than what is known" in formats.conf(made).splitlines()[1]
    assert release() == Release(KNOWN[-1])


@pytest.mark.parametrize("text", ["2.7", "1", "4.0", "", "three", "3", "3.9-rc", "2.9", "latest"])
def test_a_release_that_is_not_known(text: str) -> None:
    with pytest.raises(ConfigError, match=r"2\.8, 3\.0, .*3\.9, 3\.10"):
        release(text)


# --- entries --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.8", "3.4", "3.8"])
def test_all_of_a_query_are_registered_before_3_9(version: str) -> None:
    found = read(settings([server("a", "b")], release(version)))
    (one,) = plugin_servers(found)
    assert one == ("python", "/usr/local/kong/s.socket", "/bin/s -g", "/bin/s --all")
    assert found["plugins"] == "bundled,a,b"


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.11"])
def test_each_plugin_has_an_entry_from_3_9_on(version: str) -> None:
    made = settings([server("a", "b-c")], release(version))
    socket = "/usr/local/kong/s.socket"
    assert list(plugin_servers(read(made))) == [
        ("a", socket, "/bin/s -g", "/bin/s --one a"),
        ("b-c", socket, None, "/bin/s --one b-c"),  # the server is there already
    ]
    assert "the first one starts it" in formats.conf(made)


@pytest.mark.parametrize("version", ["2.8", "3.10"])
def test_one_plugin_alone(version: str) -> None:
    (one,) = plugin_servers(read(settings([server("my-plugin")], release(version))))
    assert (one.name, one.query) == ("my-plugin", "/bin/s --one my-plugin")


@pytest.mark.parametrize("version", ["3.4", "3.10"])
def test_a_prefix_is_told_to_the_server(version: str) -> None:
    made = settings([server("a")], release(version), "/run/my kong")
    (one,) = plugin_servers(read(made))
    assert one.socket == "/run/my kong/s.socket"
    assert shlex.split(one.start or "") == ["/bin/s", "--kong-prefix", "/run/my kong", "-g"]


def test_names_as_kong_takes_them() -> None:
    names = ("my-plugin", "my_plugin", "My-Plugin", "Other")
    found = read(settings([server(name, socket=name) for name in names], release()))
    entries = list(plugin_servers(found))
    assert [one.socket.rpartition("/")[2] for one in entries] == list(names)
    assert [one.query for one in entries] == [f"/bin/s --one {name}" for name in names]
    assert found["plugins"] == "bundled,my-plugin,my_plugin,My-Plugin,Other"


def test_two_plugins_of_one_name() -> None:
    with pytest.raises(ConfigError, match="two plugins are called 'a'"):
        settings([server("a"), server("a", socket="t")], release())


def test_a_socket_whose_path_is_too_long() -> None:
    with pytest.raises(ConfigError, match="107 bytes"):
        settings([server("a")], release(), "/" + "x" * 100)


def test_a_name_of_kongs_own() -> None:
    assert "rename yours" in formats.conf(settings([server("jwt")], release("2.8")))
    assert "rename yours" in formats.conf(settings([server("redirect")], release("3.9")))
    assert "rename yours" not in formats.conf(settings([server("redirect")], release("3.8")))


# --- forms ----------------------------------------------------------------------------------------


def test_odd_characters_come_through_each_form() -> None:
    (one,) = plugin_servers(read(settings([server("a", start=(ODD,))], release(), ODD)))
    assert shlex.split(one.start or "") == [ODD, "--kong-prefix", ODD, "-g"]
    assert one.socket == f"{ODD}/s.socket"


@pytest.mark.parametrize("version", KNOWN)
def test_the_compose_form(version: tuple[int, int]) -> None:
    kong = Release(version)
    mounts = [formats.Mount(ODD, "/opt/kong-plugins")]
    text = formats.compose(settings([server("a")], kong), mounts, ["kong-pdk>=1", "other"])
    service = yaml.safe_load(text)["services"]["kong"]
    assert service["volumes"] == [
        {
            "type": "bind",
            "source": ODD.replace("$", "$$"),
            "target": "/opt/kong-plugins",
            "read_only": True,
        }
    ]
    assert service["environment"]["KONG_DATABASE"] == "off"
    # This machine alone gets to the Admin API, which listens where the published port leads.
    assert "127.0.0.1:8001:8001" in service["ports"]
    assert service["environment"]["KONG_ADMIN_LISTEN"] == "0.0.0.0:8001"
    lines = service["build"]["dockerfile_inline"].splitlines()
    image = "kong" if version < (3, 10) else "kong/kong-gateway"
    assert lines[0] == f"FROM {image}:{kong}-ubuntu"
    assert [line for line in lines if line.startswith("USER")] == ["USER root", "USER kong"]
    # One command over several lines: a shell can read it.
    (run,) = "\n".join(lines[2:-1]).replace("\\\n", "").splitlines()
    assert shlex.split(run)[0] == "RUN"
    assert "pip install --no-cache-dir 'kong-pdk>=1' other" in run

"""kong.conf and the environment, as Kong's loader takes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kong_pdk.exception import ConfigError
from kong_pdk.kongconf.reading import (
    Configuration,
    overlay,
    parse,
    plugin_servers,
    read_file,
    read_variables,
    unread_keys,
)
from kong_pdk.kongconf.releases import release

NEW, OLD = release("3.10"), release("3.1")


def value(text: str, key: str = "k", version: str = "3.10") -> str:
    found = parse(text, release(version)).settings
    return found[key].value


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("k = v", "v"),
        ("  k=v  ", "v"),
        ("k = a = b", "a = b"),
        ("k = v # said", "v"),
        ("k = v#said", "v"),
        (r"k = a\#b # said", "a#b"),
        ("k = #", ""),
        ("k =", ""),
        ('k = "v"', '"v"'),
        ("k = 'a b'", "'a b'"),
        ("# k = v\n; k = w\nk = x", "x"),
        ("k = 1\nk = 2", "2"),
        ("k = one \\\n  two", "one   two"),
        ("k = one \\\n# said\n\n two", "one  two"),
        ("k = v\r\n", "v"),
    ],
)
def test_values(text: str, wanted: str) -> None:
    assert value(text) == wanted


def test_a_comment_took_the_character_before_it_up_to_kong_3_1() -> None:
    for version, plain, spaced in (("3.1", "ab", "a"), ("3.2", "abc", "a")):
        assert value("k = abc#d", version=version) == plain
        assert value("k = a #d", version=version) == spaced
    assert value("k = #d", version="3.1") == "#d"


def test_a_keys_dashes_are_underscores_and_lines_are_known() -> None:
    found = parse("\npluginserver_my-own_socket = /s\n", NEW, "/etc/k").settings
    assert found["pluginserver_my_own_socket"].origin == "/etc/k:2"


def test_what_kong_does_not_see_is_said() -> None:
    conf = parse(
        "pluginserver_names = My-Own\npluginserver_My_Own_socket = /s\n"
        "pluginserver_lost_query_cmd = q\nnonsense\n[part]\nprefix = /p\n",
        NEW, "f",
    )  # fmt: skip
    assert "prefix" not in conf.settings
    assert [note.split(":")[1] for note in conf.notes] == ["4", "5"]
    said = unread_keys(conf, plugin_servers(conf, NEW))
    assert said[0].startswith("f:2: Kong looks for pluginserver_my_own_socket")
    assert "no entry" in said[1] and len(said) == 2


def test_the_environment_is_above_the_file() -> None:
    conf = parse("prefix = /one\npluginserver_names = a\n", NEW)
    above = overlay(
        conf,
        {
            "KONG_PREFIX": "/two",
            "kong_plugins": "x",
            "Kong_Pluginserver_A_Socket": "/s",
            "KONG": "",
        },
    )
    assert (conf.prefix, above.prefix) == ("/one", "/two")
    assert above.settings["prefix"].origin == "KONG_PREFIX"
    assert "plugins" not in above.settings
    assert above.notes == ["Kong_Pluginserver_A_Socket: Kong reads KONG_PLUGINSERVER_A_SOCKET only"]
    assert overlay(conf, {"KONG_PLUGINSERVER_NAMES": ""}).items("pluginserver_names") == []


def test_defaults_differ_by_release(tmp_path: Path) -> None:
    for name in ("a-b", "query_a-b"):
        (tmp_path / name).touch()
    conf = parse("prefix = /p/\npluginserver_names = A-b, , c,a-b\n", NEW)
    new = plugin_servers(conf, NEW, str(tmp_path))
    old = plugin_servers(conf, OLD, str(tmp_path))
    assert [each.name for each in new] == ["a-b", "c"] and new[0].key == "pluginserver_a_b"
    assert new[0].socket.value == "/p/a-b.socket"
    assert old[0].socket.value == "/usr/local/kong/a-b.socket"
    assert new[0].start and new[0].start.value == f"{tmp_path}/a-b" and not new[0].start.origin
    assert new[0].query and new[0].query.value == f"{tmp_path}/a-b -dump"
    assert old[0].query and old[0].query.value == f"{tmp_path}/query_a-b"
    assert new[1].start is None and new[1].query is None


def test_vaults_are_told_from_values() -> None:
    conf = parse("prefix = {vault://env/p}\nplugins = v\n", NEW)
    assert conf.settings["prefix"].is_reference and not conf.settings["plugins"].is_reference


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none: No such file"):
        read_file(str(tmp_path / "none"), NEW)
    (tmp_path / "binary").write_bytes(b"\x7fELF\0")
    with pytest.raises(ConfigError, match="binary"):
        read_file(str(tmp_path / "binary"), NEW)
    (tmp_path / "env").write_text("nothing\n")
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        read_variables(str(tmp_path / "env"))
    (tmp_path / "env").write_text("export KONG_PREFIX=/p\nA=b=c\n")
    assert read_variables(str(tmp_path / "env")) == {"KONG_PREFIX": "/p", "A": "b=c"}
    (tmp_path / "env").write_text('declare -x A="b c"\nexport B=\'d\'\nC="e" f\nD=""\n')
    assert read_variables(str(tmp_path / "env")) == {"A": "b c", "B": "d", "C": '"e" f', "D": ""}
    assert Configuration().prefix == "/usr/local/kong"

"""What flags say about users, groups and permissions."""

from __future__ import annotations

import grp
import os
import pwd

import pytest

from kong_pdk.accounts import MAX_ID, find_group, find_user, find_users, read_mode
from kong_pdk.exception import ConfigError


def test_names_and_numbers() -> None:
    user, group = pwd.getpwuid(0), grp.getgrgid(0)
    assert find_user("--x", user.pw_name) == find_user("--x", "0") == 0
    assert find_group("--x", group.gr_name) == find_group("--x", "0") == 0
    # A number needs no entry: containers rarely have them.
    assert find_user("--x", str(MAX_ID)) == find_group("--x", f"000{MAX_ID}") == MAX_ID
    assert find_user("--x", str(os.getuid())) == os.getuid()


@pytest.mark.parametrize(
    "text", ["no-such-name", "", " ", "-1", "1.5", "0x10", "\0", "\udcff", "²"]
)
def test_what_is_nobody(text: str) -> None:
    for find, kind in ((find_user, "user"), (find_group, "group")):
        with pytest.raises(ConfigError, match=rf"^--x: there is no {kind} .* on this system: name"):
            find("--x", text)


@pytest.mark.parametrize("text", [str(MAX_ID + 1), "9" * 11, "9" * 10_000])
def test_numbers_that_mean_something_else_to_the_system(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--x: a user's number is at most {MAX_ID}, got \d"):
        find_user("--x", text)


def test_lists_of_users() -> None:
    root = pwd.getpwuid(0).pw_name
    assert find_users("--x", [f"{root}, 5", "7", "5"]) == {0, 5, 7}
    for given in ([""], ["5,"], ["5", ""], ["5,,7"]):
        with pytest.raises(ConfigError, match="there is no user ''"):
            find_users("--x", given)


@pytest.mark.parametrize(
    ("text", "mode"),
    [("660", 0o660), ("0660", 0o660), ("0o600", 0o600), ("0", 0), ("777", 0o777), ("00007", 7)],
)
def test_permissions(text: str, mode: int) -> None:
    assert read_mode("--x", text) == mode


@pytest.mark.parametrize(
    "text", ["", "8", "0x1f", "1000", "4755", "-660", "rw-", "6 6", "66\n", "٦"]
)
def test_what_are_no_permissions(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--x must be permissions in octal"):
        read_mode("--x", text)

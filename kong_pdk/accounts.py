"""Users, groups and permissions as command lines name them."""

from __future__ import annotations

import grp
import pwd
import re
from collections.abc import Sequence
from typing import Callable

from .exception import ConfigError

#: The largest id; the one after it means "leave it as it is" to the system.
MAX_ID = 2**32 - 2


def find_user(flag: str, text: str) -> int:
    """A user's id.

    Args:
        flag: where the text comes from, for errors.
        text: a name of this system, or a number.

    Raises:
        ConfigError: there is no such user.
    """
    return _find(flag, text, "user", lambda name: pwd.getpwnam(name).pw_uid)


def find_group(flag: str, text: str) -> int:
    """A group's id; as :func:`find_user`."""
    return _find(flag, text, "group", lambda name: grp.getgrnam(name).gr_gid)


def find_users(flag: str, texts: Sequence[str]) -> frozenset[int]:
    """The ids of users, of which each text names one, or several between commas.

    Raises:
        ConfigError: there is no such user.
    """
    names = (name.strip() for text in texts for name in text.split(","))
    return frozenset(find_user(flag, name) for name in names)


def read_mode(flag: str, text: str) -> int:
    """Permissions, which are written in octal as for chmod.

    Raises:
        ConfigError: they are not.
    """
    if re.fullmatch("(0o)?0*[0-7]{1,3}", text, re.ASCII) is None:
        raise ConfigError(
            f"{flag} must be permissions in octal, 000 to 777, such as 660, got {text!r}"
        )
    return int(text, 8)


def _find(flag: str, text: str, kind: str, look_up: Callable[[str], int]) -> int:
    if text.isascii() and text.isdigit():
        # Python does not read numbers of some thousand digits.
        if len(text.lstrip("0")) > len(str(MAX_ID)) or int(text[-10:]) > MAX_ID:
            raise ConfigError(f"{flag}: a {kind}'s number is at most {MAX_ID}, got {text[:20]}")
        return int(text[-10:])
    try:
        return look_up(text)
    except (KeyError, ValueError) as exc:  # ValueError: a zero byte, or no UTF-8
        raise ConfigError(
            f"{flag}: there is no {kind} {text!r} on this system: name one that is, or give its "
            f"number"
        ) from exc

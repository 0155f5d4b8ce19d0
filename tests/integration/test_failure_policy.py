"""A request whose plugin fails is refused, unless the server or the plugin says otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
from failures import failure
from kongwire import Kong, RemoteError
from servers import SERVER, Server, Start, run_command

ONE_CODEC = True

PLUGIN = """
version = "1.0.0"
priority = 1
{own}

class Plugin:
    {inner}

    def __init__(self, config):
        pass

    def access(self, kong):
        raise ValueError("oops")
"""


def server_with(
    start: Start, tmp_path: Path, own: str = "", inner: str = "pass", *flags: str
) -> Server:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "mine.py").write_text(PLUGIN.format(own=own, inner=inner))
    return start(*flags, plugins=folder)


def goes_on(kong: Kong) -> bool:
    """Whether Kong proxies the request of a failing handler: it does after an error."""
    instance = kong.start_instance("mine", {})
    with kong.connect() as connection:
        try:
            first = connection.handle_event(instance)
        except RemoteError as exc:
            assert "ValueError: oops" in str(exc)
            return True
        assert first.function == "kong.log.err"
        assert "ValueError: oops" in first.args[0]
        second = connection.step(first.event_id)
        assert (second.function, second.args[0]) == ("kong.response.exit", 500)
        assert "oops" not in str(second.args)
        return False


@pytest.mark.parametrize(
    ("own", "inner", "flags", "open_"),
    [
        ("", "pass", (), False),
        ("", "pass", ("--on-error", "closed"), False),
        ("", "pass", ("--on-error", "open"), True),
        ('on_error = "open"', "pass", (), True),
        ("", 'on_error = "open"', (), True),
        ('on_error = "closed"', "pass", ("--on-error", "open"), False),
        ('on_error = "open"', 'on_error = "closed"', ("--on-error", "open"), False),
    ],
)
def test_the_policy(
    start: Start, tmp_path: Path, own: str, inner: str, flags: tuple[str, ...], open_: bool
) -> None:
    with server_with(start, tmp_path, own, inner, *flags).kong() as kong:
        assert goes_on(kong) is open_


@pytest.mark.parametrize("policy", ['"ajar"', "True", "None", "[]"])
def test_a_policy_that_is_none(tmp_path: Path, policy: str) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN.format(own=f"on_error = {policy}", inner="pass"))
    done = run_command(SERVER, "-d", str(tmp_path), "--dump-all-plugins")
    assert done.returncode == 1
    assert "mine.py" in done.stderr and "on_error must be one of closed, open" in done.stderr


def test_a_failure_in_log_has_nobody_to_refuse(kong: Kong) -> None:
    instance = kong.start_author("def log(self, kong):\n    raise ValueError('oops')\n")
    with kong.connect() as connection:
        assert "ValueError: oops" in failure(connection, instance, "log")

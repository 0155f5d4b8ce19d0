"""PDK calls and requests as they may be shown: without what is, by its name, a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .exchange import Call

#: Stands for a value.
REDACTED = "REDACTED"

# What names a secret: headers, query arguments, fields of bodies and entities, keys of contexts.
_SECRET = re.compile(
    r"authorization|cookie|password|passwd|passphrase|secret|credential|signature|jwt"
    r"|api[-_]?key|access[-_]?key|private[-_]?key|client[-_]?key|(?:^|[-_])key$"
    r"|(?:^|[-_])token$|session(?:[-_]?id)?$",
    re.IGNORECASE,
)
# A name, as opposed to a text that happens to hold one of the words above.
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,80}\Z")
# A value that says itself what it is.
_SCHEME = re.compile(r"\b(Bearer|Basic|Digest|Negotiate)\s+\S+", re.IGNORECASE)
_ARGUMENT = re.compile(r"(?<=[?&])([^=&]+)=([^&]*)")
#: Functions whose results are secrets whatever their names say.
_SECRET_RESULTS = frozenset(("kong.vault.get", "kong.vault.update"))
#: Functions whose first argument is a text, not the name of what the others hold.
_TEXTS = ("kong.log", "kong.vault", "kong.response.exit", "kong.response.error")


def is_secret(name: object) -> bool:
    """Say whether what goes by this name is likely to be a secret."""
    return isinstance(name, str) and bool(_NAME.match(name)) and bool(_SECRET.search(name))


def redact(value: Any) -> Any:
    """Return a value without the secrets that are in it.

    Values of maps go by their keys; a text that begins like an ``Authorization`` header, or is a
    path with a query, loses what is secret in it.

    Args:
        value: an argument or a result of a PDK call.
    """
    if isinstance(value, Mapping):
        return {key: REDACTED if is_secret(key) else redact(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item) for item in value]
    if isinstance(value, str):
        return redact_target(_SCHEME.sub(rf"\1 {REDACTED}", value))
    return value


def redact_target(target: str) -> str:
    """Return a path and query whose arguments with the name of a secret have no value."""

    def hide(found: re.Match[str]) -> str:
        return f"{found[1]}={REDACTED}" if is_secret(found[1]) else found[0]

    return _ARGUMENT.sub(hide, target)


def redact_call(call: Call) -> tuple[list[Any], Any]:
    """Return the arguments and the result of a PDK call without what is secret.

    The first argument of ``kong.request.get_header`` and its like names what the others hold and
    what comes back.
    """
    args, result = list(call.args), call.result
    named = bool(args) and is_secret(_subject(args[0])) and not call.function.startswith(_TEXTS)
    if named:
        args[1:] = [REDACTED] * (len(args) - 1)
    if result is not None and (named or call.function in _SECRET_RESULTS):
        result = REDACTED
    if call.function == "kong.client.get_credential" and isinstance(result, Mapping):
        result = _only_ids(result)
    if call.function == "kong.client.authenticate" and len(args) > 1:
        args[1] = _only_ids(args[1]) if isinstance(args[1], Mapping) else args[1]
    return redact(args), redact(result)


def _subject(name: Any) -> Any:
    """Return what an nginx variable is about: that of ``http_x`` is the header ``x``."""
    for prefix in ("http_", "arg_", "sent_http_", "cookie_"):
        if isinstance(name, str) and name.startswith(prefix):
            return "cookie" if prefix == "cookie_" else name[len(prefix) :]
    return name


def _only_ids(credential: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return a credential with the values that tell whose it is, and no other."""
    shown = ("id", "consumer", "consumer_id", "created_at", "username", "name", "tags")
    return {key: item if key in shown else REDACTED for key, item in credential.items()}

#!/usr/bin/env python3
"""Lets requests with a good JSON Web Token through, and tells the service whose they are.

The token is checked by PyJWT, against what is configured and nothing else: the key, the algorithms,
the issuer, the audience. What the token says of itself, such as its ``alg`` or a ``jku``, decides
nothing. The claims that the service wants to know are sent to it as headers. A client cannot fill
in such a header by itself: a token without the claim is refused, and lines that only look like the
header to the service (``x_user_id``) are removed. The credential of the request becomes the
subject, so that Kong's own plugins can count or log by it.

PDK round trips:

- a good token, 4: request.get_headers, client.authenticate, service.request.clear_header,
  service.request.set_headers
- a good token that the service gets too, 3: request.get_headers, client.authenticate,
  service.request.set_headers
- no token, 2: request.get_headers, response.exit
- a bad token, 3: request.get_headers, log.info, response.exit

All headers are asked for at once, because the token and the forged headers are both among them,
and all are set at once. Each forged header costs one more call, which only a forger has to wait
for. The line in the log, for whoever wonders why a token is refused, costs nothing with
``--kong-log-level notice``.

Fails closed. A bad token is a 401, any other error a 500 (``on_error`` below says so, whatever the
server is told), and a key that does not fit the algorithms is an error when the instance is
started, of which all requests get a 500. Of what a token has wrong the client learns no more than
whether it has expired.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn, Optional, Union

import jwt

import kong_pdk.pdk.kong as kong
from kong_pdk.schema import field, schema_of

version = "1.0.0"
priority = 1005
on_error = "closed"

Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
    "ES384", "EdDSA",
]  # fmt: skip
#: The shortest secrets that are safe, in bytes (RFC 7518, section 3.2).
SECRETS = {"HS256": 32, "HS384": 48, "HS512": 64}
#: What services believe to come from Kong.
OURS = (
    "x-consumer-id", "x-consumer-username", "x-consumer-custom-id", "x-credential-identifier",
    "x-anonymous-consumer",
)  # fmt: skip
#: RFC 6750, section 2.1.
BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*) *", re.IGNORECASE)
#: Kong gives no more headers than that; behind so many others a forged one could hide.
MOST_HEADERS = 1000


@dataclass
class Config:
    #: The secret of HS256 and its like; else a public key in PEM, or a JWK Set as JSON.
    key: Annotated[str, field(referenceable=True, encrypted=True)]
    issuer: str
    audience: str
    algorithms: list[Algorithm] = field(["HS256"], len_min=1)
    #: How many seconds the clocks of issuer and gateway may differ.
    leeway: int = field(0, between=(0, 300))
    #: Which claim the service gets in which header.
    headers: dict[str, str] = field({"sub": "X-Credential-Identifier"})
    #: Whether the service gets the token too.
    forward_token: bool = False
    realm: str = field("api", match="^[%w ._-]+$")


Schema = schema_of(Config)


class Refused(Exception):
    """The token is not accepted: what the client may know of it, and what the log."""

    def __init__(self, told: str, reason: str) -> None:
        super().__init__(reason)
        self.told = told


class Plugin:
    def __init__(self, config: Config) -> None:
        self.config = config
        self.keys = keys_of(config)
        self.guarded = {normal(name) for name in (*OURS, *config.headers.values())}

    def access(self, kong: kong.kong) -> None:
        headers, _ = kong.request.get_headers(MOST_HEADERS)
        if sum(map(len, headers.values())) >= MOST_HEADERS:
            kong.response.exit(431, {"message": "too many headers"})
        if "authorization" not in headers:
            self.challenge(kong, "a bearer token is needed")
        try:
            claims = self.verify(headers["authorization"])
            ours = {name: header_value(claims, each) for each, name in self.config.headers.items()}
        except Refused as refused:
            kong.log.info("jwt-guard: ", refused)
            self.challenge(kong, refused.told, error="invalid_token")
        kong.client.authenticate(None, {"id": claims["sub"]})
        for name in self.forged(headers):
            kong.service.request.clear_header(name)
        if not self.config.forward_token:
            kong.service.request.clear_header("authorization")
        kong.service.request.set_headers(ours)

    def verify(self, authorization: list[str]) -> dict[str, Any]:
        """The claims of the token in the header's lines; raises Refused."""
        found = BEARER.fullmatch(authorization[0]) if len(authorization) == 1 else None
        if found is None:
            raise Refused("the token is not valid", "Authorization is no single bearer token")
        token = found[1]
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self.key_for(token),
                algorithms=self.config.algorithms,
                issuer=self.config.issuer,
                audience=self.config.audience,
                leeway=self.config.leeway,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise Refused("the token has expired", str(error)) from error
        except Exception as error:  # PyJWT has its own, but anybody may send anything
            raise Refused("the token is not valid", f"{type(error).__name__}: {error}") from error
        return claims

    def key_for(self, token: str) -> Any:
        """The key that the token's ``kid`` names; one that is alone needs no name."""
        if len(self.keys) == 1:
            return next(iter(self.keys.values()))
        return self.keys[jwt.get_unverified_header(token)["kid"]]

    def forged(self, headers: dict[str, list[str]]) -> list[str]:
        """The headers that a service may take for ours, and that setting ours does not replace."""
        replaced = {name.lower() for name in self.config.headers.values()}
        return [name for name in headers if normal(name) in self.guarded and name not in replaced]

    def challenge(self, kong: kong.kong, message: str, error: str = "") -> NoReturn:
        """Answer with 401 and what RFC 6750, section 3, wants to be said with it."""
        value = f'Bearer realm="{self.config.realm}"'
        if error:
            value += f', error="{error}", error_description="{message}"'
        kong.response.exit(401, {"message": message}, {"WWW-Authenticate": value})


def keys_of(config: Config) -> dict[Optional[str], Any]:
    """The keys by their ``kid``; raises an error for one that does not fit the algorithms."""
    secrets = [name for name in config.algorithms if name in SECRETS]
    if secrets:
        if len(secrets) != len(config.algorithms):
            # A public key that is taken for a secret is a secret that everybody knows.
            raise ValueError("algorithms: those with a secret and those with a public key together")
        needed = max(SECRETS[name] for name in secrets)
        if len(config.key.encode()) < needed:
            raise ValueError(f"key: a secret for {', '.join(secrets)} has {needed} bytes or more")
        keys: dict[Optional[str], Any] = {None: config.key}
    elif config.key.lstrip().startswith("{"):
        found = jwt.PyJWKSet.from_json(config.key).keys
        keys = {each.key_id: each.key for each in found if each.key_type != "oct"}
        if not keys or len(keys) != len(found):
            raise ValueError("key: each key of the set must be a public one, with a kid of its own")
    else:
        keys = {None: config.key}
    for name in config.algorithms:
        keys = {kid: jwt.get_algorithm_by_name(name).prepare_key(key) for kid, key in keys.items()}
    return keys


def header_value(claims: dict[str, Any], name: str) -> Union[str, list[str]]:
    """A claim as a header: text, a whole number, or a list of them, one line for each."""
    claim = claims.get(name)
    values: list[Any] = claim if isinstance(claim, list) else [claim]
    texts = [str(value) if type(value) is int else value for value in values]
    # What people may choose by themselves, such as their names, must not end the line.
    if not texts or not all(isinstance(each, str) and is_printable(each) for each in texts):
        raise Refused("the token is not valid", f"its claim {name} is missing, or fits no header")
    return texts[0] if len(texts) == 1 else texts


def is_printable(text: str) -> bool:
    return text != "" and text.isprintable()


def normal(name: str) -> str:
    """A header's name as a service may read it: WSGI and CGI make all dashes underscores."""
    return name.lower().replace("_", "-")


if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server

    start_dedicated_server("jwt-guard", Plugin, version, priority, Schema)

"""What the examples say of their round trips, in the README and in their own text, is so."""

from __future__ import annotations

import ast
import itertools
import re
import time
from pathlib import Path
from typing import Any, Callable, NamedTuple

import jwt
import pytest

from kong_pdk.testing import Gateway, Result

EXAMPLES = Path(__file__).parents[2] / "examples"
Make = Callable[..., Gateway]


class Claim(NamedTuple):
    """The calls that an example claims to make for a request; those of a phase stand together."""

    example: str
    request: str
    number: int
    phases: list[list[str]]


def claims_of_the_readme() -> list[Claim]:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8").partition("## Round trips")[2]
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \| ([0-9]+) \| (.+) \|$", text, re.MULTILINE)
    return [
        Claim(example, request, int(number), split(calls.replace("`", "")))
        for example, request, number, calls in rows
    ]


def claims_of_the_files() -> list[Claim]:
    claims = []
    for path in EXAMPLES.glob("*.py"):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        items = text.partition("PDK round trips:\n\n- ")[2].partition("\n\n")[0].split("\n- ")
        for item in items:
            found = re.fullmatch(r"(.+), ([0-9]+): (.+)", " ".join(item.split()))
            assert found is not None, f"{path.name}: {item!r}"
            claims.append(Claim(path.stem, found[1], int(found[2]), split(found[3])))
    return claims


def split(calls: str) -> list[list[str]]:
    return [[f"kong.{name}" for name in phase.split(", ")] for phase in calls.split("; ")]


def made(result: Result) -> list[list[str]]:
    """The calls of a request, by phase, in the form of a claim; empty phases are left out."""
    phases: dict[str, list[str]] = {}
    for call in result.calls:
        phases.setdefault(call.phase, []).append(call.function)
    return list(phases.values())


numbers = itertools.count()

# --- the requests ---------------------------------------------------------------------------------

SECRET = "a secret of at least thirty-two bytes"
JWT = {"key": SECRET, "issuer": "i", "audience": "a"}
LIMIT = {"limit": 1, "window": 3600}
CHAT = {"messages": [{"role": "user", "content": "hello"}]}
#: Of "secret".
DIGEST = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def good_token() -> dict[str, str]:
    claims = {"sub": "alice", "iss": "i", "aud": "a", "exp": time.time() + 3600}
    return bearer(jwt.encode(claims, SECRET))


class World(NamedTuple):
    """What a request may need."""

    make: Make
    endpoint: Any
    closed_port: int

    def answering(self, example: str, config: Any, body: str, kind: str) -> Result:
        """A request whose service answers with a body of some type."""
        gateway = self.gateway(example, config)
        gateway.respond(headers={"Content-Type": kind}, body=body)
        return gateway.get("/", headers=bearer("t"))

    def prompt(self, flagged: bool, **options: Any) -> Result:
        result = {"flagged": flagged, "categories": {}}
        self.endpoint.answer_json({"results": [result]})
        gateway = self.gateway("prompt-guard", {"url": self.endpoint.url})
        return gateway.post("/", **options)

    def failing(self, example: str, config: dict[str, Any]) -> Result:
        return self.gateway(example, config).post("/", json=CHAT)

    def gateway(self, example: str, config: Any = None, **options: Any) -> Gateway:
        if example == "rate-limit":  # each request is the first one of its count
            config = {**config, "name": f"round-trips-{next(numbers)}"}
        return self.make(EXAMPLES / f"{example}.py", config, **options)


def over_the_limit(world: World) -> Result:
    gateway = world.gateway("rate-limit", LIMIT)
    assert gateway.get("/").status == 200
    return gateway.get("/")


REQUESTS: dict[tuple[str, str], Callable[[World], Result]] = {
    ("jwt-guard", "a good token"): lambda world: world.gateway("jwt-guard", JWT).get(
        "/", headers=good_token()
    ),
    ("jwt-guard", "a good token that the service gets too"): lambda world: world.gateway(
        "jwt-guard", {**JWT, "forward_token": True}
    ).get("/", headers=good_token()),
    ("jwt-guard", "no token"): lambda world: world.gateway("jwt-guard", JWT).get("/"),
    ("jwt-guard", "a bad token"): lambda world: world.gateway("jwt-guard", JWT).get(
        "/", headers=bearer("x")
    ),
    ("rate-limit", "by address"): lambda world: world.gateway("rate-limit", LIMIT).get("/"),
    ("rate-limit", "by consumer"): lambda world: world.gateway(
        "rate-limit", {**LIMIT, "by": "consumer"}, consumer={"username": "a"}
    ).get("/"),
    ("rate-limit", "by credential"): lambda world: world.gateway(
        "rate-limit", {**LIMIT, "by": "credential"}, credential={"id": "a"}
    ).get("/"),
    ("rate-limit", "by header"): lambda world: world.gateway(
        "rate-limit", {**LIMIT, "by": "header"}
    ).get("/", headers={"X-Api-Key": "k"}),
    ("rate-limit", "by header without it"): lambda world: world.gateway(
        "rate-limit", {**LIMIT, "by": "header"}
    ).get("/"),
    ("rate-limit", "without headers"): lambda world: world.gateway(
        "rate-limit", {**LIMIT, "hide_headers": True}
    ).get("/"),
    ("rate-limit", "over the limit"): over_the_limit,
    ("rate-limit", "Redis fails and that is tolerated"): lambda world: world.failing(
        "rate-limit", {**LIMIT, "redis_url": f"redis://127.0.0.1:{world.closed_port}"}
    ),
    ("rate-limit", "Redis fails and that is not tolerated"): lambda world: world.failing(
        "rate-limit",
        {
            **LIMIT,
            "redis_url": f"redis://127.0.0.1:{world.closed_port}",
            "fault_tolerant": False,
        },
    ),
    ("transform-response", "no JSON"): lambda world: world.answering(
        "transform-response", {"remove": ["a"]}, "a", "text/plain"
    ),
    ("transform-response", "JSON without such fields"): lambda world: world.answering(
        "transform-response", {"remove": ["a"]}, '{"b": 1}', "application/json"
    ),
    ("transform-response", "JSON with such fields"): lambda world: world.answering(
        "transform-response", {"remove": ["a"]}, '{"a": 1}', "application/json"
    ),
    ("transform-response", "JSON that cannot be read"): lambda world: world.answering(
        "transform-response", {"remove": ["a"]}, '{"a": ', "application/json"
    ),
    ("request-log", "a request"): lambda world: world.gateway(
        "request-log", {"url": world.endpoint.url}
    ).get("/"),
    ("badge", "a badge"): lambda world: world.gateway("badge").get("/?value=1"),
    ("badge", "a badge that is wrong"): lambda world: world.gateway("badge").get("/"),
    ("prompt-guard", "a good prompt"): lambda world: world.prompt(False, json=CHAT),
    ("prompt-guard", "a bad prompt"): lambda world: world.prompt(True, json=CHAT),
    ("prompt-guard", "no prompt"): lambda world: world.prompt(False, json={}),
    ("prompt-guard", "the endpoint fails and that closes"): lambda world: world.failing(
        "prompt-guard", {"url": f"http://127.0.0.1:{world.closed_port}"}
    ),
    ("prompt-guard", "the endpoint fails and that opens"): lambda world: world.failing(
        "prompt-guard",
        {"url": f"http://127.0.0.1:{world.closed_port}", "on_failure": "open"},
    ),
    ("trace-context", "a traced request"): lambda world: world.gateway("trace-context").get("/"),
    ("trace-context", "a request that does not show it"): lambda world: world.gateway(
        "trace-context", {"response_header": None}
    ).get("/"),
    ("py-hello", "a request"): lambda world: world.gateway("py-hello").get("/"),
    ("py-audit", "a known client"): lambda world: world.gateway("py-audit", {"keys": ["k"]}).get(
        "/", headers={"X-Api-Key": "k"}
    ),
    ("py-audit", "an unknown client"): lambda world: world.gateway("py-audit", {"keys": ["k"]}).get(
        "/"
    ),
    ("py-orders", "an order"): lambda world: world.answering(
        "py-orders", {"tokens": ["t"]}, '{"password": 1}', "application/json"
    ),
    ("py-orders", "no token"): lambda world: world.gateway("py-orders").post("/"),
    ("py-orders", "no JSON"): lambda world: world.gateway("py-orders", {"tokens": ["t"]}).post(
        "/", headers=bearer("t"), body="{"
    ),
    ("py-token", "a known token"): lambda world: world.gateway(
        "py-token", {"users": {"alice": DIGEST}}, python_style=True
    ).get("/", headers=bearer("secret")),
    ("py-token", "an unknown token"): lambda world: world.gateway(
        "py-token", {"users": {"alice": DIGEST}}, python_style=True
    ).get("/", headers=bearer("other")),
}

CLAIMS = claims_of_the_readme()


def test_the_readme_and_the_files_say_the_same() -> None:
    assert sorted(CLAIMS) == sorted(claims_of_the_files())


def test_each_claim_is_looked_at() -> None:
    assert [(claim.example, claim.request) for claim in CLAIMS] == list(REQUESTS)
    assert {claim.example for claim in CLAIMS} == {path.stem for path in EXAMPLES.glob("*.py")}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.example}: {claim.request}")
def test_the_round_trips(kong_gateway: Make, endpoint: Any, closed_port: int, claim: Claim) -> None:
    world = World(kong_gateway, endpoint, closed_port)
    result = REQUESTS[claim.example, claim.request](world)
    assert result.failures == []
    assert made(result) == claim.phases
    assert result.round_trips == claim.number


def test_the_readme_lists_all_examples() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(.+?)\]\((.+?)\)", text, re.MULTILINE)
    assert sorted(listed) == sorted((path.stem, path.name) for path in EXAMPLES.glob("*.py"))

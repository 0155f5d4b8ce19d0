"""examples/prompt-guard.py: no prompt gets through unchecked, and checks do not wait in line."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

import pytest

from kong_pdk.testing import Gateway, Result

GUARD = "examples/prompt-guard.py"
GOOD = {"results": [{"flagged": False, "categories": {"violence": False}}]}
BAD = {
    "results": [
        {"flagged": True, "categories": {"violence": True, "hate": False, "self-harm": True}}
    ]
}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "How do bees fly?"}]}
Make = Callable[..., Gateway]


@pytest.fixture
def guard(kong_gateway: Make, endpoint: Any) -> Gateway:
    endpoint.answer_json(GOOD)
    return kong_gateway(GUARD, {"url": endpoint.url, "api_key": "k", "timeout": 30})


def is_let_through(result: Result, body: Any) -> bool:
    assert (result.status, result.failures) == (200, []), result
    return result.service_request is not None and json.loads(result.service_request.body) == body


@pytest.mark.kong_modes("all")
def test_as_many_are_checked_at_once_as_are_asked(kong_gateway: Make, endpoint: Any) -> None:
    """The endpoint answers nobody before all have asked: none may wait for another's answer."""
    together = 12
    everybody = threading.Barrier(together)

    def answer(body: bytes) -> tuple[int, bytes]:
        everybody.wait(30)
        return 200, json.dumps(BAD if "bad" in json.loads(body)["input"] else GOOD).encode()

    endpoint.answer = answer
    gateway = kong_gateway(GUARD, {"url": endpoint.url, "timeout": 40})
    prompts = [f"{'bad' if n % 3 else 'good'} prompt {n}" for n in range(together)]
    with ThreadPoolExecutor(together) as pool:
        results = list(pool.map(lambda prompt: gateway.post("/", json={"prompt": prompt}), prompts))
    for prompt, result in zip(prompts, results):
        if "good" in prompt:
            assert is_let_through(result, {"prompt": prompt})
        else:
            assert (result.status, result.service_request) == (403, None)
    assert len(endpoint.received) == together


def test_a_bad_prompt_is_refused_with_the_reason(guard: Gateway, endpoint: Any) -> None:
    endpoint.answer_json(BAD)
    result = guard.post("/", json=CHAT)
    assert (result.status, result.service_request) == (403, None)
    assert result.json() == {
        "message": "the prompt is refused", "categories": ["violence", "self-harm"],
    }  # fmt: skip
    endpoint.answer_json({"results": [{"flagged": True, "categories": {}}]})
    assert guard.post("/", json=CHAT).json()["categories"] == ["other"]


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (CHAT, ["How do bees fly?"]),
        ({"prompt": ["one", "two"], "suffix": "three"}, ["one", "two", "three"]),
        ({"input": "one", "instructions": "two"}, ["one", "two"]),
        (
            {
                "messages": [
                    {"content": [{"type": "text", "text": "one"}, {"type": "x", "y": ["two"]}]}
                ]
            },
            ["one", "two"],
        ),
        ({"messages": [], "prompt": "one", "tools": [{"description": "two"}]}, ["one", "two"]),
        ({"prompt": "\ud800 \u00fc \U0001f41d"}, ["\ud800 \u00fc \U0001f41d"]),
    ],
    ids=str,
)
def test_the_endpoint_gets_all_texts(
    guard: Gateway, endpoint: Any, body: Any, texts: list[str]
) -> None:
    assert is_let_through(guard.post("/", json=body), body)
    ((headers, asked),) = endpoint.received
    question = json.loads(asked)
    assert question["model"] == "omni-moderation-latest"
    assert [text for text in texts if text not in question["input"].split("\n")] == []
    assert headers["authorization"] == "Bearer k"


@pytest.mark.parametrize(
    "body",
    [
        "", "no JSON", "[]", '"prompt"', "7", "{}", '{"model": "m"}', '{"prompt": ', "\udcff",
        '{"prompt": "bad", "prompt": "good"}', '{"messages": [{"content": "a", "content": "b"}]}',
        '{"prompt": [464, 3290]}', '{"prompt": [[464]]}', '{"messages": [{"content": [1]}]}',
        '{"prompt": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
    ids=lambda body: body[:30],
)  # fmt: skip
def test_what_cannot_be_checked_does_not_pass(guard: Gateway, endpoint: Any, body: str) -> None:
    result = guard.post("/", body=body, headers={"Content-Type": "application/json"})
    assert (result.status, result.service_request, result.failures) == (400, None, [])
    assert endpoint.received == []


def test_a_prompt_that_is_too_long(kong_gateway: Make, endpoint: Any) -> None:
    endpoint.answer_json(GOOD)
    gateway = kong_gateway(GUARD, {"url": endpoint.url, "most": 100})
    assert gateway.post("/", json={"prompt": "x" * 101}).status == 413
    assert gateway.post("/", json={"prompt": "x" * 100}).status == 200


def test_a_body_that_lies_on_disk(kong_gateway: Make, endpoint: Any) -> None:
    endpoint.answer_json(GOOD)
    body = {"prompt": "x" * 20_000}
    assert is_let_through(kong_gateway(GUARD, {"url": endpoint.url}).post("/", json=body), body)
    for bound in (0, 10_000):
        result = kong_gateway(GUARD, {"url": endpoint.url, "max_body": bound}).post("/", json=body)
        assert (result.status, result.service_request) == (500, None)


ODD: list[tuple[int, Any]] = [
    (500, GOOD), (401, GOOD), (302, GOOD), (200, {}), (200, []), (200, {"results": []}),
    (200, {"results": [{}]}), (200, {"results": [{"flagged": "no", "categories": {}}]}),
    (200, {"results": [{"flagged": None, "categories": {}}]}), (200, "no"), (200, None),
    (200, {"results": [*GOOD["results"], *GOOD["results"]]}),
]  # fmt: skip


@pytest.mark.parametrize("policy", ["closed", "open"])
@pytest.mark.parametrize(("status", "answer"), ODD, ids=str)
def test_an_endpoint_that_says_something_else(
    kong_gateway: Make, endpoint: Any, status: int, answer: Any, policy: str
) -> None:
    endpoint.answer_json(answer, status)
    gateway = kong_gateway(GUARD, {"url": endpoint.url, "on_failure": policy})
    check_policy(gateway, policy)


@pytest.mark.parametrize("policy", ["closed", "open"])
@pytest.mark.parametrize("fault", ["gone", "silent"])
def test_an_endpoint_that_does_not_answer(
    kong_gateway: Make, closed_port: int, silent_port: int, fault: str, policy: str
) -> None:
    port = closed_port if fault == "gone" else silent_port
    config = {"url": f"http://127.0.0.1:{port}/", "timeout": 0.05, "on_failure": policy}
    check_policy(kong_gateway(GUARD, config), policy)


def check_policy(gateway: Gateway, policy: str) -> None:
    result = gateway.post("/", json=CHAT)
    assert result.failures == []
    assert len(result.messages("err")) == 1
    if policy == "open":
        assert is_let_through(result, CHAT)
    else:
        assert (result.status, result.service_request) == (503, None)


def test_an_error_of_its_own_lets_nothing_through(kong_gateway: Make, endpoint: Any) -> None:
    """Even if everything is told to be open."""
    endpoint.answer_json(GOOD)
    gateway = kong_gateway(GUARD, {"url": endpoint.url, "on_failure": "open"}, on_error="open")
    with gateway.fake("kong.request.get_raw_body", returns=None):
        result = gateway.post("/", json=CHAT)
    assert (result.status, result.service_request) == (500, None)

#!/usr/bin/env python3
"""Asks a moderation endpoint about each prompt before the model gets it, and refuses bad ones.

Takes the JSON that chat and completion APIs take (``messages``, ``prompt`` or ``input``), sends all
texts in it to an endpoint that speaks the moderation API of OpenAI, and answers with 403 and the
categories if they are flagged.

The HTTP client blocks, as plain Python does: a handler that waits for it holds up no other. In
threads each has a thread of its own, up to ``--threads``; with ``-g`` urllib3 waits on sockets that
gevent has patched, and thousands can wait at once; with ``-m`` each worker process does either. It
is urllib3 and not requests, because its pool is made to be used by several threads at once, and a
session of requests is not.

PDK round trips:

- a good prompt, 1: request.get_raw_body
- a bad prompt, 2: request.get_raw_body, response.exit
- no prompt, 2: request.get_raw_body, response.exit
- the endpoint fails and that closes, 3: request.get_raw_body, log.err, response.exit
- the endpoint fails and that opens, 2: request.get_raw_body, log.err

The body is all there is to know, and it is asked for raw: that is one call as well, and Python
reads the JSON faster than Kong would send it as a table.

``on_failure`` decides what becomes of a prompt that cannot be checked, because the endpoint is not
there, is slow, or says something else: a 503 (``closed``, the default), or it passes (``open``).
All other errors refuse the request. So does a body without a prompt, or with one that could be read
in two ways: what is not understood is not checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Optional

import urllib3

import kong_pdk.pdk.kong as kong
from kong_pdk.schema import field, schema_of

version = "1.0.0"
priority = 770
on_error = "closed"


#: Where APIs for models take the prompt.
PROMPTS = ("messages", "prompt", "input")


@dataclass
class Config:
    url: str = field("https://api.openai.com/v1/moderations", match="^https?://")
    #: Goes to the endpoint as a bearer token.
    api_key: Optional[str] = field(None, referenceable=True, encrypted=True)
    model: str = "omni-moderation-latest"
    #: How long the endpoint may take, in seconds.
    timeout: float = field(5.0, between=(0.05, 50))
    on_failure: Literal["closed", "open"] = "closed"
    #: How many characters a prompt may have.
    most: int = field(100_000, gt=0)
    #: How large a body may be, in bytes. Above 8 kB it lies on disk, where Kong 3.8 or newer finds
    #: it; for an older Kong give 0, and larger ones are refused.
    max_body: int = field(1_000_000, between=(0, 100_000_000))
    #: How many connections to the endpoint are kept open.
    connections: int = field(64, between=(1, 1024))


Schema = schema_of(Config)


class Unchecked(Exception):
    """The endpoint has not said whether the prompt is good."""


class Plugin:
    def __init__(self, config: Config) -> None:
        self.config = config
        self.pool = urllib3.PoolManager(maxsize=config.connections, retries=False)
        self.timeout = urllib3.Timeout(total=config.timeout)
        self.headers = {"Content-Type": "application/json"}
        if config.api_key:
            self.headers["Authorization"] = f"Bearer {config.api_key}"

    def access(self, kong: kong.kong) -> None:
        body, _ = kong.request.get_raw_body(self.config.max_body or None)
        try:
            prompt = prompt_of(body)
        except ValueError as error:
            kong.response.exit(400, {"message": str(error)})
        if len(prompt) > self.config.most:
            kong.response.exit(413, {"message": "the prompt is too long to be checked"})
        try:
            flagged = self.moderate(prompt)
        except Unchecked as problem:
            kong.log.err("prompt-guard: ", problem)
            if self.config.on_failure == "open":
                return
            kong.response.exit(503, {"message": "the prompt cannot be checked at the moment"})
        if flagged:
            kong.response.exit(403, {"message": "the prompt is refused", "categories": flagged})

    def moderate(self, prompt: str) -> list[str]:
        """The categories that are flagged; raises Unchecked."""
        question = json.dumps({"model": self.config.model, "input": prompt})
        try:
            answer = self.pool.request(
                "POST", self.config.url, question.encode(), headers=self.headers,
                timeout=self.timeout,
            )  # fmt: skip
        except urllib3.exceptions.HTTPError as error:
            raise Unchecked(f"the endpoint does not answer: {error}") from error
        if answer.status != 200:
            raise Unchecked(f"the endpoint answers with status {answer.status}")
        try:
            (result,) = json.loads(answer.data)["results"]
            flagged = {False: [], True: ["other"]}[result["flagged"]]
            named = [name for name, is_so in result["categories"].items() if is_so]
        except Exception as error:
            raise Unchecked(f"the endpoint's answer is no moderation: {error!r}") from error
        return flagged and (named or flagged)

    def close(self) -> None:
        self.pool.clear()


def prompt_of(body: bytes) -> str:
    """All texts of a body, wherever they stand in it; raises ValueError if it has no prompt."""
    try:
        document = json.loads(body, object_pairs_hook=unambiguous)
    except RecursionError:
        raise ValueError("the body is nested too deeply") from None
    except json.JSONDecodeError:
        raise ValueError("the body is no JSON") from None
    if not isinstance(document, dict) or not any(name in document for name in PROMPTS):
        raise ValueError(f"the body needs one of {', '.join(PROMPTS)}")
    if any(has_tokens(document.get(name)) for name in PROMPTS):
        raise ValueError("the prompt must be text: tokens cannot be checked")
    return "\n".join(texts_of(document))


def unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names differ; with two of a name the model might get the other one."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("the body has an object with two fields of one name")
    return found


def has_tokens(value: Any) -> bool:
    """Whether there is a list of numbers in a prompt, which completion APIs take for text."""
    if isinstance(value, list):
        return any(type(each) in (int, float) or has_tokens(each) for each in value)
    return isinstance(value, dict) and any(map(has_tokens, value.values()))


def texts_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from texts_of(each)


if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server

    start_dedicated_server("prompt-guard", Plugin, version, priority, Schema)

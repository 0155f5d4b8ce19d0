#!/usr/bin/env python3
"""Lets each client make so many requests in so much time, and answers further ones with 429.

The window slides: the requests of the window before count for as much of it as still lies within
the last ``window`` seconds. That takes two numbers for each client, and lets no burst through where
one window ends and the next begins. A refused request does not count.

Numbers are kept in this process, or in Redis if ``redis_url`` is given:

- **In this process** all instances share them, so it does not matter how many workers nginx has.
  With ``-m`` each worker process counts for itself: clients get up to ``--workers`` times the
  limit, and several Kong nodes multiply it once more. That is fine against floods, not for quotas.
- **In Redis** there is one number for all of them. A script reads, decides and counts in one step,
  with the clock of Redis, so that no two requests both get the last place.

PDK round trips:

- by address, 2: client.get_forwarded_ip, response.set_headers
- by consumer, 2: client.get_consumer, response.set_headers
- by credential, 2: client.get_credential, response.set_headers
- by header, 2: request.get_header, response.set_headers
- by header without it, 3: request.get_header, client.get_forwarded_ip, response.set_headers
- without headers, 1: client.get_forwarded_ip
- over the limit, 2: client.get_forwarded_ip, response.exit
- Redis fails and that is tolerated, 2: client.get_forwarded_ip, log.err
- Redis fails and that is not tolerated, 3: client.get_forwarded_ip, log.err, response.exit

One call to know who it is, one to tell the client what is left; the latter can be saved.

If Redis cannot be asked within ``timeout``, ``fault_tolerant`` decides: requests pass uncounted
(the default: a limit is no lock, and Redis should not take the API down with it), or get a 503. Any
other error refuses the request.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, Optional, Union

import kong_pdk.pdk.kong as kong
from kong_pdk.schema import field, schema_of

version = "1.0.0"
priority = 910
on_error = "closed"

#: So many clients are remembered in this process, some 40 MB of them; then the one that has been
#: quiet for longest is forgotten.
MOST_CLIENTS = 100_000


@dataclass
class Config:
    #: So many requests are let through in so many seconds.
    limit: Annotated[int, field(gt=0)]
    window: int = field(60, between=(1, 86_400))
    #: What tells clients apart. Those that do not have it go by their address.
    by: Literal["address", "consumer", "credential", "header"] = "address"
    header: str = field("X-Api-Key")
    #: Plugins with one name, limit and window count together.
    name: str = field("default", match="^[%w_-]+$")
    #: ``redis://host:6379/0`` or ``rediss://…``; without it, counts are kept in this process.
    redis_url: Optional[str] = field(None, referenceable=True, encrypted=True)
    #: How long Redis may take, in seconds.
    timeout: float = field(0.5, between=(0.01, 10))
    fault_tolerant: bool = True
    hide_headers: bool = False


Schema = schema_of(Config)


class State(NamedTuple):
    """What is known of a client after a request: requests of this window and the one before."""

    allowed: bool
    current: int
    previous: int
    #: Seconds since this window has begun.
    elapsed: float

    def remaining(self, limit: int, window: int) -> int:
        """How many more requests would be let through at this moment."""
        return max(
            0, math.floor(limit - self.current - self.previous * (1 - self.elapsed / window))
        )

    def wait(self, limit: int, window: int) -> int:
        """Whole seconds until one more request is let through."""
        room = limit - 1 - self.current
        if room >= 0:
            # The window before must have slid so far that only `room` of its requests are left.
            return self._until(window, room, self.previous, self.elapsed)
        return self._until(window, limit - 1, self.current, self.elapsed - window)

    @staticmethod
    def _until(window: int, room: int, requests: int, elapsed: float) -> int:
        at = window * (1 - room / requests) if requests > room else 0.0
        return max(0, math.ceil(at - elapsed))


class LocalCounters:
    """Counts in the memory of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        #: When a client's window began, its requests in it and in the one before; the client that
        #: has been quiet for longest comes first.
        self.clients: OrderedDict[str, tuple[float, int, int]] = OrderedDict()

    def take(self, key: str, limit: int, window: int) -> State:
        """Count a request of a client, if the limit lets it through."""
        with self.lock:
            now = time.monotonic()  # not before: nobody may have a later one by then
            began, count, previous = self.clients.pop(key, (now, 0, 0))
            passed = int((now - began) // window)
            if passed:
                began += passed * window
                count, previous = 0, count if passed == 1 else 0
            elapsed = now - began
            allowed = count + previous * (1 - elapsed / window) + 1 <= limit
            count += allowed
            self.clients[key] = (began, count, previous)
            while len(self.clients) > MOST_CLIENTS:
                self.clients.popitem(last=False)
        return State(allowed, count, previous, elapsed)


class RedisCounters:
    """Counts in Redis, for everybody who uses it."""

    #: The same as LocalCounters.take, in one step for all who ask at once. Times are in
    #: microseconds; Lua's numbers hold them exactly, and a reply holds whole numbers only.
    SCRIPT = """
        local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2]) * 1000000
        local clock = redis.call('TIME')
        local now = clock[1] * 1000000 + clock[2]
        local known = redis.call('HMGET', KEYS[1], 'began', 'count', 'previous')
        local began, count, previous = tonumber(known[1] or now), tonumber(known[2] or 0),
            tonumber(known[3] or 0)
        local passed = math.floor((now - began) / window)
        if passed > 0 then
            began = began + passed * window
            previous = passed == 1 and count or 0
            count = 0
        end
        local elapsed = math.max(0, now - began)
        local allowed = count + previous * (1 - elapsed / window) + 1 <= limit
        if allowed then
            count = count + 1
        end
        redis.call('HSET', KEYS[1], 'began', string.format('%.0f', began), 'count', count,
            'previous', previous)
        redis.call('PEXPIRE', KEYS[1], math.ceil(window / 500))
        return {allowed and 1 or 0, count, previous, elapsed}
    """

    def __init__(self, url: str, timeout: float) -> None:
        import redis  # only those who count there need it
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self.errors: type[Exception] = redis.RedisError
        self.client = redis.Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 1),  # Redis may have closed a connection that was idle
        )
        self.script = self.client.register_script(self.SCRIPT)

    def take(self, key: str, limit: int, window: int) -> State:
        """As LocalCounters.take; raises one of ``errors`` if Redis does not do it in time."""
        allowed, count, previous, elapsed = self.script([f"rate-limit:{key}"], [limit, window])
        return State(bool(allowed), count, previous, elapsed / 1_000_000)

    def close(self) -> None:
        self.client.close()


#: Each worker of nginx has an instance of its own, and all of them count here.
local_counters = LocalCounters()


class Plugin:
    def __init__(self, config: Config) -> None:
        self.config = config
        self.redis = RedisCounters(config.redis_url, config.timeout) if config.redis_url else None
        self.prefix = f"{config.name}:{config.limit}/{config.window}"

    def access(self, kong: kong.kong) -> None:
        limit, window = self.config.limit, self.config.window
        key = f"{self.prefix}:{self.client(kong)}"
        if self.redis is None:
            state = local_counters.take(key, limit, window)
        else:
            try:
                state = self.redis.take(key, limit, window)
            except self.redis.errors as error:
                kong.log.err("rate-limit: Redis cannot count: ", error)
                if self.config.fault_tolerant:
                    return
                kong.response.exit(503, {"message": "requests cannot be counted at the moment"})
        headers: dict[str, Union[str, float]] = {}
        if not self.config.hide_headers:
            headers = {
                "RateLimit-Limit": limit,
                "RateLimit-Remaining": state.remaining(limit, window),
                "RateLimit-Reset": math.ceil(window - state.elapsed),
            }
        if not state.allowed:
            headers["Retry-After"] = max(1, state.wait(limit, window))
            kong.response.exit(429, {"message": "too many requests"}, headers)
        if headers:
            kong.response.set_headers(headers)

    def client(self, kong: kong.kong) -> str:
        """Whose request it is."""
        if self.config.by == "consumer":
            consumer, _ = kong.client.get_consumer()
            if consumer is not None and "id" in consumer:
                return f"consumer:{consumer['id']}"
        elif self.config.by == "credential":
            credential, _ = kong.client.get_credential()
            if credential is not None and "id" in credential:
                return f"credential:{credential['id']}"
        elif self.config.by == "header":
            value, _ = kong.request.get_header(self.config.header)
            if value:
                # It may be a secret, and of any length.
                digest = hashlib.sha256(value.encode(errors="surrogateescape"))
                return f"header:{digest.hexdigest()}"
        address, _ = kong.client.get_forwarded_ip()
        return f"address:{address}"

    def close(self) -> None:
        if self.redis is not None:
            self.redis.close()


if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server

    start_dedicated_server("rate-limit", Plugin, version, priority, Schema)

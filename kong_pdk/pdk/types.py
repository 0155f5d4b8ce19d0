"""Types of what goes to Kong and comes from it.

Generated from pdkgen/spec by `python3 dev.py generate`: change it there.
Longer than most files, because it is a list. Kong leaves out of a table what is nil, so keys may be
missing, but for those of a class without ``total=False``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Union

#: A text for Kong, whose strings are bytes.
Text = Union[str, bytes, bytearray]

#: A table for Kong.
Table = Union[Mapping[Any, Any], list[Any], tuple[Any, ...]]

#: The value of a header, or its values.
HeaderValue = Union[Text, float, Sequence[Text]]

#: Headers by name.
Headers = Mapping[str, HeaderValue]

#: Query arguments by name; True stands for one without a value.
QueryValues = Mapping[str, Union[Text, float, Sequence[Union[Text, float]]]]

#: A parsed body: an object or a form as a dict, an array as a list. An empty one is a dict.
Body = Union[dict[str, Any], list[Any]]


class EntityId(TypedDict):
    """A reference to another entity of Kong's configuration.

    Kong: kong/db/schema/init.lua.
    """

    #: its UUID
    id: str


class _RouteAlways(TypedDict):
    #: its UUID
    id: str
    #: the protocols it takes, such as `http` and `https`
    protocols: list[str]


class Route(_RouteAlways, total=False):
    """A route, as kong.router.get_route returns it.

    Kong: kong/db/schema/entities/routes.lua.
    """

    #: its name
    name: str
    #: the service it belongs to
    service: EntityId
    #: the methods that match
    methods: list[str]
    #: the hosts that match; `*` at one end stands for anything
    hosts: list[str]
    #: prefixes of paths that match; one with `~` in front is a regular expression
    paths: list[str]
    #: values that match, by the header's name
    headers: dict[str, list[str]]
    #: server names of the TLS handshake that match
    snis: list[str]
    #: for streams: `ip` and `port` of clients that match
    sources: list[dict[str, Union[str, int]]]
    #: for streams: `ip` and `port` of Kong that match
    destinations: list[dict[str, Union[str, int]]]
    #: with the router flavor `expressions`: what matches
    expression: str
    #: with `expression`: higher ones are tried first
    priority: int
    #: among regular expressions higher ones are tried first
    regex_priority: int
    #: whether the prefix that matched is taken off the path
    strip_path: bool
    #: how the paths of service and request are joined: `v0` or `v1`
    path_handling: str
    #: whether the service gets the client's `Host`
    preserve_host: bool
    #: whether nginx reads the whole body before it asks the service
    request_buffering: bool
    #: whether nginx buffers the answer while it passes it on
    response_buffering: bool
    #: the status for a request that matches but for its protocol
    https_redirect_status_code: int
    #: its tags
    tags: list[str]
    #: when it was made, in seconds since the epoch
    created_at: int
    #: when it was last changed, in seconds since the epoch
    updated_at: int
    #: the UUID of its workspace
    ws_id: str


class _ServiceAlways(TypedDict):
    #: its UUID
    id: str
    #: how Kong asks it, such as `http`, `https`, `grpc` or `tcp`
    protocol: str
    #: its host, or the name of an Upstream
    host: str
    #: its port
    port: int


class Service(_ServiceAlways, total=False):
    """A service, as kong.router.get_service returns it.

    Kong: kong/db/schema/entities/services.lua.
    """

    #: its name
    name: str
    #: what is put in front of the request's path
    path: str
    #: how often Kong tries another time if it cannot be reached
    retries: int
    #: how long Kong waits for a connection, in milliseconds
    connect_timeout: int
    #: how long Kong waits between two writes, in milliseconds
    write_timeout: int
    #: how long Kong waits between two reads, in milliseconds
    read_timeout: int
    #: whether it is in use
    enabled: bool
    #: the certificate that Kong shows it
    client_certificate: EntityId
    #: whether its certificate is verified
    tls_verify: bool
    #: how long the chain of its certificates may be
    tls_verify_depth: int
    #: UUIDs of the CA certificates that its own is verified with
    ca_certificates: list[str]
    #: its tags
    tags: list[str]
    #: when it was made, in seconds since the epoch
    created_at: int
    #: when it was last changed, in seconds since the epoch
    updated_at: int
    #: the UUID of its workspace
    ws_id: str


class Consumer(TypedDict, total=False):
    """A consumer, as kong.client.get_consumer and load_consumer return it.

    It has a `username`, a `custom_id`, or both.

    Kong: kong/db/schema/entities/consumers.lua.
    """

    #: its UUID
    id: str
    #: its name in Kong
    username: str
    #: its name in another system
    custom_id: str
    #: its tags
    tags: list[str]
    #: when it was made, in seconds since the epoch
    created_at: int
    #: when it was last changed, in seconds since the epoch
    updated_at: int
    #: the UUID of its workspace
    ws_id: str


class Credential(TypedDict, total=False):
    """What a consumer has authenticated with, as kong.client.get_credential returns it.

    Which keys there are depends on the plugin that has authenticated the request; these are those of
    the bundled ones. A plugin may have put in others.

    Kong: kong/plugins/*/daos.lua.
    """

    #: its UUID; plugins without credentials of their own put another name here
    id: str
    #: the consumer it belongs to
    consumer: EntityId
    #: the consumer's UUID, from plugins that give it in this form
    consumer_id: str
    #: basic-auth, hmac-auth, ldap-auth: the user's name
    username: str
    #: basic-auth: the hash of the password; ldap-auth: the password
    password: str
    #: key-auth: the key; jwt: the name of the issuer
    key: str
    #: hmac-auth, jwt: the secret that signatures are checked with
    secret: str
    #: jwt: how tokens are signed, such as `HS256`
    algorithm: str
    #: jwt: the public key that signatures are checked with, as PEM
    rsa_public_key: str
    #: oauth2: the name of the application
    name: str
    #: oauth2: the id of the application
    client_id: str
    #: oauth2: its secret, or the hash of it
    client_secret: str
    #: oauth2: `confidential` or `public`
    client_type: str
    #: oauth2: whether the secret is kept as a hash
    hash_secret: bool
    #: oauth2: where the application may send users back to
    redirect_uris: list[str]
    #: its tags
    tags: list[str]
    #: key-auth: how many seconds it is still valid
    ttl: int
    #: when it was made, in seconds since the epoch
    created_at: int
    #: the UUID of its workspace
    ws_id: str


class MemoryStats(TypedDict, total=False):
    """How much memory Kong uses, as kong.node.get_memory_stats returns it.

    Kong: kong/pdk/node.lua.
    """

    #: the Lua memory of each nginx worker; if Kong cannot list its workers, a dict with
    #: the key `err` instead
    workers_lua_vms: list[WorkerMemory]
    #: the memory that the workers share, by name
    lua_shared_dicts: dict[str, SharedDict]


class WorkerMemory(TypedDict, total=False):
    """The Lua memory of one nginx worker.

    Kong: kong/pdk/node.lua.
    """

    #: the worker's process id
    pid: int
    #: what it uses: bytes as an integer for the unit `b`, else a string such as `32.00
    #: MiB`
    http_allocated_gc: Union[int, str]
    #: why the number is missing
    err: str


class SharedDict(TypedDict, total=False):
    """One piece of the memory that nginx's workers share.

    Kong: kong/pdk/node.lua.
    """

    #: its size: bytes as an integer for the unit `b`, else a string such as `128.00 MiB`
    capacity: Union[int, str]
    #: how much of it is in use, in the same form
    allocated_slabs: Union[int, str]


class NginxStatistics(TypedDict):
    """What nginx counts, as kong.nginx.get_statistics returns it.

    Kong: kong/pdk/nginx.lua.
    """

    #: connections of clients that are open, waiting ones included
    connections_active: int
    #: those of which the head of a request is being read
    connections_reading: int
    #: those to which an answer is being written
    connections_writing: int
    #: those that wait for the next request
    connections_waiting: int
    #: connections accepted since nginx was started
    connections_accepted: int
    #: those of them that were not dropped for want of resources
    connections_handled: int
    #: requests since nginx was started
    total_requests: int


class UriCaptures(TypedDict):
    """What the groups of a route's path have matched (kong.request.get_uri_captures).

    `False` stands for an optional group that has matched nothing.

    Kong: kong/pdk/request.lua.
    """

    #: by the group's number, with the whole match under 0; empty if the route has no
    #: groups
    unnamed: dict[int, Union[str, bool]]
    #: by the group's name; empty if no group has one
    named: dict[str, Union[str, bool]]


class VaultReference(TypedDict, total=False):
    """The parts of a reference, as kong.vault.parse_reference returns them.

    Kong: kong/pdk/vault.lua.
    """

    #: the vault: its kind, such as `env`, or the prefix of a Vault entity
    name: str
    #: the secret
    resource: str
    #: the field of a secret that is a JSON object
    key: str
    #: settings for the vault, from the part after `?`
    config: dict[str, Union[str, bool, list[Union[str, bool]]]]
    #: the secret's version, the number after `#`
    version: int

"""The functions of Kong's PDK that a plugin server can reach, by their place in its tree.

Names are those of Kong 2.8 to 3.10 (Kong: kong/pdk/); consumer groups and jwe are those of Kong
Enterprise.
"""

from __future__ import annotations

#: Namespace to the names in it.
NAMESPACES: dict[str, str] = {
    "kong": "log",
    "kong.client": (
        "authenticate authenticate_consumer_group_by_consumer_id get_consumer get_consumer_group "
        "get_consumer_groups get_credential get_forwarded_ip get_forwarded_port get_ip get_port "
        "get_protocol load_consumer set_authenticated_consumer_group "
        "set_authenticated_consumer_groups"
    ),
    "kong.client.tls": (
        "disable_session_reuse get_full_client_certificate_chain request_client_certificate "
        "set_client_verify"
    ),
    "kong.cluster": "get_id",
    "kong.configuration": "remove_sensitive",
    "kong.ctx.shared": "get set",
    "kong.enterprise_edition.jwe": "decode decrypt encrypt",
    "kong.ip": "is_trusted",
    "kong.log": (
        "alert crit debug deprecation emerg err info inspect notice serialize set_format "
        "set_serialize_value trace warn"
    ),
    "kong.log.inspect": "off on",
    "kong.nginx": (
        "get_ctx get_statistics get_subsystem get_tls1_version_str get_var req_start_time set_ctx"
    ),
    "kong.node": "get_hostname get_id get_memory_stats",
    "kong.plugin": "get_id",
    "kong.request": (
        "get_body get_forwarded_host get_forwarded_path get_forwarded_port "
        "get_forwarded_prefix get_forwarded_scheme get_header get_headers get_host "
        "get_http_version get_method get_path get_path_with_query get_port get_query "
        "get_query_arg get_raw_body get_raw_path get_raw_query get_scheme get_start_time "
        "get_uri_captures"
    ),
    "kong.response": (
        "add_header clear_header error exit get_header get_headers get_raw_body get_source "
        "get_status set_header set_headers set_raw_body set_status"
    ),
    "kong.router": "get_route get_service",
    "kong.service": (
        "set_retries set_target set_timeouts set_tls_verify set_tls_verify_depth set_upstream"
    ),
    "kong.service.request": (
        "add_header clear_header clear_query_arg disable_tls enable_buffering enable_tls "
        "set_body set_header set_headers set_method set_path set_query set_raw_body "
        "set_raw_query set_scheme"
    ),
    "kong.service.response": "get_body get_header get_headers get_raw_body get_status",
    "kong.table": "clear merge new",
    "kong.telemetry": "log",
    "kong.vault": "flush get init_worker is_reference parse_reference update warmup",
}

#: Every full name.
FUNCTIONS = frozenset(
    f"{namespace}.{name}" for namespace, names in NAMESPACES.items() for name in names.split()
)

#: Functions that write their arguments to the log, whatever they are.
LOGGING = frozenset((
    "kong.log", "kong.log.alert", "kong.log.crit", "kong.log.debug", "kong.log.deprecation",
    "kong.log.emerg", "kong.log.err", "kong.log.info", "kong.log.inspect", "kong.log.notice",
    "kong.log.trace", "kong.log.warn",
))  # fmt: skip

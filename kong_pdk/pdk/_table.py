"""Every PDK function, what its results hold, and the names that cannot be used.

Generated from pdkgen/spec by `python3 dev.py generate`: change it there. Longer than most files,
because it is a table.
"""

from __future__ import annotations

from .functions import PHASES, FunctionSpec
from .functions import Parameter as P

FUNCTIONS: tuple[FunctionSpec, ...] = (
    FunctionSpec(
        "kong.client.authenticate",
        ("access",),
        (
            P("consumer", "table", optional=True),
            P("credential", "table", optional=True),
        ),
        rule="one_given",
        step="plugin.StepCredential",
        doc="""Set the consumer and the credential of the request, as an authentication plugin does.

        Both are replaced: the one that is left out is cleared. Plugins that run later, and the
        record for logging plugins, see what is set here. Nothing is checked, and no header is sent
        to the service: set those that it expects, such as `X-Consumer-ID`, with
        `kong.service.request.set_headers`, and remove what the client has sent under these names.

        Args:
            consumer: the consumer, as `kong.client.load_consumer` returns it; optional.
            credential: what the client has proved to have; plugins expect an `id` in it;
                optional.

        Phases: access. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.client.authenticate_consumer_group_by_consumer_id",
        ("access",),
        (
            P("consumer_id", "string", optional=True),
        ),
        since="Enterprise",
        doc="""Make the groups of a consumer those of the request.

        Nothing changes if the request has groups already, or if no id is given. Where Kong does not
        know the function, it logs `could not find pdk method` and does nothing.

        Args:
            consumer_id: the consumer's id; optional.

        Phases: access. Kong Enterprise only.
        """,
    ),
    FunctionSpec(
        "kong.client.get_consumer",
        ("access", "response", "log"),
        returns="Optional[Consumer]",
        shape="Consumer",
        step="plugin.StepConsumer",
        doc="""The consumer that the request was authenticated as.

        A plugin that runs before authentication, by its priority, finds nothing yet.

        Returns:
            None if the request is not authenticated, or its credential belongs to no consumer.

        Phases: access, response, log. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.client.get_consumer_group",
        ("access", "response", "log"),
        returns="Optional[dict[str, Any]]",
        shape="map",
        since="Enterprise",
        doc="""The consumer group of the request.

        Deprecated: use get_consumer_groups.

        A request may have several: `kong.client.get_consumer_groups` tells all. Where Kong does not
        know the function, it logs `could not find pdk method`, and the result is None.

        Returns:
            None if the request has no consumer group.

        Phases: access, response, log. Kong Enterprise only.
        """,
    ),
    FunctionSpec(
        "kong.client.get_consumer_groups",
        ("access", "response", "log"),
        returns="Optional[list[dict[str, Any]]]",
        shape="list",
        since="Enterprise",
        doc="""The consumer groups of the request.

        Each is a dict with at least `id` and `name`. Where Kong does not know the function, it logs
        `could not find pdk method`, and the result is None.

        Returns:
            None if the request has no consumer groups.

        Phases: access, response, log. Kong Enterprise only.
        """,
    ),
    FunctionSpec(
        "kong.client.get_credential",
        ("access", "response", "log"),
        returns="Optional[Credential]",
        shape="Credential",
        step="plugin.StepCredential",
        doc="""The credential that an authentication plugin has accepted for this request.

        Which keys it has depends on that plugin: one of Kong's own plugins stores its entity, with
        `id`, `consumer` and the secret itself, such as `key`. So do not log it as a whole. A plugin
        that runs before authentication, by its priority, finds nothing yet.

        Returns:
            None if no plugin has authenticated the request.

        Phases: access, response, log. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.client.get_forwarded_ip",
        ("rewrite", "access", "response", "preread"),
        returns="str",
        doc="""The client's IP address, as a trusted proxy before Kong names it.

        It is taken from the header that Kong's setting `real_ip_header` names (`X-Real-IP` by
        default), and only if the connection comes from one of `trusted_ips`. For any other
        connection it is the same as `kong.client.get_ip`. With `X-Forwarded-For` the setting
        `real_ip_recursive` says which of the addresses counts.

        Phases: rewrite, access, response, preread. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.client.get_forwarded_port",
        ("rewrite", "access", "response", "preread"),
        returns="Optional[int]",
        doc="""The client's port, as a trusted proxy before Kong names it.

        It comes from the same place as `kong.client.get_forwarded_ip`. A header often holds an
        address without a port; the PROXY protocol always tells both.

        Returns:
            None if the proxy tells no port, or the connection is one through a Unix socket.

        Phases: rewrite, access, response, preread. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.client.get_ip",
        ("rewrite", "access", "response", "preread"),
        returns="str",
        doc="""The IP address at the other end of the connection.

        With a load balancer before Kong this is the load balancer's address; see
        `kong.client.get_forwarded_ip`. It is `unix:` for a connection through a Unix socket.

        Phases: rewrite, access, response, preread. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.client.get_port",
        ("rewrite", "access", "response", "preread"),
        returns="Optional[int]",
        doc="""The port at the other end of the connection.

        With a load balancer before Kong this is the load balancer's port.

        Returns:
            None if the connection is one through a Unix socket.

        Phases: rewrite, access, response, preread. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.client.get_protocol",
        ("access", "response", "log"),
        (
            P("allow_terminated", "flag", optional=True, default=False),
        ),
        returns="Optional[Literal[\"http\", \"https\", \"tcp\", \"tls\", \"grpc\", \"grpcs\", \"udp\", \"tls_passthrough\"]]",
        doc="""The protocol of the request, among those of its route.

        If the route has one protocol only, it is that one. If it has several, Kong looks at the
        connection: `https` or `http` for a request, also for one of gRPC, and `tls` or `tcp` for a
        stream.

        Args:
            allow_terminated: whether `X-Forwarded-Proto: https` of a client in `trusted_ips`
                counts as HTTPS; `False` if left out.

        Returns:
            None if no route was found, or `X-Forwarded-Proto` was sent more than once.

        Phases: access, response, log. In the log phase it only works if the route has exactly
        one protocol; if not, Kong fails without an answer, and the call raises `EventAbandoned`
        after 55 s. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.client.load_consumer",
        ("access", "response", "log"),
        (
            P("consumer_id", "string", pattern="[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"),
            P("search_by_username", "flag", optional=True, default=False),
        ),
        returns="Optional[Consumer]",
        shape="Consumer",
        rule="consumer_id",
        step="plugin.StepConsumer",
        doc="""Look up a consumer in Kong's database.

        A UUID is looked up as an id. If nothing has that id, or the text is no UUID, the username
        is tried, where that is asked for. Each call is a query, which Kong does not cache.

        Args:
            consumer_id: the consumer's id, or with `search_by_username` its username.
            search_by_username: whether to look for the username if there is no such id; `False`
                if left out.

        Returns:
            None if there is no such consumer, or the database cannot be asked.

        Phases: access, response, log. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.client.set_authenticated_consumer_group",
        ("access", "response", "log"),
        (
            P("group", "table", optional=True),
        ),
        since="Enterprise",
        doc="""Set the consumer group of the request.

        Deprecated: use set_authenticated_consumer_groups.

        It replaces what was set before; without a group that is cleared. Where Kong does not know
        the function, it logs `could not find pdk method` and does nothing.

        Args:
            group: the group, a dict with `id` and `name`; optional.

        Phases: access, response, log. Kong Enterprise only.
        """,
    ),
    FunctionSpec(
        "kong.client.set_authenticated_consumer_groups",
        ("access", "response", "log"),
        (
            P("groups", "table", optional=True),
        ),
        since="Enterprise",
        doc="""Set the consumer groups of the request.

        They replace those that were set before; without groups these are cleared. Where Kong does
        not know the function, it logs `could not find pdk method` and does nothing.

        Args:
            groups: a list of groups, each a dict with `id` and `name`; optional.

        Phases: access, response, log. Kong Enterprise only.
        """,
    ),
    FunctionSpec(
        "kong.client.tls.disable_session_reuse",
        ("certificate",),
        returns="Optional[bool]",
        doc="""Keep the client from resuming the TLS session of this connection.

        Kong gives it neither a session ticket nor a session id, so that its next connection begins
        with a whole handshake.

        Returns:
            None if it failed, else True.

        Phases: certificate. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.client.tls.get_full_client_certificate_chain",
        ("rewrite", "access", "response"),
        returns="Optional[str]",
        doc="""The client's certificate and those that it sent along, as PEM text.

        The client's own comes first, the others follow. They are what the client has sent: Kong has
        not checked who signed them.

        Returns:
            None if the client has sent no certificate, or the connection is not TLS.

        Phases: rewrite, access, response. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.client.tls.request_client_certificate",
        ("certificate",),
        returns="Optional[bool]",
        doc="""Ask the client for its certificate in the TLS handshake.

        The client may answer without one, and the handshake goes on. What it did is told by
        `kong.client.tls.get_full_client_certificate_chain` in a later phase. The names of accepted
        authorities, which Kong can send along from 3.0 on, cannot be given from a plugin server.

        Returns:
            None if it failed, else True.

        Phases: certificate. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.client.tls.set_client_verify",
        ("rewrite", "access", "response"),
        (
            P("v", "string", choices=("SUCCESS", "NONE")),
        ),
        rule="client_verify",
        doc="""Set what the log record says about the check of the client's certificate.

        It is `request.tls.client_verify` in the record that logging plugins send on
        (`kong.log.serialize`); nginx's own result is in it otherwise. Nothing else changes: a
        request that is to be refused must be ended by the plugin.

        Args:
            v: the result; `FAILED:` with a reason after it is taken too; one of `SUCCESS`,
                `NONE`.

        Phases: rewrite, access, response. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.cluster.get_id",
        PHASES,
        returns="Optional[str]",
        doc="""The id of the cluster, a UUID.

        All nodes that use one database have the same id, and in hybrid mode the control planes and
        data planes of one cluster.

        Returns:
            None if Kong runs without a database and was given no cluster id, or cannot read it.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.configuration.remove_sensitive",
        PHASES,
        returns="dict[str, Any]",
        shape="map",
        since="3.0",
        doc="""All settings of the Kong node, with passwords and keys replaced by asterisks.

        The keys are those of `kong.conf`; some hold what Kong has made of the setting, such as a
        list. A setting that refers to a vault has the reference as its value. It is a large table,
        and each call sends all of it: call it once and keep what is needed.

        Phases: all. Kong 3.0 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.ctx.shared.get",
        PHASES,
        (
            P("k", "key"),
        ),
        returns="Any",
        doc="""A value that this or another plugin has set for the request.

        The value must be plain data. Where a Lua plugin has stored an object or a function, Kong
        cannot send it, and the event fails.

        Args:
            k: its key, text as a rule.

        Returns:
            None if nothing was set under that key.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.ctx.shared.set",
        PHASES,
        (
            P("k", "key"),
            P("v", "any", optional=True),
        ),
        doc="""Set a value for the rest of the request, for all plugins.

        Args:
            k: its key, text as a rule.
            v: the value, plain data; None removes the key; optional.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.enterprise_edition.jwe.decode",
        PHASES,
        (
            P("token", "string"),
        ),
        returns="Optional[dict[Any, Any]]",
        shape="map",
        since="Enterprise",
        doc="""Take a token apart, without decrypting it.

        The keys 1 to 5 are the parts as they stand in the token: header, encrypted key,
        initialization vector, ciphertext and tag. `encrypted_key`, `iv`, `ciphertext` and `tag` are
        the decoded ones, `protected` is the header as a dict, and `aad` the header as it stands
        there.

        Args:
            token: the token in its compact form, five parts with dots between.

        Returns:
            None if the token has not five parts, or one of them cannot be decoded.

        Phases: all. Kong Enterprise only.
        """,
    ),
    FunctionSpec(
        "kong.enterprise_edition.jwe.decrypt",
        PHASES,
        (
            P("key", "body"),
            P("token", "string"),
        ),
        returns="Optional[str]",
        since="Enterprise",
        doc="""Decrypt a token.

        RSA keys and elliptic-curve keys (P-256, P-384 and P-521) are taken.

        Args:
            key: the private key: a JWK as text or dict, PEM text, or DER.
            token: the token in its compact form.

        Returns:
            None if it cannot be decrypted with that key.

        Phases: all. Kong Enterprise only.
        """,
    ),
    FunctionSpec(
        "kong.enterprise_edition.jwe.encrypt",
        PHASES,
        (
            P("alg", "string"),
            P("enc", "string"),
            P("key", "body"),
            P("plaintext", "string"),
            P("options", "table", optional=True),
        ),
        returns="Optional[str]",
        since="Enterprise",
        doc="""Encrypt a text as a token.

        Args:
            alg: how the key is encrypted: `RSA-OAEP` or `ECDH-ES`.
            enc: how the text is encrypted: `A256GCM`, in later releases also others.
            key: the public key: a JWK as text or dict, PEM text, or DER.
            plaintext: what to encrypt.
            options: a dict: `zip` is `DEF` to compress the text first; `apu` and `apv` are
                header parameters for `ECDH-ES`, random unless given, left out if False;
                optional.

        Returns:
            None if it cannot be encrypted with that key.

        Phases: all. Kong Enterprise only.
        """,
    ),
    FunctionSpec(
        "kong.ip.is_trusted",
        PHASES,
        (
            P("address", "string"),
        ),
        returns="bool",
        doc="""Whether an IP address is one of those in Kong's setting `trusted_ips`.

        Kong believes what these addresses say about the client, in headers such as
        `X-Forwarded-For`. IPv4 and IPv6 are both known. The result is False for all if
        `trusted_ips` is not set, and for a text that is no address, unless all addresses are
        trusted.

        Args:
            address: the address.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.log",
        PHASES,
        level=5,
        variadic=True,
        doc="""Write a line to Kong's log, at level notice.

        It is the same as `kong.log.notice`.

        Args:
            args: any objects; the line is made of their texts.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.log.alert",
        PHASES,
        level=1,
        variadic=True,
        doc="""Write a line to Kong's log, at level alert: someone must act at once.

        Args:
            args: any objects; the line is made of their texts.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.log.crit",
        PHASES,
        level=2,
        variadic=True,
        doc="""Write a line to Kong's log, at level crit: the plugin cannot do its work.

        Args:
            args: any objects; the line is made of their texts.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.log.debug",
        PHASES,
        level=7,
        variadic=True,
        doc="""Write a line to Kong's log, at level debug: what helps to find a fault.

        Args:
            args: any objects; the line is made of their texts.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.log.deprecation",
        PHASES,
        level=4,
        variadic=True,
        rule="deprecation",
        doc="""Write a line to Kong's log, at level warn, about something that is deprecated.

        If the last argument is a dict, Kong makes a remark of it at the end of the line: `after` is
        the release that deprecated the thing and `removal` the one that is to remove it, both text.
        With `trace` set to True a stack trace follows, which is one of Kong's own client.

        Args:
            args: any objects; the line is made of their texts.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.log.emerg",
        PHASES,
        level=0,
        variadic=True,
        doc="""Write a line to Kong's log, at level emerg: nothing works any more.

        It is the highest level, and is written whatever `log_level` says.

        Args:
            args: any objects; the line is made of their texts.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.log.err",
        PHASES,
        level=3,
        variadic=True,
        doc="""Write a line to Kong's log, at level err: something has failed.

        Args:
            args: any objects; the line is made of their texts.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.log.info",
        PHASES,
        level=6,
        variadic=True,
        doc="""Write a line to Kong's log, at level info: what is of interest in normal operation.

        Args:
            args: any objects; the line is made of their texts.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.log.inspect",
        PHASES,
        level=5,
        variadic=True,
        doc="""Write the arguments to Kong's log in quotes and in a frame, at level notice.

        They are joined with a space. Each is a text by the time it gets to Kong, which cannot lay
        out a dict over several lines as it does for Lua plugins; `pprint.pformat` does that in
        Python. Nothing is written after `kong.log.inspect.off`.

        Args:
            args: any objects; the line is made of their texts.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.log.inspect.off",
        PHASES,
        doc="""Have `kong.log.inspect` write nothing any more.

        It applies to all requests in the same nginx worker, and may apply to other plugins on
        plugin servers too. Each call of `kong.log.inspect` is still a round trip.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.log.inspect.on",
        PHASES,
        doc="""Have `kong.log.inspect` write again, after `kong.log.inspect.off`.

        It applies to all requests in the same nginx worker, and may apply to other plugins on
        plugin servers too. It is on when Kong starts.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.log.notice",
        PHASES,
        level=5,
        variadic=True,
        doc="""Write a line to Kong's log, at level notice: normal, but worth being seen.

        It is the lowest level that Kong writes by default.

        Args:
            args: any objects; the line is made of their texts.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.log.serialize",
        ("log",),
        returns="Optional[str]",
        doc="""The record of the request that logging plugins send on, as JSON text.

        It tells of the request, the answer, the service, route and consumer, latencies in
        milliseconds, and what plugins have set with `kong.log.set_serialize_value`; a stream
        connection has other keys. The headers `Authorization` and `Proxy-Authorization` read
        `REDACTED`; other secrets, in other headers or in the query, are there in full. An empty
        list may read `{}`.

        Returns:
            None if the record has no JSON form, for example because of a NaN in it.

        Phases: log. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.log.set_format",
        PHASES,
        (
            P("fmt", "string", optional=True),
        ),
        doc="""Change the form of the lines in Kong's log.

        The place of the message in it is `%message`; `%namespace` stands for the plugin's name,
        `%file_src`, `%line_src` and `%func_name` for Kong's own code. It is of little use: it
        applies to all requests in the same nginx worker, and may apply to another plugin on a
        plugin server, and the functions for single levels, such as `kong.log.err`, that were called
        there before keep their form.

        Args:
            fmt: the form; None for that of Kong; optional.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.log.set_serialize_value",
        ("rewrite", "access", "response", "log"),
        (
            P("key", "string"),
            P("value", "any", optional=True),
            P("options", "table", optional=True),
        ),
        doc="""Change a value in the record that logging plugins send on.

        The record is what `kong.log.serialize` returns. Dots in the key lead into inner tables,
        which are made where they are missing: `request.user.name`. From Kong 3.10 on `\\.` is a dot
        that does not. A key that leads through a value that is no table, such as
        `response.status.text`, and a NaN or an infinity break the record, and with it every logging
        plugin of the request.

        Args:
            key: where in the record, with dots between the names.
            value: the new value, plain data; None removes it; optional.
            options: a dict: `mode` is `set`, the default, `add` for a value that is not there
                yet, or `replace` for one that is; optional.

        Phases: rewrite, access, response, log. In the log phase it has no effect: Kong has made
        the record before it calls the handler. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.log.trace",
        PHASES,
        level=7,
        variadic=True,
        since="3.10",
        doc="""Do nothing; in Kong's own tests, write a line at level debug.

        Kong writes these lines only if the variable `KONG_IS_TESTING` is 1 in its environment. Use
        `kong.log.debug`.

        Args:
            args: any objects; the line is made of their texts.

        Phases: all. Kong 3.10.
        """,
    ),
    FunctionSpec(
        "kong.log.warn",
        PHASES,
        level=4,
        variadic=True,
        doc="""Write a line to Kong's log, at level warn: something is odd, but the request goes on.

        Args:
            args: any objects; the line is made of their texts.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.nginx.get_ctx",
        PHASES,
        (
            P("k", "key"),
        ),
        returns="Any",
        doc="""A value in nginx's context of the request, where Kong keeps its own.

        Kong's keys are not documented, change with its release, and often hold what cannot be sent:
        the event fails then. For values of plugins use `kong.ctx.shared`.

        Args:
            k: its key, text as a rule.

        Returns:
            None if there is nothing under that key.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.nginx.get_statistics",
        PHASES,
        returns="NginxStatistics",
        shape="NginxStatistics",
        since="3.0",
        doc="""How many connections and requests nginx has, and has had.

        The numbers are those of all nginx workers of the node, and of all that Kong listens to, the
        Admin API too.

        Phases: all. Kong 3.0 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.nginx.get_subsystem",
        PHASES,
        returns="Literal[\"http\", \"stream\"]",
        doc="""Which part of nginx handles the connection: http, or stream for TCP and TLS.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.nginx.get_tls1_version_str",
        PHASES,
        returns="Optional[str]",
        doc="""The version of TLS on the client's connection, such as `TLSv1.3`.

        Returns:
            None if the connection is not TLS.

        Phases: all. In the log phase it is always None: the connection is out of reach. Kong
        2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.nginx.get_var",
        ("rewrite", "access", "response", "preread"),
        (
            P("v", "string"),
        ),
        returns="Optional[str]",
        doc="""The value of a variable of nginx.

        The names are those in nginx's documentation, without the dollar sign, such as
        `request_uri`, `ssl_cipher` or `http_user_agent`, and Kong's own. Values are text, numbers
        too. Those that hold bytes, such as `binary_remote_addr`, have surrogate escapes.

        Args:
            v: its name.

        Returns:
            None if there is no variable of that name, or it has no value.

        Phases: rewrite, access, response, preread. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.nginx.req_start_time",
        PHASES,
        returns="Optional[float]",
        doc="""When the request began, in seconds since 1970, to the millisecond.

        It is 0 in the certificate phase, where there is no request yet.

        Returns:
            None if the connection is a stream connection.

        Phases: all. In the log phase it needs Kong 3.1; an older one fails without an answer,
        and the call raises `EventAbandoned` after 55 s. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.nginx.set_ctx",
        PHASES,
        (
            P("k", "key"),
            P("v", "any", optional=True),
        ),
        doc="""Set a value in nginx's context of the request, where Kong keeps its own.

        A key of Kong's, such as `route`, must not be set: it breaks the request. For values of
        plugins use `kong.ctx.shared`.

        Args:
            k: its key, text as a rule.
            v: the value, plain data; None removes the key; optional.

        Phases: all. In the log phase each plugin has a copy of the context: only the handler
        itself sees what it sets. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.node.get_hostname",
        PHASES,
        returns="str",
        doc="""The name of the machine that Kong runs on.

        Returns:
            An empty string if the system does not tell it.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.node.get_id",
        PHASES,
        returns="str",
        doc="""The id of the node, a UUID.

        All nginx workers of a node have the same. A node makes a new one each time it is started,
        unless it is given one by the setting `node_id`, or is a data plane, which keeps it on disk
        (from Kong 3.2 on).

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.node.get_memory_stats",
        PHASES,
        (
            P("unit", "string", optional=True, default="b", choices=("b", "B", "k", "K", "m", "M", "g", "G")),
            P("scale", "number", optional=True, default=2, low=0, high=99),
        ),
        returns="MemoryStats",
        shape="MemoryStats",
        step="plugin.StepMemoryStats",
        doc="""How much memory Kong's Lua code uses, by nginx worker and by shared dictionary.

        In bytes the amounts are numbers, in another unit text such as `12.50 MiB`. What a worker
        uses is measured every 10 s. Kong looks through a shared dictionary for it, so do not call
        it for each request.

        Args:
            unit: bytes, KiB, MiB or GiB; one of `b`, `B`, `k`, `K`, `m`, `M`, `g`, `G`; `'b'`
                if left out.
            scale: how many digits after the point, in another unit than bytes; 0 to 99; `2` if
                left out.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.plugin.get_id",
        PHASES,
        returns="Optional[str]",
        since="3.3",
        doc="""The id of the plugin's entity in Kong, a UUID.

        Each configuration of a plugin is an entity with an id of its own. `config["__plugin_id"]`,
        in what `__init__` gets, is the same without a round trip.

        Returns:
            None if Kong does not say which plugin it runs.

        Phases: all. Kong 3.3 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.request.get_body",
        ("rewrite", "access", "response"),
        (
            P("mimetype", "string", optional=True),
            P("max_args", "number", optional=True, low=1, high=1000),
            P("max_allowed_file_size", "number", optional=True),
        ),
        returns="Optional[Body]",
        shape="map",
        doc="""The body of the request, decoded: JSON, a form or multipart.

        The content type decides: `application/json` gives what the JSON holds, and
        `application/x-www-form-urlencoded` and `multipart/form-data` a dict whose values are a
        string, or a list of strings if a name occurs more often. An argument of a form without a
        value is `True`.

        Numbers in JSON are doubles in Kong: integers above `2**53` lose their last digits. An empty
        object is a dict as the whole body, but an empty list inside it: Kong cannot tell the two
        apart. `max_allowed_file_size` exists from Kong 3.8 on and does not concern forms.

        Args:
            mimetype: decode it as this content type, whatever the request's own is; optional.
            max_args: for forms: how many arguments to look at; 100 if left out, or from Kong
                3.3 on its setting `lua_max_post_args`; 1 to 1000; optional.
            max_allowed_file_size: how many bytes to read at most of a body that nginx has put
                on disk; 0 for any number, negative or left out for none; optional.

        Returns:
            None if the content type is missing or another one, if the body does not fit it, or
            if it is on disk.

        Phases: rewrite, access, response. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.request.get_forwarded_host",
        ("rewrite", "access", "response"),
        returns="str",
        doc="""The host that the client has asked for, by what a trusted proxy says.

        It is the header `X-Forwarded-Host` of a trusted peer, in lower case and without a port,
        else the same as `get_host`.

        Phases: rewrite, access, response. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.request.get_forwarded_path",
        ("rewrite", "access", "response"),
        returns="str",
        doc="""The path that the client has asked for, by what a trusted proxy says.

        It is the header `X-Forwarded-Path` of a trusted peer, as it stands, else the same as
        `get_path`.

        Phases: rewrite, access, response. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.request.get_forwarded_port",
        ("rewrite", "access", "response"),
        returns="int",
        doc="""The port that the client has used, by what a trusted proxy says.

        From a trusted peer it is the header `X-Forwarded-Port`, or the port in `X-Forwarded-Host`;
        what is not between 1 and 65535 does not count. Else it is the port of `get_port`, or the
        one that Kong's setting `port_maps` names for it.

        Phases: rewrite, access, response. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.request.get_forwarded_prefix",
        ("rewrite", "access", "response"),
        returns="Optional[str]",
        doc="""The part of the path that was taken away on the way to the service.

        It is the header `X-Forwarded-Prefix` of a trusted peer, else what Kong itself strips from
        the path for a route with `strip_path`. Kong knows the latter from `access` on.

        Returns:
            None if no prefix is taken away; in `rewrite` it may be an empty string.

        Phases: rewrite, access, response. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.request.get_forwarded_scheme",
        ("rewrite", "access", "response"),
        returns="str",
        doc="""The scheme that the client has used, by what a trusted proxy says.

        It is the header `X-Forwarded-Proto` of a trusted peer, in lower case, else the same as
        `get_scheme`.

        Phases: rewrite, access, response. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.request.get_header",
        ("rewrite", "access", "response", "log"),
        (
            P("name", "string"),
        ),
        returns="Optional[str]",
        doc="""The value of a header of the request, or of its first line if it occurs more often.

        A header without a value gives an empty string. Up to Kong 3.5 only the first 100 headers of
        the request are looked at, or from Kong 3.3 on as many as its setting `lua_max_req_headers`
        says.

        Args:
            name: its name, in any case; - and _ are the same.

        Returns:
            None if there is no such header.

        Phases: rewrite, access, response, log. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.request.get_headers",
        ("rewrite", "access", "response", "log"),
        (
            P("max_headers", "number", optional=True, low=1, high=1000),
        ),
        returns="dict[str, list[str]]",
        shape="map",
        step="plugin.StepMultiMap",
        doc="""The headers of the request: a list of values for each name.

        Names are in lower case (`content-type`), and are not looked up in any other form. Header
        lines beyond `max_headers` are dropped without notice.

        Args:
            max_headers: how many lines to look at; 100 if left out, or from Kong 3.3 on its
                setting `lua_max_req_headers`; 1 to 1000; optional.

        Returns:
            An empty dict if there are no headers.

        Phases: rewrite, access, response, log. `max_headers` has no effect there: Kong gives
        what it has saved, up to its own limit. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.request.get_host",
        ("rewrite", "access", "response", "log"),
        returns="str",
        doc="""The host that the client has asked for, in lower case and without a port.

        It comes from the request line or from the header `Host`.

        Phases: rewrite, access, response, log. Works from Kong 3.10 on, if the request has
        reached `access`; in older releases the handler gets no answer. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.request.get_http_version",
        ("rewrite", "access", "response"),
        returns="Optional[float]",
        doc="""The version of HTTP that the client speaks, such as `1.1` or `2`.

        Whole numbers are `int`, so HTTP/2 is `2`; comparisons with `2.0` hold all the same.

        Returns:
            None if nginx does not know the version.

        Phases: rewrite, access, response. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.request.get_method",
        ("rewrite", "access", "response"),
        returns="str",
        doc="""The method of the request, such as `GET`.

        Phases: rewrite, access, response. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.request.get_path",
        ("rewrite", "access", "response", "log"),
        returns="str",
        doc="""The path of the request in normal form, without the query.

        Percent escapes are undone except those of reserved characters such as `/` and `?`, `.` and
        `..` are resolved, and slashes in a row become one, so that it can be compared. Undone
        escapes may give bytes that are not UTF-8. Kong 2.8 gives the path as it was sent.

        Phases: rewrite, access, response, log. Works from Kong 3.10 on, if the request has
        reached `access`; in older releases the handler gets no answer. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.request.get_path_with_query",
        ("rewrite", "access", "response", "log"),
        returns="str",
        doc="""Path and query of the request as they were sent.

        Nothing is decoded. If there is a query, the question mark is part of it.

        Phases: rewrite, access, response, log. Works from Kong 3.10 on, if the request has
        reached `access`; in older releases the handler gets no answer. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.request.get_port",
        ("rewrite", "access", "response", "preread"),
        returns="int",
        doc="""The port of Kong on which the request has arrived.

        Behind a load balancer or a port mapping the client may have used another one;
        `get_forwarded_port` is for that.

        Phases: rewrite, access, response, preread. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.request.get_query",
        ("rewrite", "access", "response"),
        (
            P("max_args", "number", optional=True, low=1, high=1000),
        ),
        returns="dict[str, list[Union[str, bool]]]",
        shape="map",
        step="plugin.StepMultiMap",
        doc="""The arguments of the query: a list of decoded values for each name.

        An argument without a value (`?name`) has an empty list; if it occurs again, `True` stands
        for it in the list. Arguments beyond `max_args` are dropped without notice.

        Args:
            max_args: how many arguments to look at; 100 if left out, or from Kong 3.3 on its
                setting `lua_max_uri_args`; 1 to 1000; optional.

        Returns:
            An empty dict if there is no query.

        Phases: rewrite, access, response. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.request.get_query_arg",
        ("rewrite", "access", "response"),
        (
            P("name", "string"),
        ),
        returns="Union[str, bool, None]",
        doc="""The value of an argument of the query, or its first one if it occurs more often.

        The value is decoded. `?name` gives `True`, `?name=` an empty string. Kong looks among the
        first 100 arguments, or from Kong 3.3 on among as many as its setting `lua_max_uri_args`
        says.

        Args:
            name: its name, decoded; upper and lower case differ.

        Returns:
            None if there is no such argument.

        Phases: rewrite, access, response. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.request.get_raw_body",
        ("rewrite", "access", "response"),
        (
            P("max_allowed_file_size", "number", optional=True),
        ),
        returns="bytes",
        shape="bytes",
        doc="""The body of the request as bytes.

        A body that nginx has put on disk, by default one above 8 kB
        (`nginx_http_client_body_buffer_size`), ends the event: the client gets status 500, and the
        handler no answer. With `max_allowed_file_size`, which Kong knows from 3.8 on, it is read
        from there; the event still ends if the body is larger than that.

        Args:
            max_allowed_file_size: how many bytes to read from disk at most; 0 for any number,
                negative for not at all; optional.

        Returns:
            Empty bytes if the request has no body.

        Phases: rewrite, access, response. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.request.get_raw_path",
        ("rewrite", "access", "response", "log"),
        returns="str",
        since="3.0",
        doc="""The path of the request as it was sent, without the query.

        Nothing is decoded or resolved. To decide who may go where, compare `get_path`: there is
        more than one way to write a path.

        Returns:
            An empty string if there is no request line.

        Phases: rewrite, access, response, log. Works from Kong 3.10 on, if the request has
        reached `access`; in older releases the handler gets no answer. Kong 3.0 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.request.get_raw_query",
        ("rewrite", "access", "response"),
        returns="str",
        doc="""The query of the request, not decoded and without the question mark.

        Returns:
            An empty string if there is no query.

        Phases: rewrite, access, response. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.request.get_scheme",
        ("rewrite", "access", "response", "log"),
        returns="str",
        doc="""How the request has reached Kong: `http` or `https`.

        Behind a load balancer that ends TLS this is `http`; `get_forwarded_scheme` is for that.

        Phases: rewrite, access, response, log. Works from Kong 3.10 on, if the request has
        reached `access`; in older releases the handler gets no answer. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.request.get_start_time",
        ("rewrite", "access", "response", "log"),
        returns="float",
        since="3.0",
        doc="""When Kong began to process the request, in milliseconds since the epoch.

        Phases: rewrite, access, response, log. Kong 3.0 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.request.get_uri_captures",
        ("rewrite", "access", "response", "log"),
        returns="UriCaptures",
        shape="UriCaptures",
        since="3.1",
        doc="""What the capture groups of the route's path have matched.

        This is about routes whose path is a regular expression. The dict `unnamed` has the number
        of each group as key, with the whole match under 0, and `named` the name of each group that
        has one. An optional group that has matched nothing is `False`.

        Returns:
            An empty dict for both if the route has no groups, and in `rewrite`, where there is
            no route yet.

        Phases: rewrite, access, response, log. Kong 3.1 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.response.add_header",
        ("rewrite", "access", "response"),
        (
            P("name", "string"),
            P("value", "header"),
        ),
        doc="""Add a line of a header to the answer; those that are there stay.

        Numbers and booleans are sent as text, an empty string as one blank. A list gives one line
        for each item and needs Kong 3.6.

        Args:
            name: its name.
            value: its value, or a list of strings.

        Phases: rewrite, access, response. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.response.clear_header",
        ("rewrite", "access", "response"),
        (
            P("name", "string"),
        ),
        doc="""Remove all lines of a header from the answer.

        In `rewrite` and `access` it removes what plugins have set so far; the service's headers
        come later.

        Args:
            name: its name, in any case; - and _ are the same.

        Phases: rewrite, access, response. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.response.error",
        ("rewrite", "access", "response"),
        (
            P("status", "number", low=400, high=599),
            P("message", "body", optional=True),
            P("headers", "headers", optional=True),
        ),
        returns="NoReturn",
        rule="error_type",
        doc="""Answer the client with an error in a format that it accepts, and end the request.

        The call does not return: it ends the handler, with the same effect as `kong.response.exit`.

        The format is JSON, HTML, XML or plain text. `Content-Type` in `headers`, in just this
        spelling, decides, else the `Accept` of the request, else it is JSON. Kong has no other
        formats: any other `Content-Type` there is refused. A gRPC client gets a status and no body.

        Kong puts the message into a template as it is: a quotation mark or a line break in it makes
        the JSON invalid, `<` the HTML and XML, and the JSON that a dict becomes fits none of them.
        For a body of your own use `kong.response.exit`.

        Args:
            status: the status; 400 to 599.
            message: what to say; if left out, Kong's words for the status; optional.
            headers: headers to set, as in `set_headers`; optional.

        Ends the handler: nothing after the call runs but ``finally`` blocks.

        Phases: rewrite, access, response. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.response.exit",
        ("rewrite", "access", "response", "preread"),
        (
            P("status", "number", low=100, high=599),
            P("body", "body", optional=True),
            P("headers", "headers", optional=True),
        ),
        returns="NoReturn",
        rule="stream_status",
        doc="""Answer the client and end the request.

        The call does not return: it ends the handler. Plugins that would run later in the phase are
        skipped, the service is not asked any more, and `log` runs.

        A dict or a list is sent as JSON, with `application/json; charset=utf-8` as content type
        unless `headers` has one; an empty list is sent as `{}`. Without a body the client gets an
        empty one, or Kong's message for some errors such as 404 and 500. To a gRPC client text goes
        as `grpc-message` and the status as `grpc-status`.

        In `preread` the status must be one of 200, 400, 403, 500, 502 and 503. `headers` have no
        effect there, and a body reaches the client only with 200; with the others it is logged.

        Args:
            status: the status; 100 to 599.
            body: text or bytes to send as they are, or a dict or list to send as JSON;
                optional.
            headers: headers to set, as in `set_headers`; optional.

        Ends the handler: nothing after the call runs but ``finally`` blocks.

        Phases: rewrite, access, response, preread. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.response.get_header",
        ("response", "log"),
        (
            P("name", "string"),
        ),
        returns="Optional[str]",
        doc="""The value of a header of the answer, or of its first line if it occurs more often.

        It is among the headers of the service and those set by Kong and its plugins. Kong looks at
        the first 100, or from Kong 3.3 on at as many as its setting `lua_max_resp_headers` says.

        Args:
            name: its name, in any case; - and _ are the same.

        Returns:
            None if there is no such header.

        Phases: response, log. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.response.get_headers",
        ("response", "log"),
        (
            P("max_headers", "number", optional=True, low=1, high=1000),
        ),
        returns="dict[str, list[str]]",
        shape="map",
        step="plugin.StepMultiMap",
        doc="""The headers of the answer: a list of values for each name.

        Names are in lower case. Header lines beyond `max_headers` are dropped without notice.

        Args:
            max_headers: how many lines to look at; 100 if left out, or from Kong 3.3 on its
                setting `lua_max_resp_headers`; 1 to 1000; optional.

        Returns:
            An empty dict if there are no headers.

        Phases: response, log. `max_headers` has no effect there: Kong gives what it has saved,
        up to its own limit. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.response.get_source",
        ("response", "log"),
        returns="Literal[\"exit\", \"error\", \"service\"]",
        doc="""Where the answer comes from: `service`, `exit` or `error`.

        `exit` means that a plugin has answered with `kong.response.exit` or `kong.response.error`,
        and `error` that Kong has, because no route matched, the service could not be reached, or
        something broke.

        Phases: response, log. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.response.get_status",
        ("response", "log"),
        returns="int",
        doc="""The status of the answer to the client.

        Phases: response, log. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.response.set_header",
        ("rewrite", "access", "response"),
        (
            P("name", "string"),
            P("value", "header"),
        ),
        doc="""Set a header of the answer, in place of all lines of that name.

        Numbers and booleans are sent as text, an empty string as one blank, since nginx takes it
        for a header to drop. `Transfer-Encoding` is nginx's own: Kong leaves it alone and logs a
        warning. A list gives one line for each item and needs Kong 3.6; `set_headers` takes lists
        in older releases too.

        Args:
            name: its name.
            value: its value, or a list of strings.

        Phases: rewrite, access, response. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.response.set_headers",
        ("rewrite", "access", "response"),
        (
            P("headers", "headers"),
        ),
        doc="""Set several headers of the answer, each in place of all lines of its name.

        Other headers stay, also one whose value is None. Values are treated as in `set_header`; a
        list gives one line for each item.

        Args:
            headers: values, or lists of strings, by name.

        Phases: rewrite, access, response. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.response.set_status",
        ("rewrite", "access", "response"),
        (
            P("status", "number", low=100, high=599),
        ),
        doc="""Set the status of the answer to the client.

        Before `response` it has an effect only if the service is not asked: its status replaces
        this one.

        Args:
            status: the status; 100 to 599.

        Phases: rewrite, access, response. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.router.get_route",
        ("access", "response", "log"),
        returns="Optional[Route]",
        shape="Route",
        step="plugin.StepRoute",
        doc="""The route that the request has matched.

        Returns:
            None if no route has matched, which only `log` gets to see.

        Phases: access, response, log. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.router.get_service",
        ("access", "response", "log"),
        returns="Optional[Service]",
        shape="Service",
        step="plugin.StepService",
        doc="""The service that the route belongs to.

        Returns:
            None if no route has matched, or the route has no service.

        Phases: access, response, log. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.request.add_header",
        ("rewrite", "access"),
        (
            P("header", "string"),
            P("value", "line"),
        ),
        doc="""Add a line of a header to the request; those that are there stay.

        One value per call: Kong does not make lines out of a list here. `Host` has one value only,
        which is replaced.

        Args:
            header: its name.
            value: its value.

        Phases: rewrite, access. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.request.clear_header",
        ("rewrite", "access"),
        (
            P("header", "string"),
        ),
        doc="""Remove all lines of a header from the request.

        Args:
            header: its name, in any case.

        Phases: rewrite, access. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.request.clear_query_arg",
        ("rewrite", "access"),
        (
            P("name", "string"),
        ),
        since="3.9",
        doc="""Remove an argument from the query, each time that it occurs.

        The rest of the query is written anew, so escapes in it may look different; from Kong 3.10
        on a blank is `%20` and never `+`.

        Args:
            name: its name, decoded; upper and lower case differ.

        Phases: rewrite, access. Kong 3.9 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.request.disable_tls",
        ("preread",),
        returns="Optional[bool]",
        doc="""Connect to the service of a stream without TLS.

        Returns:
            None if nginx could not switch it off.

        Phases: preread. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.request.enable_buffering",
        ("rewrite", "access"),
        doc="""Let Kong read the whole answer of the service before it sends it on.

        `kong.service.response` then has status, headers and body of the answer in `log` too. A
        plugin with a `response` method need not call it. Kong keeps the answer in memory, and the
        client gets nothing before the service is done. Connections that are upgraded (WebSocket)
        are not buffered.

        Kong 3.8 and older end the event with an error if the client speaks HTTP/2.

        Phases: rewrite, access. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.request.set_body",
        ("rewrite", "access"),
        (
            P("args", "table"),
            P("mimetype", "string", optional=True, choices=("application/json", "application/x-www-form-urlencoded", "multipart/form-data"), pattern="application/json(;.*)?"),
        ),
        returns="Optional[bool]",
        rule="mimetype",
        doc="""Set the body of the request from a dict or list, and its content type.

        Kong encodes it as `application/json`, `application/x-www-form-urlencoded` or
        `multipart/form-data`. Name one: without `mimetype` that of the request counts, and if it is
        none of these, Kong ends the event with status 500.

        In JSON, members that are `None` are dropped, an empty list becomes `{}`, and numbers keep
        16 digits, 14 up to Kong 3.5. In a form the values are those of `set_query`, in multipart
        strings and numbers.

        Args:
            args: what to send; for a form and multipart a dict with strings as keys.
            mimetype: its content type, in lower case; parameters may follow after a semicolon;
                one of `application/json`, `application/x-www-form-urlencoded`, `multipart/form-
                data`; optional.

        Returns:
            None if there is no `mimetype` and the request has no content type; the body stays.

        Phases: rewrite, access. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.request.set_header",
        ("rewrite", "access"),
        (
            P("header", "string"),
            P("value", "header"),
        ),
        returns="Optional[bool]",
        doc="""Set a header of the request, in place of all lines of that name.

        Numbers and booleans are sent as text, an empty string as one blank. A list gives one line
        for each item and needs Kong 3.6; `set_headers` takes lists in older releases too. `Host`,
        which takes one string, is what the service gets as its host. The pseudo-header `:authority`
        of gRPC can be set too.

        Args:
            header: its name.
            value: its value, or a list of strings.

        Returns:
            None if the header is another one than `:authority`, or if the service is not asked
            by gRPC.

        Phases: rewrite, access. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.request.set_headers",
        ("rewrite", "access"),
        (
            P("headers", "headers"),
        ),
        doc="""Set several headers of the request, each in place of all lines of its name.

        Other headers stay, also one whose value is None. Values are treated as in `set_header`; a
        list gives one line for each item.

        Args:
            headers: values, or lists of strings, by name.

        Phases: rewrite, access. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.request.set_method",
        ("rewrite", "access"),
        (
            P("method", "string", choices=("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "MKCOL", "COPY", "MOVE", "PROPFIND", "PROPPATCH", "LOCK", "UNLOCK", "PATCH", "TRACE")),
        ),
        doc="""Set the method of the request.

        Args:
            method: the method, in upper case; one of `GET`, `HEAD`, `PUT`, `POST`, `DELETE`,
                `OPTIONS`, `MKCOL`, `COPY`, `MOVE`, `PROPFIND`, `PROPPATCH`, `LOCK`, `UNLOCK`,
                `PATCH`, `TRACE`.

        Phases: rewrite, access. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.request.set_path",
        ("rewrite", "access"),
        (
            P("path", "string", begins="/"),
        ),
        doc="""Set the path that the service is asked for.

        It is the whole path: that of the service's entity is not put in front of it. The query
        stays. Characters that cannot stand in a path are escaped; `%` can, so escapes stay as they
        are. In `rewrite`, where it is allowed from Kong 3.8 on, it has no effect: the route sets
        the path afterwards.

        Args:
            path: the path, without a query; begins with `/`.

        Phases: rewrite, access. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.request.set_query",
        ("rewrite", "access"),
        (
            P("args", "query"),
        ),
        doc="""Set the query from arguments, in place of the one that is there.

        Names and values are escaped, and sorted by name. A list gives one argument for each item,
        `True` an argument without a value (`?name`), and `False` or None none.

        Args:
            args: values by name; an empty dict for no query.

        Phases: rewrite, access. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.request.set_raw_body",
        ("rewrite", "access"),
        (
            P("body", "string"),
        ),
        doc="""Set the body of the request as it stands.

        `Content-Length` follows; `Content-Type` is up to the plugin. Kong reads a large body
        slowly, 5 MB in 8 seconds, in which its worker does nothing else.

        Args:
            body: text, which is sent as UTF-8, or bytes.

        Phases: rewrite, access. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.request.set_raw_query",
        ("rewrite", "access"),
        (
            P("query", "string"),
        ),
        doc="""Set the query as it stands.

        Nothing is escaped; that is up to the plugin.

        Args:
            query: the query, without the question mark; empty for none.

        Phases: rewrite, access. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.request.set_scheme",
        ("rewrite", "access"),
        (
            P("scheme", "string", choices=("http", "https")),
        ),
        doc="""Set whether the service is asked with TLS or without.

        The port stays: `kong.service.set_target` changes it. In `rewrite`, where it is allowed from
        Kong 3.8 on, it has no effect: the route's service sets the scheme afterwards.

        Args:
            scheme: the scheme; one of `http`, `https`.

        Phases: rewrite, access. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.response.get_body",
        ("response", "log"),
        (
            P("mimetype", "string", optional=True),
            P("max_args", "number", optional=True, default=100, low=1, high=1000),
        ),
        returns="Optional[Body]",
        shape="map",
        doc="""The body that the service has sent, decoded: JSON, a form or multipart.

        The content type decides, as in `kong.request.get_body`, and what is said there about JSON
        holds here too. A compressed body cannot be decoded.

        Args:
            mimetype: decode it as this content type, whatever the answer's own is; optional.
            max_args: for forms: how many arguments to look at; 1 to 1000; `100` if left out.

        Returns:
            None if the content type is missing or another one, or if the body does not fit it.

        Phases: response, log. Works only if the answer was buffered; else the handler gets no
        answer. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.response.get_header",
        ("response", "log"),
        (
            P("name", "string"),
        ),
        returns="Optional[str]",
        doc="""The value of a header of the service, or of its first line if it occurs more often.

        Args:
            name: its name, in any case; - and _ are the same.

        Returns:
            None if the service has sent no such header.

        Phases: response, log. Works only if the answer was buffered; else the handler gets no
        answer. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.response.get_headers",
        ("response", "log"),
        (
            P("max_headers", "number", optional=True, low=1, high=1000),
        ),
        returns="dict[str, list[str]]",
        shape="map",
        step="plugin.StepMultiMap",
        doc="""The headers of the service; a plugin server always gets an empty dict.

        Kong has the headers of a buffered answer in a table that finds one by its name but lists
        none, and nothing is left of it on the way to a plugin server. Use
        `kong.service.response.get_header`, or `kong.response.get_headers` for all headers of the
        answer.

        Args:
            max_headers: without effect; 1 to 1000; optional.

        Returns:
            An empty dict if the answer is buffered, which it always is in `response`.

        Phases: response, log. An empty dict if the answer was buffered; else the handler gets
        no answer. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.response.get_raw_body",
        ("response", "log"),
        returns="bytes",
        shape="bytes",
        doc="""The body that the service has sent, as bytes.

        It is not decompressed: with a `Content-Encoding` such as gzip these are the compressed
        bytes.

        Returns:
            Empty bytes if there is no body.

        Phases: response, log. Works only if the answer was buffered; else the handler gets no
        answer. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.response.get_status",
        ("response", "log"),
        returns="Optional[int]",
        doc="""The status that the service has sent.

        If the service could not be reached, it is the status that nginx has made of that, such as
        502.

        Returns:
            None if the service has not answered.

        Phases: response, log. Works only if the answer was buffered; else the handler gets no
        answer. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.set_retries",
        ("access",),
        (
            P("retries", "integer", low=0, high=32767),
        ),
        since="3.8",
        doc="""Set how often Kong tries another time if the service cannot be reached.

        Args:
            retries: how many times after the first; 0 for none; 0 to 32767.

        Phases: access. Kong 3.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.set_target",
        ("access", "preread"),
        (
            P("host", "string"),
            P("port", "integer", low=0, high=65535),
        ),
        doc="""Send the request to another host and port.

        The `Host` header of the request becomes `host`, without the port; set it after this call if
        the service wants another one. If an Upstream has the name `host`, it picks the target.

        In `preread` it works from Kong 3.8 on. These releases do not refuse it in `rewrite` either, but
        fail there, because the request has no target yet: so it is refused here.

        Args:
            host: a name or an address.
            port: the port; 0 to 65535.

        Phases: access, preread. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.set_timeouts",
        ("access",),
        (
            P("connect_timeout", "integer", low=1, high=2147483646),
            P("write_timeout", "integer", low=1, high=2147483646),
            P("read_timeout", "integer", low=1, high=2147483646),
        ),
        since="3.8",
        doc="""Set how long Kong waits for the service, in milliseconds.

        The times for writing and reading count between two operations on the connection, not for
        the whole request.

        Args:
            connect_timeout: for the connection, in milliseconds; 1 to 2147483646.
            write_timeout: for sending the request, in milliseconds; 1 to 2147483646.
            read_timeout: for receiving the answer, in milliseconds; 1 to 2147483646.

        Phases: access. Kong 3.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.set_tls_verify",
        ("rewrite", "access", "preread"),
        (
            P("on", "boolean"),
        ),
        returns="Optional[bool]",
        doc="""Set whether Kong verifies the certificate of the service.

        It takes the place of the service's `tls_verify` and has an effect only where Kong speaks
        TLS to the service. Allowed in `preread` from Kong 3.2 on.

        Args:
            on: whether it is verified.

        Returns:
            None if nginx could not set it.

        Phases: rewrite, access, preread. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.set_tls_verify_depth",
        ("rewrite", "access", "preread"),
        (
            P("depth", "number", low=0),
        ),
        returns="Optional[bool]",
        doc="""Set how long the chain of certificates of the service may be.

        It has an effect only if the certificate is verified. Allowed in `preread` from Kong 3.2 on.

        Args:
            depth: how many certificates there may be between the service's own and the trusted
                one; at least 0.

        Returns:
            None if nginx could not set it.

        Phases: rewrite, access, preread. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.service.set_upstream",
        ("access",),
        (
            P("host", "string"),
        ),
        returns="Optional[bool]",
        doc="""Send the request to an Upstream of Kong's configuration, which picks the target.

        Args:
            host: the name of the Upstream entity.

        Returns:
            None if there is no Upstream of this name; the request goes where it would have
            gone.

        Phases: access. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.table.clear",
        PHASES,
        (
            P("tab", "table"),
        ),
        doc="""Do nothing that can be seen from Python: it empties a copy.

        Args:
            tab: a dict or list, which stays as it is; its own `clear` empties it.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.table.merge",
        PHASES,
        (
            P("t1", "table", optional=True),
            P("t2", "table", optional=True),
        ),
        returns="dict[Any, Any]",
        shape="map",
        doc="""Two dicts in one, where the second one's values count; Python's `{**t1, **t2}`.

        Dicts inside them are not merged.

        Args:
            t1: a dict; optional.
            t2: another; optional.

        Returns:
            An empty dict if both are empty or left out.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.table.new",
        PHASES,
        (
            P("narr", "number", low=0),
            P("nrec", "number", low=0),
        ),
        returns="list[Any]",
        shape="list",
        doc="""An empty list; of no use from Python.

        In Lua it reserves room for a table that is to grow. What arrives in Python is `[]`.

        Args:
            narr: for how many items of a list there is to be room; at least 0.
            nrec: for how many other keys; at least 0.

        Returns:
            An empty list, always.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.telemetry.log",
        PHASES,
        (
            P("plugin_name", "string"),
            P("plugin_config", "table"),
            P("message_type", "string"),
            P("message", "string", optional=True),
            P("attributes", "table", optional=True),
        ),
        returns="Optional[bool]",
        since="3.8",
        doc="""Hand Kong's OpenTelemetry plugin a structured log entry for the request.

        The plugin `opentelemetry` must be set up to report logs; if not, nothing is recorded. Kong
        adds the attributes `message.type`, `plugin.name`, `plugin.id` and `plugin.instance.name`.
        Of the configuration it reads `__plugin_id` and `plugin_instance_name` only, which is what
        to send if the whole is large. It keeps a limited number of entries for a request and drops
        the rest.

        Args:
            plugin_name: the plugin's name.
            plugin_config: the plugin's configuration, as `__init__` gets it.
            message_type: what kind of message it is, a word to search by.
            message: the message; optional.
            attributes: a dict of what else belongs to it: text, numbers, booleans; optional.

        Returns:
            None if Kong reports no logs to OpenTelemetry, else True.

        Phases: all. In the log phase the entry is lost, even if the result is True: the
        OpenTelemetry plugin has taken the entries before. Kong 3.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.vault.flush",
        PHASES,
        since="3.3",
        doc="""Forget the secrets that the nginx worker has cached, and fetch all anew.

        Kong fetches them in the background: the call does not wait for that. Kong renews secrets by
        itself when their time is over, so that plugins hardly need it.

        Phases: all. Kong 3.3 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.vault.get",
        PHASES,
        (
            P("reference", "string"),
        ),
        returns="Optional[str]",
        doc="""The secret that a reference names.

        Kong caches it; the first time the call waits for the vault.

        Args:
            reference: the reference, braces included.

        Returns:
            None if the reference is not valid, or the vault has no such secret or cannot be
            asked.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.vault.init_worker",
        PHASES,
        since="3.3",
        doc="""Start Kong's renewal of secrets in the nginx worker.

        Kong has done so before any plugin runs, and another call has no effect.

        Phases: all. Kong 3.3 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.vault.is_reference",
        PHASES,
        (
            P("reference", "any"),
        ),
        returns="bool",
        doc="""Whether a text looks like a reference to a secret: `{vault://…}`.

        Only the beginning and the last brace are looked at; `parse_reference` looks at the rest.

        Args:
            reference: the text; what is none is no reference.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.vault.parse_reference",
        PHASES,
        (
            P("reference", "string"),
        ),
        returns="Optional[VaultReference]",
        shape="VaultReference",
        doc="""Take a reference to a secret apart; nothing is fetched.

        The last part of the path is the `key`, a field of a secret that is a JSON object, and what
        is before it the `resource`. If the path has only one part, it is the `resource`, and there
        is no `key`.

        Args:
            reference: the reference.

        Returns:
            None if it is not a valid reference.

        Phases: all. Kong 2.8 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.vault.update",
        PHASES,
        (
            P("options", "table"),
        ),
        returns="dict[str, Any]",
        shape="map",
        since="3.4",
        doc="""Put secrets into a dict, as its key `$refs` says.

        `$refs` has a reference for each key that is to get a secret, or a list or dict of
        references for a key that holds such. Dicts inside are treated in the same way. The argument
        stays as it is; the result has the secrets. They come from Kong's caches only: one that is
        not there is an empty string, and Kong logs a warning. Kong calls this function
        experimental.

        Args:
            options: a dict with the key `$refs`.

        Phases: all. Kong 3.4 to 3.10.
        """,
    ),
    FunctionSpec(
        "kong.vault.warmup",
        PHASES,
        (
            P("input", "table"),
        ),
        since="3.5",
        doc="""Fetch all secrets that a dict refers to into Kong's caches.

        References are looked for in keys and values, at any depth. The secrets are fetched one
        after the other, and the call waits for them. It says nothing about those that are not
        found.

        Args:
            input: a dict or list with references in it.

        Phases: all. Kong 3.5 to 3.10.
        """,
    ),
)

#: Shapes of the fields of records, where an empty table needs one.
RECORDS: dict[str, dict[str, str]] = {
    "EntityId": {},
    "Route": {"service": "EntityId", "headers": "map"},
    "Service": {"client_certificate": "EntityId"},
    "Consumer": {},
    "Credential": {"consumer": "EntityId"},
    "MemoryStats": {"workers_lua_vms": "list of WorkerMemory", "lua_shared_dicts": "map of SharedDict"},
    "WorkerMemory": {},
    "SharedDict": {},
    "NginxStatistics": {},
    "UriCaptures": {"unnamed": "map", "named": "map"},
    "VaultReference": {"config": "map"},
}

#: Names of Kong's PDK that a plugin server cannot use, and why.
UNREACHABLE: dict[str, str] = {
    "kong.cache": "It is an object that takes Lua functions, which a plugin server cannot give it. Keep what is to be cached in the plugin's own object, or in a store such as Redis.",
    "kong.client.tls.disable_http2_alpn": "It only works in the phase client_hello, in which Kong calls no plugin server; only Kong 3.9 has it.",
    "kong.cluster_events": "It is an object that takes Lua functions, which a plugin server cannot give it.",
    "kong.ctx.core": "It is a table of Kong's own, and a plugin server can only call functions. Use kong.ctx.shared for values of plugins.",
    "kong.ctx.plugin": "It is a table, and a plugin server can only call functions. Use kong.ctx.shared, with keys that begin with the plugin's name.",
    "kong.db": "It is a table of objects, which cannot leave Kong. Use kong.client.load_consumer for a consumer, and Kong's Admin API for all else.",
    "kong.dns": "It is for Kong's own code, and changes with its release. Use Python's socket.getaddrinfo, which does not know Kong's own DNS settings.",
    "kong.log.new": "It returns a table of functions, which cannot leave Kong. Use Python's logging, or kong.log.",
    "kong.nginx.shared.get": "Kong has no such function. Use kong.ctx.shared.get.",
    "kong.nginx.shared.set": "Kong has no such function. Use kong.ctx.shared.set.",
    "kong.response.get_raw_body": "Kong allows it only while it sends the body to the client, where it cannot ask a plugin server. In `response` use kong.service.response.get_raw_body.",
    "kong.response.set_raw_body": "Kong allows it only while it sends the body to the client, where it cannot ask a plugin server. In `response` use kong.response.exit with the new body.",
    "kong.service.request.enable_tls": "Kong has it for HTTP only, and there only while it connects to the service, where it cannot ask a plugin server. Use kong.service.request.set_scheme in `access`.",
    "kong.service.set_target_retry_callback": "It takes a Lua function, which a plugin server cannot send. Let an Upstream with several targets (kong.service.set_upstream) do the retries.",
    "kong.service.set_tls_cert_key": "It takes a certificate and a key that Lua has parsed, which a plugin server cannot send. Set `client_certificate` of the service.",
    "kong.service.set_tls_verify_store": "It takes a certificate store that Lua has built, which a plugin server cannot send. Set `ca_certificates` of the service.",
    "kong.tracing.active_span": "It returns a span. Spans hold functions, which cannot leave Kong. To take part in a trace, read the header traceparent, and use a Python library for tracing.",
    "kong.tracing.create_span": "It takes the tracer and returns a span. Spans hold functions, which cannot leave Kong. To make spans, use a Python library for tracing with the header traceparent.",
    "kong.tracing.get_root_span": "It returns a span. Spans hold functions, which cannot leave Kong. The header traceparent tells the ids of the trace and of the span above.",
    "kong.tracing.get_sampling_decision": "It is a method of the tracer, an object that cannot leave Kong and would have to be given with each call. The last part of the header traceparent says whether the client has its trace sampled.",
    "kong.tracing.get_spans": "It returns the list of spans. Spans hold functions, which cannot leave Kong.",
    "kong.tracing.init_spans": "It begins a new list of spans and returns it. Spans hold functions, which cannot leave Kong.",
    "kong.tracing.link_span": "It takes the tracer and a span. Spans hold functions, which cannot leave Kong, so a plugin server has none to give.",
    "kong.tracing.new": "It returns a tracer, a table of functions, which cannot leave Kong. Use a Python library for tracing.",
    "kong.tracing.process_span": "It takes a Lua function, which a plugin server cannot give it.",
    "kong.tracing.set_active_span": "It takes a span. Spans hold functions, which cannot leave Kong, so a plugin server has none to give.",
    "kong.tracing.set_global_tracer": "It takes a tracer, a table of functions, which a plugin server cannot give it.",
    "kong.tracing.set_should_sample": "It is a method of the tracer, an object that cannot leave Kong and would have to be given with each call.",
    "kong.tracing.start_span": "It returns a span. Spans hold functions, which cannot leave Kong. To make spans, use a Python library for tracing with the header traceparent.",
    "kong.vault.try": "It takes a Lua function, which a plugin server cannot send. Fetch the secret with kong.vault.get and try in Python.",
    "kong.version": "It is a string, and a plugin server can only call functions. Kong's Admin API tells the version (GET /).",
    "kong.version_num": "It is a number, and a plugin server can only call functions. Kong's Admin API tells the version (GET /).",
    "kong.worker_events": "It is Kong's own channel between nginx workers, and what is sent there only arrives in Lua functions, which a plugin server cannot give it.",
}

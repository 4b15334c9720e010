"""Envoy in front of gates, as its bootstrap file in JSON: TLS, a ring of gates by credential, and strict HTTP.

Settings follow Envoy's own advice for edges (envoyproxy.io, "Configuring Envoy as an edge proxy").
"""

import json
from typing import Any

from palladion.gate.deploy.front import (
    CHECK_SECONDS,
    CONNECT_SECONDS,
    CONNECTIONS_MAX,
    HEAD_KIB_MAX,
    HEAD_SECONDS,
    IDLE_SECONDS,
    VERDICT_PATH,
    Front,
)
from palladion.gate.deploy.plan import Address

_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
_HTTP = "type.googleapis.com/envoy.extensions.filters.http"
_MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_BUFFER_BYTES = 32 * 1024
_STREAMS_MAX = 100
VERDICT_CONNECTIONS_MAX = 4
_WINDOW_BYTES = 64 * 1024
# One key has one gate, in whichever of its two headers it comes, and however "Bearer" is written.
_SCHEME = "^[Bb][Ee][Aa][Rr][Ee][Rr] +"

Document = dict[str, Any]


def bootstrap(front: Front, *, authorization: Address | None = None, alone: bool = False) -> str:
    """The file. `authorization` is a server that is asked about each request's head first (ext_authz), if any.

    Without one, that is the gate's own verdict, where it can be asked (`Front.verdict`), unless gates shall be `alone`.
    """
    prefix = ""
    if authorization is None and not alone and front.verdict is not None:
        authorization, prefix = front.verdict, VERDICT_PATH
    document = {
        "static_resources": {
            "listeners": [_listener(front, authorization, prefix)],
            "clusters": [
                _gates(front),
                *([_authorizer(authorization)] if authorization is not None else []),
                *([_answering(front.answered_by)] if front.answered_by is not None else []),
            ],
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3."
                        "DownstreamConnectionsConfig",
                        "max_active_downstream_connections": CONNECTIONS_MAX,
                    },
                }
            ]
        },
    }
    return json.dumps(document, indent=2) + "\n"


def _listener(front: Front, authorization: Address | None, prefix: str) -> Document:
    certificate = {"certificate_chain": {"filename": front.certificate}, "private_key": {"filename": front.key}}
    return {
        "name": "api",
        "address": _socket(front.listen),
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": _manager(front, authorization, prefix),
                    }
                ],
                "transport_socket": {
                    "name": "envoy.transport_sockets.tls",
                    "typed_config": {
                        "@type": f"{_TLS}.DownstreamTlsContext",
                        "common_tls_context": {
                            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                            "tls_certificates": [certificate],
                            "alpn_protocols": ["h2", "http/1.1"],
                        },
                    },
                },
                "transport_socket_connect_timeout": f"{HEAD_SECONDS}s",
            }
        ],
    }


def _manager(front: Front, authorization: Address | None, prefix: str) -> Document:
    filters: list[Document] = []
    if authorization is not None:
        filters.append(_ask_first(authorization, prefix))
    filters.append({"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_HTTP}.router.v3.Router"}})
    return {
        "@type": _MANAGER,
        "stat_prefix": "api",
        "route_config": _routes(front),
        "http_filters": filters,
        # the peer's address counts, and no header that says another
        "use_remote_address": True,
        "skip_xff_append": True,
        "forward_client_cert_details": "SANITIZE",
        "server_header_transformation": "PASS_THROUGH",
        "generate_request_id": False,
        "normalize_path": False,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "common_http_protocol_options": {
            "headers_with_underscores_action": "REJECT_REQUEST",
            "idle_timeout": "60s",
            "max_headers_count": 100,
        },
        "http2_protocol_options": {
            "max_concurrent_streams": _STREAMS_MAX,
            "initial_stream_window_size": _WINDOW_BYTES,
            "initial_connection_window_size": 16 * _WINDOW_BYTES,
        },
        "max_request_headers_kb": HEAD_KIB_MAX,
        "request_headers_timeout": f"{HEAD_SECONDS}s",
        "stream_idle_timeout": f"{front.plan.request_seconds + 5}s",
        "delayed_close_timeout": "5s",
    }


def _routes(front: Front) -> Document:
    proxy = front.plan.policy.proxy
    target = {
        "cluster": "gates",
        "timeout": f"{front.plan.request_seconds + 5}s",
        "hash_policy": [
            {
                "header": {
                    "header_name": "authorization",
                    "regex_rewrite": {"pattern": {"regex": _SCHEME}, "substitution": ""},
                },
                "terminal": True,
            },
            {"header": {"header_name": "x-api-key"}, "terminal": True},
            {"connection_properties": {"source_ip": True}},
        ],
        # only what has not reached a gate: a query that may have been answered is the client's to repeat
        "retry_policy": {"retry_on": "connect-failure", "num_retries": 1},
    }
    others: Document = {"direct_response": {"status": 404}}
    if front.answered_by is not None:
        # the gate gets a copy, and nobody waits for what it says to it
        others = {"route": {"cluster": "answers", "timeout": target["timeout"]}}
        target = {
            "cluster": "answers",
            "timeout": target["timeout"],
            "request_mirror_policies": [{"cluster": "gates", "disable_shadow_host_suffix_append": True}],
        }
    routes: list[Document] = [
        {"match": {"path_separated_prefix": path} if path != "/" else {"prefix": "/"}, "route": target}
        for path in front.paths
    ]
    routes.append({"match": {"prefix": "/"}, **others})
    host: Document = {"name": "api", "domains": ["*"], "routes": routes}
    if front.removed:
        host["request_headers_to_remove"] = front.removed
    if proxy.address_header:
        host["request_headers_to_remove"] = [name for name in front.removed if name != proxy.address_header]
        told = {"key": proxy.address_header, "value": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"}
        host["request_headers_to_add"] = [{"header": told, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]
    return {"name": "api", "virtual_hosts": [host]}


def _gates(front: Front) -> Document:
    named = any(worker.address is not None and not worker.address.is_ip for worker in front.workers)
    cluster: Document = {
        "name": "gates",
        "type": "STRICT_DNS" if named else "STATIC",
        "connect_timeout": f"{CONNECT_SECONDS}s",
        "lb_policy": "RING_HASH",
        "ring_hash_lb_config": {"minimum_ring_size": 1024, "hash_function": "XX_HASH"},
        # of none that is well, none is asked
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "health_checks": [
            {
                "timeout": f"{CONNECT_SECONDS}s",
                "interval": f"{CHECK_SECONDS}s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/health/ready"},
            }
        ],
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "typed_extension_protocol_options": {
            _OPTIONS: {
                "@type": f"type.googleapis.com/{_OPTIONS}",
                "common_http_protocol_options": {"idle_timeout": f"{IDLE_SECONDS}s"},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": "gates",
            "endpoints": [
                {
                    "lb_endpoints": [
                        {"endpoint": {"address": _socket(worker.address) if worker.address else _pipe(worker.path)}}
                        for worker in front.workers
                    ]
                }
            ],
        },
    }
    if front.authority:
        names = {worker.address.host for worker in front.workers if worker.address is not None}
        cluster["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{_TLS}.UpstreamTlsContext",
                "common_tls_context": {
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                    "validation_context": {
                        "trusted_ca": {"filename": front.authority},
                        "match_typed_subject_alt_names": [
                            {
                                "san_type": "DNS" if not Address(name, 0).is_ip else "IP_ADDRESS",
                                "matcher": {"exact": name},
                            }
                            for name in sorted(names)
                        ],
                    },
                },
            },
        }
    return cluster


def _ask_first(server: Address, prefix: str) -> Document:
    return {
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": f"{_HTTP}.ext_authz.v3.ExtAuthz",
            "http_service": {
                "server_uri": {
                    "uri": f"http://{server.host}:{server.port}",
                    "cluster": "authorization",
                    "timeout": "0.5s",
                },
                **({"path_prefix": prefix} if prefix else {}),
            },
            # beside the credential in the other header; of its answer, nothing goes to the gate
            "allowed_headers": {"patterns": [{"exact": "authorization"}, {"exact": "x-api-key"}]},
            # without a verdict nobody comes in
            "failure_mode_allow": False,
            "clear_route_cache": False,
        },
    }


def _authorizer(server: Address) -> Document:
    # the operations port lets one peer have few connections: what is asked beyond them waits its turn
    limits = {"thresholds": [{"max_connections": VERDICT_CONNECTIONS_MAX}]}
    return {**_one(server, "authorization"), "circuit_breakers": limits}


def _answering(server: Address) -> Document:
    return _one(server, "answers")


def _one(server: Address, name: str) -> Document:
    return {
        "name": name,
        "type": "STATIC" if server.is_ip else "STRICT_DNS",
        "connect_timeout": f"{CONNECT_SECONDS}s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _socket(server)}}]}],
        },
    }


def _socket(address: Address) -> Document:
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def _pipe(path: str) -> Document:
    return {"pipe": {"path": path}}

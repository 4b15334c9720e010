"""Servers that only forward, for the gate's bench: Envoy, HAProxy and nginx, one worker each, before one upstream."""

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.gate_house import free_port, running

_HAPROXY = """
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend gate
    bind 127.0.0.1:{port}
    default_backend model
backend model
    http-reuse always
    server model 127.0.0.1:{upstream}
"""

_NGINX = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_body_buffer_size 256k;
    upstream model {{ server 127.0.0.1:{upstream}; keepalive 256; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


def peers() -> dict[str, Callable[[Path, int, int], Sequence[str]]]:
    """What can be started on this machine: by name, the command for a folder, a port and the upstream's port."""
    found: dict[str, Callable[[Path, int, int], Sequence[str]]] = {}
    if (envoy := _envoy()) is not None:
        found["Envoy"] = lambda folder, port, upstream: _write(
            folder / "envoy.json",
            json.dumps(_envoy_config(port, upstream)),
            [str(envoy), "--concurrency", "1", "--log-level", "off", "--disable-hot-restart", "-c"],
        )
    if haproxy := shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin"):
        found["HAProxy"] = lambda folder, port, upstream: _write(
            folder / "haproxy.cfg", _HAPROXY.format(port=port, upstream=upstream), [haproxy, "-f"]
        )
    if nginx := shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin"):
        found["nginx"] = lambda folder, port, upstream: _write(
            folder / "nginx.conf", _NGINX.format(folder=folder, port=port, upstream=upstream), [nginx, "-c"]
        )
    return found


@contextmanager
def forwarding(
    name: str, folder: Path, upstream: int, *, tls: tuple[Path, Path] | None = None
) -> Iterator[tuple[int, int]]:
    """One of `peers` that forwards to a port: its process and port. Envoy ends TLS with a certificate and its key."""
    port = free_port()
    command = peers()[name](folder, port, upstream)
    if tls is not None:
        (folder / "envoy.json").write_text(json.dumps(_envoy_config(port, upstream, tls)))
    with running(command, port) as pid:
        yield pid, port


def _write(path: Path, text: str, command: Sequence[str]) -> list[str]:
    path.write_text(text)
    return [*command, str(path)]


def _envoy() -> Path | None:
    spec = importlib.util.find_spec("envoy")
    folders = spec.submodule_search_locations if spec is not None else None
    binary = Path(folders[0]) / "_bin" / "envoy" if folders else None
    return binary if binary is not None and binary.is_file() else None


def _envoy_config(port: int, upstream: int, tls: tuple[Path, Path] | None = None) -> dict[str, object]:
    filters = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{filters}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gate",
        "codec_type": "HTTP1",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "model",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "model"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{filters}.http.router.v3.Router"},
            }
        ],
    }
    return {
        "static_resources": {
            "listeners": [
                {
                    "address": _address(port),
                    "filter_chains": [
                        {
                            "filters": [
                                {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
                            ],
                            **({} if tls is None else {"transport_socket": _ends_tls(*tls)}),
                        }
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "model",
                    "type": "STATIC",
                    "connect_timeout": "5s",
                    "load_assignment": {
                        "cluster_name": "model",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream)}}]}],
                    },
                }
            ],
        }
    }


def _ends_tls(certificate: Path, key: Path) -> dict[str, object]:
    pair = {"certificate_chain": {"filename": str(certificate)}, "private_key": {"filename": str(key)}}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {"tls_certificates": [pair]},
        },
    }


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

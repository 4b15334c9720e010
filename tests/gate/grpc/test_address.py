"""Where gRPC is spoken: never with keys in plain text that other machines could read."""

from pathlib import Path
from typing import Any

import pytest

from palladion.errors import PolicyError
from palladion.gate.grpc.address import GrpcAddress, credentials, grpc_address
from palladion.policy import GatePolicy, parse_policy
from tests.gate.certificates import self_made

TLS: dict[str, Any] = {"tls_certificate": "certificate.pem", "tls_key": "key.pem"}


def test_without_an_address_nothing_listens() -> None:
    assert grpc_address(GatePolicy()) is None


@pytest.mark.parametrize(
    ("settings", "address", "url"),
    [
        ({"grpc_listen": "127.0.0.1:1"}, GrpcAddress("127.0.0.1", 1, secure=False), "grpc://127.0.0.1:9"),
        ({"grpc_listen": "[::1]:1"}, GrpcAddress("::1", 1, secure=False), "grpc://[::1]:9"),
        ({"grpc_listen": "localhost:1"}, GrpcAddress("localhost", 1, secure=False), "grpc://localhost:9"),
        ({"grpc_listen": "0.0.0.0:1", **TLS}, GrpcAddress("0.0.0.0", 1, secure=True), "grpcs://0.0.0.0:9"),
        (
            {"grpc_listen": "0.0.0.0:1", "behind_proxy": True},
            GrpcAddress("0.0.0.0", 1, secure=False),
            "grpc://0.0.0.0:9",
        ),
    ],
    ids=str,
)
def test_an_address_is_the_loopbacks_or_has_tls_or_a_proxy(settings: Any, address: GrpcAddress, url: str) -> None:
    found = grpc_address(GatePolicy(**settings))
    assert found == address
    assert address.url(9) == url
    assert address.text == f"{address.shown_host}:1"


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "gate.example.com:1", "192.0.2.1:1"])
def test_keys_do_not_cross_a_network_in_plain_text(listen: str) -> None:
    with pytest.raises(PolicyError, match="in plain text"):
        grpc_address(GatePolicy(grpc_listen=listen))


def test_a_port_is_one_and_not_that_of_http() -> None:
    with pytest.raises(PolicyError, match="no port between"):
        grpc_address(GatePolicy(grpc_listen="127.0.0.1:70000"))
    with pytest.raises(PolicyError, match="are one address"):
        grpc_address(GatePolicy(grpc_listen=GatePolicy().listen))
    assert grpc_address(GatePolicy(listen="127.0.0.1:0", grpc_listen="127.0.0.1:0"))


@pytest.mark.parametrize("listen", ["127.0.0.1", "unix:/run/grpc.sock", "grpc://127.0.0.1:1", "127.0.0.1:x", "a b:1"])
def test_what_is_no_address_is_told_with_what_would_be_one(listen: str) -> None:
    with pytest.raises(
        PolicyError, match=r"gate.grpc_listen: expected an address and a port such as 127\.0\.0\.1:8712"
    ):
        parse_policy(f'[gate]\ngrpc_listen = "{listen}"\n'.encode(), "palladion.toml")


def test_a_certificate_that_is_not_there_is_told(tmp_path: Path) -> None:
    pytest.importorskip("grpc", reason="this needs grpcio, a part of the grpc extra")
    self_made(tmp_path, "127.0.0.1")
    assert credentials(GatePolicy(**TLS), tmp_path) is not None
    with pytest.raises(PolicyError, match=r"gate\.client_ca"):
        credentials(GatePolicy(client_ca="no.pem", client_certificate="required", **TLS), tmp_path)

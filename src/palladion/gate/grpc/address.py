"""Where the gate answers over gRPC: the address that the policy allows, and the certificates that it shows there."""

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from palladion import files
from palladion.errors import PolicyError
from palladion.policy import GatePolicy

PEM_BYTES_MAX = 1024 * 1024  # of a file: a chain or a bundle of authorities


@dataclass(frozen=True)
class GrpcAddress:
    """A host, a port, and whether TLS is spoken there."""

    host: str
    port: int
    secure: bool

    @property
    def text(self) -> str:
        """As gRPC wants it."""
        return f"{self.shown_host}:{self.port}"

    @property
    def shown_host(self) -> str:
        """The host, as it stands before a port."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def url(self, port: int) -> str:
        """Where it is reached, with the port that it was given."""
        return f"{'grpcs' if self.secure else 'grpc'}://{self.shown_host}:{port}"


def grpc_address(policy: GatePolicy) -> GrpcAddress | None:
    """Where to listen; None where the policy names no address. Raises PolicyError for keys in plain text."""
    if not policy.grpc_listen:
        return None
    host, _, port = policy.grpc_listen.rpartition(":")
    host = host.strip("[]")
    if int(port) > 65535:
        raise PolicyError(f"gate.grpc_listen: {policy.grpc_listen} has no port between 0 and 65535")
    if policy.grpc_listen == policy.listen and int(port) != 0:
        raise PolicyError(
            f"gate.listen and gate.grpc_listen are one address, {policy.listen}", "give gate.grpc_listen another port"
        )
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    secure = bool(policy.tls_certificate)
    if not (loopback or secure or policy.behind_proxy):
        raise PolicyError(
            f"gate.grpc_listen: {policy.grpc_listen} is not the loopback, and API keys would cross the network in "
            "plain text",
            "set gate.tls_certificate and gate.tls_key, or gate.behind_proxy if a proxy ends TLS",
        )
    return GrpcAddress(host, int(port), secure)


def credentials(policy: GatePolicy, home: Path) -> Any:
    """What gRPC is told of TLS; whoever has to show a certificate has to show it here as well. Raises PolicyError."""
    import grpc

    required = policy.client_certificate == "required"
    return grpc.ssl_server_credentials(
        [(_pem(home, policy.tls_key, "gate.tls_key"), _pem(home, policy.tls_certificate, "gate.tls_certificate"))],
        # gRPC for Python asks everybody for a certificate, or nobody: where one is optional, nobody is
        root_certificates=_pem(home, policy.client_ca, "gate.client_ca") if required else None,
        require_client_auth=required,
    )


def _pem(home: Path, name: str, setting: str) -> bytes:
    path = home / Path(name).expanduser()
    if not path.is_file():
        raise PolicyError(f"{setting}: {path} is no file")
    return files.read_limited(path, size_max=PEM_BYTES_MAX, what=setting)

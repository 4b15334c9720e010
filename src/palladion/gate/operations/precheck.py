"""What `serve` would refuse at once, found without serving: no model is opened, no key is used, nobody is asked.

Owns which checks those are, and in what order; each check is that of the part itself, so that both say the same. Paths
that are taken twice are the server's affair.
"""

import ssl
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import combinations
from pathlib import Path
from typing import cast

from palladion.access.jwks import parse_jwks
from palladion.errors import PalladionError, PolicyError
from palladion.gate.administration.opening import check_administration
from palladion.gate.app import App
from palladion.gate.chat.calibrated import check_calibration, check_calibrations
from palladion.gate.chat.route import ModelRoute
from palladion.gate.contract import make_contract
from palladion.gate.curves import check_curves
from palladion.gate.encrypted.routes import check_program
from palladion.gate.grpc.address import GrpcAddress
from palladion.gate.grpc.listener import check_grpc
from palladion.gate.issuers import CLIENTS, OPERATORS, Issuers, fetch_keys
from palladion.gate.listener import Address, api_config, listen_address
from palladion.gate.operations.access import open_access
from palladion.gate.operations.port import port_address, read_token
from palladion.gate.protocols.json_paths import JsonPaths, JsonPathsUpstream
from palladion.gate.served import load_calibration, newest_calibration, promoted_version
from palladion.gate.unlike import require_share
from palladion.gate.upstream.opening import needs_upstream, open_upstream, unaskable
from palladion.incident.alerts.channels import open_channels
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import find_version
from palladion.policy import IssuerPolicy, OperationsPolicy, Policy, RoutePolicy
from palladion.registry.names import slug


def check_servable(installation: Installation) -> None:
    """Raise PolicyError for what would keep `serve` from starting, as far as this machine alone can tell.

    File names are looked up as `serve` would, beside palladion.toml. StorageError where the registry cannot be read.
    """
    policy, home = installation.policy, installation.paths.home
    address = listen_address(policy.gate, home, policy.proxy)
    api_config(cast(App, _no_app), policy.gate, home)
    grpc = check_grpc(policy.gate)
    if policy.operations.listen:
        _check_port(policy.operations, home)
    _check_apart(policy, address, grpc)
    Issuers(policy.issuer, home)
    check_administration(policy.operators, home)
    open_channels(policy.alert, home, installation.clock, source=home.name)
    for issuer in policy.issuer:
        _check_keys(issuer, home, CLIENTS)
    if policy.operators.issuer:
        _check_keys(policy.operators.as_issuer, home, OPERATORS)
    open_access(policy, home)
    check_calibrations(policy)
    for route in policy.route:
        _check_route(installation, route)
    for program in policy.encrypted:
        check_program(installation, program)
    if policy.watch.fidelity_max:
        with installation.open_registry() as registry:
            check_curves(policy, registry)


async def _no_app(scope: object, receive: object, send: object) -> None:
    """A configuration wants an app, and is never served here."""


def _check_port(policy: OperationsPolicy, home: Path) -> None:
    port_address(policy)
    read_token(home, policy)
    if policy.tls_certificate:
        chain, key = (home / Path(name).expanduser() for name in (policy.tls_certificate, policy.tls_key))
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key)
        except OSError as error:  # ssl.SSLError is one
            reason = error.strerror or error
            raise PolicyError(f"operations.tls_certificate and operations.tls_key cannot be used: {reason}") from None


def _check_apart(policy: Policy, api: Address, grpc: GrpcAddress | None) -> None:
    """Whoever listens second would find the port taken."""
    listens = {} if isinstance(api, Path) else {"gate.listen": api}
    if grpc is not None:
        listens["gate.grpc_listen"] = grpc.host, grpc.port
    if policy.operations.listen:
        listens["operations.listen"] = port_address(policy.operations)
    for (one, (host, port)), (other, (other_host, other_port)) in combinations(listens.items(), 2):
        if port == other_port != 0 and _meet(host, other_host):
            raise PolicyError(f"{one} and {other} are one port, {port}", f"give {other} a port of its own")


def _meet(one: str, other: str) -> bool:
    """Whether two hosts to listen on are one, however they are written, or one of them is every host."""
    hosts, others = _addresses(one), _addresses(other)
    return not hosts.isdisjoint(others) or any(
        isinstance(host, IPv4Address | IPv6Address) and host.is_unspecified for host in hosts | others
    )


def _addresses(host: str) -> set[IPv4Address | IPv6Address | str]:
    """What a host stands for; a name other than this machine's is itself, because nobody is asked here."""
    name = host.lower().rstrip(".")
    if name == "localhost":
        return {IPv4Address("127.0.0.1"), IPv6Address("::1")}
    try:
        address = ip_address(name)
    except ValueError:
        return {name}
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return {mapped or address}


def _check_keys(issuer: IssuerPolicy, home: Path, section: str) -> None:
    """Keys at an address are fetched by who serves."""
    if not issuer.keys or "://" in issuer.keys:
        return
    try:
        parse_jwks(fetch_keys(issuer, home, section=section), algorithms=issuer.algorithms)
    except PalladionError as error:
        raise PolicyError(f"{section}.keys of {issuer.url}: {error.message}", *error.hints) from None


def _check_route(installation: Installation, route: RoutePolicy) -> None:
    what = f"route {route.route}"
    if route.protocol == "openai" and not route.upstream:
        raise needs_upstream(route)
    if route.protocol == "predict" and route.upstream:
        raise unaskable(route)
    if route.upstream:
        server = open_upstream(route, installation.paths.home)
        if route.protocol == "openai":
            ModelRoute(route, server)
            _check_calibration(installation, route)
        elif route.protocol == "json":
            _check_json(installation, route)
    if route.abstain:
        version = promoted_version(installation, route.model)
        row = None if version is None else newest_calibration(installation, version)
        known = None if version is None or row is None else load_calibration(installation, version, row)
        require_share(route, route.model, known)
    try:
        if route.upstream:
            slug(route.model, what="the model")
        else:
            find_version(installation, route.model)
    except ValueError as error:
        raise PolicyError(f"{what}: {error}") from None
    except PalladionError as error:
        raise PolicyError(f"{what}: {error.message}", *error.hints) from None


def _check_calibration(installation: Installation, route: RoutePolicy) -> None:
    if route.calibration:
        try:
            check_calibration(installation.paths.calibrations, route, installation.paths.home)
        except PalladionError as error:
            raise PolicyError(error.message, *error.hints) from None


def _check_json(installation: Installation, route: RoutePolicy) -> None:
    """What a model elsewhere takes and gives stands in the policy alone."""
    codec = JsonPathsUpstream(route)
    contract = make_contract(route, codec.outputs)
    try:
        JsonPaths(route, codec.inputs, codec.outputs, rows_max=installation.policy.gate.rows_max)
    except ValueError as error:
        raise PolicyError(f"route {route.route}: {contract.kind} cannot be told over JSON: {error}") from None

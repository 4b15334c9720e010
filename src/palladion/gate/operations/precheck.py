"""What `serve` would refuse at once, found without serving: no model is opened, no key is used, nobody is asked.

Owns which checks those are, and in what order; each check is that of the part itself, so that both say the same. Paths
that are taken twice are the server's affair.
"""

import ssl
from ipaddress import ip_address
from pathlib import Path
from typing import cast

from palladion.access.cedar import load_policies
from palladion.access.jwks import parse_jwks
from palladion.errors import PalladionError, PolicyError, StorageError
from palladion.gate.app import App
from palladion.gate.chat.route import ModelRoute
from palladion.gate.contract import make_contract
from palladion.gate.issuers import Issuers, fetch_keys
from palladion.gate.listener import Address, api_config, listen_address
from palladion.gate.operations.port import port_address, read_token
from palladion.gate.protocols.json_paths import JsonPaths, JsonPathsUpstream
from palladion.gate.upstream.opening import needs_upstream, open_upstream, unaskable
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import find_version
from palladion.policy import IssuerPolicy, OperationsPolicy, RoutePolicy
from palladion.registry.names import slug


def check_servable(installation: Installation) -> None:
    """Raise PolicyError for what would keep `serve` from starting, as far as this machine alone can tell.

    File names are looked up as `serve` would, beside palladion.toml. StorageError where the registry cannot be read.
    """
    policy, home = installation.policy, installation.paths.home
    address = listen_address(policy.gate, home, policy.proxy)
    api_config(cast(App, _no_app), policy.gate, home)
    if policy.operations.listen:
        _check_port(policy.operations, home, address)
    Issuers(policy.issuer, home)
    for issuer in policy.issuer:
        _check_keys(issuer, home)
    if policy.access.policies:
        try:
            load_policies(home / Path(policy.access.policies).expanduser(), policy.route)
        except StorageError as error:
            raise PolicyError(f"access.policies: {error.message}", *error.hints) from None
    for route in policy.route:
        _check_route(installation, route)


async def _no_app(scope: object, receive: object, send: object) -> None:
    """A configuration wants an app, and is never served here."""


def _check_port(policy: OperationsPolicy, home: Path, api: Address) -> None:
    host, port = port_address(policy)
    read_token(home, policy)
    if policy.tls_certificate:
        chain, key = (home / Path(name).expanduser() for name in (policy.tls_certificate, policy.tls_key))
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key)
        except OSError as error:  # ssl.SSLError is one
            reason = error.strerror or error
            raise PolicyError(f"operations.tls_certificate and operations.tls_key cannot be used: {reason}") from None
    if not isinstance(api, Path) and port != 0 and api[1] == port and _meet(api[0], host):
        raise PolicyError(
            f"gate.listen and operations.listen are one port, {port}", "give operations.listen a port of its own"
        )


def _meet(one: str, other: str) -> bool:
    """Whether two hosts to listen on are one, or one of them is every host."""
    return one == other or _is_every(one) or _is_every(other)


def _is_every(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def _check_keys(issuer: IssuerPolicy, home: Path) -> None:
    """Keys at an address are fetched by who serves."""
    if not issuer.keys or "://" in issuer.keys:
        return
    try:
        parse_jwks(fetch_keys(issuer, home), algorithms=issuer.algorithms)
    except PalladionError as error:
        raise PolicyError(f"issuer.keys of {issuer.url}: {error.message}", *error.hints) from None


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
        elif route.protocol == "json":
            _check_json(installation, route)
    try:
        if route.upstream:
            slug(route.model, what="the model")
        else:
            find_version(installation, route.model)
    except ValueError as error:
        raise PolicyError(f"{what}: {error}") from None
    except PalladionError as error:
        raise PolicyError(f"{what}: {error.message}", *error.hints) from None


def _check_json(installation: Installation, route: RoutePolicy) -> None:
    """What a model elsewhere takes and gives stands in the policy alone."""
    codec = JsonPathsUpstream(route)
    contract = make_contract(route, codec.outputs)
    try:
        JsonPaths(route, codec.inputs, codec.outputs, rows_max=installation.policy.gate.rows_max)
    except ValueError as error:
        raise PolicyError(f"route {route.route}: {contract.kind} cannot be told over JSON: {error}") from None

"""The commands envoy-config and haproxy-config: a proxy in front of one or several gates."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import echo, find_installation

if TYPE_CHECKING:
    from palladion.gate.deploy.front import Front

_Command = Callable[..., Any]
NOBODY = "none"


def _options(command: _Command) -> _Command:
    options = [
        click.option("--listen", default="0.0.0.0:443", metavar="HOST:PORT", help="Where the proxy listens."),
        click.option(
            "--worker",
            "workers",
            multiple=True,
            metavar="HOST:PORT",
            help="A gate, or unix: and the path of its socket; one for each. Without any: gate.listen of this policy.",
        ),
        click.option("--worker-ca", default="", metavar="FILE", help="Who vouches for the gates' certificates."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command("envoy-config", epilog="Example: palladion envoy-config --certificate c.pem --key k.pem > envoy.json")
@_options
@click.option("--certificate", required=True, metavar="FILE", help="Certificate chain in PEM, as the proxy finds it.")
@click.option("--key", required=True, metavar="FILE", help="Private key of that certificate in PEM.")
@click.option(
    "--ext-authz",
    default="",
    metavar="HOST:PORT",
    help="Ask this server about each request first, in place of the gate's own verdict; none asks nobody.",
)
@click.option(
    "--answered-by",
    default="",
    metavar="HOST:PORT",
    help="Let this server answer, and the gate only watch: it gets a copy of each request.",
)
@click.pass_context
def envoy_config(ctx: click.Context, /, certificate: str, key: str, ext_authz: str, **options: Any) -> None:
    """Print a bootstrap file for Envoy: TLS, and each API key always to the same gate."""
    from palladion.gate.deploy.envoy import bootstrap
    from palladion.gate.deploy.front import parse_address

    front = _front(ctx, certificate=certificate, key=key, **options)
    alone = ext_authz == NOBODY
    authorization = parse_address(ext_authz) if ext_authz and not alone else None
    _print(bootstrap(front, authorization=authorization, alone=alone))


@click.command("haproxy-config", epilog="Example: palladion haproxy-config --certificate both.pem > haproxy.cfg")
@_options
@click.option("--certificate", required=True, metavar="FILE", help="One file with certificate chain and private key.")
@click.pass_context
def haproxy_config(ctx: click.Context, /, certificate: str, **options: Any) -> None:
    """Print a configuration for HAProxy, from 2.6 on: TLS, and each API key always to the same gate."""
    from palladion.gate.deploy.haproxy import configuration

    _print(configuration(_front(ctx, certificate=certificate, key="", **options)))


def _print(text: str) -> None:
    for line in text.splitlines():
        echo(line)


def _front(
    ctx: click.Context,
    *,
    certificate: str,
    key: str,
    listen: str,
    workers: tuple[str, ...],
    worker_ca: str,
    answered_by: str = "",
) -> "Front":
    from palladion.gate.deploy.front import make_front

    return make_front(
        find_installation(ctx).policy,
        listen=listen,
        certificate=certificate,
        key=key,
        workers=workers,
        authority=worker_ca,
        answered_by=answered_by,
    )

"""How a command reaches a key broker: the options of `exec` and `serve`."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

if TYPE_CHECKING:
    from palladion.host.broker import BrokerClient

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
AUTHORITY, CERTIFICATE, PRIVATE_KEY = "broker-ca.pem", "broker.pem", "broker-key.pem"


class Asked(NamedTuple):
    """What was said of a broker on the command line."""

    url: str
    authority: Path | None
    certificate: Path | None
    private_key: Path | None
    attest: tuple[str, ...]
    collateral: Path | None
    approval: str


def broker_options(command: _Command) -> _Command:
    """The options, which come as `broker`, `broker_ca`, … and are gathered by `asked`."""
    options = [
        click.option("--broker", metavar="URL", help="Get the file's key from this key broker, and keep on asking it."),
        click.option("--broker-ca", type=_FILE, metavar="FILE",
                     help=f"Who vouches for the broker, in PEM; without it, {AUTHORITY} in this host's folder."),
        click.option("--broker-certificate", type=_FILE, metavar="FILE",
                     help=f"This host's certificate, in PEM; without it, {CERTIFICATE} there."),
        click.option("--broker-key", type=_FILE, metavar="FILE",
                     help=f"Its private key, in PEM; without it, {PRIVATE_KEY} there."),
        click.option("--attest", multiple=True, type=click.Choice(["machine", "tpm", "gpu"]),
                     help="Show the broker evidence of this; may be repeated."),
        click.option("--attest-collateral", type=_FILE, metavar="FILE",
                     help="What the vendor says of the machine: Intel's collateral of a TDX guest."),
        click.option("--approval", default="", metavar="ID", help="The request that approvers have granted."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def asked(options: dict[str, Any]) -> Asked | None:
    """What the options say; None where no broker is named. Raises UsageError for options that go with one."""
    said = Asked(
        options.pop("broker") or "",
        options.pop("broker_ca"),
        options.pop("broker_certificate"),
        options.pop("broker_key"),
        options.pop("attest"),
        options.pop("attest_collateral"),
        options.pop("approval"),
    )
    if said.url:
        return said
    if any(said):
        raise click.UsageError("--broker-…, --attest and --approval go with --broker")
    return None


def broker_client(said: Asked, folder: Path) -> "BrokerClient":
    """The broker, with this host's certificate: from its `folder` unless it was named. Raises KeysError."""
    from palladion.host.broker import BrokerClient, client_context, nothing_attested
    from palladion.host.broker_attest import PARTS, MachineAttester, needs_small_keys

    if not said.url.startswith("https://"):
        raise click.UsageError("--broker takes an address that begins with https://")
    context, fingerprint = client_context(
        authority=said.authority or folder / AUTHORITY,
        certificate=said.certificate or folder / CERTIFICATE,
        private_key=said.private_key or folder / PRIVATE_KEY,
    )
    parts = [part for part in PARTS if part in said.attest]
    return BrokerClient(
        url=said.url,
        context=context,
        certificate=fingerprint,
        attest=MachineAttester(parts, collateral=said.collateral) if parts else nothing_attested,
        seconds_now=_seconds_awake_or_asleep,
        small_keys=needs_small_keys(),
    )


def _seconds_awake_or_asleep() -> float:
    # CLOCK_MONOTONIC stands still while the machine is suspended: a lease would outlive the lid of a laptop
    return time.clock_gettime(time.CLOCK_BOOTTIME)

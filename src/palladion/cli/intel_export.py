"""`palladion intel export|push`: a campaign as a STIX 2.1 bundle, to a file and to a TAXII server."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion import files
from palladion.cli.output import actor, echo, find_installation, json_option, print_json, progress
from palladion.errors import FormatError

if TYPE_CHECKING:
    from palladion.intel.networks import Network

_SALT_BYTES_MAX = 64  # 32 hexadecimal digits and a line's end
_TLP = ("clear", "green", "amber", "red")


class NetworkType(click.ParamType):  # type: ignore[type-arg]  # generic in newer clicks alone
    """A network or an address as it is typed."""

    name = "network"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The parsed network of a text."""
        from palladion.intel.networks import parse_network

        if not isinstance(value, str):
            return value
        try:
            return parse_network(value)
        except FormatError as error:
            self.fail(error.message, param, ctx)


@click.command(epilog="Example: palladion intel export 3f2a --out bundle.json")
@click.argument("case")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, metavar="FILE", help="Write it there."
)
@click.option("--reporter", metavar="NAME", help="Who reports; without it, the name of the ledger.")
@click.option("--tlp", type=click.Choice(_TLP), default="amber", show_default=True, help="Who may read it (TLP).")
@click.option(
    "--network",
    "networks",
    type=NetworkType(),
    multiple=True,
    metavar="CIDR",
    help="A network that it came from, to be told to others. Without it none is. May be repeated.",
)
@click.option("--signature", is_flag=True, help="Add a signature of the queries that were kept (a MinHash).")
@click.option(
    "--salt-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="32 hexadecimal digits shared with whom it is for: only they can compare the signature.",
)
@json_option
@click.pass_context
def export(
    ctx: click.Context,
    case: str,
    out: Path,
    *,
    reporter: str | None,
    tlp: Any,
    networks: "tuple[Network, ...]",
    signature: bool,
    salt_file: Path | None,
    as_json: bool,
) -> None:
    """Write what others may know of a case as a STIX 2.1 bundle: no client, no pseudonym and no query is in it.

    The same case gives the same bytes, until more is known of it. It is recorded before the file is there.
    """
    from palladion.incident.cases import find_case
    from palladion.intel.bundle import NETWORKS_SHOWN_MAX, campaign_bundle
    from palladion.intel.gather import Telling, gather
    from palladion.intel.store import FOLDER
    from palladion.intel.told import written_record
    from palladion.watch.taxonomy import load_table

    if len(networks) > NETWORKS_SHOWN_MAX:
        raise click.BadParameter(f"at most {NETWORKS_SHOWN_MAX} networks fit into one bundle", param_hint="--network")
    if salt_file is not None and not signature:
        raise click.UsageError("--salt-file is for --signature")
    installation = find_installation(ctx)
    with installation.open_registry() as registry, registry.read() as records:
        found = find_case(records, case)
    telling = Telling(
        reporter=reporter or installation.policy.ledger.origin or "unnamed",
        marking=tlp,
        networks=networks,
        signature=signature,
        salt=_salt(salt_file),
    )
    with progress("gather") as bar:
        facts = gather(installation, found, telling, load_table(installation.paths.directory / FOLDER), bar)
    data = campaign_bundle(facts)
    # on record before it is there
    with installation.open_ledger(installation.open_gate_root()) as ledger:
        ledger.append([written_record(facts, data, str(out), actor=actor(), now=installation.clock.now())])
    files.write_atomically(out, data, mode=0o644)
    if as_json:
        print_json({"case": found.id, "accounts": facts.accounts, "answers": facts.answers, "bytes": len(data)})
    else:
        echo(f"wrote {out}: {facts.accounts} accounts, {facts.answers} answers, TLP:{tlp.upper()}")


@click.command(epilog="Example: palladion intel push bundle.json --to https://taxii.example/api/collections/91a7/")
@click.argument("bundle", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--to", "url", required=True, metavar="URL", help="A collection of a TAXII 2.1 server.")
@click.option(
    "--credentials",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File with user:password in one line, readable by its owner alone.",
)
@json_option
@click.pass_context
def push(ctx: click.Context, bundle: Path, url: str, credentials: Path | None, *, as_json: bool) -> None:
    """Send a STIX bundle to a collection of a TAXII 2.1 server (extra intel); it is recorded before it goes."""
    from palladion.intel.taxii import BUNDLE_BYTES_MAX, push_bundle, read_bundle
    from palladion.intel.told import pushed_record

    data = files.read_limited(bundle, size_max=BUNDLE_BYTES_MAX, what="the bundle")
    read_bundle(data)
    installation = find_installation(ctx)
    with installation.open_ledger(installation.open_gate_root()) as ledger:
        ledger.append([pushed_record(data, url, actor=actor(), now=installation.clock.now())])
    sent = push_bundle(url, data, credentials=credentials)
    if as_json:
        print_json({"sent": sent.accepted, "pending": sent.pending})
    else:
        echo(f"the server took {sent.accepted} objects" + (f", {sent.pending} are pending" if sent.pending else ""))


def _salt(path: Path | None) -> bytes:
    from palladion.intel.sketch import SALT_BYTES

    if path is None:
        return b""
    text = files.read_limited(path, size_max=_SALT_BYTES_MAX, what="the salt").strip()
    try:
        salt = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        salt = b""
    if len(salt) != SALT_BYTES:
        raise FormatError(f"the salt in {path} is not {2 * SALT_BYTES} hexadecimal digits", "openssl rand -hex 16")
    return salt

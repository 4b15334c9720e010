"""`palladion incident dossier|stamp|measure|custody`: the evidence package of a case, and what people add to it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import (
    actor,
    echo,
    find_installation,
    identity_option,
    json_option,
    owner_identities,
    passphrase_option,
    print_fields,
    print_json,
    print_table,
    progress,
    size_text,
    warn,
)
from palladion.clock import timestamp
from palladion.errors import PalladionError
from palladion.files import read_limited

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from palladion.incident.dossier.package import Token
    from palladion.incident.dossier.render import PdfKey
    from palladion.incident.dossier.write import Authority, Written

PEM_BYTES_MAX = 256 * 1024  # a chain of certificates
_NEW = click.Path(dir_okay=False, path_type=Path)
_THERE = click.Path(exists=True, dir_okay=False, path_type=Path)
_DAY = click.DateTime(["%Y-%m-%d"])
_MOMENT = click.DateTime(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%MZ", "%Y-%m-%d"])
# as measures.CATEGORIES and custody.STEPS have them, which tests compare: their modules load the registry
_CATEGORIES = ("agreement", "legal", "organisational", "physical", "technical", "training")
_STEPS = ("acquired", "examined", "handed over", "returned", "destroyed")


@click.command("dossier", epilog="Example: palladion incident dossier 3f2a --out case.zip --stamp URL --roots tsa.pem")
@click.argument("id")
@click.option("--out", type=_NEW, required=True, metavar="FILE", help="Write the package to this new .zip file.")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="A model that the case is about; without it, those that suspects were tested against. May be repeated.",
)
@click.option("--particulars", type=_THERE, metavar="TOML", help="Claim, rights and damages, as docs/dossier.md says.")
@click.option("--attach", "attached", type=_THERE, multiple=True, metavar="FILE", help="Put this file in as well.")
@click.option("--name-clients", is_flag=True, help="Name clients and recipients, instead of giving pseudonyms.")
@click.option(
    "--stamp", "urls", multiple=True, metavar="URL", help="Have it stamped there (RFC 3161). May be repeated."
)
@click.option("--roots", type=_THERE, metavar="PEM", help="Certificates of the time-stamping authorities you trust.")
@click.option("--pdf-key", type=_THERE, metavar="PEM", help="Sign the PDF (PAdES) with this private key.")
@click.option("--pdf-certificate", type=_THERE, metavar="PEM", help="The certificate of --pdf-key.")
@click.option("--pdf-chain", type=_THERE, multiple=True, metavar="PEM", help="A certificate above it. May be repeated.")
@passphrase_option
@identity_option
@json_option
@click.pass_context
def dossier(
    ctx: click.Context,
    id: str,  # noqa: A002 (click names arguments so)
    out: Path,
    models: tuple[str, ...],
    particulars: Path | None,
    attached: tuple[Path, ...],
    name_clients: bool,
    urls: tuple[str, ...],
    roots: Path | None,
    pdf_key: Path | None,
    pdf_certificate: Path | None,
    pdf_chain: tuple[Path, ...],
    passphrase_file: Path | None,
    identity_file: Path | None,
    as_json: bool,
) -> None:
    """Write the evidence package of a case: a PDF, the records with their proofs, and a program that checks them.

    Anybody checks it with `python3 FILE.zip`, without a network and without Palladion. It is signed by the publisher's
    key, so the owner's passphrase is asked for. It is evidence, not legal advice.
    """
    from palladion.incident.dossier.document import Particulars, parse_particulars
    from palladion.incident.dossier.gather import Wishes
    from palladion.incident.dossier.write import write_dossier

    key = _pdf_key(pdf_key, pdf_certificate, pdf_chain)
    authorities = [_authority(url, roots) for url in urls]
    told = parse_particulars(particulars) if particulars is not None else Particulars()
    installation = find_installation(ctx)
    owner = installation.open_owner_root(owner_identities(passphrase_file, identity_file))
    with progress("dossier") as bar:
        written = write_dossier(
            installation,
            owner,
            id,
            out,
            Wishes(models, name_clients, told, attached),
            actor=actor(),
            pdf_key=key,
            authorities=authorities,
            progress=lambda stage, done, total: bar(done, total, stage),
        )
    _told(out, written, as_json=as_json)


@click.command("stamp", epilog="Example: palladion incident stamp case.zip --url URL --roots tsa.pem --out stamped.zip")
@click.argument("package", type=_THERE)
@click.option("--url", metavar="URL", help="Address of the time-stamping authority (RFC 3161).")
@click.option("--token", type=_THERE, metavar="TSR", help="A reply over manifest.json that was fetched already.")
@click.option("--roots", type=_THERE, required=True, metavar="PEM", help="Certificates of the authorities you trust.")
@click.option("--out", type=_NEW, required=True, metavar="FILE", help="Write the stamped package to this new file.")
@passphrase_option
@identity_option
@json_option
@click.pass_context
def stamp(
    ctx: click.Context,
    package: Path,
    url: str | None,
    token: Path | None,
    roots: Path,
    out: Path,
    passphrase_file: Path | None,
    identity_file: Path | None,
    as_json: bool,
) -> None:
    """Have a dossier stamped by one more authority: that it existed at that time is then not only our word.

    Where this machine reaches none, take manifest.json out of the package, have it stamped elsewhere (openssl ts
    -query -data manifest.json -sha512 -cert), and bring the reply as --token.
    """
    from palladion.incident.dossier.write import stamp_dossier

    by = _stamped_by(url, token, roots)
    installation = find_installation(ctx)
    owner = installation.open_owner_root(owner_identities(passphrase_file, identity_file))
    written = stamp_dossier(installation, owner, package, out, by, actor=actor())
    _told(out, written, as_json=as_json)


@click.group()
def measure() -> None:
    """Controls that software cannot see: agreements, training, locks, filings; each with owner, evidence and end."""


@measure.command(
    "add", epilog="Example: palladion incident measure add 'NDA with all staff' --owner 'HR' --evidence 'folder 12'"
)
@click.argument("control")
@click.option("--owner", required=True, metavar="TEXT", help="Who answers for it.")
@click.option(
    "--category", type=click.Choice(_CATEGORIES), default="organisational", show_default=True, help="Its kind."
)
@click.option("--evidence", default="", metavar="TEXT", help="What shows it, and where that is kept.")
@click.option("--file", type=_THERE, metavar="FILE", help="A file that shows it; its SHA-256 is recorded.")
@click.option("--since", type=_DAY, metavar="DATE", help="Its first day; without it, today.")
@click.option("--expires", type=_DAY, metavar="DATE", help="Its last day.")
@json_option
@click.pass_context
def add_measure(
    ctx: click.Context,
    control: str,
    owner: str,
    category: Any,
    evidence: str,
    file: Path | None,
    since: datetime | None,
    expires: datetime | None,
    as_json: bool,
) -> None:
    """Put a control into the register, for good: the ledger says since when it stands there."""
    from palladion.incident.measures import record_measure

    installation = find_installation(ctx)
    made, receipt = record_measure(
        installation,
        control,
        category=category,
        owner=owner,
        evidence=evidence,
        since=since.date() if since else installation.clock.now().astimezone(UTC).date(),
        expires=expires.date() if expires else None,
        file=file,
        actor=actor(),
    )
    if as_json:
        print_json({"measure": made, "receipt": str(receipt)})
    else:
        echo(f"measure {made} is recorded (ledger {receipt})")


@measure.command("list", epilog="Example: palladion incident measure list --on 2026-03-01")
@click.option("--on", type=_DAY, metavar="DATE", help="How they stood on that day; without it, today.")
@json_option
@click.pass_context
def list_measures(ctx: click.Context, on: datetime | None, as_json: bool) -> None:
    """List the controls, oldest first, and how each stood on a day. Reads the whole ledger."""
    from palladion.incident.measures import measure_document, measures

    installation = find_installation(ctx)
    # on a day means at its end
    moment = on.replace(tzinfo=UTC) + timedelta(days=1, microseconds=-1) if on else installation.clock.now()
    documents = [measure_document(item, moment) for item in measures(installation.read_ledger())]
    if as_json:
        print_json({"at": timestamp(moment), "measures": documents})
    elif documents:
        columns = ("id", "state", "category", "control", "owner", "since", "expires", "entry")
        print_table(columns, [[document[column] for column in columns] for document in documents])
    else:
        echo("no measures yet: palladion incident measure add 'what is done' --owner NAME --evidence TEXT")


@measure.command("retire", epilog="Example: palladion incident measure retire 3f2a 'the lab was given up'")
@click.argument("id")
@click.argument("reason")
@json_option
@click.pass_context
def retire_measure(ctx: click.Context, id: str, reason: str, as_json: bool) -> None:  # noqa: A002
    """Say that a control is in force no more, and why. What was recorded of it stays."""
    from palladion.incident.measures import end_measure

    found, receipt = end_measure(find_installation(ctx), id, reason, actor=actor())
    if as_json:
        print_json(
            {"measure": found.id, "ended": timestamp(found.ended) if found.ended else None, "receipt": str(receipt)}
        )
    else:
        echo(f"measure {found.id} is in force no more (ledger {receipt})")


@click.group()
def custody() -> None:
    """What was acquired of a suspect: when, where, by whom, and its digests at that moment."""


@custody.command("add", epilog="Example: palladion incident custody add 3f2a leaked.onnx --place 'lab 2' --by 'J. Roe'")
@click.argument("id")
@click.argument("sources", nargs=-1, required=True)
@click.option("--place", required=True, metavar="TEXT", help="Where it was acquired, and is kept.")
@click.option("--by", metavar="TEXT", help="Who did it; without it, the account that runs this command.")
@click.option("--at", type=_MOMENT, metavar="TIME", help="When, in UTC (2026-03-01T10:00Z); without it, now.")
@click.option("--step", type=click.Choice(_STEPS), default="acquired", show_default=True, help="What was done with it.")
@click.option("--note", default="", metavar="TEXT", help="Whatever else a witness would say.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Where what URLs give is kept, under its SHA-256. Needed for a URL.",
)
@json_option
@click.pass_context
def add_custody(
    ctx: click.Context,
    id: str,  # noqa: A002
    sources: tuple[str, ...],
    place: str,
    by: str | None,
    at: datetime | None,
    step: Any,
    note: str,
    keep: Path | None,
    as_json: bool,
) -> None:
    """Record SOURCES, files, folders and URLs, under a case, with SHA-256 and SHA-512 of all that is in them.

    A model is also named by the digest that `palladion prove` knows it by, so that tests of it are found. Files stay
    where they are: keep them where nobody writes. Links are refused. Of a URL, user and query are not recorded.
    """
    from palladion.incident.custody import Handling, record_custody

    installation = find_installation(ctx)
    moment = at.replace(tzinfo=UTC) if at is not None else installation.clock.now()
    handling = Handling(step, by or actor(), place, moment, note)
    case, recorded = record_custody(installation, id, sources, handling, keep=keep, actor=actor())
    documents = [
        {
            "source": exhibit.source,
            "kind": exhibit.kind,
            "content": exhibit.content,
            "too_large": exhibit.too_large,
            "status": exhibit.status,
            "files": [{"name": item.name, "bytes": item.bytes, "sha256": item.sha256} for item in exhibit.files],
            "receipt": str(receipt),
        }
        for exhibit, receipt in recorded
    ]
    if as_json:
        print_json({"incident": case.id, "step": step, "recorded": documents})
        return
    for exhibit, receipt in recorded:
        echo(f"{exhibit.source} is {step} under incident {case.id} (ledger {receipt})")
        print_table(("file", "bytes", "sha256"), [(item.name, item.bytes, item.sha256) for item in exhibit.files])
        if exhibit.too_large:
            echo(
                "larger than scan.file_bytes_max, so it was not looked at as a model, and tests of it will not be found"
            )
        if exhibit.source.endswith("?…"):
            echo("the query of the address is not recorded, since it can be a credential: put what matters into --note")


def _told(out: Path, written: "Written", *, as_json: bool) -> None:
    checked = written.checked
    if not checked.stamps:
        warn(
            "no authority has stamped its time (RFC 3161): that it existed today is our word alone; "
            f"palladion incident stamp {out} --url URL --roots PEM --out FILE"
        )
    if as_json:
        print_json(
            {
                "dossier": str(out),
                "incident": written.case,
                "bytes": written.bytes,
                "manifest": written.manifest_digest,
                "entries": checked.entries,
                "withheld": checked.withheld,
                "stamps": [{"time": timestamp(item.time), "authority": item.authority} for item in checked.stamps],
                "receipt": str(written.receipt),
            }
        )
        return
    echo(f"wrote the dossier of incident {written.case} to {out}: {size_text(written.bytes)}")
    hidden = f"; {checked.withheld} more name somebody, and are withheld" if checked.withheld else ""
    print_fields(
        [
            ("entries", f"{checked.entries} of the ledger, each proved{hidden}"),
            *[("stamped", f"{timestamp(item.time)} by {item.authority}") for item in checked.stamps],
            ("manifest", written.manifest_digest),
            ("ledger", written.receipt),
            ("check it", f"python3 {out}"),
        ]
    )


def _stamped_by(url: str | None, token: Path | None, roots: Path) -> "Authority | Token":
    from cryptography.hazmat.primitives.serialization import Encoding

    from palladion.incident.dossier.package import Token
    from palladion.seal.timestamp import REPLY_BYTES_MAX

    if url is not None and token is None:
        return _authority(url, roots)
    if token is None or url is not None:
        raise click.UsageError("name one of the two: --url URL or --token TSR")
    pem = b"".join(root.public_bytes(Encoding.PEM) for root in _certificates(roots))
    return Token(read_limited(token, size_max=REPLY_BYTES_MAX, what="the time stamp"), pem)


def _authority(url: str, roots: Path | None) -> "Authority":
    from palladion.incident.dossier.write import Authority
    from palladion.seal.timestamp import http_sender

    if roots is None:
        raise click.UsageError("--stamp needs --roots: the reply is verified before it is kept")
    return Authority(http_sender(url), _certificates(roots))


def _certificates(path: Path) -> "tuple[Certificate, ...]":
    from palladion.seal.oms import load_certificates

    return load_certificates(read_limited(path, size_max=PEM_BYTES_MAX, what="the file of certificates"))


def _pdf_key(key: Path | None, certificate: Path | None, chain: tuple[Path, ...]) -> "PdfKey | None":
    from palladion.incident.dossier.render import PdfKey

    if (key is None) != (certificate is None):
        raise click.UsageError("--pdf-key and --pdf-certificate belong together")
    if chain and key is None:
        raise PalladionError("--pdf-chain needs --pdf-key and --pdf-certificate")
    return PdfKey(key, certificate, chain) if key is not None and certificate is not None else None

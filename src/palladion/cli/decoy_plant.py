"""`palladion decoy plant …` and `palladion decoy check`: files that nobody can open, and who read them."""

import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from palladion.cli.output import (
    actor,
    echo,
    find_installation,
    identity_option,
    json_option,
    owner_identities,
    passphrase_option,
    passphrase_recipient,
    print_fields,
    print_json,
    progress,
    warn,
)
from palladion.clock import timestamp
from palladion.errors import FINDING

if TYPE_CHECKING:
    from palladion.lifecycle.decoy_files import Planted
    from palladion.lifecycle.decoy_touches import Told
    from palladion.seal.header import Kind, Purpose

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_SIZE = re.compile(r"(\d{1,15})\s*([kmg]?)(?:i?b)?", re.IGNORECASE | re.ASCII)

_label = click.option(
    "--label", required=True, metavar="TEXT", help="Where it is planted; for you, never in the ledger."
)


def _bytes(ctx: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise click.BadParameter(f"{text!r} is no size, one such as 12MiB was expected", ctx, parameter)
    return int(found[1]) * _UNITS[found[2].lower()]


_size = click.option(
    "--size",
    callback=_bytes,
    metavar="SIZE",
    help="How large it is to be, such as 12MiB; without it, some size between 6 and 40 MiB.",
)


@click.group("plant")
def plant() -> None:
    """Plant a decoy where a thief would find it: a file that looks sealed and that nobody can open, or rows."""


@plant.command(
    "file", epilog="Example: palladion decoy plant file s3://models/fraud-prod.sealed --model fraud-prod --label bucket"
)
@click.argument("place")
@_label
@click.option("--model", required=True, metavar="NAME", help="The model that it says it is; none of yours.")
@click.option("--version", type=click.IntRange(1, 999_999), default=1, show_default=True, help="And which version.")
@click.option(
    "--kind",
    type=click.Choice(["safetensors", "onnx", "gguf", "folder", "opaque"]),
    default="safetensors",
    show_default=True,
    help="What it says is in it.",
)
@click.option(
    "--purpose",
    type=click.Choice(["original", "served"]),
    default="original",
    show_default=True,
    help="As which of a version's sealed files it shows itself.",
)
@_size
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="URL",
    help="Another address by which access logs may name it, https://files.example/m.sealed say. May be repeated.",
)
@click.option("--insecure-http", is_flag=True, help="Allow an unencrypted address on another machine.")
@passphrase_option
@identity_option
@json_option
@click.pass_context
def plant_file(
    ctx: click.Context,
    place: str,
    label: str,
    model: str,
    version: int,
    kind: str,
    purpose: str,
    size: int | None,
    addresses: tuple[str, ...],
    insecure_http: bool,
    passphrase_file: Path | None,
    identity_file: Path | None,
    as_json: bool,
) -> None:
    """Write a sealed file whose key does not exist to PLACE, a new path or an address such as s3://BUCKET/KEY.

    It is signed as yours are, and says that it opens for whom yours open. Whoever tries to unseal it in this
    installation opens a case; who reads it in a bucket is in the bucket's access logs: palladion decoy check.
    """
    from palladion.lifecycle import decoy_files as life
    from palladion.transit.connection import Limits

    installation = find_installation(ctx)
    owner = installation.open_owner_root(owner_identities(passphrase_file, identity_file))
    with progress("plant"):
        made = life.plant_file(
            installation,
            owner,
            place,
            label=label,
            model=model,
            version=version,
            kind=cast("Kind", kind),
            purpose=cast("Purpose", purpose),
            size=size,
            addresses=addresses,
            actor=actor(),
            limits=Limits(insecure_http=insecure_http),
        )
    _print(made, as_json=as_json)


@plant.command("backup", epilog="Example: palladion decoy plant backup /mnt/old-disk/backup --label 'old disk'")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@_label
@_size
@passphrase_option
@identity_option
@json_option
@click.pass_context
def plant_backup(
    ctx: click.Context,
    folder: Path,
    label: str,
    size: int | None,
    passphrase_file: Path | None,
    identity_file: Path | None,
    as_json: bool,
) -> None:
    """Make FOLDER look like a backup of this installation. No passphrase opens it, and it holds nothing."""
    from palladion.lifecycle import decoy_files as life

    installation = find_installation(ctx)
    owner = installation.open_owner_root(owner_identities(passphrase_file, identity_file))
    # guesses at it cost what guesses at a real one cost
    nobody = passphrase_recipient(secrets.token_urlsafe(32), installation.policy.passphrase)
    with progress("plant"):
        made = life.plant_backup(installation, owner, [nobody], folder, label=label, size=size, actor=actor())
    _print(made, as_json=as_json)


@plant.command("rows", epilog="Example: palladion decoy plant rows fraud --into may.csv --out partner.csv --label X")
@click.argument("model")
@click.option(
    "--into",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="The data set, .csv or .npy, with a column for each input of MODEL in their order.",
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, metavar="FILE", help="The new copy of it."
)
@_label
@click.option("--count", type=click.IntRange(4, 1000), default=24, show_default=True, help="How many rows.")
@click.option(
    "--target", metavar="COLUMN", help="The column with the answer, by name or number from 1: it is no input."
)
@json_option
@click.pass_context
def plant_rows(
    ctx: click.Context, model: str, into: Path, out: Path, label: str, count: int, target: str | None, as_json: bool
) -> None:
    """Write a copy of a data set with rows that exist nowhere else, and know these when MODEL is asked them.

    Each number of a new row is one of the same column, of rows drawn at random: the copy goes to one partner alone.
    """
    from palladion.lifecycle.decoy_rows import plant_rows as plant_them

    made, receipt = plant_them(
        find_installation(ctx), model, into, out, label=label, count=count, target=target, actor=actor()
    )
    if as_json:
        print_json({"id": made.id, "model": model, "rows": made.count, "file": str(out), "receipt": str(receipt)})
        return
    echo(f"added decoy {made.id}")
    print_fields([("model", model), ("rows", made.count), ("copy", out), ("label", label), ("ledger", receipt)])


@click.command("check", epilog="Example: palladion decoy check --access-log s3-2026-06-01.log")
@click.option(
    "--access-log",
    "logs",
    multiple=True,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="An S3 server access log, a CloudTrail file, or a log of nginx or Apache; plain or gzip. May be repeated.",
)
@click.option(
    "--own",
    multiple=True,
    metavar="WHO",
    help="An address, or a name as the log has it (an ARN), whose reads do not count, as of sweeps. May be repeated.",
)
@json_option
@click.pass_context
def check(ctx: click.Context, logs: tuple[Path, ...], own: tuple[str, ...], as_json: bool) -> int:
    """Look for reads of planted files in access logs, and open a case for each that was read. Exit code 1 if one was.

    What is not later than the last touch of a decoy is not told again.
    """
    from palladion.lifecycle.decoy_touches import check_logs

    with progress("read logs"):
        found = check_logs(find_installation(ctx), logs, own=own, actor=actor())
    if as_json:
        told = [_touch(item) for item in found.told]
        print_json({"finding": bool(told), "lines": found.lines, "not_understood": found.others, "touched": told})
    else:
        for item in found.told:
            times = f"{item.touches} time{'s' if item.touches > 1 else ''}"
            echo(f"decoy {item.decoy.id} was read {times}: {item.decoy.label}")
            echo(f"  palladion incident show {item.incident.id}")
        if not found.told:
            echo(f"{found.lines} line{'' if found.lines == 1 else 's'}: no decoy was read")
    if found.others:
        lines = "line is" if found.lines == 1 else "lines are"
        warn(f"{found.others} of {found.lines} {lines} of no log that is known")
    return FINDING if found.told else 0


def _touch(item: "Told") -> dict[str, Any]:
    return {
        "decoy": item.decoy.id,
        "label": item.decoy.label,
        "touches": item.touches,
        "last": timestamp(item.decoy.touched_at) if item.decoy.touched_at else None,
        "incident": item.incident.id,
    }


def _print(made: "Planted", *, as_json: bool) -> None:
    decoy = made.decoy
    if as_json:
        print_json(
            {
                "id": decoy.id,
                "kind": decoy.kind,
                "label": decoy.label,
                "place": made.place,
                "receipt": str(made.receipt),
            }
        )
        return
    echo(f"added decoy {decoy.id}")
    print_fields([("kind", decoy.kind), ("place", made.place), ("label", decoy.label), ("ledger", made.receipt)])

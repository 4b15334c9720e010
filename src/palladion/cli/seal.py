"""`palladion seal` and `palladion reseal`: encryption alone, of a model or anything else."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from palladion.cli.output import (
    actor,
    echo,
    find_installation,
    json_option,
    owner_identities,
    passphrase_option,
    print_fields,
    print_json,
    progress,
    size_text,
    warn,
)

if TYPE_CHECKING:
    from palladion.lifecycle.reseal import Resealed
    from palladion.lifecycle.seal import Sealed


@click.command(epilog="Example: palladion seal ./llama --name llama --to acme --out llama-for-acme.sealed")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--name", required=True, help="The model's name; a name that exists gets its next version.")
@click.option(
    "--to",
    "recipients",
    multiple=True,
    metavar="RECIPIENT",
    help="Who may open it besides owner and escrow: a registered name, or a key such as pallr1… or awskms:…. "
    "May be repeated.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a copy of the sealed file here too, to be sent.",
)
@click.option("--note", default="", help="A sentence that stays with the version.")
@click.option(
    "--base",
    default="",
    metavar="MODEL",
    help="The model that an adapter was made for: a version such as llama@2, a sealed file, or a content digest.",
)
@click.option("--opaque", is_flag=True, help="Seal bytes, whatever they are, also what may run code when it is loaded.")
@click.option("--follow-links", is_flag=True, help="Seal what symbolic links lead to, instead of refusing them.")
@click.option("--license-required", is_flag=True, help="Let it open under a licence only: palladion license issue.")
@passphrase_option
@json_option
@click.pass_context
def seal(
    ctx: click.Context,
    path: Path,
    name: str,
    recipients: tuple[str, ...],
    out: Path | None,
    note: str,
    base: str,
    opaque: bool,
    follow_links: bool,
    license_required: bool,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Encrypt PATH, a file or a folder, to recipients, sign it, and record it as the next version of NAME.

    ONNX, safetensors, GGUF, a Hugging Face folder, a LoRA adapter, or any other file. Nothing is marked: a leak of what
    was only sealed cannot be traced to a recipient. For customers' copies there are protect and deliver.
    """
    from palladion.lifecycle import seal as life

    installation = find_installation(ctx)
    base_digest = life.find_base(installation, base)
    owner = installation.open_owner_root(owner_identities(passphrase_file))
    with progress(f"seal {path.name}") as bar:
        made = life.seal(
            installation,
            owner,
            path,
            name,
            recipients,
            actor=actor(),
            note=note,
            base=base_digest,
            opaque=opaque,
            follow_links=follow_links,
            license_required=license_required,
            out=out,
            progress=bar,
        )
    if as_json:
        print_json(_document(made))
    else:
        _print(made)
    warn(f"{path} is still there in plaintext")
    if not installation.policy.keys.escrow:
        warn("no escrow recipient: if the owner passphrase is forgotten, only the recipients can open it")


@click.command(epilog="Example: palladion reseal llama@2 --reason 'a laptop with an open copy was stolen'")
@click.argument("version")
@click.option("--reason", required=True, help="Why; goes into the ledger and the list of revocations.")
@passphrase_option
@json_option
@click.pass_context
def reseal(ctx: click.Context, version: str, reason: str, passphrase_file: Path | None, as_json: bool) -> None:
    """Seal VERSION anew under fresh file keys, after a file key got into wrong hands, and revoke its old sealed files.

    The content and the version's number stay. Copies that were delivered are files of their own: revoke them, and
    deliver anew. Nothing takes back what somebody has opened already.
    """
    from palladion.lifecycle import reseal as life

    installation = find_installation(ctx)
    owner = installation.open_owner_root(owner_identities(passphrase_file))
    with progress(f"reseal {version}") as bar:
        made = life.reseal(installation, owner, version, reason=reason, actor=actor(), progress=bar)
    subject = f"{made.version.model}@{made.version.number}"
    if as_json:
        print_json(_resealed(made))
    else:
        echo(f"resealed {subject}: {len(made.infos)} sealed files under new keys, the old ones revoked")
        print_fields([("ledger", f"entry {made.receipt.index}"), ("left out", ", ".join(made.lost) or None)])
    for wrap in made.lost:
        warn(f"{wrap} could open {subject} before and cannot now: no registered recipient has that key")


def _document(made: "Sealed") -> dict[str, object]:
    return {
        "model": made.version.model,
        "version": made.version.number,
        "kind": made.info.header.kind,
        "content": made.version.content_digest,
        "base": made.info.header.base or None,
        "license_required": made.info.header.license == "required",
        "file": str(made.path),
        "copy": str(made.copy) if made.copy else None,
        "wraps": [{"kind": wrap.kind, "key_id": wrap.key_id} for wrap in made.info.wraps],
        "receipt": str(made.receipt),
    }


def _print(made: "Sealed") -> None:
    version, info = made.version, made.info
    echo(f"sealed {version.model} version {version.number}")
    print_fields(
        [
            ("holds", f"{info.header.kind}, {size_text(info.payload_bytes)}"),
            ("content", version.content_digest),
            ("base", info.header.base or None),
            ("file", made.path),
            ("copy", made.copy),
            ("opens for", ", ".join(f"{wrap.kind} {wrap.key_id}" for wrap in info.wraps)),
            ("licence", "required" if info.header.license else None),
            ("ledger", f"entry {made.receipt.index}"),
        ]
    )


def _resealed(made: "Resealed") -> dict[str, object]:
    return {
        "model": made.version.model,
        "version": made.version.number,
        "headers": [info.header_digest for info in made.infos],
        "left_out": list(made.lost),
        "receipt": str(made.receipt),
    }

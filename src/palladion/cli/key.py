"""`palladion key …`: the keys of this installation."""

from pathlib import Path

import click

from palladion.cli.key_split import COMMANDS
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
    print_table,
    read_passphrase,
)
from palladion.errors import KeysError
from palladion.purposes import PURPOSES


@click.group()
def key() -> None:
    """The keys of this installation."""


@key.command("list", epilog="Example: palladion key list")
@json_option
@click.pass_context
def list_keys(ctx: click.Context, as_json: bool) -> None:
    """List every key: what it is for, and what its loss and its theft would cost. Shows public keys only."""
    from palladion.seal.sign import publisher_text

    installation = find_installation(ctx)
    public: dict[tuple[str, str], str] = {}
    for name in ("owner", "gate"):
        try:
            found = installation.public_keys(name).keys
        except KeysError:
            continue  # the owner root may be on a disk that is not here
        for purpose, raw in found.items():
            public[name, purpose] = str(installation.stated_recipient(name)) if purpose == name else raw.hex()
        if name == "owner":
            public[name, "publisher"] = publisher_text(found["publisher"])
        else:
            public[name, "checkpoint"] = str(installation.ledger_key())
    documents = [
        {
            "root": purpose.root,
            "key": purpose.name,
            "kind": purpose.source,
            "public": public.get((purpose.root, purpose.name)),
            "use": purpose.use,
            "if_lost": purpose.loss,
            "if_stolen": purpose.theft,
        }
        for purpose in PURPOSES
    ]
    if as_json:
        print_json({"keys": documents, "escrow": list(installation.policy.keys.escrow)})
        return
    for document in documents:
        echo(f"{document['root']} root, {document['key']} ({document['kind']}): {document['use']}")
        print_fields(
            [
                ("public", document["public"]),
                ("if lost", document["if_lost"]),
                ("if stolen", document["if_stolen"]),
            ]
        )
    print_table(("escrow recipient",), [(text,) for text in installation.policy.keys.escrow or ("none",)])


@key.command("rewrap", epilog="Example: palladion key rewrap   (after adding an escrow recipient to palladion.toml)")
@passphrase_option
@identity_option
@click.option(
    "--new-passphrase-file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Read the new owner passphrase from the first line of FILE instead of asking.",
)
@click.option("--keep-passphrase", is_flag=True, help="Wrap to the same passphrase again.")
@json_option
@click.pass_context
def rewrap(
    ctx: click.Context,
    passphrase_file: Path | None,
    identity_file: Path | None,
    new_passphrase_file: Path | None,
    keep_passphrase: bool,
    as_json: bool,
) -> None:
    """Change the owner passphrase, the host identity, or who is escrow.

    Wraps both roots and every original anew: to the new passphrase, to the host identity and to the escrow recipients
    that palladion.toml names now. A host identity that is not there is made. Copies made before still open as they
    did: delete them.
    """
    from palladion.lifecycle.rewrap import rewrap as rewrap_everything
    from palladion.seal.recipients import PassphraseIdentity

    if keep_passphrase and (new_passphrase_file or identity_file):
        raise click.UsageError("--keep-passphrase goes with the passphrase alone")
    installation = find_installation(ctx)
    if keep_passphrase:
        passphrase = read_passphrase(passphrase_file)
        owner = installation.open_owner_root([PassphraseIdentity(passphrase)])
    else:
        owner = installation.open_owner_root(owner_identities(passphrase_file, identity_file))
        passphrase = read_passphrase(new_passphrase_file, new=True)
    owner_wraps = [passphrase_recipient(passphrase, installation.policy.passphrase)]
    done = rewrap_everything(installation, owner, owner_wraps, actor=actor())
    if as_json:
        made = str(done.new_host_identity) if done.new_host_identity else None
        print_json({"owner_root": list(done.owner_wraps), "originals": done.originals, "new_host_identity": made})
    else:
        echo(f"wrapped both roots and {done.originals} originals anew")
        print_fields(
            [
                ("owner root opens for", ", ".join(done.owner_wraps)),
                ("new host identity", done.new_host_identity),
            ]
        )


@key.command("text", epilog="Example: palladion key text acme --engine sglang --out acme.json")
@click.argument("tenant")
@click.option(
    "--epoch", default="1", show_default=True, metavar="NAME", help="Which of the tenant's keys, such as 2026-11."
)
@click.option(
    "--engine",
    type=click.Choice(["vllm", "sglang", "tensorrt-llm"]),
    help="Write what this engine is started with; without it, a key for palladion.mark.text.processor.TextMarker.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write it to this file.",
)
@json_option
@click.pass_context
def text(ctx: click.Context, tenant: str, epoch: str, engine: str | None, out: Path, as_json: bool) -> None:
    """Give out the key that marks the text generated for TENANT, in a new file that only you can read.

    `palladion prove text` tests for every key that was ever given, so give one for each tenant, and none in reserve.
    """
    from palladion.lifecycle.text import Given, give_key

    installation = find_installation(ctx)
    given = Given(tenant, epoch, engine)  # type: ignore[arg-type]
    give_key(installation, installation.open_gate_root(), given, out, actor=actor())
    if as_json:
        print_json({"tenant": tenant, "epoch": epoch, "engine": engine or "palladion", "file": str(out)})
    else:
        echo(f"wrote the key of text for {given.name} to {out}: it is a secret")


for command in COMMANDS:
    key.add_command(command)

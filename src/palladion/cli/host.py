"""`palladion host …`: what the machine that opens sealed files trusts and has seen; needs no installation."""

from pathlib import Path

import click

from palladion.cli.output import PUBLISHER, echo, json_option, print_fields, print_json, print_table


@click.group()
def host() -> None:
    """This host as a recipient: whom it trusts, what it opens with, and what it has seen."""


@host.command("show", epilog="Example: palladion host show")
@json_option
def show(as_json: bool) -> None:
    """Show the identities, the trusted publishers, and the newest version of each model that was opened here."""
    from palladion.host.host import Host
    from palladion.seal.sign import publisher_text

    here = Host.find()
    identities = [{"file": str(path), "recipient": str(recipient)} for path, recipient in here.recipients()]
    publishers = [{"publisher": publisher_text(key), "note": note} for key, note in here.trusted()]
    seen = here.seen()
    if as_json:
        print_json(
            {
                "folder": str(here.folder),
                "identities": identities,
                "publishers": publishers,
                "versions": dict(seen.versions),
            }
        )
        return
    echo(f"host in {here.folder}")
    rows = [(item["file"], item["recipient"]) for item in identities]
    print_table(("identity", "recipient"), rows or [("none: palladion recipient new", "")])
    rows = [(item["publisher"], item["note"]) for item in publishers]
    print_table(("publisher", "note"), rows or [("none: palladion host trust", "")])
    print_table(("publisher and model", "newest seen"), sorted(seen.versions.items()) or [("none yet", "")])


@host.command("trust", epilog="Example: palladion host trust pallp1e… --note 'Example Ltd, by phone on 3 March'")
@click.argument("publisher", type=PUBLISHER)
@click.option("--note", default="", help="Who that is, and how you know.")
@json_option
def trust(publisher: bytes, note: str, as_json: bool) -> None:
    """Accept PUBLISHER's signature from now on. Get the key from the publisher, and not with the file."""
    from palladion.host.host import Host
    from palladion.seal.sign import publisher_text

    Host.find().trust(publisher, note=note)
    _done("trusts", publisher_text(publisher), as_json=as_json)


@host.command("distrust", epilog="Example: palladion host distrust pallp1e…")
@click.argument("publisher", type=PUBLISHER)
@json_option
def distrust(publisher: bytes, as_json: bool) -> None:
    """Accept PUBLISHER's signature no longer."""
    from palladion.host.host import Host
    from palladion.seal.sign import publisher_text

    Host.find().distrust(publisher)
    _done("no longer trusts", publisher_text(publisher), as_json=as_json)


@host.command("update", epilog="Example: palladion host update revocations")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def update(file: Path, as_json: bool) -> None:
    """Take over FILE, a publisher's signed list of what must not be opened any more; an older one is refused."""
    from palladion.host.host import Host

    listed = Host.find().update(file)
    if as_json:
        print_json({"publisher": listed.publisher, "sequence": listed.sequence})
    else:
        echo(f"this host has list {listed.sequence} of publisher {listed.publisher}")
        counts = f"{len(listed.versions)} versions, {len(listed.files)} files, {len(listed.serials)} licences"
        print_fields([("revoked", counts)])


def _done(verb: str, publisher: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"publisher": publisher, "trusted": verb == "trusts"})
    else:
        echo(f"this host {verb} {publisher}")

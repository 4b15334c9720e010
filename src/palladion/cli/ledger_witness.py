"""`palladion ledger witness`: have the ledger cosigned now, and say what its witnesses have seen."""

import click

from palladion.cli.output import echo, find_installation, finding_as_json, json_option, print_json, print_table
from palladion.clock import timestamp
from palladion.errors import PolicyError, StorageError


@click.command(epilog="Example: palladion ledger witness")
@json_option
@click.pass_context
def witness(ctx: click.Context, as_json: bool) -> None:
    """Ask the witnesses of palladion.toml to cosign the last checkpoint.

    Exit code 1 if one of them has seen more of this ledger than there is, or another history of it.
    """
    from palladion.lifecycle.witnesses import Witnesses, witnesses_of

    installation = find_installation(ctx)
    policy = installation.policy.ledger
    known = witnesses_of(policy)
    if not known:
        raise PolicyError(
            "palladion.toml names no ledger.witnesses",
            "palladion witness new makes one, on a machine of somebody else",
        )
    with finding_as_json(as_json):
        found = Witnesses(known, policy.witness_quorum).ask(installation.paths.ledger, installation.ledger_key())
        if found.contradicted is not None:
            raise found.contradicted
        if not found.enough:
            failed = "; ".join(error.message for error in found.failed.values())
            raise StorageError(f"{len(found.cosigned)} of {policy.witness_quorum} witnesses cosigned: {failed}")
    if as_json:
        print_json(
            {
                "ok": True,
                "size": found.checkpoint.size,
                "cosigned": {key.name: timestamp(time) for key, time in found.cosigned.items()},
                "failed": {name: error.message for name, error in found.failed.items()},
            }
        )
        return
    echo(f"witnessed: {found.checkpoint.size} entries, by {len(found.cosigned)} of {len(known)} witnesses")
    rows = [(key.name, timestamp(time)) for key, time in found.cosigned.items()]
    rows += [(name, error.message) for name, error in found.failed.items()]
    print_table(("witness", "cosigned"), rows)

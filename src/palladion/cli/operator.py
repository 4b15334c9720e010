"""`palladion operator …`: who looks after a gate, in which role; here, or at a running gate (`--at`)."""

from typing import TYPE_CHECKING, Any

import click

from palladion.cli.operator_remote import COMMANDS, at, gate_option, reason_option
from palladion.cli.output import actor, echo, find_installation, json_option, print_fields, print_json, print_table

if TYPE_CHECKING:
    from palladion.registry.rows import Role

# As the registry has them, which only commands that run load; a test compares.
ROLES = ("viewer", "analyst", "approver", "admin", "auditor")
_propose_option = click.option(
    "--propose", is_flag=True, help="With --at: ask a second person for it instead of doing it at once."
)


@click.group()
def operator() -> None:
    """Operators: who looks after a gate, and what each may do.

    Without --at, operators are those of the installation here, and the ledger says that the user of this account
    changed them. With --at, a running gate is asked, as the operator who is signed in there.
    """


@operator.command("add", epilog="Example: palladion operator add ada --identity user:ada --role admin")
@click.argument("name")
@click.option(
    "--identity",
    required=True,
    help="Who it is: oidc:ISSUER#SUBJECT at a provider, or user:NAME of the gate's machine.",
)
@click.option("--role", type=click.Choice(ROLES), required=True, help="What it may do.")
@gate_option(required=False)
@reason_option(required=False)
@_propose_option
@json_option
@click.pass_context
def add(
    ctx: click.Context,
    name: str,
    identity: str,
    role: "Role",
    gate: str | None,
    reason: str | None,
    propose: bool,
    as_json: bool,
) -> None:
    """Register an operator. With --at, an analyst, approver or admin needs a second person, who agrees."""
    if gate is not None:
        _at_gate(gate, {"name": name, "identity": identity, "role": role}, reason, propose=propose, as_json=as_json)
        return
    from palladion.lifecycle.operators import add_operator

    made, receipt = add_operator(find_installation(ctx), name, role=role, identity=identity, actor=actor())
    if as_json:
        print_json({"operator": made.name, "role": made.role, "identity": made.identity, "receipt": str(receipt)})
    else:
        echo(f"added operator {made.name}, who is {made.role}")
        print_fields([("identity", made.identity), ("ledger", str(receipt))])


@operator.command("list", epilog="Example: palladion operator list")
@gate_option(required=False)
@json_option
@click.pass_context
def list_operators(ctx: click.Context, gate: str | None, as_json: bool) -> None:
    """List the operators of the registry, revoked ones included."""
    if gate is not None:
        documents: list[dict[str, Any]] = at(gate).get("operators")["operators"]
    else:
        from palladion.gate.administration.views import operator_documents

        with find_installation(ctx).open_registry() as registry, registry.read() as records:
            documents = operator_documents(records.operators.all())
    if as_json:
        print_json({"operators": documents})
    elif documents:
        columns = ("operator", "role", "identity", "created", "revoked")
        print_table(columns, [[document.get(column) for column in columns] for document in documents])
    else:
        echo("no operators yet: palladion operator add NAME --identity user:NAME --role admin")


@operator.command("role", epilog="Example: palladion operator role ada auditor")
@click.argument("name")
@click.argument("role", type=click.Choice(ROLES))
@gate_option(required=False)
@reason_option(required=False)
@_propose_option
@json_option
@click.pass_context
def change_role(
    ctx: click.Context, name: str, role: "Role", gate: str | None, reason: str | None, propose: bool, as_json: bool
) -> None:
    """Give an operator another role. Nobody changes his own, and one admin always stays."""
    if gate is not None:
        _at_gate(gate, {"name": name, "role": role}, reason, propose=propose, as_json=as_json)
        return
    from palladion.lifecycle import operators as life

    made, receipt = life.change_role(find_installation(ctx), name, role, actor=actor())
    if as_json:
        print_json({"operator": made.name, "role": made.role, "receipt": str(receipt)})
    else:
        echo(f"operator {made.name} is {made.role} now (ledger {receipt})")


@operator.command("revoke", epilog="Example: palladion operator revoke ada")
@click.argument("name")
@gate_option(required=False)
@reason_option(required=False)
@_propose_option
@json_option
@click.pass_context
def revoke(ctx: click.Context, name: str, gate: str | None, reason: str | None, propose: bool, as_json: bool) -> None:
    """Take away every right of an operator, at once. The name stays listed, because the ledger speaks of it."""
    if gate is not None:
        _at_gate(gate, {"name": name}, reason, propose=propose, as_json=as_json)
        return
    from palladion.lifecycle.operators import revoke_operator

    made, receipt = revoke_operator(find_installation(ctx), name, actor=actor())
    if as_json:
        print_json({"operator": made.name, "revoked": True, "receipt": str(receipt)})
    else:
        echo(f"revoked operator {made.name} (ledger {receipt})")


def _at_gate(gate: str, change: dict[str, Any], reason: str | None, *, propose: bool, as_json: bool) -> None:
    if reason is None:
        raise click.UsageError("with --at, a --reason is needed: the ledger keeps it")
    asked = {"change": {"kind": "operator", **change}, "reason": reason}
    answer = at(gate).post("proposals" if propose else "changes", asked)
    if as_json:
        print_json(answer)
    elif propose:
        echo(f"proposed {answer['id']}: somebody else has to decide (ledger {answer['receipt']})")
    else:
        echo(f"done (ledger {answer['receipt']})")


for command in COMMANDS:
    operator.add_command(command)

"""`palladion incident …`: cases, from open to closed."""

from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import actor, echo, find_installation, json_option, print_fields, print_json, print_table
from palladion.clock import timestamp

if TYPE_CHECKING:
    from palladion.incident.cases import Action
    from palladion.registry import Client, Incident


@click.group()
def incident() -> None:
    """Cases: what was seen, what was done about it, until somebody says what it was."""


@incident.command("list", epilog="Example: palladion incident list --open")
@click.option("--open", "only_open", is_flag=True, help="Leave closed cases out.")
@json_option
@click.pass_context
def list_incidents(ctx: click.Context, only_open: bool, as_json: bool) -> None:
    """List the cases, oldest first. The gate opens one when it suspends somebody."""
    with find_installation(ctx).open_registry() as registry, registry.read() as records:
        cases = [case for case in records.incidents.all() if not (only_open and case.state == "closed")]
        documents = [_document(case, [records.clients.get(client) for client in case.clients]) for case in cases]
    if as_json:
        print_json({"incidents": documents})
    elif documents:
        columns = ("id", "state", "opened", "title")
        print_table(columns, [[document[column] for column in columns] for document in documents])
    else:
        echo("no incidents")


@incident.command("show", epilog="Example: palladion incident show 3f2a")
@click.argument("id")
@json_option
@click.pass_context
def show(ctx: click.Context, id: str, as_json: bool) -> None:  # noqa: A002 (click names arguments so)
    """Show a case, named by its id or the beginning of it: whom it concerns, and its timeline."""
    from palladion.incident.cases import find_case

    with find_installation(ctx).open_registry() as registry, registry.read() as records:
        case = find_case(records, id)
        document = _document(case, [records.clients.get(client) for client in case.clients])
        timeline = [
            {"at": timestamp(event.at), "kind": event.kind, "by": event.actor, "text": event.text}
            for event in records.incidents.timeline(case.id)
        ]
    if as_json:
        print_json({**document, "timeline": timeline})
        return
    echo(f"{document['id']}: {document['title']}")
    print_fields(
        [
            ("state", document["state"]),
            ("clients", ", ".join(document["clients"]) or "none"),
            ("closed", document["closed"]),
            ("finding", document["finding"]),
        ]
    )
    print_table(("at", "what", "by", "text"), [list(event.values()) for event in timeline])


def _act(name: str, action: "Action", meaning: str, example: str, *, text_required: bool) -> None:
    @incident.command(name, epilog=f"Example: palladion incident {name} 3f2a {example}".rstrip(), help=meaning)
    @click.argument("id")
    @click.argument("text", required=text_required)
    @json_option
    @click.pass_context
    def command(ctx: click.Context, id: str, text: str | None, as_json: bool) -> None:  # noqa: A002
        from palladion.incident.cases import act

        case, receipt = act(find_installation(ctx), id, action, text or "", actor=actor())
        if as_json:
            print_json({"incident": case.id, "state": case.state, "receipt": str(receipt)})
        else:
            echo(f"incident {case.id} is {case.state} (ledger {receipt})")


_act("take", "acknowledge", "Take a case on: others see that somebody is at it.", "", text_required=False)
_act("note", "note", "Add what was noticed.", "'same payment card as in May'", text_required=True)
_act("act", "act", "Add what was done.", "'called their security team'", text_required=True)
_act(
    "close",
    "close",
    "Close a case for good, with what was found.",
    "'load test, they forgot to tell us'",
    text_required=True,
)


def _document(case: "Incident", clients: "list[Client]") -> dict[str, Any]:
    return {
        "id": case.id,
        "state": case.state,
        "title": case.title,
        "clients": sorted(f"{client.organisation}/{client.name}" for client in clients),
        "opened": timestamp(case.opened_at),
        "closed": timestamp(case.closed_at) if case.closed_at else None,
        "finding": case.finding,
    }

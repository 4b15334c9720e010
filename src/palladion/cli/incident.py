"""`palladion incident …`: cases, from open to closed. What is done to clients: `incident_response`; letters, timelines,
verdicts and dossiers have files of their own.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.incident_anchor import anchor
from palladion.cli.incident_dossier import custody, dossier, measure, stamp
from palladion.cli.incident_letters import appeal, notice
from palladion.cli.incident_response import RESPONSES
from palladion.cli.incident_timeline import timeline
from palladion.cli.incident_verdicts import close, verdicts
from palladion.cli.output import actor, echo, find_installation, json_option, print_fields, print_json, print_table
from palladion.clock import timestamp

if TYPE_CHECKING:
    from palladion.incident.cases import Action
    from palladion.registry import Incident, IncidentEvent, Records

COLUMNS = ("id", "state", "age", "clients", "last step", "verdict", "title")
NAMED_MAX = 3  # clients in a row of the list


@click.group()
def incident() -> None:
    """Cases: what was seen, what was done about it, until somebody says what it was."""


@incident.command("open", epilog="Example: palladion incident open 'our model on a forum' --client acme/web")
@click.argument("title")
@click.option("--client", "clients", multiple=True, metavar="NAME", help="A client that it concerns. May be repeated.")
@click.option("--text", default="", metavar="TEXT", help="What is known.")
@json_option
@click.pass_context
def open_incident(ctx: click.Context, title: str, clients: tuple[str, ...], text: str, as_json: bool) -> None:
    """Open a case by hand. The gate opens one when it suspends somebody, or when a decoy is touched."""
    from palladion.incident.cases import open_case

    case, receipt = open_case(find_installation(ctx), title, clients, text=text, actor=actor())
    if as_json:
        print_json({"incident": case.id, "state": case.state, "receipt": str(receipt)})
    else:
        echo(f"incident {case.id} is open (ledger {receipt})")


@incident.command("list", epilog="Example: palladion incident list --open")
@click.option("--open", "only_open", is_flag=True, help="Leave closed cases out.")
@json_option
@click.pass_context
def list_incidents(ctx: click.Context, only_open: bool, as_json: bool) -> None:
    """List the cases, oldest first, with the last thing that was done in each."""
    installation = find_installation(ctx)
    with installation.open_registry() as registry, registry.read() as records:
        cases = [case for case in records.incidents.all() if not (only_open and case.state == "closed")]
        last = records.incidents.last_events()
        documents = [{**_document(records, case), "last": _event(last[case.id])} for case in cases]
    if as_json:
        print_json({"incidents": documents})
    elif documents:
        now = installation.clock.now()
        print_table(COLUMNS, [_row(document, case, now) for document, case in zip(documents, cases, strict=True)])
    else:
        echo("no incidents")


@incident.command("show", epilog="Example: palladion incident show 3f2a")
@click.argument("id")
@json_option
@click.pass_context
def show(ctx: click.Context, id: str, as_json: bool) -> None:  # noqa: A002 (click names arguments so)
    """Show a case, named by its id or the beginning of it: whom it concerns, how each stands, and what was done."""
    from palladion.incident.cases import find_case

    installation = find_installation(ctx)
    with installation.open_registry() as registry, registry.read() as records:
        case = find_case(records, id)
        document = _document(records, case)
        standings = _standings(records, case)
        events = [_event(event) for event in records.incidents.timeline(case.id)]
    if as_json:
        print_json({**document, "standings": standings, "timeline": events})
        return
    echo(f"{document['id']}: {document['title']}")
    print_fields(
        [
            ("state", document["state"]),
            ("opened", f"{document['opened']}, {_age(installation.clock.now() - case.opened_at)} ago"),
            ("closed", document["closed"]),
            ("verdict", document["verdict"]),
            ("honest", ", ".join(document["cleared"]) or None),
            ("finding", document["finding"]),
        ]
    )
    if standings:
        print_table(("client", "standing", "since", "by"), [list(item.values()) for item in standings])
    else:
        echo("  no client is known to be concerned")
    print_table(("at", "what", "by", "text"), [list(event.values()) for event in events])


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
_act("act", "act", "Add what was done elsewhere.", "'called their security team'", text_required=True)
for _command in (timeline, *RESPONSES, notice, appeal, close, verdicts, dossier, stamp, anchor, custody, measure):
    incident.add_command(_command)


def _document(records: "Records", case: "Incident") -> dict[str, Any]:
    from palladion.incident.cases import label

    return {
        "id": case.id,
        "state": case.state,
        "title": case.title,
        "clients": sorted(label(records.clients.get(client)) for client in case.clients),
        "opened": timestamp(case.opened_at),
        "closed": timestamp(case.closed_at) if case.closed_at else None,
        "finding": case.finding,
        "verdict": case.verdict,
        "cleared": sorted(label(records.clients.get(client)) for client in case.cleared),
    }


def _standings(records: "Records", case: "Incident") -> list[dict[str, Any]]:
    from palladion.incident.cases import label

    found = []
    for client in map(records.clients.get, case.clients):
        last = records.standings.history(client.id)[-1]
        standing = "revoked" if client.revoked_at else client.standing
        found.append({"client": label(client), "standing": standing, "since": timestamp(last.at), "by": last.actor})
    return sorted(found, key=lambda item: item["client"])


def _event(event: "IncidentEvent") -> dict[str, Any]:
    return {"at": timestamp(event.at), "kind": event.kind, "by": event.actor, "text": event.text}


def _row(document: Mapping[str, Any], case: "Incident", now: datetime) -> list[object]:
    clients = document["clients"]
    more = f" and {len(clients) - NAMED_MAX} more" if len(clients) > NAMED_MAX else ""
    last = document["last"]
    return [
        case.id,
        case.state,
        _age(now - case.opened_at),
        f"{', '.join(clients[:NAMED_MAX])}{more}",
        f"{last['kind']} by {last['by']} {_age(now - _at(last))} ago",
        case.verdict,
        case.title,
    ]


def _at(event: Mapping[str, Any]) -> datetime:
    from palladion.clock import parse_timestamp

    return parse_timestamp(event["at"])


def _age(length: timedelta) -> str:
    """A length of time for people: 12m, 5h or 3d; a clock that was set back gives 0m."""
    minutes = max(0, int(length.total_seconds() // 60))
    if minutes < 60:
        return f"{minutes}m"
    return f"{minutes // 60}h" if minutes < 48 * 60 else f"{minutes // (24 * 60)}d"

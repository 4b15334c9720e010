"""`palladion alert …`: what people were told, by which channels, and whether these work."""

from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import echo, find_installation, json_option, print_json, print_table
from palladion.clock import timestamp
from palladion.errors import FINDING, NotFoundError, PolicyError

if TYPE_CHECKING:
    from palladion.incident.alerts.channels import Channel
    from palladion.incident.alerts.outbox import Delivery
    from palladion.incident.alerts.sending import Outcome
    from palladion.incident.alerts.topics import Topic
    from palladion.lifecycle.installation import Installation


@click.group()
def alert() -> None:
    """Alerts: what a gate told people of, by which channels, and what is still to be sent."""


@alert.command("test", epilog="Example: palladion alert test --channel pager")
@click.option("--channel", "names", multiple=True, metavar="NAME", help="Only this channel. May be repeated.")
@json_option
@click.pass_context
def test(ctx: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """Send an alert that says it is a test through every channel, and say what came of it. No gate needs to run."""
    from palladion.incident.alerts.sending import send_test

    installation = find_installation(ctx)
    channels = _channels(installation, names)
    now, link = installation.clock.now(), installation.policy.oncall.link
    _report(ctx, channels, [send_test(channel, now, link=link) for channel in channels], as_json=as_json)


@alert.command("list", epilog="Example: palladion alert list --all")
@click.option("--all", "every", is_flag=True, help="Those that are over as well.")
@json_option
@click.pass_context
def list_alerts(ctx: click.Context, every: bool, as_json: bool) -> None:
    """List what was alerted and is not over, oldest first, and by which channels it still has to be sent."""
    from palladion.incident.alerts.outbox import FILE, Outbox

    path = find_installation(ctx).paths.directory / FILE
    documents: list[dict[str, Any]] = []
    if path.is_file():
        with Outbox.open(path) as outbox:
            topics = [topic for topic in outbox.topics() if every or topic.state != "ended"]
            documents = [_document(topic, outbox.deliveries(topic.id)) for topic in topics]
    if as_json:
        print_json({"alerts": documents})
    elif documents:
        columns = ("id", "severity", "state", "level", "count", "first", "sentence")
        rows = [[*(document[column] for column in columns), _waiting(document)] for document in documents]
        print_table((*columns, "not sent yet"), rows)
    else:
        echo("no alerts")


@alert.command("resend", epilog="Example: palladion alert resend 3f2a")
@click.argument("id")
@json_option
@click.pass_context
def resend(ctx: click.Context, id: str, as_json: bool) -> None:  # noqa: A002 (click names arguments so)
    """Send an alert once more, named by its id or the beginning of it, by every channel that it went to."""
    from palladion.incident.alerts.outbox import FILE, Outbox
    from palladion.incident.alerts.sending import send_due

    installation = find_installation(ctx)
    path = installation.paths.directory / FILE
    if not path.is_file():
        raise NotFoundError(f"no alert has the id {id!r}: nothing was alerted here yet")
    with Outbox.open(path) as outbox:
        topic = outbox.find(id)
        names = {channel.name for channel in installation.policy.alert}
        told = [name for name in outbox.again(topic.id, installation.clock.now()) if name in names]
        channels, outcomes = _channels(installation, told) if told else [], []
        for channel in channels:
            found = send_due(outbox, channel, installation.clock, link=installation.policy.oncall.link, topic=topic.id)
            # none where a gate that runs was faster
            outcomes += found[-1:]
    _report(ctx, channels, outcomes, as_json=as_json)


def _channels(installation: "Installation", names: "tuple[str, ...] | list[str]") -> "list[Channel]":
    from palladion.incident.alerts.channels import open_channels

    policies = installation.policy.alert
    if not policies:
        raise PolicyError(f"{installation.paths.policy} has no [[alert]]", "docs/alerts.md says how to write one")
    known = [policy.name for policy in policies]
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise PolicyError(f"there is no [[alert]] named {unknown}", f"channels here: {', '.join(known)}")
    home = installation.paths.home
    chosen = [policy for policy in policies if not names or policy.name in names]
    return open_channels(chosen, home, installation.clock, source=home.name)


def _report(ctx: click.Context, channels: "list[Channel]", outcomes: "list[Outcome]", *, as_json: bool) -> None:
    kinds = {channel.policy.name: channel.policy.kind for channel in channels}
    failed = any(outcome.error for outcome in outcomes)
    if as_json:
        document = [{"channel": item.channel, "kind": kinds[item.channel], "error": item.error} for item in outcomes]
        print_json({"ok": not failed, "channels": document})
    else:
        for item in outcomes:
            echo(f"{item.channel} ({kinds[item.channel]}): {item.error or 'sent'}")
        if not outcomes:
            echo("nothing was to be sent")
    if failed:
        ctx.exit(FINDING)


def _document(topic: "Topic", deliveries: "list[Delivery]") -> dict[str, Any]:
    alert = topic.alert
    return {
        "id": topic.id,
        "kind": alert.kind,
        "severity": alert.severity,
        "state": topic.state,
        "subject": alert.subject,
        "sentence": alert.sentence,
        "case": alert.case,
        "level": topic.level,
        "count": topic.count,
        "first": timestamp(topic.since),
        "last": timestamp(topic.news_at),
        "sent": [
            {
                "channel": item.channel,
                "what": item.action,
                "at": timestamp(item.done) if item.done and not item.error else None,
                "attempts": item.attempts,
                "error": item.error or None,
                "given_up": bool(item.done and item.error),
            }
            for item in deliveries
        ],
    }


def _waiting(document: dict[str, Any]) -> str:
    waiting = [
        f"{item['channel']}{': ' + item['error'] if item['error'] else ''}"
        for item in document["sent"]
        if item["at"] is None
    ]
    return "; ".join(dict.fromkeys(waiting))

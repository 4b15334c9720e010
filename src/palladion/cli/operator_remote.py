"""`palladion operator …` at a running gate: signing in, looking, proposing, deciding."""

import sys
import webbrowser
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import click

from palladion.cli.output import echo, json_option, print_fields, print_json, print_table, warn
from palladion.clock import SystemClock, timestamp

if TYPE_CHECKING:
    from palladion.gate.administration.remote import Remote

# As the registry has them, which only commands that run load; a test compares.
STANDINGS = ("trusted", "watched", "throttled", "degraded", "suspended")
NAMED_MAX = 20  # clients in one line; more are counted, and all are shown before somebody agrees
GATE_HELP = "The gate's port for operators (https://HOST:PORT), or its socket (unix:PATH)."

_Command = TypeVar("_Command", bound=Callable[..., Any])


def gate_option(*, required: bool = True) -> Callable[[_Command], _Command]:
    """Which gate is asked."""
    return click.option("--at", "gate", metavar="URL", required=required, help=GATE_HELP)


def reason_option(*, required: bool = True) -> Callable[[_Command], _Command]:
    """Why."""
    return click.option("--reason", required=required, help="Why; it stays in the ledger.")


def at(gate: str) -> "Remote":
    """A gate, asked as who is signed in there. Raises KeysError where nobody is."""
    from palladion.gate.administration.remote import Remote, Sessions

    remote = Remote(gate)
    if remote.local:
        return remote
    return Remote(gate, Sessions.of_user().find(remote.url, SystemClock().now()).token)


@click.command("sign-in", epilog="Example: palladion operator sign-in https://gate.example.com:8711")
@click.argument("url")
@click.option("--device", is_flag=True, help="Show a code that is typed on another device: here is no browser.")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="Let the gate ask for this one as well.")
@click.option("--changed", is_flag=True, help="The gate may name another provider, program or scope than last time.")
@click.option("--yes", is_flag=True, help="Do not ask whether these are right.")
@json_option
def sign_in(url: str, device: bool, scopes: tuple[str, ...], changed: bool, yes: bool, as_json: bool) -> None:
    """Sign in at a gate by its provider (OpenID Connect), with a browser on this machine or a code.

    The gate says by which provider, as which program and for what. You are asked whether that is right the first time;
    later, other terms are refused, unless you say --changed.

    The session is kept in a file that you alone can read, and shown nowhere. At a gate's socket (unix:PATH) nobody
    signs in: the system says who you are.
    """
    from palladion.errors import PalladionError
    from palladion.gate.administration import sign_in as providers
    from palladion.gate.administration.remote import Remote, Session, Sessions
    from palladion.gate.administration.terms import KnownGates, parse_terms, shown

    remote = Remote(url)
    if remote.local:
        raise PalladionError("at a socket nobody signs in", f"palladion operator whoami --at {remote.url}")
    terms, gates = parse_terms(remote.get("sign-in"), remote.url, scopes=scopes), KnownGates.of_user()
    known = gates.knows(remote.url, terms, changed=changed)
    # before anything is asked of the provider: whoever it is, this gate has named it
    for name, value in shown(terms, remote.url):
        echo(f"  {name:<8}  {value}", err=True)
    if not known and not yes:
        _agree("Sign in there")
    provider = providers.discover(terms.issuer)
    tell = partial(_tell, remote.url)
    token = providers.by_device(terms, provider, tell) if device else providers.by_browser(terms, provider, _open)
    answer = Remote(url, token).post("session", {})
    session = Session(remote.url, answer["token"], answer["expires"], answer["identity"], answer["role"])
    gates.save(remote.url, terms)
    Sessions.of_user().save(session)
    until = timestamp(datetime.fromtimestamp(session.expires, UTC))
    if as_json:
        print_json({"gate": remote.url, "identity": session.identity, "role": session.role, "until": until})
    else:
        echo(f"signed in at {remote.url} as {session.role}")
        print_fields([("identity", session.identity), ("until", until)])


@click.command("sign-out", epilog="Example: palladion operator sign-out https://gate.example.com:8711")
@click.argument("url")
@json_option
def sign_out(url: str, as_json: bool) -> None:
    """End the session at a gate, there and here."""
    from palladion.errors import PalladionError
    from palladion.gate.administration.remote import Remote, Sessions

    sessions, remote = Sessions.of_user(), Remote(url)
    try:
        ended = bool(at(url).delete("session").get("ended"))
    except PalladionError as error:
        warn(f"the gate could not be told: {error.message}")
        ended = False
    sessions.forget(remote.url)
    if as_json:
        print_json({"gate": remote.url, "ended": ended})
    else:
        echo(f"signed out of {remote.url}")


@click.command("whoami", epilog="Example: palladion operator whoami --at https://gate.example.com:8711")
@gate_option()
@json_option
def whoami(gate: str, as_json: bool) -> None:
    """Show who you are for a gate, and in which role."""
    answer = at(gate).get("whoami")
    if as_json:
        print_json(answer)
    else:
        echo(f"{answer['role']}: {answer['identity']}")


@click.command("status", epilog="Example: palladion operator status --at https://gate.example.com:8711")
@gate_option()
@json_option
def status(gate: str, as_json: bool) -> None:
    """Show what a gate serves, and whether it is well."""
    answer = at(gate).get("status")
    if as_json:
        print_json(answer)
        return
    echo(f"{'ready' if answer['ready'] else 'NOT ready'}: {answer['answered']} queries answered")
    for fault in answer["faults"]:
        warn(fault)
    print_fields([("policy", answer["policy"][:16]), ("ledger", f"{answer['entries']} entries")])
    columns = ("path", "version", "mode")
    print_table(columns, [[route[column] for column in columns] for route in answer["routes"]])


@click.command("clients", epilog="Example: palladion operator clients acme --at https://gate.example.com:8711")
@click.argument("name", required=False)
@gate_option()
@json_option
def clients(name: str | None, gate: str, as_json: bool) -> None:
    """List the clients, the most suspicious ones first; or show one (ORGANISATION/NAME) with every standing it had."""
    remote = at(gate)
    if name is None:
        answer = remote.get("clients")
        if as_json:
            print_json(answer)
        else:
            columns = ("client", "standing", "pseudonym")
            print_table(columns, [[row[column] for column in columns] for row in answer["clients"]])
        return
    organisation, _, own = name.partition("/")
    answer = remote.get(f"clients/{quote(organisation)}/{quote(own or organisation)}")
    if as_json:
        print_json(answer)
        return
    echo(f"{answer['client']}: {answer['standing']}")
    print_table(("key", "created", "expires", "revoked"), [list(key.values()) for key in answer["keys"]])
    print_table(("since", "standing", "by", "reason"), [list(change.values()) for change in answer["history"]])


@click.command("incidents", epilog="Example: palladion operator incidents 3f2a --take --at https://gate.example.com")
@click.argument("incident", required=False)
@click.option("--take", "action", flag_value="acknowledge", help="Take the case on.")
@click.option("--note", "action", flag_value="note", help="Add what was noticed (--text).")
@click.option("--act", "action", flag_value="act", help="Add what was done (--text).")
@click.option("--close", "action", flag_value="close", help="Close it for good with what was found (--text).")
@click.option("--text", default="", help="The sentence that is added.")
@gate_option()
@json_option
def incidents(incident: str | None, action: str | None, text: str, gate: str, as_json: bool) -> None:
    """List the cases; show one; or do something with it."""
    if action is not None and incident is None:
        raise click.UsageError("name the case")
    remote = at(gate)
    if action is not None:
        answer = remote.post(f"incidents/{quote(str(incident))}", {"action": action, "text": text})
        if as_json:
            print_json(answer)
        else:
            echo(f"incident {answer['incident']} is {answer['state']} (ledger {answer['receipt']})")
        return
    answer = remote.get("incidents" if incident is None else f"incidents/{quote(incident)}")
    if as_json:
        print_json(answer)
    elif incident is None:
        columns = ("id", "state", "opened", "title")
        print_table(columns, [[row[column] for column in columns] for row in answer["incidents"]])
    else:
        echo(f"{answer['id']}: {answer['title']}")
        print_fields([("state", answer["state"]), ("clients", ", ".join(answer["clients"]) or "none")])
        print_table(("at", "what", "by", "text"), [list(event.values()) for event in answer["timeline"]])


@click.command("proposals", epilog="Example: palladion operator proposals --at https://gate.example.com:8711")
@click.option("--all", "everything", is_flag=True, help="Those that were decided, or are over, as well.")
@gate_option()
@json_option
def proposals(everything: bool, gate: str, as_json: bool) -> None:
    """List what waits for a second person."""
    answer = at(gate).get("proposals", **({"all": "1"} if everything else {}))
    if as_json:
        print_json(answer)
        return
    rows = [
        [
            row["id"],
            _said(row["change"], row.get("concerns")),
            row["by"],
            row["verdict"] or f"until {row['until']}",
            row["reason"],
        ]
        for row in answer["proposals"]
    ]
    if rows:
        print_table(("id", "change", "by", "verdict", "reason"), rows)
    else:
        echo("no proposals wait")


@click.command(
    "propose", epilog="Example: palladion operator propose acme --standing suspended --reason 'copies' --at URL"
)
@click.argument("clients", nargs=-1, metavar="[CLIENT]...")
@click.option("--standing", type=click.Choice(STANDINGS), help="Put the clients into this standing.")
@click.option("--revoke", is_flag=True, help="Let the client in no more.")
@click.option("--key", metavar="PREFIX", help="Accept the API key that begins so no more.")
@click.option("--now", is_flag=True, help="Do it at once, where your role permits it and no second person is needed.")
@reason_option()
@gate_option()
@json_option
def propose(
    clients: tuple[str, ...],
    standing: str | None,
    revoke: bool,
    key: str | None,
    now: bool,
    reason: str,
    gate: str,
    as_json: bool,
) -> None:
    """Ask a second person to change what clients (ORGANISATION/NAME) may do; or do it (--now)."""
    if sum((standing is not None, revoke, key is not None)) != 1:
        raise click.UsageError("name one of the three: --standing, --revoke or --key")
    if (key is not None) == bool(clients) or (revoke and len(clients) != 1):
        raise click.UsageError("--standing takes clients, --revoke one of them, and --key none")
    change: dict[str, Any]
    if standing is not None:
        change = {"kind": "standing", "clients": list(clients), "standing": standing}
    elif revoke:
        change = {"kind": "client", "client": clients[0]}
    else:
        change = {"kind": "key", "prefix": key}
    answer = at(gate).post("changes" if now else "proposals", {"change": change, "reason": reason})
    if as_json:
        print_json(answer)
    elif now:
        echo(f"done: {_said(change)} (ledger {answer['receipt']})")
    else:
        echo(f"proposed {answer['id']}: somebody else has to decide until {answer['until']}")


@click.command("decide", epilog="Example: palladion operator decide 3f2a4b5c6d7e8f90 approve --at URL")
@click.argument("proposal")
@click.argument("decision", type=click.Choice(("approve", "reject", "withdraw")))
@click.option("--reason", default="", help="Why; it stays in the ledger.")
@click.option("--yes", is_flag=True, help="Do not show what is approved, and do not ask.")
@gate_option()
@json_option
def decide(proposal: str, decision: str, reason: str, yes: bool, gate: str, as_json: bool) -> None:
    """Approve or reject what somebody else proposed, or withdraw what you have proposed. What is approved is done.

    Before you approve, the whole change is shown, and you are asked, except with --json or --yes.
    """
    if decision == "approve" and not (as_json or yes):
        _show(at(gate).get("proposals")["proposals"], proposal)
        _agree("Approve this")
    answer = at(gate).post(f"proposals/{quote(proposal)}", {"decision": decision, "reason": reason})
    if as_json:
        print_json(answer)
    else:
        echo(f"{answer['verdict']}: {_said(answer['change'])} (ledger {answer['receipt']})")


@click.command("reload", epilog="Example: palladion operator reload --at https://gate.example.com:8711")
@gate_option()
@json_option
def reload(gate: str, as_json: bool) -> None:
    """Let a gate go by what its policy file says now."""
    answer = at(gate).post("policy/reload", {})
    if as_json:
        print_json(answer)
        return
    echo(f"the policy is {answer['policy'][:16]} now")
    columns = ("setting", "before", "after")
    print_table(columns, [[change[column] for column in columns] for change in answer["changes"]])


@click.command("ledger", epilog="Example: palladion operator ledger --count 20 --at https://gate.example.com:8711")
@click.option("--from", "start", type=click.IntRange(0), help="The first entry; without it, the last ones are shown.")
@click.option("--count", type=click.IntRange(1, 100), default=20, help="How many.")
@gate_option()
@json_option
def ledger(start: int | None, count: int, gate: str, as_json: bool) -> None:
    """Show entries of a gate's ledger, as an auditor."""
    answer = at(gate).get("ledger", count=str(count), **({} if start is None else {"from": str(start)}))
    if as_json:
        print_json({**answer, **at(gate).get("checkpoint")})
        return
    columns = ("time", "kind", "actor", "subject")
    rows = [[entry["index"], *(entry["record"][column] for column in columns)] for entry in answer["entries"]]
    print_table(("index", *columns), rows)


COMMANDS = (*(sign_in, sign_out, whoami, status, clients, incidents, proposals, propose, decide, reload, ledger),)


def _said(change: dict[str, Any], identity: str | None = None) -> str:
    """A change in a few words; `identity` is that of the operator whom it concerns, where it is known."""
    match change.get("kind"):
        case "standing":
            names = change["clients"]
            more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
            return f"{', '.join(names[:NAMED_MAX])}{more} {change['standing']}"
        case "client":
            return f"revoke {change['client']}"
        case "key":
            return f"revoke the key {change['prefix']}…"
        case _:
            role, who = change.get("role"), change.get("identity") or identity
            named = f"{change.get('name')} ({who})" if who else str(change.get("name"))
            if not role:
                return f"revoke operator {named}"
            # who may come in by it is what counts: a name is whatever somebody calls him
            return f"add operator {named} as {role}" if change.get("identity") else f"change operator {named} to {role}"


def _show(waiting: list[dict[str, Any]], proposal: str) -> None:
    """Show a whole proposal. Raises NotFoundError where none waits: nobody approves what he cannot see."""
    from palladion.errors import NotFoundError

    row = next((row for row in waiting if row["id"] == proposal), None)
    if row is None:
        raise NotFoundError(f"no proposal {proposal!r} waits to be decided", "palladion operator proposals --all")
    change = row["change"]
    names = change["clients"] if change.get("kind") == "standing" else []
    what = (
        f"{len(names)} clients {change['standing']}" if len(names) > NAMED_MAX else _said(change, row.get("concerns"))
    )
    echo(what, err=True)
    for name in names if len(names) > NAMED_MAX else ():
        echo(f"  {name}", err=True)
    echo(f"proposed by {row['by']}, until {row['until']}: {row['reason']}", err=True)


def _agree(question: str) -> None:
    """Ask on the terminal. Raises PalladionError where there is none, or the answer is no."""
    from palladion.errors import PalladionError

    if not sys.stdin.isatty():
        raise PalladionError("nobody was asked whether this is right: there is no terminal", "if it is: --yes")
    if not click.confirm(question, err=True):
        raise PalladionError("nothing was done, because you did not agree")


def _tell(gate: str, place: str, code: str) -> None:
    echo(f"to sign in at {gate}, and only if you began this yourself: open {place} and type {code}", err=True)


def _open(address: str) -> None:
    echo("a browser opens; if none does, open this address on this machine:", err=True)
    echo(address, err=True)
    webbrowser.open(address)

"""`palladion watch report`: whom observing routes would have disturbed, from the ledger."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.client_options import DurationType
from palladion.cli.output import echo, find_installation, json_option, print_json, print_table, warn
from palladion.cli.watch_calibration import print_promise, promised
from palladion.clock import timestamp

if TYPE_CHECKING:
    from palladion.lifecycle.installation import Installation
    from palladion.registry import Records
    from palladion.watch.kinds import AnyCalibration
    from palladion.watch.report import Concern, Report, RouteReport

ROUTE_COLUMNS = ("route", "", "clients", "answers", "watched", "disturbed", "of clients", "of answers", "unlike")
CLIENT_COLUMNS = ("client", "route", "", "standing", "since", "answers", "why")


@click.command("report", epilog="Example: palladion watch report --since 7d")
@click.option(
    "--since", type=DurationType(), default="7d", show_default=True, help="How far to look back, such as 12h or 7d."
)
@json_option
@click.pass_context
def report(ctx: click.Context, since: timedelta, as_json: bool) -> None:
    """Say whom the routes that observe would have disturbed, and whom the others did, beside what was promised.

    From the ledger as far as its last checkpoint covers it, while a gate runs or not.
    """
    from palladion.ledger.since import records_since
    from palladion.watch.report import KINDS, Report

    installation = find_installation(ctx)
    now = installation.clock.now()
    ledger = installation.read_ledger()
    found = Report({route.route: route.model for route in installation.policy.route})
    found.take_all(records_since(ledger, now - since, KINDS))
    document = {
        "since": timestamp(now - since),
        "until": timestamp(now),
        "entries": ledger.size,
        "records": found.records,
        **_document(installation, found),
        "found_honest": _found_honest(installation, now - since),
    }
    if as_json:
        print_json(document)
    else:
        _print(document)


def _document(installation: "Installation", found: "Report") -> dict[str, Any]:
    routes, modes = found.routes(), {route.route: route.mode for route in installation.policy.route}
    status = installation.server_status()
    with installation.open_registry() as registry, registry.read() as records:
        names = _names(installation, records)
        promises = {model: _promise(installation, records, model) for model in {route.model for route in routes}}
    return {
        "routes": [{**_route(route), "mode_now": modes.get(route.route)} for route in routes],
        "clients": [_client(item, names) for item in found.clients()],
        "refused": dict(sorted(found.refused.items())),
        "promised": {model: promise for model, promise in sorted(promises.items()) if promise is not None},
        "discoveries": None if status is None else discovered(status),
    }


def _found_honest(installation: "Installation", since: datetime) -> int:
    """How many clients cases have cleared that were closed since."""
    from palladion.incident.verdicts import cleared_since

    with installation.open_registry() as registry, registry.read() as records:
        return cleared_since(records, since)


def discovered(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The clients that stand out of all that a running gate knows, by its status, in its order."""
    return [
        {"client": client["client"], "model": model["model"], "p_value": model["p_value"]}
        for client in status["clients"]
        for model in client["models"]
        if model["discovery"]
    ]


def _names(installation: "Installation", records: "Records") -> dict[str, str]:
    """The names of clients, by pseudonym; the registry forgets none, but it may be an older one."""
    from palladion.access.pseudonyms import pseudonym

    key = installation.open_gate_root().derive("pseudonyms")
    return {pseudonym(key, item.id): f"{item.organisation}/{item.name}" for item in records.clients.all()}


def _promise(installation: "Installation", records: "Records", model: str) -> dict[str, Any] | None:
    """What the newest calibration of the promoted version and the policy promise of honest clients."""
    from palladion.gate.chat.calibrated import read_calibration
    from palladion.gate.served import load_calibration

    for route in installation.policy.route:
        if route.model == model and route.calibration:
            texts = read_calibration(installation.paths.calibrations, route)
            withdrawn = _withdrawn(installation, texts)
            return {"version": None, **promised(texts.calibration, installation.policy.watch), "withdrawn": withdrawn}
    version = records.promotions.current(model)
    row = None if version is None else records.calibrations.newest(model, version.number)
    if version is None or row is None:
        return None
    calibration = load_calibration(installation, version, row)
    withdrawn = _withdrawn(installation, calibration)
    return {"version": version.number, **promised(calibration, installation.policy.watch), "withdrawn": withdrawn}


def _withdrawn(installation: "Installation", calibration: "AnyCalibration | None") -> dict[str, Any] | None:
    """Since when traffic has left a calibration, by the gate of this installation, and what has moved; or None."""
    from palladion.watch.drift_store import load_drift

    if calibration is None or calibration.drift is None:
        return None
    drift = load_drift(installation.paths.directory, calibration.drift)
    if not drift.left:
        return None
    since = timestamp(datetime.fromtimestamp(drift.left_at, UTC))
    return {"since": since, "clients": drift.clients, "moved": drift.moved(calibration.words)}


def _route(route: "RouteReport") -> dict[str, Any]:
    return {
        "route": route.route,
        "model": route.model,
        "enforced": route.enforced,
        "clients": route.clients,
        "answers": route.answers,
        "queries": route.queries,
        "by_standing": dict(sorted(route.by_standing.items())),
        "clients_disturbed": route.clients_disturbed,
        "share_of_clients": route.share_of_clients,
        "answers_disturbed": route.answers_disturbed,
        "share_of_answers": route.share_of_answers,
        "answers_unlike": route.answers_unlike,
    }


def _client(item: "Concern", names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "client": names.get(item.client),
        "pseudonym": item.client,
        "route": item.route,
        "enforced": item.enforced,
        "standing": item.standing,
        "since": timestamp(item.since),
        "answers": item.answers,
        "reason": item.reason,
        "cause": item.cause or None,
        "why": item.said or None,
    }


def _print(document: dict[str, Any]) -> None:
    echo(f"since {document['since']}: {document['records']} records, of {document['entries']} entries in the ledger")
    if not document["routes"]:
        echo("nobody was answered, and nobody's standing would have changed")
    else:
        print_table(ROUTE_COLUMNS, [_row(route) for route in document["routes"]])
    if document["clients"]:
        print_table(CLIENT_COLUMNS, [_client_row(item) for item in document["clients"]])
    if document["refused"]:
        echo("refused: " + ", ".join(f"{count} {reason}" for reason, count in document["refused"].items()))
    for model, promise in document["promised"].items():
        name = model if promise["version"] is None else f"{model}@{promise['version']}"
        if promise["withdrawn"] is not None:
            print_withdrawn(name, promise["withdrawn"]["since"], promise["withdrawn"]["moved"])
            continue
        echo(f"promised of honest clients of {name}, in each {promise['epoch_queries']} queries:")
        print_promise(promise)
    if document["found_honest"]:
        echo(f"found to be honest by people: {document['found_honest']} clients (palladion incident verdicts)")
    if document["discoveries"] is not None:
        print_discoveries(document["discoveries"])


def print_discoveries(found: Sequence[Mapping[str, Any]]) -> None:
    """Say to people who stands out of all clients."""
    names = ", ".join(f"{item['client']} on {item['model']} (p = {item['p_value']:.2g})" for item in found)
    echo(f"discoveries, of which on average at most 5 % are honest: {names or 'nobody'}")


def print_withdrawn(name: str, since: str, moved: Sequence[str]) -> None:
    """Say to people that nothing is promised by a calibration any more."""
    warn(f"traffic on {name} has left the calibration since {since}: no rate is promised, calibrate anew")
    for item in moved:
        echo(f"  {item}")


def _row(route: dict[str, Any]) -> list[object]:
    return [
        route["route"],
        "did" if route["enforced"] else "would have",
        route["clients"],
        route["answers"],
        route["by_standing"].get("watched", 0),
        route["clients_disturbed"],
        _share(route["share_of_clients"]),
        _share(route["share_of_answers"]),
        route["answers_unlike"],
    ]


def _client_row(item: dict[str, Any]) -> list[object]:
    return [
        item["client"] or item["pseudonym"],
        item["route"],
        "did" if item["enforced"] else "would have",
        item["standing"],
        item["since"],
        item["answers"],
        "; ".join(filter(None, (item["reason"], item["why"]))),
    ]


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"

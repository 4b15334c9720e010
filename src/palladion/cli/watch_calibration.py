"""What is said of a calibration that was made, and making one from what is retained, for two commands."""

from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import actor, echo, print_fields, progress, warn

if TYPE_CHECKING:
    from pathlib import Path

    from palladion.lifecycle.installation import Installation
    from palladion.policy import WatchPolicy
    from palladion.redteam.calibrate import Plan
    from palladion.watch.calibration import Calibration
    from palladion.watch.text.calibration import TextCalibration


def calibrate_on_retained(installation: "Installation", version: str, plan: "Plan | None" = None) -> dict[str, Any]:
    """Calibrate a version such as fraud@3 on retained queries; what is to be said of it."""
    from palladion.lifecycle.open import parse_version
    from palladion.policy import RoutePolicy
    from palladion.redteam.calibrate import Plan
    from palladion.redteam.retained import calibrate_retained

    name, number = parse_version(version)
    if number is None:
        raise click.UsageError(f"--retained needs a version, for example {name}@2")
    routes = [route for route in installation.policy.route if route.model == name]
    with progress("calibrate") as bar:
        calibration, row, receipt, found = calibrate_retained(
            installation,
            name,
            number,
            plan or Plan(),
            route=routes[0] if routes else RoutePolicy(model=name),
            actor=actor(),
            progress=bar,
        )
    retained = {
        "source": found.source,
        "left_out": found.left_out,
        "few": found.few,
        "thinned": found.thinned,
        "rate_hidden": found.rate_hidden,
    }
    stated = {"file": row.path, "digest": row.digest, "receipt": str(receipt), "retained": retained}
    return calibrated_document(calibration) | stated


def calibrate_on_prompts(
    installation: "Installation", model: str, prompts: "Path", plan: "Plan", *, as_json: bool
) -> None:
    """Calibrate a language model on talk that is made of the prompts in a file, and say what came of it."""
    from palladion.cli.output import print_json
    from palladion.redteam.calibrate_texts import calibrate_model
    from palladion.redteam.prompts import read_prompts

    with progress("calibrate") as bar:
        calibration, digest, receipt = calibrate_model(
            installation, model, read_prompts(prompts), plan, actor=actor(), progress=bar
        )
    document = calibrated_document(calibration) | {"digest": digest, "receipt": str(receipt)}
    if as_json:
        print_json(document)
        return
    echo(f"calibrated {model} on the texts of {document['clients']} simulated clients")
    _print_promises(document, [("digest", digest), ("ledger", str(receipt))])
    _warn(document, installation.policy.watch)
    used = {route.calibration for route in installation.policy.route if route.model == model}
    if digest not in used:
        echo(f'to use it, put this into the [[route]] of {model} and restart the gate:  calibration = "{digest}"')


def calibrated_document(calibration: "Calibration | TextCalibration") -> dict[str, Any]:
    """What a calibration states of itself."""
    about = calibration.about
    return {
        "model": about.model,
        "version": about.version,
        "simulated": about.simulated,
        "fitted": about.fitted,
        "clients": about.clients,
        "organisations": about.organisations,
        "horizon": about.horizon,
        "seed": about.seed,
        "rate_min": calibration.clients.rate_min,
        "rate_min_campaign": max((group.rate_min for group in calibration.groups.values()), default=1.0),
    }


def promised(calibration: "Calibration | TextCalibration", policy: "WatchPolicy") -> dict[str, Any]:
    """What a calibration and the policy promise of honest clients."""
    return {
        "calibrated_on": calibration.about.clients,
        "simulated": calibration.about.simulated,
        "epoch_queries": calibration.about.horizon,
        "rate_min": calibration.clients.rate_min,
        "watched_at_most": min(1.0, 2 * policy.alpha_watched),
        "disturbed_at_most": min(1.0, policy.alpha_suspected + policy.alpha_campaign),
        "enforces": not calibration.about.simulated or policy.simulated_may_enforce,
    }


def print_promise(promise: dict[str, Any]) -> None:
    """Say it to people."""
    kind = "simulated" if promise["simulated"] else "real"
    disturbed = f"at most {promise['disturbed_at_most']:.2%}"
    if not promise["enforces"]:
        disturbed = "nobody by suspicion, because the calibration is simulated"
    print_fields(
        [
            ("watched", f"at most {promise['watched_at_most']:.2%}"),
            ("disturbed", disturbed),
            ("from", f"{promise['calibrated_on']} {kind} clients, which support {promise['rate_min']:.2%} or more"),
        ]
    )


def print_calibrated(document: dict[str, Any], policy: "WatchPolicy") -> None:
    """Say it to people, and what it cannot do."""
    retained = document.get("retained")
    kind = "simulated" if document["simulated"] and not retained else "real"
    echo(f"calibrated {document['model']} version {document['version']} on {document['clients']} {kind} clients")
    where = [("file", document["file"]), ("digest", document["digest"]), ("ledger", document["receipt"])]
    _print_promises(document, where, kind=kind)
    if retained:
        _print_retained(retained, horizon=document["horizon"])
        if document["simulated"]:
            warn("fewer than 999 clients give thresholds, so it counts as simulated")
    _warn(document, policy)


def _print_promises(document: dict[str, Any], where: list[tuple[str, str]], *, kind: str = "simulated") -> None:
    promise = f"per client and {document['horizon']} queries, a false-alarm rate down to {document['rate_min']:.2%}"
    campaigns = f"{document['organisations']} simulated organisations, down to {document['rate_min_campaign']:.2%}"
    fitted = f"{document['fitted']} other {kind} clients, seed {document['seed']}"
    print_fields([("fitted to", fitted), ("promise", promise), ("campaigns", campaigns), *where])


def _warn(document: dict[str, Any], policy: "WatchPolicy") -> None:
    if document["simulated"] and not policy.simulated_may_enforce:
        warn("simulated: suspicion alone goes no further than watched, unless watch.simulated_may_enforce is set")
    if document["rate_min"] > policy.alpha_suspected:
        warn("too few clients for watch.alpha_suspected: nobody can be suspected by own queries")
    if document["rate_min_campaign"] > policy.alpha_campaign:
        warn("too few organisations for watch.alpha_campaign: no group of accounts can be a campaign")


def _print_retained(retained: dict[str, Any], *, horizon: int) -> None:
    echo(f"from what is retained of queries to {retained['source']}: distinct ones, a sample, at most {horizon} each")
    thinned = f"{retained['thinned']} clients asked more than was kept: of them a random part of their queries"
    left_out = (
        f"{retained['left_out']} throttled or worse, since they may be thieves; if all were honest, "
        f"{retained['rate_hidden']:.2%} more false alarms than promised"
    )
    print_fields(
        [("thinned", thinned), ("left out", left_out), ("too few", f"{retained['few']} with hardly any query")]
    )

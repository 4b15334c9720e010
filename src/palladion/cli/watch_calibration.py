"""What is said of a calibration that was made, and making one of each kind of data."""

from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import actor, echo, print_fields, progress, warn

if TYPE_CHECKING:
    from pathlib import Path

    from palladion.ledger.writer import Receipt
    from palladion.lifecycle.installation import Installation
    from palladion.policy import WatchPolicy
    from palladion.redteam.calibrate import Plan
    from palladion.watch.calibration import Calibration
    from palladion.watch.text.calibration import TextCalibration


def calibrate_on_data(
    installation: "Installation", model: str, data: "Path", image: tuple[int, ...] | None, plan: "Plan", *, curve: bool
) -> dict[str, Any]:
    """Calibrate a version on the rows of a file, and measure its learning curve; what came of it."""
    from palladion.cli.watch_budget import curve_of
    from palladion.lifecycle.open import parse_version
    from palladion.policy import RoutePolicy
    from palladion.redteam.calibrate import calibrate_version
    from palladion.redteam.validation import read_validation

    name, _ = parse_version(model)
    routes = [route for route in installation.policy.route if route.model == name]
    validation = read_validation(data, image)
    route = routes[0] if routes else RoutePolicy(model=name)
    with progress("calibrate") as bar:
        calibration, row, receipt = calibrate_version(
            installation, model, validation, plan, route=route, actor=actor(), progress=bar
        )
    document = calibrated_document(calibration)
    document |= {"file": row.path, "digest": row.digest, "receipt": str(receipt)}
    return document | ({"curve": curve_of(installation, f"{row.model}@{row.number}", validation)} if curve else {})


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
    installation: "Installation",
    model: str,
    prompts: "Path",
    plan: "Plan",
    *,
    as_json: bool,
    front_ends: float = 0.0,
) -> None:
    """Calibrate a language model on talk that is made of the prompts in a file, and say what came of it."""
    from palladion.redteam.calibrate_texts import calibrate_model
    from palladion.redteam.prompts import read_prompts

    with progress("calibrate") as bar:
        made = calibrate_model(
            installation, model, read_prompts(prompts), plan, actor=actor(), progress=bar, front_ends=front_ends
        )
    _say_of_texts(installation, model, *made, as_json=as_json)


def calibrate_on_talk(installation: "Installation", model: str, talk: "Path", plan: "Plan", *, as_json: bool) -> None:
    """Calibrate a language model on what real clients asked, as a file tells, and say what came of it."""
    from palladion.redteam.calibrate_texts import calibrate_talk
    from palladion.redteam.recorded_talk import read_talk

    talkers = read_talk(talk)
    with progress("calibrate") as bar:
        made = calibrate_talk(installation, model, talkers, plan, actor=actor(), progress=bar)
    if made[0].about.simulated:
        warn(f"{len(talkers)} recorded clients leave too few for thresholds: simulated ones draw on their texts")
    _say_of_texts(installation, model, *made, as_json=as_json)


def _say_of_texts(
    installation: "Installation",
    model: str,
    calibration: "TextCalibration",
    digest: str,
    receipt: "Receipt",
    *,
    as_json: bool,
) -> None:
    from palladion.cli.output import print_json

    document = calibrated_document(calibration) | {"digest": digest, "receipt": str(receipt)}
    if as_json:
        print_json(document)
        return
    kind = "simulated" if document["simulated"] else "real"
    echo(f"calibrated {model} on the texts of {document['clients']} {kind} clients")
    _print_promises(document, [("digest", digest), ("ledger", str(receipt))], kind=kind)
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
        "kind": about.kind,
        "simulated": about.simulated,
        "recorded": about.recorded,
        "fitted": about.fitted,
        "fitted_recorded": about.fitted_recorded,
        "clients": about.clients,
        "organisations": about.organisations,
        "horizon": about.horizon,
        "seed": about.seed,
        "rate_min": calibration.clients.rate_min,
        "rate_min_later": _rate_later(calibration),
        "rate_min_campaign": max((group.rate_min for group in calibration.groups.values()), default=1.0),
    }


def _rate_later(calibration: "Calibration | TextCalibration") -> float:
    """The smallest rate that is supported from a client's second epoch on, when it has a past to be held against."""
    from palladion.watch.calibration import Calibration
    from palladion.watch.own_past import rate_together

    rate = calibration.clients.rate_min
    past = calibration.past if isinstance(calibration, Calibration) else None
    return rate if past is None else rate_together(rate, past.rate_min)


def promised(calibration: "Calibration | TextCalibration", policy: "WatchPolicy") -> dict[str, Any]:
    """What a calibration and the policy promise of honest clients."""
    about, later = calibration.about, _rate_later(calibration)
    # real clients who do not support what disturbs: whoever is beyond all of them is shown to a person
    few = about.kind == "few real" and calibration.clients.rate_min > policy.alpha_suspected
    watched = max(policy.alpha_watched, later) if few else policy.alpha_watched
    return {
        "calibrated_on": about.clients,
        "kind": about.kind,
        "simulated": about.simulated,
        "epoch_queries": about.horizon,
        "rate_min": calibration.clients.rate_min,
        "rate_min_later": later,
        "watched_at_most": min(1.0, watched + policy.alpha_watched),
        "disturbed_at_most": min(1.0, (0.0 if few else policy.alpha_suspected) + policy.alpha_campaign),
        "enforces": policy.simulated_may_enforce or not (about.simulated or few),
    }


def print_promise(promise: dict[str, Any]) -> None:
    """Say it to people."""
    kind = "simulated" if promise["simulated"] else "real"
    disturbed = f"at most {promise['disturbed_at_most']:.2%}"
    if not promise["enforces"]:
        why = "the calibration is simulated" if promise["simulated"] else "so few real clients support no smaller rate"
        disturbed = f"nobody by suspicion, because {why}"
    print_fields(
        [
            ("watched", f"at most {promise['watched_at_most']:.2%}"),
            ("disturbed", disturbed),
            ("from", f"{promise['calibrated_on']} {kind} clients, which support {promise['rate_min']:.2%} or more"),
        ]
    )


def print_calibrated(document: dict[str, Any], policy: "WatchPolicy") -> None:
    """Say it to people, and what it cannot do."""
    kind = "simulated" if document["simulated"] else "real"
    echo(f"calibrated {document['model']} version {document['version']} on {document['clients']} {kind} clients")
    where = [("file", document["file"]), ("digest", document["digest"]), ("ledger", document["receipt"])]
    _print_promises(document, where, kind=kind)
    if document.get("retained"):
        _print_retained(document["retained"], horizon=document["horizon"])
    _warn(document, policy)


def _print_promises(document: dict[str, Any], where: list[tuple[str, str]], *, kind: str = "simulated") -> None:
    promise = f"per client and {document['horizon']} queries, a false-alarm rate down to {document['rate_min']:.2%}"
    campaigns = f"{document['organisations']} simulated organisations, down to {document['rate_min_campaign']:.2%}"
    fitted = f"{document['fitted']} other {kind} clients, seed {document['seed']}"
    fields = [("fitted to", fitted), ("promise", promise), ("campaigns", campaigns)]
    if document["kind"] == "few real":
        real, simulated = document["fitted_recorded"], document["fitted"] - document["fitted_recorded"]
        fields[0] = ("fitted to", f"{real} other real clients and {simulated} simulated ones, seed {document['seed']}")
        fields[1:1] = [("real clients", f"{document['recorded']}: few, so the promise is a coarse one")]
        odds = f"one honest client in {1 / document['rate_min']:.0f}"
        fields[2] = ("promise", f"{promise}, {odds} by mistake: no smaller one is supported")
        if document["rate_min_later"] > document["rate_min"]:
            fields[3:3] = [
                ("own past", f"weighed too after {document['horizon']} queries, then {document['rate_min_later']:.2%}")
            ]
    print_fields([*fields, *where])


def _warn(document: dict[str, Any], policy: "WatchPolicy") -> None:
    if document["simulated"] and not policy.simulated_may_enforce:
        warn("simulated: suspicion alone goes no further than watched, unless watch.simulated_may_enforce is set")
    if document["rate_min"] > policy.alpha_suspected:
        if document["kind"] == "few real":
            warn(
                f"{document['clients']} real clients support no rate of watch.alpha_suspected "
                f"({policy.alpha_suspected:.2%}): whoever is beyond all of them is watched, and a person should look; "
                "nobody is throttled by own queries"
            )
        else:
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

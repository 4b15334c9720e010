"""What is said of a calibration that was made, and making one of each kind of data."""

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import actor, echo, print_fields, progress, warn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from palladion.ledger.writer import Receipt
    from palladion.lifecycle.installation import Installation
    from palladion.policy import WatchPolicy
    from palladion.redteam.calibrate import Plan
    from palladion.redteam.chosen import LeftOut
    from palladion.redteam.retained import Retainees
    from palladion.watch.calibration import Calibration
    from palladion.watch.text.calibration import TextCalibration


def calibrate_on_data(
    installation: "Installation",
    model: str,
    data: "Path",
    image: tuple[int, ...] | None,
    plan: "Plan",
    *,
    curve: bool,
    without: "Sequence[str]" = (),
) -> dict[str, Any]:
    """Calibrate a version on the rows of a file, and measure its learning curve; what came of it."""
    from palladion.cli.watch_budget import curve_of
    from palladion.lifecycle.open import parse_version
    from palladion.policy import RoutePolicy
    from palladion.redteam.calibrate import calibrate_version
    from palladion.redteam.chosen import choose, read_choice
    from palladion.redteam.validation import read_validation

    name, _ = parse_version(model)
    routes = [route for route in installation.policy.route if route.model == name]
    validation, left_out = choose(read_validation(data, image), read_choice(installation, without))
    route = routes[0] if routes else RoutePolicy(model=name)
    details = {} if validation.clients is None else left_out.details()
    with progress("calibrate") as bar:
        calibration, row, receipt = calibrate_version(
            installation, model, validation, plan, route=route, actor=actor(), progress=bar, details=details
        )
    document = calibrated_document(calibration) | left_out_document(left_out)
    document |= {"file": row.path, "digest": row.digest, "receipt": str(receipt)}
    return document | ({"curve": curve_of(installation, f"{row.model}@{row.number}", validation)} if curve else {})


def calibrate_on_retained(
    installation: "Installation", version: str, plan: "Plan | None" = None, *, without: "Sequence[str]" = ()
) -> dict[str, Any]:
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
            without=without,
        )
    stated = {"file": row.path, "digest": row.digest, "receipt": str(receipt), "retained": _retained_document(found)}
    return calibrated_document(calibration) | stated


def is_language_model(installation: "Installation", model: str) -> bool:
    """Whether the policy has a language model of that name, which has no versions."""
    return any(route.model == model and route.protocol == "openai" for route in installation.policy.route)


def calibrate_on_retained_talk(
    installation: "Installation", model: str, plan: "Plan", *, as_json: bool, without: "Sequence[str]" = ()
) -> None:
    """Calibrate a language model on the texts that are retained of its clients, and say what came of it."""
    from palladion.redteam.retained_talk import calibrate_retained_talk

    with progress("calibrate") as bar:
        calibration, digest, receipt, found = calibrate_retained_talk(
            installation, model, plan, actor=actor(), progress=bar, without=without
        )
    if calibration.about.simulated:
        warn(f"{found.used} retained clients leave too few for thresholds: simulated ones draw on their texts")
    more = {"retained": _retained_document(found)}
    _say_of_texts(installation, model, calibration, digest, receipt, as_json=as_json, more=more)


def _retained_document(found: "Retainees") -> dict[str, Any]:
    return {
        "source": found.source,
        "left_out": found.left_out,
        "named": found.named,
        "few": found.few,
        "thinned": found.thinned,
        "rate_hidden": found.rate_hidden,
    }


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


def calibrate_on_talk(
    installation: "Installation",
    model: str,
    talk: "Path",
    plan: "Plan",
    *,
    as_json: bool,
    without: "Sequence[str]" = (),
) -> None:
    """Calibrate a language model on what real clients asked, as a file tells, and say what came of it."""
    from palladion.redteam.calibrate_texts import calibrate_talk
    from palladion.redteam.chosen import read_choice
    from palladion.redteam.recorded_talk import read_talk

    choice = read_choice(installation, without)
    talkers = [talker for talker in read_talk(talk) if choice.counts(talker.client)]
    left_out = choice.left_out()
    with progress("calibrate") as bar:
        made = calibrate_talk(
            installation, model, talkers, plan, actor=actor(), progress=bar, details=left_out.details()
        )
    if made[0].about.simulated:
        warn(f"{len(talkers)} recorded clients leave too few for thresholds: simulated ones draw on their texts")
    _say_of_texts(installation, model, *made, as_json=as_json, more=left_out_document(left_out))


def _say_of_texts(
    installation: "Installation",
    model: str,
    calibration: "TextCalibration",
    digest: str,
    receipt: "Receipt",
    *,
    as_json: bool,
    more: "Mapping[str, Any]" = MappingProxyType({}),
) -> None:
    from palladion.cli.output import print_json

    encoder = None if calibration.encoder is None else calibration.encoder.digests
    document = calibrated_document(calibration) | {"digest": digest, "receipt": str(receipt), **more}
    document["encoder"] = None if encoder is None else encoder._asdict()
    if as_json:
        print_json(document)
        return
    kind = "simulated" if document["simulated"] else "real"
    echo(f"calibrated {model} on the texts of {document['clients']} {kind} clients")
    where = [("digest", digest), ("ledger", str(receipt))]
    if encoder is not None:
        where.insert(0, ("encoder", f"{encoder.encoder[:16]}, tokenizer {encoder.tokenizer[:16]}, beside n-grams"))
    _print_promises(document, where, kind=kind)
    if document.get("retained"):
        _print_retained(document["retained"], horizon=document["horizon"])
    _print_left_out(document)
    _warn(document, installation.policy.watch)
    used = {route.calibration for route in installation.policy.route if route.model == model}
    if digest not in used:
        echo(f'to use it, put this into the [[route]] of {model} and restart the gate:  calibration = "{digest}"')


def left_out_document(found: "LeftOut") -> dict[str, Any]:
    """Who was left out of a calibration, as a document."""
    return {"left_out": found.left_out, "without": found.named, "rate_hidden": found.rate_hidden}


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
        "layers": list(_layers(calibration)),
    }


def _layers(calibration: "Calibration | TextCalibration") -> "tuple[str, ...]":
    """The layers of the model that are looked at; of language models none are."""
    from palladion.watch.calibration import Calibration

    return calibration.instruments.features.layers if isinstance(calibration, Calibration) else ()


def _rate_later(calibration: "Calibration | TextCalibration") -> float:
    """The smallest rate that is supported from a client's second epoch on, when it has a past to be held against."""
    from palladion.watch.calibration import Calibration
    from palladion.watch.own_past import rate_together

    rate = calibration.clients.rate_min
    past = calibration.past if isinstance(calibration, Calibration) else None
    return rate if past is None else rate_together(rate, past.rate_min)


def promised(calibration: "Calibration | TextCalibration", policy: "WatchPolicy") -> dict[str, Any]:
    """What a calibration and the policy promise of honest clients."""
    about, later, epochs = calibration.about, _rate_later(calibration), _epochs(calibration.clients.rate_min, policy)
    # real clients who do not support what disturbs: whoever is beyond all of them is shown to a person
    few = about.kind == "few real" and (epochs == 0 or calibration.clients.rate_min > policy.alpha_suspected)
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
        "alpha_spent": policy.alpha_spent,
        "epochs_suspected": epochs,
        "enforces": policy.simulated_may_enforce or not (about.simulated or few),
    }


def _epochs(rate_min: float, policy: "WatchPolicy") -> int | None:
    """In how many of a client's epochs own queries can throttle it; None where each has the whole rate."""
    from palladion.watch.spending import epochs_supported

    return epochs_supported(policy.alpha_suspected, rate_min) if policy.alpha_spent == "lifetime" else None


def said_of_spending(epochs: int, rate_min: float) -> str:
    """What it means that rates are spent over all of a client's epochs, to people."""
    within = f"in its first {epochs} epochs" if epochs != 1 else "in its first epoch"
    suspected = f"can throttle a client {within}" if epochs else "throttle nobody"
    return (
        f"of own queries, rates are for all epochs together: they {suspected}; after that whoever is beyond all "
        f"calibration clients is watched ({rate_min:.2%} of honest ones in each epoch), and a person should look"
    )


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
            *_spent(promise["epochs_suspected"], promise["rate_min"]),
        ]
    )


def _spent(epochs: int | None, rate_min: float) -> list[tuple[str, str]]:
    return [] if epochs is None else [("spent", said_of_spending(epochs, rate_min))]


def print_calibrated(document: dict[str, Any], policy: "WatchPolicy") -> None:
    """Say it to people, and what it cannot do."""
    kind = "simulated" if document["simulated"] else "real"
    echo(f"calibrated {document['model']} version {document['version']} on {document['clients']} {kind} clients")
    where = [("file", document["file"]), ("digest", document["digest"]), ("ledger", document["receipt"])]
    _print_promises(document, where, kind=kind)
    if document.get("retained"):
        _print_retained(document["retained"], horizon=document["horizon"])
    if document.get("traffic"):
        traffic = document["traffic"]
        unfit = f", {traffic['unfit']} queries that it does not take left out" if traffic["unfit"] else ""
        echo(f"from {traffic['requests']} recorded requests, which the version answered anew{unfit}")
    _print_left_out(document)
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
    if document["layers"]:
        fields.append(("activations", f"of {len(document['layers'])} layers: {', '.join(document['layers'])}"))
    print_fields([*fields, *where])


def _warn(document: dict[str, Any], policy: "WatchPolicy") -> None:
    if policy.activations and not document["layers"]:
        warn(
            "watch.activations is on, and no layers are looked at: trees, linear and language models have none to look "
            "at, nor have models at an upstream, or those whose rows are of open size or compared with each other"
        )
    if document["simulated"] and not policy.simulated_may_enforce:
        warn("simulated: suspicion alone goes no further than watched, unless watch.simulated_may_enforce is set")
    epochs = _epochs(document["rate_min"], policy)
    if epochs is not None:
        warn(f'watch.alpha_spent is "lifetime": {said_of_spending(epochs, document["rate_min"])}')
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


def _print_left_out(document: dict[str, Any]) -> None:
    if document.get("left_out"):
        echo(f"left out: {document['left_out']} {_suspected(document['rate_hidden'])}")
    if document.get("without"):
        echo(f"left out: {document['without']} whom you named")


def _suspected(rate_hidden: float) -> str:
    return (
        f"throttled or worse, since they may be thieves; if all were honest, {rate_hidden:.2%} more false alarms than "
        "promised"
    )


def _print_retained(retained: dict[str, Any], *, horizon: int) -> None:
    echo(f"from what is retained of queries to {retained['source']}: distinct ones, a sample, at most {horizon} each")
    thinned = f"{retained['thinned']} clients asked more than was kept: of them a random part of their queries"
    left_out = f"{retained['left_out']} {_suspected(retained['rate_hidden'])}"
    print_fields(
        [
            ("thinned", thinned),
            ("left out", left_out),
            ("named", f"{retained['named']} left out whom you named" if retained["named"] else None),
            ("too few", f"{retained['few']} with hardly any query"),
        ]
    )

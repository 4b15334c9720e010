"""What a gate says when it opens or its policy changes: of its routes, and of names that are nobody's."""

from collections.abc import Iterator

from palladion.gate.chat.models import LanguageModels
from palladion.gate.directory import Directory
from palladion.gate.disclosure.private_answers import said_of
from palladion.gate.gate import Gate
from palladion.gate.limits import nobodys
from palladion.gate.served import Served
from palladion.gate.sources.layered import warn_of_layers, with_layers
from palladion.lifecycle.privacy import stated_of
from palladion.policy import Policy


def routes_said(gate: Gate, models: LanguageModels, url: str) -> Iterator[str]:
    """A line for each route: its mode, where it is, what answers there, and what that is calibrated on."""
    for item in gate.served.values():
        yield f"{item.route.mode} {url}{item.route.route}: {item.subject}, {calibrated_on(item)}"
        if item.noise is not None:
            stated = None if item.version is None else stated_of(item.version)
            yield f"{item.route.route}: {said_of(item.route, stated)}"
        warning = warn_of_layers(gate.stages.policy.watch, item.subject, item.calibration)
        if warning is not None:
            yield f"warning: {warning}"
    for name, late in gate.waiting.items():
        yield f"{late.route.mode} {url}{name}: waits for {late.route.upstream}"
    for route in models.policies:
        path = f"{route.path.rstrip('/')}/v1 (model {route.model})"
        watched = ", calibrated" if route.model in models.purposes else ", uncalibrated"
        yield f"{route.mode} {url}{path}: answered by {route.upstream}{watched}"


def calibrated_on(item: Served) -> str:
    """What a served version is calibrated on, and which other one a share of the clients is served."""
    if item.on_trial is None:
        return _calibrated(item)
    served, percent = item.on_trial.served, item.on_trial.row.percent
    return f"{_calibrated(item)}; {percent} % of the clients are served {served.subject}, {_calibrated(served)}"


def nobodys_said(policy: Policy, directory: Directory) -> Iterator[str]:
    """A warning for each client and organisation that a contract or an access policy names, and nobody is."""
    named = (directory.named(*contract.organisation_and_name) for contract in policy.contract)
    for client in nobodys(policy, [caller.client for caller in named if caller is not None]):
        yield f"warning: there is no client {client}, which has a contract"
    for stranger in directory.strangers():
        yield f"warning: there is no {stranger}, which an access policy names"


def _calibrated(item: Served) -> str:
    if item.calibration is None:
        return "uncalibrated"
    about = item.calibration.about
    kind = "simulated" if about.simulated else "real"
    return f"calibrated on {about.clients} {kind} clients{with_layers(item.calibration)}"

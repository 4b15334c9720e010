"""Calibrating on recorded traffic, for `palladion watch calibrate --traffic`."""

from typing import TYPE_CHECKING, Any

from palladion.cli.output import actor, progress, warn
from palladion.cli.traffic_options import source_of
from palladion.cli.watch_budget import curve_of
from palladion.cli.watch_calibration import calibrated_document, left_out_document

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from palladion.lifecycle.installation import Installation
    from palladion.redteam.calibrate import Plan
    from palladion.watch.recorded import Layout


def calibrate_on_traffic(
    installation: "Installation",
    model: str,
    traffic: "Path",
    image: tuple[int, ...] | None,
    plan: "Plan",
    *,
    layout: "Layout",
    lenient: bool,
    curve: bool,
    without: "Sequence[str]" = (),
) -> dict[str, Any]:
    """Calibrate a version on the clients of recorded traffic, all of whose rows it answers anew; what came of it."""
    from palladion.lifecycle.open import parse_version
    from palladion.policy import RoutePolicy
    from palladion.redteam.chosen import read_choice
    from palladion.redteam.recorded_clients import calibrate_recorded
    from palladion.watch.lines import read_requests
    from palladion.watch.recorded import in_order

    name, _ = parse_version(model)
    routes = [route for route in installation.policy.route if route.model == name]
    with progress("calibrate") as bar, source_of(traffic) as source:
        calibration, row, receipt, found = calibrate_recorded(
            installation,
            model,
            in_order(read_requests(source, layout, strict=not lenient), strict=not lenient),
            plan,
            choice=read_choice(installation, without),
            image=image,
            route=routes[0] if routes else RoutePolicy(model=name),
            actor=actor(),
            progress=bar,
        )
        if source.first_broken is not None:
            warn(f"{source.broken} lines could not be used, the first because {source.first_broken.message}")
    document = calibrated_document(calibration) | left_out_document(found.left_out)
    document |= {"file": row.path, "digest": row.digest, "receipt": str(receipt)}
    document["traffic"] = {"requests": found.requests, "unfit": found.unfit, "broken_lines": source.broken}
    subject = f"{row.model}@{row.number}"
    return document | ({"curve": curve_of(installation, subject, found.validation)} if curve else {})

"""What a gate says of a route when it opens, and when another version answers there."""

from palladion.gate.served import Served


def calibrated_on(item: Served) -> str:
    """What a served version is calibrated on, and which other one a share of the clients is served."""
    if item.on_trial is None:
        return _calibrated(item)
    served, percent = item.on_trial.served, item.on_trial.row.percent
    return f"{_calibrated(item)}; {percent} % of the clients are served {served.subject}, {_calibrated(served)}"


def _calibrated(item: Served) -> str:
    if item.calibration is None:
        return "uncalibrated"
    about = item.calibration.about
    return f"calibrated on {about.clients} {'simulated' if about.simulated else 'real'} clients"

"""Calibrations of language models: files that the policy names by their digest, because their models need no version.

The registry lists calibrations of versions; a language model behind an upstream is seldom registered. `palladion watch
calibrate` writes the file and prints the digest, and a gate reads no file that has another one.
"""

from collections.abc import Collection
from hashlib import sha256
from pathlib import Path

from palladion import files
from palladion.errors import FormatError, NotFoundError, PolicyError, TamperError
from palladion.lifecycle.installation import TEXT_CALIBRATION
from palladion.policy import Policy, RoutePolicy
from palladion.watch.text.calibration_file import CALIBRATION_BYTES_MAX, decode_text_calibration
from palladion.watch.text.watched import WatchedTexts

PROTOCOL = "openai"


def path_of(calibrations: Path, digest: str) -> Path:
    """Where the calibration of that digest is, in the folder of all."""
    return calibrations / TEXT_CALIBRATION.format(digest)


def read_calibration(calibrations: Path, route: RoutePolicy) -> WatchedTexts:
    """The calibration that a route names. Raises NotFoundError, TamperError, or FormatError where it does not fit."""
    path, what = path_of(calibrations, route.calibration), f"the calibration of route {route.route}"
    again = f"palladion watch calibrate {route.model} --prompts FILE"
    if not path.is_file():
        raise NotFoundError(f"{what} is not there: {path}", again)
    data = files.read_limited(path, size_max=CALIBRATION_BYTES_MAX, what=what)
    if sha256(data).hexdigest() != route.calibration:
        raise TamperError(f"{path} is not the calibration that the policy names", again)
    calibration = decode_text_calibration(data, what=what)
    if calibration.about.model != route.model:
        raise FormatError(f"{what} is of {calibration.about.model}, expected one of {route.model}", again)
    return WatchedTexts(calibration)


def check_calibrations(policy: Policy) -> None:
    """Raise PolicyError where a calibration is named that could not be watched by."""
    arrays = {route.model for route in policy.route if route.protocol != PROTOCOL}
    found: dict[str, str] = {}
    for route in policy.route:
        if route.protocol != PROTOCOL and route.calibration:
            raise PolicyError(
                f"route {route.route}: calibration is for protocol {PROTOCOL}; the registry lists that of a version",
                f"remove it, and run: palladion watch calibrate {route.model} --validation FILE",
            )
        if route.protocol == PROTOCOL and route.calibration:
            _check_alone(route, arrays, found.setdefault(route.model, route.calibration))


def _check_alone(route: RoutePolicy, arrays: Collection[str], known: str) -> None:
    """What is known of a client is kept by the model's name."""
    if route.model in arrays:
        raise PolicyError(
            f"route {route.route}: a model that is asked in arrays is called {route.model} as well",
            "give one of them another name, with upstream_model for what its server calls it",
        )
    if known != route.calibration:
        raise PolicyError(f"route {route.route}: another route to {route.model} names another calibration")

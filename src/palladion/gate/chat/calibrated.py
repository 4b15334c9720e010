"""Calibrations of language models: files that the policy names by their digest, because their models need no version.

The registry lists calibrations of versions; a language model behind an upstream is seldom registered. `palladion watch
calibrate` writes the file and prints the digest, and a gate reads no file that has another one.
"""

from collections.abc import Collection, MutableMapping
from hashlib import sha256
from pathlib import Path

from palladion import files
from palladion.errors import FormatError, NotFoundError, PolicyError, TamperError
from palladion.lifecycle.installation import TEXT_CALIBRATION
from palladion.policy import Policy, RoutePolicy
from palladion.watch.text.calibration_file import CALIBRATION_BYTES_MAX, decode_text_calibration
from palladion.watch.text.encoder import ENCODER_BYTES_MAX, Digests, SentenceEncoder
from palladion.watch.text.watched import WatchedTexts
from palladion.watch.text.wordpiece import TOKENIZER_BYTES_MAX

PROTOCOL = "openai"


def path_of(calibrations: Path, digest: str) -> Path:
    """Where the calibration of that digest is, in the folder of all."""
    return calibrations / TEXT_CALIBRATION.format(digest)


def read_calibration(
    calibrations: Path,
    route: RoutePolicy,
    home: Path | None = None,
    encoders: MutableMapping[Digests, SentenceEncoder] | None = None,
) -> WatchedTexts:
    """The calibration that a route names. Raises NotFoundError, TamperError, or FormatError where it does not fit.

    Where it was made with an encoder, that one is opened from the route's files, which are relative to `home`, or taken
    from those that are open (`encoders`). Without `home` it is not: enough to tell of the calibration, not to watch by.
    """
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
    if calibration.encoder is None:
        if route.encoder:
            raise FormatError(f"{what} was made without an encoder, and the route names one", again)
        return WatchedTexts(calibration)
    if not route.encoder:
        raise FormatError(
            f"{what} was made with an encoder, and the route names none",
            f"set encoder and tokenizer to the files that it was made with, or: {again}",
        )
    if home is None:
        return WatchedTexts(calibration)
    digests = calibration.encoder.digests
    known = {} if encoders is None else encoders
    if digests not in known:
        known[digests] = open_encoder(home, route, expected=digests)
    return WatchedTexts(calibration.opened(known[digests]))


def open_encoder(
    home: Path,
    route: RoutePolicy,
    *,
    expected: Digests | None = None,
    threads: int = 1,
    known: int = 0,
) -> SentenceEncoder:
    """The encoder of a route, from files relative to `home`; `threads` and `known` as `SentenceEncoder` has them.

    Raises NotFoundError without a file, TamperError where they are not those of a calibration (`expected`), FormatError
    for what is no encoder.
    """
    encoder, tokenizer = _encoder_files(home, route, expected)
    try:
        return SentenceEncoder(encoder, tokenizer, threads=threads, known=known)
    except FormatError as error:
        raise FormatError(f"route {route.route}: {error.message}", *error.hints) from None


def check_calibration(calibrations: Path, route: RoutePolicy, home: Path) -> None:
    """Raise as `read_calibration` would; an encoder's files are looked at, and not opened, which takes a second."""
    named = read_calibration(calibrations, route).calibration.encoder
    if named is not None:
        _encoder_files(home, route, named.digests)


def _encoder_files(home: Path, route: RoutePolicy, expected: Digests | None) -> tuple[bytes, bytes]:
    """What is in the files of a route's encoder and of its tokenizer."""
    found = []
    for setting, size_max in (("encoder", ENCODER_BYTES_MAX), ("tokenizer", TOKENIZER_BYTES_MAX)):
        path, what = home / Path(getattr(route, setting)).expanduser(), f"the {setting} of route {route.route}"
        if not path.is_file():
            raise NotFoundError(f"{what} is not there: {path}", f"set {setting} of the route to where it is")
        data = files.read_limited(path, size_max=size_max, what=what)
        if expected is not None and sha256(data).hexdigest() != getattr(expected, setting):
            raise TamperError(
                f"{path} is not the {setting} that the calibration of route {route.route} was made with",
                f"put that one there, or calibrate anew: palladion watch calibrate {route.model} --prompts FILE",
            )
        found.append(data)
    encoder, tokenizer = found
    return encoder, tokenizer


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
        if bool(route.encoder) != bool(route.tokenizer):
            raise PolicyError(f"route {route.route}: encoder and tokenizer go together, and one of them is not set")
        if route.encoder and route.protocol != PROTOCOL:
            raise PolicyError(f"route {route.route}: encoder is for protocol {PROTOCOL}, whose clients send texts")
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

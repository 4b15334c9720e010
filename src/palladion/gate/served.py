"""A route that is served: where its answers come from, what they mean, how it is watched and marked."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256

from palladion import files
from palladion.errors import BusyError, FormatError, NotFoundError, PolicyError, TamperError
from palladion.gate.contract import LABEL, Contract, make_contract
from palladion.gate.curves import load_curve, require_curve
from palladion.gate.decode import is_numeric, verify_exact
from palladion.gate.disclosure.mechanisms import Noise
from palladion.gate.disclosure.private_answers import make_noise
from palladion.gate.marks import AnswerMarks, make_marks
from palladion.gate.problems import Problem
from palladion.gate.protocols.json_paths import JsonPaths, JsonPathsUpstream
from palladion.gate.protocols.open_inference import OpenInference
from palladion.gate.protocols.predict import Predict
from palladion.gate.protocols.protocol import Asked, Headers, Protocol_
from palladion.gate.sources.batch import rows_stand_alone
from palladion.gate.sources.embedded import Embedded
from palladion.gate.sources.layered import layers_for, open_layered, require_layers
from palladion.gate.sources.source import Source
from palladion.gate.trial import Trial, is_chosen
from palladion.gate.unlike import require_share
from palladion.gate.upstream.opening import limits_within, open_upstream, unaskable
from palladion.gate.upstream.source import UpstreamSource
from palladion.lifecycle.egress import size_of
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import open_version
from palladion.lifecycle.revoke import require_unrevoked
from palladion.model.run import Session
from palladion.policy import RoutePolicy
from palladion.registry import CalibrationRow, Canary, Version
from palladion.registry.names import slug
from palladion.seal.structure import SealedInfo
from palladion.watch.calibration import Calibration
from palladion.watch.calibration_file import CALIBRATION_BYTES_MAX, decode_calibration
from palladion.watch.learning_curve import LearningCurve


@dataclass(frozen=True, eq=False)
class Served:
    """A route that is served: its policy, the promoted version, and everything made from it.

    A model at an upstream that is not registered here has no `version`; `sealed` is what was opened here, if anything.
    `on_trial` is the version that a share of the clients is served instead; that one `is_canary`.
    """

    route: RoutePolicy
    version: Version | None
    sealed: SealedInfo | None
    source: Source
    protocol: Protocol_
    contract: Contract
    calibration: Calibration | None = None
    calibration_row: CalibrationRow | None = None
    marks: AnswerMarks | None = None
    is_canary: bool = False
    on_trial: "OnTrial | None" = None
    curve: LearningCurve | None = None
    noise: Noise | None = None
    model_bytes: int = 0  # of the version's sealed file; 0 where it is not here

    @cached_property
    def watched(self) -> str:
        """The name under which the watch knows it: the model's, and for a canary that of the version."""
        return self.subject if self.is_canary else self.route.model

    @property
    def all(self) -> "list[Served]":
        """Itself, and the version on trial."""
        return [self] if self.on_trial is None else [self, self.on_trial.served]

    @cached_property
    def subject(self) -> str:
        """The version as records name it; without one, the model."""
        return self.route.model if self.version is None else f"{self.version.model}@{self.version.number}"

    @property
    def version_text(self) -> str:
        """The version's number as clients are told it."""
        return "" if self.version is None else str(self.version.number)

    def share_of(self, size: int) -> float:
        """So many bytes of answers, in sizes of the model; 0 where that is not known."""
        return size / self.model_bytes if self.model_bytes else 0.0

    def decode(self, body: bytes, headers: Headers) -> Asked:
        """What a request's body asks. Raises Problem.

        Where the model takes rows of any size, only those of the calibrated size are let through: others could not be
        watched, and whoever found that out would send nothing else.
        """
        asked = self.protocol.decode(body, headers)
        expected = self._width
        if expected is not None:
            verify_exact(asked.feeds)
            width = 0
            for array in asked.feeds.values():
                if is_numeric(array):
                    width += array.size // asked.rows
            if width != expected:
                raise Problem("bad-input", f"a row has {width} numbers, expected {expected}", field="inputs")
        return asked

    @cached_property
    def _width(self) -> int | None:
        """How many numbers a row has to have."""
        return None if self.calibration is None else self.calibration.instruments.features.centre.size

    def is_current(self, version: Version | None, calibration: CalibrationRow | None) -> bool:
        """Whether this is still what the registry says should be served."""
        return _identity(self.version) == _identity(version) and self.calibration_row == calibration


@dataclass(frozen=True, eq=False)
class OnTrial:
    """A canary on one route: what is served, to whom, and what was counted of it."""

    served: Served
    row: Canary
    key: bytes = field(repr=False)
    trial: Trial = field(default_factory=Trial)

    def is_chosen(self, client: str) -> bool:
        """Whether a client, by id, is served it."""
        return is_chosen(self.key, client, self.row.model, self.row.number, self.row.percent)

    def is_current(self, canary: Canary | None, calibration: CalibrationRow | None) -> bool:
        """Whether this is still what the registry says should be on trial."""
        return self.row == canary and self.served.calibration_row == calibration


def open_route(installation: Installation, route: RoutePolicy, source: UpstreamSource | None = None) -> Served:
    """Open what answers on a route, with the newest calibration of the promoted version if it has one, and its canary.

    The promoted version itself is opened here, in memory, unless the route has an upstream: then `source` answers, and
    the model need not be registered. Raises NotFoundError or ConflictError where a model that runs here is not promoted
    or was revoked; TamperError where a file is not the registered one, PolicyError where the route does not fit the
    model, or wants marks that it cannot have.
    """
    if source is None and route.upstream and route.protocol == "json":
        # what it takes stands in the policy, so that nobody has to be asked
        codec = JsonPathsUpstream(route)
        limits = limits_within(installation.policy.gate.deadline_ms / 1000)
        upstream = open_upstream(route, installation.paths.home, limits=limits)
        source = UpstreamSource(route.route, upstream, codec, inputs=codec.inputs, outputs=codec.outputs)
    if source is not None:
        # it becomes part of paths and of scopes
        slug(route.model, what=f"the model of route {route.route}")
        return _serve(installation, route, source, version=promoted_version(installation, route.model))
    if route.upstream:
        raise unaskable(route)
    try:
        served = _open_here(installation, route, route.model)
    except NotFoundError as error:
        hints = error.hints or ("palladion model list",)
        raise NotFoundError(f"route {route.route}: {error.message}", *hints) from None
    with installation.open_registry() as registry, registry.read() as records:
        canary = records.canaries.current(route.model)
    return served if canary is None else replace(served, on_trial=open_canary(installation, route, canary))


def open_canary(installation: Installation, route: RoutePolicy, canary: Canary) -> OnTrial:
    """Open a version that a share of a route's clients is served. Raises as `open_route` does."""
    served = _open_here(installation, route, f"{canary.model}@{canary.number}")
    return OnTrial(replace(served, is_canary=True), canary, installation.open_gate_root().derive("canaries"))


def _open_here(installation: Installation, route: RoutePolicy, name: str) -> Served:
    with open_version(installation, name) as opened:
        found = opened.version
        require_unrevoked(installation, found.model, found.number, opened.info.header_digest)
        row = newest_calibration(installation, found)
        calibration = None if row is None else load_calibration(installation, found, row)
        layers = layers_for(installation.policy.watch, f"{found.model}@{found.number}", calibration)
        # the session copies what it needs, so the opened file is wiped when this block ends
        session = open_layered(opened.model, layers)
        version, sealed = opened.version, opened.info
    together = rows_stand_alone(session.run, session.inputs, session.outputs)
    embedded = Embedded(session, threads=installation.policy.gate.threads, together=together)
    return _serve(installation, route, embedded, version=version, sealed=sealed, session=session)


def renew_route(installation: Installation, route: RoutePolicy, item: Served) -> Served:
    """A route under other settings, with answers from where they come already. Raises as `open_route` does.

    BusyError while a new calibration is about to take its place.
    """
    session = item.source.session if isinstance(item.source, Embedded) else None
    made = _serve(installation, route, item.source, version=item.version, sealed=item.sealed, session=session)
    if made.calibration_row != item.calibration_row:
        raise BusyError(f"{item.subject} is getting a new calibration", "run it again in a moment")
    on_trial = item.on_trial
    if on_trial is not None:
        on_trial = replace(on_trial, served=renew_route(installation, route, on_trial.served))
    # the same one: what is being asked now goes on counting
    return replace(made, calibration=item.calibration, is_canary=item.is_canary, on_trial=on_trial)


def _serve(
    installation: Installation,
    route: RoutePolicy,
    source: Source,
    *,
    version: Version | None,
    sealed: SealedInfo | None = None,
    session: Session | None = None,
) -> Served:
    noise, contract = make_noise(route, make_contract(route, source.outputs), list(source.outputs))
    number = "" if version is None else str(version.number)
    try:
        protocol = _protocol(route, source, contract, version=number, rows_max=installation.policy.gate.rows_max)
    except ValueError as error:
        raise PolicyError(f"route {route.route}: {route.model} cannot be asked over JSON: {error}") from None
    row = calibration = marks = None
    if version is not None:
        row = newest_calibration(installation, version)
        calibration = None if row is None else load_calibration(installation, version, row)
    if route.flipped > 0:
        if version is None:
            raise PolicyError(
                f"route {route.route} cannot mark answers: {route.model} is not registered, and marks are of a version",
                f"palladion protect --name {route.model}, or set flipped = 0",
            )
        root = installation.open_gate_root().derive("answer-marks")
        marks = make_marks(route, root, version, session=session, contract=contract, calibration=calibration)
    subject = route.model if version is None else f"{route.model}@{number}"
    require_layers(installation.policy.watch, subject, calibration, source)
    require_curve(installation.policy.watch, subject, row)
    require_share(route, subject, calibration)
    curve = load_curve(row)
    size = 0 if version is None else size_of(installation, version)
    return Served(
        route,
        version,
        sealed,
        source,
        protocol,
        contract,
        calibration,
        row,
        marks,
        curve=curve,
        noise=noise,
        model_bytes=size,
    )


def _protocol(route: RoutePolicy, source: Source, contract: Contract, *, version: str, rows_max: int) -> Protocol_:
    if route.protocol == "open-inference":
        return OpenInference(
            route.path.rstrip("/"),
            route.model,
            version,
            source.inputs,
            outputs=disclosable(contract),
            rows_max=rows_max,
        )
    if route.protocol == "json":
        return JsonPaths(route, source.inputs, source.outputs, rows_max=rows_max)
    return Predict(route.route, source.inputs, rows_max=rows_max)


def disclosable(contract: Contract) -> list[str]:
    """The names of outputs under which clients can get something, by whatever standing."""
    # without an output for labels, the label is made from the scores
    made = [LABEL] if contract.label is None and contract.kind == "classes" else []
    return [*(name for name in contract.names if contract.answer == "scores" or name == contract.label), *made]


def promoted_version(installation: Installation, model: str) -> Version | None:
    """The version of a model that is promoted, if it is registered and one is."""
    with installation.open_registry() as registry, registry.read() as records:
        return records.promotions.current(model)


def newest_calibration(installation: Installation, version: Version) -> CalibrationRow | None:
    """The calibration that the registry lists last for a version."""
    with installation.open_registry() as registry, registry.read() as records:
        return records.calibrations.newest(version.model, version.number)


def load_calibration(installation: Installation, version: Version, row: CalibrationRow) -> Calibration:
    """Read a calibration file. Raises TamperError if it is not the one that was registered, FormatError if broken."""
    path = installation.paths.calibrations / row.path
    data = files.read_limited(path, size_max=CALIBRATION_BYTES_MAX, what="the calibration")
    if sha256(data).hexdigest() != row.digest:
        raise TamperError(
            f"{path} is not the calibration that was registered", "calibrate again: palladion watch calibrate"
        )
    calibration = decode_calibration(data, what=f"the calibration {row.path}")
    if calibration.about.content != version.content_digest:
        raise FormatError(f"the calibration {row.path} belongs to another version than {version.number}")
    return calibration


def _identity(version: Version | None) -> tuple[object, ...] | None:
    return None if version is None else (version.model, version.number, version.served)

"""A route that is served: where its answers come from, what they mean, how it is watched and marked."""

from dataclasses import dataclass
from hashlib import sha256

from palladion import files
from palladion.errors import FormatError, PolicyError, TamperError
from palladion.gate.contract import Contract, make_contract
from palladion.gate.decode import is_numeric
from palladion.gate.marks import AnswerMarks, make_marks
from palladion.gate.problems import Problem
from palladion.gate.protocols.predict import Predict
from palladion.gate.protocols.protocol import Asked, Headers, Protocol_
from palladion.gate.sources.embedded import Embedded
from palladion.gate.sources.source import Source
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import open_version
from palladion.lifecycle.revoke import require_unrevoked
from palladion.model.run import open_session
from palladion.policy import RoutePolicy
from palladion.registry import CalibrationRow, Version
from palladion.seal.structure import SealedInfo
from palladion.watch.calibration import Calibration
from palladion.watch.calibration_file import CALIBRATION_BYTES_MAX, decode_calibration


@dataclass(frozen=True, eq=False)
class Served:
    """A route that is served: its policy, the promoted version, and everything made from it.

    A model at an upstream that is not registered here has no `version`; `sealed` is what was opened here, if anything.
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

    @property
    def subject(self) -> str:
        """The version as records name it; without one, the model."""
        return self.route.model if self.version is None else f"{self.version.model}@{self.version.number}"

    @property
    def version_text(self) -> str:
        """The version's number as clients are told it."""
        return "" if self.version is None else str(self.version.number)

    def decode(self, body: bytes, headers: Headers) -> Asked:
        """What a request's body asks. Raises Problem.

        Where the model takes rows of any size, only those of the calibrated size are let through: others could not be
        watched, and whoever found that out would send nothing else.
        """
        asked = self.protocol.decode(body, headers)
        if self.calibration is not None:
            expected = self.calibration.instruments.features.centre.size
            width = sum(array.size // asked.rows for array in asked.feeds.values() if is_numeric(array))
            if width != expected:
                raise Problem("bad-input", f"a row has {width} numbers, expected {expected}", field="inputs")
        return asked

    def is_current(self, version: Version | None, calibration: CalibrationRow | None) -> bool:
        """Whether this is still what the registry says should be served."""
        return _identity(self.version) == _identity(version) and self.calibration_row == calibration


def open_route(installation: Installation, route: RoutePolicy) -> Served:
    """Open the promoted version of a route's model, in memory, with its newest calibration if it has one.

    Raises NotFoundError or ConflictError where nothing is promoted, or where that was revoked; TamperError where a file
    is not the registered one, PolicyError where the route does not fit the model, or wants marks that it cannot have.
    """
    with open_version(installation, route.model) as opened:
        found = opened.version
        require_unrevoked(installation, found.model, found.number, opened.info.header_digest)
        # the session copies what it needs, so the opened file is wiped when this block ends
        session = open_session(opened.model)
        version, sealed = opened.version, opened.info
    try:
        protocol = Predict(route.route, session.inputs, rows_max=installation.policy.gate.rows_max)
    except ValueError as error:
        raise PolicyError(f"route {route.route}: {version.model} cannot be asked over JSON: {error}") from None
    row = newest_calibration(installation, version)
    calibration = None if row is None else load_calibration(installation, version, row)
    contract = make_contract(route, session.outputs)
    marks = None
    if route.flipped > 0:
        root = installation.open_gate_root().derive("answer-marks")
        marks = make_marks(route, root, version, session=session, contract=contract, calibration=calibration)
    source = Embedded(session, threads=installation.policy.gate.threads)
    return Served(route, version, sealed, source, protocol, contract, calibration, row, marks)


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

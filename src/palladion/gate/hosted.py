"""A route's model, open in memory: what it takes, what its answers mean, how it is watched and marked."""

from dataclasses import dataclass
from hashlib import sha256

from palladion import files
from palladion.errors import FormatError, PolicyError, TamperError
from palladion.gate.contract import Contract, make_contract
from palladion.gate.decode import Feeds, InputDecoder, is_numeric
from palladion.gate.marks import AnswerMarks, make_marks
from palladion.gate.problems import Problem
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import open_version
from palladion.lifecycle.revoke import require_unrevoked
from palladion.model.run import Session, open_session
from palladion.policy import RoutePolicy
from palladion.registry import CalibrationRow, Version
from palladion.seal.structure import SealedInfo
from palladion.watch.calibration import Calibration
from palladion.watch.calibration_file import CALIBRATION_BYTES_MAX, decode_calibration


@dataclass(frozen=True, eq=False)
class Hosted:
    """A route that is served: its policy, the promoted version, and everything made from it."""

    route: RoutePolicy
    version: Version
    sealed: SealedInfo
    session: Session
    decoder: InputDecoder
    contract: Contract
    calibration: Calibration | None
    calibration_row: CalibrationRow | None
    marks: AnswerMarks | None = None

    @property
    def subject(self) -> str:
        """The version as records name it."""
        return f"{self.version.model}@{self.version.number}"

    def decode(self, body: bytes) -> tuple[Feeds, int]:
        """The inputs in a request's body by name, and the number of rows. Raises Problem.

        Where the model takes rows of any size, only those of the calibrated size are let through: others could not be
        watched, and whoever found that out would send nothing else.
        """
        feeds, rows = self.decoder.decode(body)
        if self.calibration is not None:
            expected = self.calibration.instruments.features.centre.size
            width = sum(array.size // rows for array in feeds.values() if is_numeric(array))
            if width != expected:
                raise Problem("bad-input", f"a row has {width} numbers, expected {expected}", field="inputs")
        return feeds, rows

    def is_current(self, version: Version, calibration: CalibrationRow | None) -> bool:
        """Whether this is still what the registry says should be served."""
        return (self.version.model, self.version.number, self.version.served) == (
            version.model,
            version.number,
            version.served,
        ) and self.calibration_row == calibration


def host(installation: Installation, route: RoutePolicy) -> Hosted:
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
        decoder = InputDecoder(session.inputs, rows_max=installation.policy.gate.rows_max)
    except ValueError as error:
        raise PolicyError(f"route {route.route}: {version.model} cannot be asked over JSON: {error}") from None
    row = newest_calibration(installation, version)
    calibration = None if row is None else load_calibration(installation, version, row)
    contract = make_contract(route, session.outputs)
    marks = None
    if route.flipped > 0:
        root = installation.open_gate_root().derive("answer-marks")
        marks = make_marks(route, root, version, session=session, contract=contract, calibration=calibration)
    return Hosted(route, version, sealed, session, decoder, contract, calibration, row, marks)


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

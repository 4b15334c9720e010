"""What one gate's watch knows, told to another: bytes come back as they were, and who signed is asked first."""

from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from palladion import canonical
from palladion.clock import ManualClock
from palladion.errors import ConflictError, FormatError, KeysError, NotFoundError, StorageError, TamperError
from palladion.gate.keeper import suspicion_purpose
from palladion.ledger.record import decode_record
from palladion.lifecycle import watch_copy
from palladion.lifecycle.client_copy import export_clients
from palladion.lifecycle.clients import add_client
from palladion.lifecycle.protect import protect
from palladion.lifecycle.watch_copy import (
    CALIBRATION_FILE,
    STATES_FILE,
    Written,
    export_states,
    open_states,
    purpose_of,
)
from palladion.registry import CalibrationRow
from palladion.seal.header import new_header
from palladion.seal.sign import publisher_id
from palladion.seal.writer import seal_files
from tests.models import onnx_bytes, write

from .installations import ACTOR, Made, make
from .test_client_copy import trusting

pytestmark = pytest.mark.slow  # two installations and a model

CALIBRATION = b"a calibration, of which nothing is looked at here"
DIGEST = sha256(CALIBRATION).hexdigest()


class Two:
    """A gate with a calibrated model and states, and one that trusts its publisher."""

    def __init__(self, folder: Path) -> None:
        self.there, self.other = make(folder / "there"), make(folder / "here")
        installation = self.there.installation
        protect(installation, self.there.owner, write(folder / "model.onnx", onnx_bytes(1)), "fraud", actor=ACTOR)
        path = installation.paths.calibrations / "fraud" / "1.safetensors"
        path.parent.mkdir(parents=True)
        path.write_bytes(CALIBRATION)
        for name in ("a", "b"):
            add_client(installation, "acme", name, models=[], environment="test", expires=None, actor=ACTOR)
        with installation.open_registry() as registry, registry.write() as records:
            self.row = records.calibrations.add(
                "fraud", 1, path="fraud/1.safetensors", digest=DIGEST, simulated=True, clients=9
            )
            self.states = {item.id: bytes([number]) * 70 for number, item in enumerate(records.clients.all())}
            records.gate_states.save(purpose_of("fraud", DIGEST), self.states)
            records.gate_states.save("suspicion:fraud:older", dict.fromkeys(self.states, b"old"))
        self.publisher = self.there.owner.signer("publisher").public_key
        self.here = trusting(self.other.installation, self.publisher)
        self.file = folder / "states.sealed"

    def export(self, *, replace: bool = True) -> Written:
        to = self.other.installation.stated_recipient("gate")
        made = self.there
        return export_states(made.installation, made.owner, "fraud", self.file, [to], actor=ACTOR, replace=replace)

    def forge(
        self, document: Mapping[str, object], *, signer: Made | None = None, calibration: bytes = CALIBRATION
    ) -> None:
        signs = (signer or self.there).owner.signer("publisher")
        header = new_header(
            kind="clients",
            purpose="clients",
            publisher=publisher_id(signs.public_key),
            created=self.there.clock.now(),
        )
        content = [(CALIBRATION_FILE, calibration), (STATES_FILE, canonical.encode(document))]
        to = self.other.installation.stated_recipient("gate")
        seal_files(content, header, [to], signs, self.file, replace=True)

    def document(self, **changes: object) -> dict[str, object]:
        said: dict[str, object] = {
            "v": 1, "gate": "ab" * 8, "issued": "2026-06-01T12:00:00.000000Z", "model": "fraud",
            "calibration": DIGEST, "states": {"0" * 16: "QUJD"},
        }  # fmt: skip
        return said | changes


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Two:
    return Two(tmp_path_factory.mktemp("two"))


def test_what_is_told_comes_back_and_is_on_record(two: Two) -> None:
    made = two.export()

    told = open_states(two.here, two.file, [], publisher=two.publisher)

    assert told.states == two.states
    assert (told.gate, told.model, told.digest) == (two.there.installation.open_gate_root().root_id, "fraud", DIGEST)
    assert (told.calibration, told.publisher, told.issued) == (CALIBRATION, two.publisher, two.there.clock.now())
    assert (made.clients, made.digest) == (2, DIGEST)
    data = next(data for _, data in two.there.installation.read_ledger().tail(1))
    record = decode_record(data, what="it")
    assert (record.kind, record.details["watched"], record.details["clients"]) == ("clients.exported", "fraud", 2)
    with pytest.raises(StorageError, match="exists already"):
        two.export(replace=False)


def test_states_are_those_that_the_gate_saves(two: Two) -> None:
    class Like:
        calibration_row: CalibrationRow = two.row

        class route:  # noqa: N801
            model = "fraud"

    assert suspicion_purpose(Like()) == purpose_of("fraud", DIGEST)  # type: ignore[arg-type]


def test_a_gate_that_is_not_trusted_tells_nothing(two: Two) -> None:
    two.export()
    with pytest.raises(TamperError):
        open_states(two.other.installation, two.file, [])
    with pytest.raises(KeysError, match="does not trust the publisher"):
        open_states(two.other.installation, two.file, [], publisher=two.publisher)
    two.forge(two.document(), signer=two.other)
    with pytest.raises(TamperError):
        open_states(two.here, two.file, [], publisher=two.publisher)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"v": 2}, FormatError, "no states that this version knows"),
        ({"states": {"x": "QUJD"}}, FormatError, "no states that this version knows"),
        ({"states": {"0" * 16: "QUJ"}}, FormatError, "no states that this version knows"),
        ({"states": {"0" * 16: "QUJD" * 6000}}, FormatError, "no states that this version knows"),
        ({"issued": "yesterday"}, FormatError, "no states that this version knows"),
        ({"calibration": "0" * 64}, FormatError, "another calibration than its states are of"),
        ({"issued": "2026-06-02T12:00:00.000000Z"}, ConflictError, "still to come"),
        ({"more": 1}, FormatError, "no states that this version knows"),
    ],
)
def test_what_is_no_such_file_is_refused(
    changes: dict[str, object], error: type[Exception], said: str, two: Two
) -> None:
    two.forge(two.document(**changes))
    with pytest.raises(error, match=said):
        open_states(two.here, two.file, [])


def test_a_file_of_this_gate_or_with_clients_is_none(two: Two) -> None:
    two.forge(two.document(gate=two.here.open_gate_root().root_id))
    with pytest.raises(ConflictError, match="would count twice"):
        open_states(two.here, two.file, [])
    to = [two.other.installation.stated_recipient("gate")]
    export_clients(two.there.installation, two.there.owner, two.file, to, actor=ACTOR, replace=True)
    with pytest.raises(FormatError, match="holds other files than"):
        open_states(two.here, two.file, [])


def test_without_a_calibration_or_with_another_file_nothing_is_told(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    to = [two.other.installation.stated_recipient("gate")]
    with pytest.raises(NotFoundError, match="no version of spam that is served is calibrated"):
        export_states(two.there.installation, two.there.owner, "spam", two.file, to, actor=ACTOR, replace=True)
    monkeypatch.setattr(watch_copy, "STATES_BYTES_MAX", 100)
    with pytest.raises(ConflictError, match="at most 100 are read"):
        two.export()
    monkeypatch.undo()
    path = two.there.installation.paths.calibrations / two.row.path
    path.write_bytes(b"changed")
    try:
        with pytest.raises(TamperError, match="not the calibration that was registered"):
            two.export()
    finally:
        path.write_bytes(CALIBRATION)
    assert isinstance(two.there.clock, ManualClock)
    two.there.clock.advance(timedelta(seconds=1))
    assert two.export().clients == 2

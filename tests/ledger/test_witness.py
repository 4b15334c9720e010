"""A witness cosigns what continues, and nothing else; each refusal with the status that the specification names."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from palladion.clock import ManualClock
from palladion.errors import BusyError, ConflictError, FormatError, PalladionError, StorageError
from palladion.keys import Ed25519Signer
from palladion.ledger.checkpoint import Checkpoint, VerifierKey, sign_checkpoint
from palladion.ledger.cosignature import cosignatures
from palladion.ledger.reader import LedgerReader
from palladion.ledger.witness import REQUEST_BYTES_MAX, Witness, add_log, encode_request, read_logs
from palladion.ledger.writer import Ledger

from .ledgers import JOURNAL_KEY, KEY, ORIGIN, SIGNER, make, record

AT = datetime(2026, 11, 26, 9, 30, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Witness.create(tmp_path / "witness", "witness.example/w1", bytes(range(32)))
    add_log(tmp_path / "witness", KEY)
    return tmp_path / "witness"


@pytest.fixture
def witness(folder: Path) -> Iterator[Witness]:
    opened = Witness(folder, ManualClock(AT))
    yield opened
    opened.close()


def _note(root: bytes, size: int) -> bytes:
    return sign_checkpoint(Checkpoint(ORIGIN, size, root), SIGNER)


def _grow(directory: Path, size: int) -> LedgerReader:
    with Ledger(directory, ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        ledger.append([record(number) for number in range(ledger.size, size)])
    return LedgerReader(directory, KEY)


def _request(reader: LedgerReader, old: int) -> bytes:
    return encode_request(old, reader.consistency_proof(old), reader.note)


def test_a_log_is_cosigned_as_it_grows_and_over_a_restart(folder: Path, tmp_path: Path) -> None:
    make(tmp_path / "log", 5)
    old = 0
    for size in (5, 6, 300, 301):
        reader = _grow(tmp_path / "log", size) if size > 5 else LedgerReader(tmp_path / "log", KEY)
        witness = Witness(folder, ManualClock(AT))
        answer = witness.add_checkpoint(_request(reader, old))
        assert answer.status == 200
        assert cosignatures(reader.note + answer.body, [witness.key]) == {witness.key: AT}
        known = witness.cosigned(ORIGIN)
        assert known is not None
        assert known.size == size
        witness.close()
        old = size


def test_the_same_checkpoint_is_cosigned_again(witness: Witness, tmp_path: Path) -> None:
    make(tmp_path / "log", 5)
    reader = LedgerReader(tmp_path / "log", KEY)
    assert witness.add_checkpoint(_request(reader, 0)).status == 200
    assert witness.add_checkpoint(_request(reader, 5)).status == 200


def test_another_old_size_is_answered_with_the_size_that_is_known(witness: Witness, tmp_path: Path) -> None:
    make(tmp_path / "log", 5)
    witness.add_checkpoint(_request(LedgerReader(tmp_path / "log", KEY), 0))
    answer = witness.add_checkpoint(_request(_grow(tmp_path / "log", 9), 3))
    assert (answer.status, answer.content_type, answer.body) == (409, "text/x.tlog.size", b"5\n")


def test_a_log_that_was_rewritten_is_not_cosigned(witness: Witness, folder: Path, tmp_path: Path) -> None:
    make(tmp_path / "log", 5)
    witness.add_checkpoint(_request(LedgerReader(tmp_path / "log", KEY), 0))
    # 1. another history of the same size: refused, and kept as evidence, because the log signed both
    same = encode_request(5, [], _note(bytes(32), 5))
    assert (witness.add_checkpoint(same).status, witness.add_checkpoint(same).body) == (409, b"5\n")
    assert [path.suffix for path in (folder / "states").iterdir() if path.suffix] == [".contradicts"]
    # 2. another history that is longer: its own proof does not begin with what was cosigned
    shutil.rmtree(tmp_path / "log")
    with Ledger.create(tmp_path / "log", ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        ledger.append([record(number, "another") for number in range(9)])
    assert witness.add_checkpoint(_request(LedgerReader(tmp_path / "log", KEY), 5)).status == 422
    # 3. what is known is what it was
    known = witness.cosigned(ORIGIN)
    assert known is not None
    assert known.size == 5


def test_a_first_checkpoint_of_nothing_has_the_root_of_nothing(witness: Witness) -> None:
    assert witness.add_checkpoint(encode_request(0, [], _note(bytes(32), 0))).status == 422


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"", 400),
        (b"old 00\n\n" + _note(bytes(32), 5), 400),
        (b"old 1\nnot base64\n\n" + _note(bytes(32), 5), 400),
        (b"old 1\nAAAA\n\n" + _note(bytes(32), 5), 400),
        (b"old 1\n" + 64 * b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n" + b"\n" + _note(bytes(32), 5), 400),
        (b"old 6\n\n" + _note(bytes(32), 5), 400),
        (b"old 0\n\nnot a note\n", 400),
        (b"x" * (REQUEST_BYTES_MAX + 1), 400),
        (b"old 0\n\n" + sign_checkpoint(Checkpoint("other.example", 5, bytes(32)), SIGNER), 404),
        (b"old 0\n\n" + sign_checkpoint(Checkpoint(ORIGIN, 5, bytes(32)), Ed25519Signer(bytes(32))), 403),
        (b"old 0\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n" + _note(bytes(32), 5), 422),
    ],
    ids=range(11),
)
def test_what_is_wrong_gets_its_status(witness: Witness, request_: bytes, status: int) -> None:
    assert witness.add_checkpoint(request_).status == status
    assert witness.cosigned(ORIGIN) is None


def test_what_cannot_be_kept_is_not_cosigned(witness: Witness, folder: Path, tmp_path: Path) -> None:
    make(tmp_path / "log", 5)
    shutil.rmtree(folder / "states")
    with pytest.raises(StorageError):
        witness.add_checkpoint(_request(LedgerReader(tmp_path / "log", KEY), 0))


def test_a_folder_has_one_witness_and_one_process(folder: Path, witness: Witness) -> None:
    with pytest.raises(ConflictError, match="a witness in"):
        Witness.create(folder, "witness.example/w2", bytes(32))
    with pytest.raises(BusyError):
        Witness(folder, ManualClock(AT))
    assert (folder / "key").stat().st_mode & 0o777 == 0o600


def test_a_log_keeps_the_key_that_it_had(folder: Path) -> None:
    add_log(folder, KEY)
    assert read_logs(folder) == [KEY]
    with pytest.raises(ConflictError, match="another key"):
        add_log(folder, VerifierKey(ORIGIN, bytes(32)))


def test_a_name_that_signatures_cannot_carry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PalladionError, match="cannot be a witness's name"):
        Witness.create(tmp_path / "w", "two words", bytes(32))
    Witness.create(tmp_path / "w", "one", bytes(32))
    (tmp_path / "w" / "key").write_bytes(b"AAAA\n")
    with pytest.raises(FormatError, match="another length"):
        Witness(tmp_path / "w", ManualClock(AT))

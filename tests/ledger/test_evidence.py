"""What is written for a stranger convinces him."""

from pathlib import Path

import pytest

from palladion.errors import NotFoundError
from palladion.ledger.evidence import evidence_of, write_all, write_evidence
from palladion.ledger.proof import verify_proof
from palladion.ledger.reader import LedgerReader

from .ledgers import KEY, make


def test_entries_are_written_with_proofs_that_hold(tmp_path: Path) -> None:
    make(tmp_path / "ledger", 300)
    reader = LedgerReader(tmp_path / "ledger", KEY)
    write_all(reader, tmp_path / "deep" / "folder", [3, 299])
    names = sorted(path.name for path in (tmp_path / "deep" / "folder").iterdir())
    assert names == ["entry-299.json", "entry-299.tlog-proof", "entry-3.json", "entry-3.tlog-proof"]
    for number in (3, 299):
        entry, proof = (tmp_path / "deep" / "folder" / f"entry-{number}.{kind}" for kind in ("json", "tlog-proof"))
        assert verify_proof(proof.read_bytes(), entry.read_bytes(), KEY)[0].index == number
        assert entry.stat().st_mode & 0o777 == 0o644
    with pytest.raises(NotFoundError):
        evidence_of(reader, 300)
    assert write_evidence(tmp_path, 7, b"{}", b"p")[1].read_bytes() == b"p"


def test_the_folder_is_made_for_none_as_well(tmp_path: Path) -> None:
    make(tmp_path / "ledger", 1)
    write_all(LedgerReader(tmp_path / "ledger", KEY), tmp_path / "none", [])
    assert (tmp_path / "none").is_dir()

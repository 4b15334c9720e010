"""Witnesses are asked as the specification says; what they have seen convicts a ledger, and what they say does not."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from palladion.clock import ManualClock
from palladion.errors import PolicyError, StorageError, TamperError
from palladion.keys import Ed25519Signer
from palladion.ledger.checkpoint import VerifierKey
from palladion.ledger.cosignature import WitnessKey, cosign, verify_witnessed
from palladion.ledger.reader import LedgerReader
from palladion.ledger.witness import Witness, add_log
from palladion.ledger.writer import Ledger
from palladion.lifecycle.witnesses import WITNESSED_FILE, WitnessAt, Witnesses, read_witnessed, witnesses_of
from palladion.policy.sections import LedgerPolicy
from tests.ledger.ledgers import JOURNAL_KEY, KEY, ORIGIN, SIGNER, make, record

AT = datetime(2026, 11, 26, 9, 30, tzinfo=UTC)
Send = Callable[[str, bytes], tuple[int, str, bytes]]


class _Town:
    """Some witnesses, each at an address, and what they were asked."""

    def __init__(self, folder: Path, count: int) -> None:
        self.asked: list[str] = []
        self.open = {}
        for number in range(count):
            place = folder / f"w{number}"
            Witness.create(place, f"witness.example/w{number}", bytes([number + 1]) * 32)
            add_log(place, KEY)
            self.open[f"https://w{number}.example/add-checkpoint"] = Witness(place, ManualClock(AT))

    @property
    def named(self) -> list[WitnessAt]:
        return [WitnessAt(item.key, url.removesuffix("/add-checkpoint")) for url, item in self.open.items()]

    @property
    def keys(self) -> list[WitnessKey]:
        return [item.key for item in self.open.values()]

    def send(self, url: str, body: bytes) -> tuple[int, str, bytes]:
        self.asked.append(url)
        answer = self.open[url].add_checkpoint(body)
        return answer.status, answer.content_type, answer.body

    def close(self) -> None:
        for item in self.open.values():
            item.close()


@pytest.fixture
def town(tmp_path: Path) -> Iterator[_Town]:
    made = _Town(tmp_path, 2)
    yield made
    made.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    make(tmp_path / "log", 5)
    return tmp_path / "log"


def _grow(directory: Path, size: int) -> None:
    with Ledger(directory, ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        ledger.append([record(number) for number in range(ledger.size, size)])


def test_a_growing_ledger_is_cosigned_and_the_note_is_kept(town: _Town, log: Path) -> None:
    witnesses = Witnesses(town.named, 2, send=town.send)
    for size, requests in ((5, 2), (300, 4)):
        _grow(log, size)
        found = witnesses.ask(log, KEY)
        assert (found.enough, found.failed, found.contradicted) == (True, {}, None)
        assert (found.checkpoint.size, found.cosigned) == (size, dict.fromkeys(town.keys, AT))
        # it knows how far each is: one request each
        assert len(town.asked) == requests
    kept = read_witnessed(log, KEY, town.keys, 2)
    assert kept is not None
    assert kept[1].size == 300
    assert verify_witnessed((log / WITNESSED_FILE).read_bytes(), KEY, town.keys, 2)[1] == dict.fromkeys(town.keys, AT)


def test_somebody_new_learns_how_far_witnesses_are(town: _Town, log: Path) -> None:
    Witnesses(town.named, 1, send=town.send).ask(log, KEY)
    _grow(log, 9)
    assert Witnesses(town.named, 1, send=town.send).ask(log, KEY).enough
    assert len(town.asked) == 2 + 4


def test_an_entry_is_proved_under_a_witnessed_checkpoint_after_the_log_has_grown(town: _Town, log: Path) -> None:
    Witnesses(town.named, 1, send=town.send).ask(log, KEY)
    _grow(log, 700)
    kept = read_witnessed(log, KEY, town.keys, 1)
    assert kept is not None
    reader = LedgerReader(log, KEY, note=kept[0])
    assert (reader.size, len(reader.entry(4)) > 0) == (5, True)


def test_a_cut_tail_is_told_by_who_has_seen_it(town: _Town, log: Path, tmp_path: Path) -> None:
    shutil.copytree(log, tmp_path / "earlier")
    _grow(log, 9)
    Witnesses(town.named, 1, send=town.send).ask(log, KEY)
    shutil.rmtree(log)
    shutil.copytree(tmp_path / "earlier", log)
    found = Witnesses(town.named, 1, send=town.send).ask(log, KEY)
    assert isinstance(found.contradicted, TamperError)
    assert "9 entries, and it has 5: its tail was cut" in found.contradicted.message
    assert (found.enough, found.cosigned) == (False, {})


def test_a_later_checkpoint_of_somebody_else_is_no_cut_tail(town: _Town, log: Path) -> None:
    def grown_meanwhile(url: str, body: bytes) -> tuple[int, str, bytes]:
        if not town.asked:
            _grow(log, 9)
            Witnesses(town.named, 1, send=town.send).ask(log, KEY)
        return town.send(url, body)

    found = Witnesses(town.named[:1], 1, send=grown_meanwhile).ask(log, KEY)
    assert found.contradicted is None
    assert isinstance(found.failed["witness.example/w0"], StorageError)


@pytest.mark.parametrize("size", [5, 9])
def test_a_rewritten_history_is_told(town: _Town, log: Path, size: int) -> None:
    Witnesses(town.named, 1, send=town.send).ask(log, KEY)
    shutil.rmtree(log)
    with Ledger.create(log, ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        ledger.append([record(number, "another") for number in range(size)])
    found = Witnesses(town.named, 1, send=town.send).ask(log, KEY)
    assert found.contradicted is not None
    assert "it was rewritten" in found.contradicted.message


_SIZE = "text/x.tlog.size"
_FORGED = cosign(b"another\n", "witness.example/w0", Ed25519Signer(bytes([1]) * 32), AT)


@pytest.mark.parametrize(
    "answer",
    [
        (200, "text/plain", b""),
        (200, "text/plain", b"hello\n"),
        (200, "text/plain", "— witness.example/w0 AAAA\n".encode()),
        (200, "text/plain", _FORGED),  # its own, of another text
        (200, "text/plain", _FORGED[:-8] + b"AAAA==\n"),
        (409, _SIZE, b"many\n"),
        (409, _SIZE, b"0\n"),
        (409, _SIZE, b"\xd9\xa9\n"),
        (409, "text/html", b"999999\n"),
        (422, "text/html", b"<html>"),
        (404, "text/plain", b"\xff"),
        (500, "", b""),
    ],
    ids=range(12),
)
def test_what_a_broken_witness_says_convinces_nobody_and_convicts_nobody(
    town: _Town, log: Path, answer: tuple[int, str, bytes]
) -> None:
    found = Witnesses(town.named[:1], 1, send=lambda url, body: answer).ask(log, KEY)
    assert (found.enough, found.cosigned, found.contradicted) == (False, {}, None)
    assert len(found.failed) == 1
    assert not (log / WITNESSED_FILE).exists()


def test_one_that_has_forgotten_what_it_cosigned_convicts_nobody(town: _Town, log: Path) -> None:
    witnesses = Witnesses(town.named[:1], 1, send=lambda url, body: answers.pop(0) or town.send(url, body))
    answers: list[tuple[int, str, bytes] | None] = [None, (409, _SIZE, b"0\n")]
    assert witnesses.ask(log, KEY).enough
    found = witnesses.ask(log, KEY)
    assert found.contradicted is None
    assert "has forgotten" in found.failed["witness.example/w0"].message


def test_one_that_answers_with_another_size_each_time_is_given_up(town: _Town, log: Path) -> None:
    sizes = iter(range(1, 100))
    found = Witnesses(town.named[:1], 1, send=lambda url, body: (409, _SIZE, b"%d\n" % next(sizes))).ask(log, KEY)
    assert "another size each time" in found.failed["witness.example/w0"].message
    assert next(sizes) == 3


def test_too_few_are_not_enough_and_what_was_kept_stays(town: _Town, log: Path) -> None:
    def half(url: str, body: bytes) -> tuple[int, str, bytes]:
        if "w1" in url:
            raise StorageError("w1 is away")
        return town.send(url, body)

    found = Witnesses(town.named, 2, send=half).ask(log, KEY)
    assert (len(found.cosigned), found.enough) == (1, False)
    assert read_witnessed(log, KEY, town.keys, 2) is None
    # one that is not there convicts nobody either
    assert found.contradicted is None


def test_a_kept_note_that_was_changed_is_told(town: _Town, log: Path) -> None:
    Witnesses(town.named, 1, send=town.send).ask(log, KEY)
    note = (log / WITNESSED_FILE).read_bytes()
    (log / WITNESSED_FILE).write_bytes(note.replace(b"\n5\n", b"\n6\n"))
    with pytest.raises(TamperError, match="does not hold"):
        read_witnessed(log, KEY, town.keys, 1)


def test_a_kept_note_is_none_yet_of_witnesses_that_were_named_since(town: _Town, log: Path) -> None:
    Witnesses(town.named[:1], 1, send=town.send).ask(log, KEY)
    assert read_witnessed(log, KEY, town.keys[:1], 1) is not None
    assert read_witnessed(log, KEY, town.keys[1:], 1) is None
    assert read_witnessed(log, KEY, town.keys, 2) is None


def test_the_policy_names_witnesses_by_key_and_address(town: _Town) -> None:
    policy = LedgerPolicy(witnesses=tuple(f"{item.key} {item.url}/" for item in town.named), witness_quorum=2)
    assert witnesses_of(policy) == town.named
    with pytest.raises(PolicyError, match="fewer are named"):
        witnesses_of(LedgerPolicy(witnesses=policy.witnesses[:1], witness_quorum=2))
    with pytest.raises(PolicyError, match="anybody's word"):
        witnesses_of(LedgerPolicy(witnesses=(f"{town.keys[0]} http://w0.example",)))
    assert witnesses_of(LedgerPolicy(witnesses=(f"{town.keys[0]} http://127.0.0.1:8720",)))
    of_a_log = VerifierKey("ledger.example", bytes(32))
    with pytest.raises(PolicyError, match="not a witness's key"):
        witnesses_of(LedgerPolicy(witnesses=(f"{of_a_log} https://w.example",)))

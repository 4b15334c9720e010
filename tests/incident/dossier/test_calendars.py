"""Calendars: a strict one of our own promises and delivers, and what another one says is replayed before it is kept."""

import re
from collections.abc import Mapping
from hashlib import sha256

import pytest

from palladion.errors import FormatError, PalladionError, StorageError
from palladion.incident.dossier.calendars import (
    CALENDARS_MAX,
    NONCE_BYTES,
    calendar_address,
    promised,
    upgraded,
)
from palladion.incident.dossier.verifier.opentimestamps import (
    APPEND,
    BITCOIN,
    MAGIC,
    SHA256,
    Branch,
    Proof,
    blocks_of,
    pending,
    read_proof,
    write_proof,
)

MANIFEST = b'{"v":1}'
HERE, THERE = "https://one.example", "https://two.example/calendar"


class Calendar:
    """As the reference server: a promise for each digest of 32 bytes, and after `mined` the way to block 800000."""

    def __init__(self, address: str) -> None:
        self.address, self.asked, self.mined = address, list[str](), False
        self._promised: set[bytes] = set()

    def answer(self, path: str, body: bytes | None) -> tuple[int, bytes]:
        """HTTP status and body."""
        self.asked.append(path)
        if path == "/digest" and body is not None and len(body) == 32:
            self._promised.add(sha256(body + b"its own").digest())
            return 200, _from(((APPEND, b"its own"), (SHA256, b"")), pending(self.address))
        found = re.fullmatch("/timestamp/([0-9a-f]{64})", path)
        if found is None or body is not None or bytes.fromhex(found[1]) not in self._promised:
            return 404, b"Not found"
        if not self.mined:
            return 404, b"Pending confirmation in Bitcoin blockchain"
        return 200, _from(((APPEND, b"others"), (SHA256, b"")), (BITCOIN, b"\x80\xea\x30"))


def _from(operations: tuple[tuple[int, bytes], ...], end: tuple[bytes, bytes]) -> bytes:
    """What follows the head of a proof."""
    return write_proof(Proof(bytes(32), (Branch(operations, *end),)))[len(MAGIC) + 2 + 32 :]


class Net:
    """Asks the calendars by their addresses."""

    def __init__(self, *calendars: Calendar) -> None:
        self._calendars: Mapping[str, Calendar] = {calendar.address: calendar for calendar in calendars}

    def __call__(self, address: str, body: bytes | None) -> tuple[int, bytes]:
        for known, calendar in self._calendars.items():
            if address.startswith(f"{known}/"):
                return calendar.answer(address.removeprefix(known), body)
        raise StorageError(f"nobody is at {address}")


def test_a_promise_becomes_a_block_and_stays_in_the_proof() -> None:
    one, two = Calendar(HERE), Calendar(THERE)
    ask = Net(one, two)
    data = promised(MANIFEST, [HERE, THERE], ask)
    assert {branch.calendar for branch in read_proof(data).branches} == {HERE, THERE}
    assert blocks_of(read_proof(data), MANIFEST) == []

    early = upgraded(data, [HERE, THERE], ask)
    assert (early.data, early.added) == (data, 0)
    assert early.waiting == ("one.example has no block yet (404)", "two.example has no block yet (404)")

    two.mined = True
    late = upgraded(data, [HERE, THERE], ask)
    assert (late.added, late.waiting) == (1, ("one.example has no block yet (404)",))
    (block,) = blocks_of(read_proof(late.data), MANIFEST)
    assert block.height == 800_000
    assert set(read_proof(late.data).branches) > set(read_proof(data).branches)
    again = upgraded(late.data, [HERE, THERE], ask)
    assert (again.data, again.added) == (late.data, 0)


def test_a_calendar_does_not_learn_the_digest() -> None:
    seen: list[bytes] = []
    calendar = Calendar(HERE)

    def ask(address: str, body: bytes | None) -> tuple[int, bytes]:
        seen.append(body or b"")
        return calendar.answer(address.removeprefix(HERE), body)

    proofs = [read_proof(promised(MANIFEST, [HERE], ask)) for _ in range(2)]
    assert sha256(MANIFEST).digest() not in seen
    assert seen[0] != seen[1]
    assert [proof.digest for proof in proofs] == 2 * [sha256(MANIFEST).digest()]
    assert len(proofs[0].branches[0].operations[0][1]) == NONCE_BYTES


@pytest.mark.parametrize("answer", [b"", b"\x00", b"<html>", _from((), pending(HERE)) + b"x", bytes(65_537)])
def test_nonsense_of_a_calendar_is_not_kept(answer: bytes) -> None:
    with pytest.raises(FormatError, match=r"one\.example: "):
        promised(MANIFEST, [HERE], lambda _address, _body: (200, answer))
    data = promised(MANIFEST, [HERE], Net(Calendar(HERE)))
    found = upgraded(data, [HERE], lambda _address, _body: (200, answer))
    assert (found.data, found.added) == (data, 0)
    assert found.waiting[0].startswith("one.example: ")


def test_a_calendar_that_refuses_promises_nothing() -> None:
    with pytest.raises(StorageError, match=r"one\.example answers 503, and promises nothing"):
        promised(MANIFEST, [HERE], lambda _address, _body: (503, b""))
    for count in (0, CALENDARS_MAX + 1):
        with pytest.raises(PalladionError, match=f"{count} calendars were named"):
            promised(MANIFEST, count * [HERE], Net(Calendar(HERE)))


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:9", "https://intranet.example", "https://calendar.opentimestamps.org.evil.example",
     "http://a.calendar.opentimestamps.org", "https://a.calendar.opentimestamps.org:8443"],
)  # fmt: skip
def test_an_address_that_only_the_proof_names_is_not_asked(address: str) -> None:
    asked: list[str] = []

    def ask(url: str, _body: bytes | None) -> tuple[int, bytes]:
        asked.append(url)
        return 404, b""

    data = write_proof(Proof(sha256(MANIFEST).digest(), (Branch((), *pending(address)),)))
    assert "was not asked" in upgraded(data, [HERE], ask).waiting[0]
    assert asked == []
    assert upgraded(data, [address], ask).waiting[0].endswith("has no block yet (404)")
    public = write_proof(
        Proof(sha256(MANIFEST).digest(), (Branch((), *pending("https://alice.btc.calendar.opentimestamps.org")),))
    )
    upgraded(public, [], ask)
    assert asked[-1].startswith("https://alice.btc.calendar.opentimestamps.org/timestamp/")


def test_calendars_are_typed_as_addresses() -> None:
    assert calendar_address("https://a.pool.opentimestamps.org/") == "https://a.pool.opentimestamps.org"
    for text in ("http://calendar.example", "calendar", "https://calendar.example/?token=1", "https://u:p@c.example"):
        with pytest.raises(PalladionError, match="--calendar: "):
            calendar_address(text)

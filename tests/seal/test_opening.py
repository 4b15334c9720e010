"""Opening: signature, then the caller's wishes, then a key; nothing is left open when any of them says no."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import pytest

from palladion.errors import ConflictError, FormatError, KeysError, LicenseError, PalladionError, TamperError
from palladion.keys import Wrap
from palladion.seal import opening, structure
from palladion.seal.lazy import open_lazily
from palladion.seal.memory import PrivateMemory
from palladion.seal.opening import Opening, accept_any, begin, begun
from palladion.seal.reader import open_sealed
from palladion.seal.recipients import FileIdentity
from palladion.seal.source import FileSource
from palladion.seal.structure import SealedInfo
from tests.seal.factories import CAPACITY, Parts, Party, wrap_to


class SpiedSource(FileSource):
    """A file that says where it is read, and how often it is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.read_at: list[int] = []
        self.closed = 0

    def read_into(self, buffer: memoryview, offset: int) -> None:
        self.read_at.append(offset)
        super().read_into(buffer, offset)

    def close(self) -> None:
        self.closed += 1
        super().close()


@dataclass
class SpiedIdentity:
    """An identity that writes down when it is asked."""

    identity: FileIdentity
    events: list[str] = field(default_factory=list)

    def unwrap(self, wrap: Wrap, context: bytes) -> bytes | None:
        self.events.append("key")
        return self.identity.unwrap(wrap, context)


@pytest.fixture
def party() -> Party:
    return Party()


@pytest.fixture
def path(party: Party, tmp_path: Path) -> Path:
    return party.seal(tmp_path / "x", [("a", os.urandom(CAPACITY)), ("b", b"weights")])


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens when: signature, FLOE tag and segments by themselves, the rest by the spies."""
    seen: list[str] = []

    def note(module: ModuleType, function: str, event: str) -> None:
        original = getattr(module, function)

        def noting(*arguments: object, **named: object) -> object:
            seen.append(event)
            return original(*arguments, **named)

        monkeypatch.setattr(module, function, noting)

    note(structure, "verify_signature", "signature")
    note(opening, "start_decryption", "tag")
    note(structure, "read_segment", "segment")
    note(opening, "read_segment", "segment")
    return seen


OPENERS: dict[str, Callable[..., object]] = {"begin": begin, "open_sealed": open_sealed, "open_lazily": open_lazily}


@pytest.mark.parametrize("opener", OPENERS)
def test_signature_then_wishes_then_key_then_tag_then_segments(
    party: Party, path: Path, events: list[str], opener: str
) -> None:
    source = SpiedSource(path)
    asked: list[SealedInfo] = []

    def accept(info: SealedInfo) -> None:
        events.append("wishes")
        asked.append(info)

    opened = OPENERS[opener](source, [SpiedIdentity(party.identity, events)], party.publishers, accept=accept)
    assert events[:4] == ["signature", "wishes", "key", "tag"]
    assert set(events[4:]) == (set() if opener == "begin" else {"segment"})
    assert asked[0].header.version == 3
    opened.close()  # type: ignore[attr-defined]
    assert source.closed >= 1


@pytest.mark.parametrize("opener", OPENERS)
def test_a_file_that_is_not_wanted_costs_no_key_and_no_segment(
    party: Party, path: Path, events: list[str], opener: str
) -> None:
    def refuse(_info: SealedInfo) -> None:
        raise ConflictError("too old")

    source = SpiedSource(path)
    with pytest.raises(ConflictError, match="too old"):
        OPENERS[opener](source, [SpiedIdentity(party.identity, events)], party.publishers, accept=refuse)
    assert events == ["signature"]
    assert source.closed == 1


@pytest.mark.parametrize("opener", OPENERS)
def test_a_file_of_a_stranger_is_not_even_asked_about(party: Party, path: Path, events: list[str], opener: str) -> None:
    source = SpiedSource(path)
    with pytest.raises(TamperError):
        OPENERS[opener](
            source,
            [SpiedIdentity(party.identity, events)],
            Party().publishers,
            accept=lambda _info: events.append("wishes"),
        )
    assert events == ["signature"]
    assert source.closed == 1


@pytest.mark.parametrize("opener", OPENERS)
def test_a_file_that_asks_for_a_licence_is_not_opened_where_none_is_looked_at(
    party: Party, tmp_path: Path, events: list[str], opener: str
) -> None:
    source = SpiedSource(party.seal(tmp_path / "y", license_required=True))
    identities = [SpiedIdentity(party.identity, events)]
    with pytest.raises(LicenseError, match="opened under a licence only"):
        OPENERS[opener](source, identities, party.publishers)
    assert events == ["signature"]
    assert source.closed == 1
    OPENERS[opener](tmp_path / "y", identities, party.publishers, accept=accept_any).close()  # type: ignore[attr-defined]


class _Unhappy(BaseException):
    """Something that is no error: an interrupt."""


@dataclass
class _Failure:
    """What goes wrong while a file is opened, and what is said."""

    damage: Callable[[Party, Parts], Parts] = lambda _party, parts: parts
    error: type[BaseException] = TamperError
    identity: FileIdentity | None = None
    interrupted: bool = False


def _cut(_party: Party, parts: Parts) -> Parts:
    parts.segments[1] = parts.segments[1][:40]
    return parts


def _other_suite(party: Party, parts: Parts) -> Parts:
    parts.floe_header = b"\0\1" + parts.floe_header[2:]
    return _wrapped(party, parts.resign(party.signer))


def _wrapped(party: Party, parts: Parts) -> Parts:
    wraps = (wrap_to(party, parts, os.urandom(32)),)
    return parts.with_trailer(lambda trailer: replace(trailer, wraps=wraps))


FAILURES = {
    "a header that is no JSON": _Failure(lambda _, parts: replace(parts, header=b"{"), FormatError),
    "a trailer that is no JSON": _Failure(lambda _, parts: replace(parts, trailer=b"{"), FormatError),
    "other lengths": _Failure(lambda _, parts: replace(parts, digests=b""), FormatError),
    "another signature": _Failure(_cut),
    "no wrap for us": _Failure(error=KeysError, identity=FileIdentity.generate()),
    "another FLOE suite": _Failure(_other_suite, FormatError),
    "another file key": _Failure(_wrapped),
    "an interrupt": _Failure(error=_Unhappy, interrupted=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("opener", OPENERS)
def test_a_source_that_is_handed_in_is_closed_whatever_goes_wrong(
    party: Party, path: Path, name: str, opener: str
) -> None:
    failure = FAILURES[name]
    failure.damage(party, Parts.of(path)).write(path)
    source = SpiedSource(path)

    def accept(_info: SealedInfo) -> None:
        if failure.interrupted:
            raise _Unhappy

    with pytest.raises(failure.error):
        OPENERS[opener](source, [failure.identity or party.identity], party.publishers, accept=accept)
    assert source.closed == 1


def _descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("opener", OPENERS)
def test_a_path_that_does_not_open_leaves_no_descriptor(party: Party, path: Path, opener: str) -> None:
    before = _descriptors()
    for identities, publishers in (([], party.publishers), ([party.identity], [])):
        with pytest.raises(PalladionError):
            OPENERS[opener](path, identities, publishers)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError):
        OPENERS[opener](path, [party.identity], party.publishers)
    assert _descriptors() == before


def test_a_block_closes_its_source_and_an_error_in_it_too(party: Party, path: Path) -> None:
    for fails in (False, True):
        source = SpiedSource(path)
        try:
            with begun(source, [party.identity], party.publishers) as opened:
                assert repr(opened) == f"<Opening of {path}>"
                if fails:
                    raise _Unhappy
        except _Unhappy:
            assert fails
        assert source.closed == 1


def test_a_whole_file_is_not_read_to_open_it(party: Party, path: Path) -> None:
    source = SpiedSource(path)
    with begun(source, [party.identity], party.publishers) as opened:
        layout = opened.structure.layout
        body = range(layout.body_offset, layout.digests_offset)
        assert not any(offset in body for offset in source.read_at)
        opened.manifest()
        assert [offset for offset in source.read_at if offset in body] == [layout.segment_offset(0)]


def test_every_segment_is_handed_over_once_with_its_place(party: Party, path: Path) -> None:
    with begun(path, [party.identity], party.publishers) as opened:
        payload = bytearray(opened.structure.layout.plaintext_bytes)
        seen: list[int] = []

        def use(index: int, position: int, plaintext: memoryview) -> None:
            seen.append(index)
            payload[position : position + len(plaintext)] = plaintext

        done: list[tuple[int, int]] = []
        opened.read_all(use, threads=2, progress=lambda *progress: done.append(progress))
        assert sorted(seen) == [0, 1]
        assert done[-1] == (opened.structure.layout.body_bytes, opened.structure.layout.body_bytes)
        entries = {entry.name: entry for entry in opened.manifest().entries}
    assert bytes(payload[entries["b"].offset : entries["b"].end]) == b"weights"


def test_decrypting_in_place_gives_what_decrypting_elsewhere_gives(party: Party, path: Path) -> None:
    with begun(path, [party.identity], party.publishers) as opened:
        layout = opened.structure.layout
        for index in range(layout.segments):
            segment = bytearray(layout.segment_bytes(index))
            opened.source.read_into(memoryview(segment), layout.segment_offset(index))
            elsewhere = bytearray(len(segment) - 32)
            opened.decrypt(index, memoryview(bytes(segment)), memoryview(elsewhere))
            buffer = memoryview(bytearray(b"\xaa" * CAPACITY + b"\xaa" * 64))
            in_place = opened.read(index, buffer)
            assert in_place == elsewhere
            # length and nonce in front, and the tag and what lies behind the segment, are untouched
            assert buffer[:16] == segment[:16]
            assert buffer[len(segment) - 16 : len(segment)] == segment[-16:]
            assert bytes(buffer[len(segment) :]) == b"\xaa" * (len(buffer) - len(segment))


@pytest.mark.parametrize("threads", [1, 2])
def test_what_was_decrypted_in_place_is_wiped(
    party: Party, path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    left: list[bytes] = []
    release = PrivateMemory.release

    def watched(memory: PrivateMemory) -> None:
        left.append(bytes(memory.view))
        release(memory)

    monkeypatch.setattr(PrivateMemory, "release", watched)
    with begun(path, [party.identity], party.publishers) as opened:
        opened.manifest()
        opened.read_all(lambda *_: None, threads=threads)
        with pytest.raises(_Unhappy):
            opened.read_all(_interrupt, threads=threads)
    assert len(left) >= 3
    assert not any(content.strip(b"\0") for content in left)


def _interrupt(_index: int, _position: int, plaintext: memoryview) -> None:
    assert any(plaintext)
    raise _Unhappy


def test_an_opening_shows_nothing_of_its_keys(party: Party, path: Path) -> None:
    with begun(path, [party.identity], party.publishers) as opened:
        assert isinstance(opened, Opening)
        shown = repr(opened) + str(opened) + repr(vars(opened)["_decryption"])
    assert shown.startswith(f"<Opening of {path}>")
    assert "key" not in shown.lower()

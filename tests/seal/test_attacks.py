"""Attacks on sealed files, each by its name: all are refused by every reader, and nothing is released.

Where a check could hide behind another, the attacker gets the publisher's key for all but what is tested. Files that
are broken while they are written are in test_power_cuts.py, traces of plaintext in test_plaintext.py, and old versions
that are put back in tests/host/test_host.py: only a host remembers.
"""

import json
import os
import random
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from palladion import canonical
from palladion.errors import FormatError, KeysError, PalladionError, StorageError, TamperError
from palladion.seal import floe, scatter
from palladion.seal.layout import FOOTER_BYTES, PARAMETERS, Footer
from palladion.seal.lazy import open_lazily
from palladion.seal.manifest import Manifest
from palladion.seal.memory import PrivateMemory
from palladion.seal.opening import begun, unwrap_file_key
from palladion.seal.reader import inspect_file, open_sealed, verify_file
from palladion.seal.recipients import PassphraseIdentity, passphrase
from palladion.seal.rewrap import rewrap_file
from palladion.seal.sign import publisher_id
from palladion.seal.structure import opened
from palladion.seal.trailer import Trailer, body_data, decode_trailer
from palladion.seal.writer import seal_files
from tests.seal.factories import CAPACITY, Parts, Party, passphrase_recipient, wrap_to

pytestmark = pytest.mark.slow

Change = Callable[[list[bytes]], list[bytes]]
MOVES: dict[str, Change] = {
    "reordered": lambda s: [s[1], s[0], s[2]],
    "duplicated": lambda s: [s[0], s[0], s[1], s[2]],
    "removed": lambda s: [s[0], s[2]],
    "truncated": lambda s: s[:2],
    "shortened": lambda s: [s[0], s[1], s[2][:-1]],
    "cut to a last segment": lambda s: [s[0], s[2], s[2]],
}


@pytest.fixture(scope="module")
def party() -> Party:
    return Party()


@pytest.fixture
def three(party: Party, tmp_path: Path) -> Path:
    return party.seal(tmp_path / "three", [("model.bin", os.urandom(2 * CAPACITY + 100_000))])


def _read_whole(party: Party, path: Path) -> None:
    open_sealed(path, [party.identity], party.publishers).close()


def _read_lazily(party: Party, path: Path) -> None:
    with open_lazily(path, [party.identity], party.publishers) as files:
        for name in files.entries:
            files.read(name)


def _scatter(party: Party, path: Path) -> None:
    with begun(path, [party.identity], party.publishers) as opening:
        manifest = opening.manifest()
        scatter.read_into(opening, manifest, [memoryview(bytearray(entry.size)) for entry in manifest.entries])


READERS = (_read_whole, _read_lazily, _scatter)


def _refused(party: Party, path: Path, *errors: type[PalladionError]) -> None:
    for read in READERS:
        with pytest.raises(errors or TamperError):
            read(party, path)


def test_downgrade_to_a_plain_file(party: Party, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      other weights")
    for check in (
        lambda: open_sealed(path, [party.identity], party.publishers),
        lambda: verify_file(path, party.publishers),
        lambda: inspect_file(path),
    ):
        with pytest.raises(FormatError, match=r"model\.bin is not a sealed file"):
            check()


def test_header_stripped(party: Party, three: Path) -> None:
    parts = Parts.of(three)
    for rest in (parts.floe_header + b"".join(parts.segments), b"".join(parts.segments)):
        three.write_bytes(rest)
        _refused(party, three, FormatError)


@pytest.mark.parametrize("signed", [False, True])
def test_header_changed(party: Party, tmp_path: Path, signed: bool) -> None:
    parts = Parts.of(party.seal(tmp_path / "x"))
    parts.header = msgspec.structs.replace(parts.parsed_header(), version=4).encode()
    if signed:
        parts.resign(party.signer)
    parts.write(tmp_path / "y")
    with pytest.raises(TamperError, match="FLOE tag" if signed else "signature"):
        party.open(tmp_path / "y")


def test_header_of_another_file_over_this_payload(party: Party, tmp_path: Path) -> None:
    one, other = Parts.of(party.seal(tmp_path / "x")), Parts.of(party.seal(tmp_path / "y"))
    one.header = other.header
    _refused(party, one.write(tmp_path / "z"))
    # the file id differs, so the wrap does not open either
    _refused(party, one.resign(party.signer).write(tmp_path / "z"), KeysError)


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("covered", ["", "digests", "digests and signature"])
def test_segments_moved(party: Party, three: Path, name: str, covered: str) -> None:
    parts = Parts.of(three)
    before = parts.segments
    parts.segments = MOVES[name](before)
    if covered:
        parts.redigest()
    else:
        order = [before.index(segment) if segment in before else 2 for segment in parts.segments]
        parts.digests = b"".join(parts.digests[32 * index : 32 * index + 32] for index in order)
    if covered == "digests and signature":
        parts.resign(party.signer)
    _refused(party, parts.write(three), TamperError, FormatError)


@pytest.mark.parametrize("covered", [False, True])
def test_segment_spliced_in_from_another_file(party: Party, tmp_path: Path, covered: bool) -> None:
    content = os.urandom(CAPACITY)
    one, other = (Parts.of(party.seal(tmp_path / name, [("model.bin", content)])) for name in "xy")
    one.segments[1] = other.segments[1]
    if covered:
        one.redigest().resign(party.signer)
    _refused(party, one.write(tmp_path / "z"))


def test_wrap_of_another_file(party: Party, tmp_path: Path) -> None:
    one, other = Parts.of(party.seal(tmp_path / "x")), Parts.of(party.seal(tmp_path / "y"))
    wraps = decode_trailer(other.trailer, what="it").wraps
    one.with_trailer(lambda trailer: replace(trailer, wraps=wraps)).write(tmp_path / "z")
    with pytest.raises(KeysError, match="moved here from another file"):
        party.open(tmp_path / "z")


def test_wrap_replaced_by_one_of_another_file_key(party: Party, tmp_path: Path) -> None:
    parts = Parts.of(party.seal(tmp_path / "x"))
    forged = wrap_to(party, parts, os.urandom(32))
    parts.with_trailer(lambda trailer: replace(trailer, wraps=(forged,))).write(tmp_path / "z")
    with pytest.raises(TamperError, match="another file key"):
        party.open(tmp_path / "z")


def test_forgery_by_a_recipient_who_encrypts_other_weights(party: Party, three: Path) -> None:
    parts = Parts.of(three)
    parts.segments[0] = _encrypted(party, parts, three, os.urandom(CAPACITY), last=False)
    _refused(party, parts.write(three))
    _refused(party, parts.redigest().write(three))


HEADERS: dict[str, tuple[bytes, bytes]] = {
    "renamed": (b'"query":', b'"value":'),
    "two exchanged": (b'"query":{"dtype":"F32","shape":[4,2]', b'"valve":{"dtype":"F32","shape":[4,2]'),
    "reshaped": (b'"shape":[4,2]', b'"shape":[2,4]'),
    "of another type": (b'"F32"', b'"I32"'),
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("attacker", ["a stranger", "a recipient", "a publisher without the file key"])
def test_tensor_renamed_or_reshaped(party: Party, tmp_path: Path, name: str, attacker: str) -> None:
    plain = _safetensors(query=[4, 2], key=[3])
    path = party.seal(tmp_path / "x", [("model.safetensors", plain)], kind="safetensors")
    parts = Parts.of(path)
    before, after = HEADERS[name]
    place = plain.index(before)
    if attacker == "a recipient":
        # who has the file key encrypts whatever he likes, under a valid tag
        with open_sealed(path, [party.identity], party.publishers) as opened:
            payload = bytearray(bytes(opened._memory.view))
        assert payload.count(before) >= 1
        payload[4096 + place : 4096 + place + len(after)] = after
        parts.segments[0] = _encrypted(party, parts, path, payload, last=True)
    else:
        # AES-GCM encrypts by XOR: who knows what is written there writes something else in its place
        segment = bytearray(parts.segments[0])
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            segment[16 + 4096 + place + index] ^= old ^ new
        parts.segments[0] = bytes(segment)
    _refused(party, parts.write(path))
    parts.redigest()
    if attacker == "a publisher without the file key":
        parts.resign(party.signer)
    _refused(party, parts.write(path))


def test_forgery_by_a_recipient_who_keeps_the_tag(party: Party, three: Path) -> None:
    # GHASH is linear: adding d to block i and d·H to block i+1 leaves the AES-GCM tag as it was
    parts = Parts.of(three)
    message = floe._Message(PARAMETERS, _file_key(party, three), parts.floe_header[10:42], body_data(parts.header))
    key = message._derive(message._message_key, b"DEK:" + bytes(8), 32)
    h = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(bytes(16))
    difference = os.urandom(16)
    segment = bytearray(parts.segments[0])
    for begin, change in ((16 + 4096, difference), (16 + 4112, _multiply(difference, h))):
        segment[begin : begin + 16] = bytes(a ^ b for a, b in zip(segment[begin : begin + 16], change, strict=True))
    assert AESGCM(key).decrypt(bytes(segment[4:16]), bytes(segment[16:]), bytes(9)) != b""
    assert segment[-16:] == parts.segments[0][-16:]
    parts.segments[0] = bytes(segment)
    with pytest.raises(TamperError, match="segment 0 of 3 is not the one listed"):
        party.open(parts.write(three))
    with pytest.raises(TamperError, match="the signature of publisher"):
        party.open(parts.redigest().write(three))


def test_invisible_salamander(party: Party, tmp_path: Path) -> None:
    # a publisher gives two recipients different file keys for one ciphertext: the FLOE header commits to the first
    other = Party(signer=party.signer)
    parts = Parts.of(party.seal(tmp_path / "x"))
    second = wrap_to(other, parts, os.urandom(32))
    parts.with_trailer(lambda trailer: replace(trailer, wraps=(*trailer.wraps, second))).write(tmp_path / "z")
    assert party.open(tmp_path / "z")
    with pytest.raises(TamperError, match="another file key"):
        other.open(tmp_path / "z")


def test_signer_substituted(party: Party, tmp_path: Path) -> None:
    thief = Party(identity=party.identity)
    path = thief.seal(tmp_path / "x")
    with pytest.raises(TamperError, match="none of the 1 that are trusted"):
        party.open(path)
    parts = Parts.of(path)
    named = msgspec.structs.replace(parts.parsed_header(), publisher=publisher_id(party.signer.public_key))
    parts.header = named.encode()
    parts.resign(thief.signer).write(path)
    with pytest.raises(TamperError, match="the signature of publisher"):
        party.open(path)


@pytest.mark.parametrize(
    "cost",
    [
        {"memory_kib": 2**31},
        {"memory_kib": 2**53 - 1},
        {"memory_kib": 0},
        {"memory_kib": -1},
        {"iterations": 17},
        {"iterations": 2**53 - 1},
        {"iterations": 0},
        {"lanes": 17},
        {"lanes": 0},
        {"lanes": 2**32},
        {"memory_kib": 1024 * 1024, "iterations": 5},
        {"memory_kib": 31, "lanes": 4},
    ],
    ids=str,
)
def test_hostile_argon2_cost(
    party: Party, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cost: dict[str, int]
) -> None:
    path = party.seal(tmp_path / "x", recipients=[passphrase_recipient("correct horse")])
    parts = Parts.of(path)

    def inflate(trailer: Trailer) -> Trailer:
        wrap = trailer.wraps[0]
        return replace(trailer, wraps=(replace(wrap, parameters={**wrap.parameters, **cost}),))

    def run(**_: object) -> None:
        raise AssertionError("Argon2id was run")

    monkeypatch.setattr(passphrase, "Argon2id", run)
    parts.with_trailer(inflate).write(path)
    with pytest.raises(FormatError, match="refused before it is tried"):
        party.open(path, PassphraseIdentity("correct horse"))


@pytest.mark.parametrize("claim", ["body", "header", "trailer"])
def test_four_terabytes_claimed_in_a_small_file(party: Party, tmp_path: Path, claim: str) -> None:
    path = party.seal(tmp_path / "x", [("model.bin", bytes(262_144))])
    data = bytearray(path.read_bytes())
    if claim == "body":
        data[-FOOTER_BYTES:] = replace(Footer.decode(bytes(data[-FOOTER_BYTES:]), what="it"), body_bytes=2**42).encode()
    elif claim == "header":
        data[12:16] = b"\xff" * 4
    else:
        data[-FOOTER_BYTES + 8 : -FOOTER_BYTES + 12] = b"\xff" * 4
    path.write_bytes(data)
    tracemalloc.start()
    _refused(party, path, FormatError)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1024 * 1024


def test_four_terabytes_claimed_by_a_file_with_a_hole(party: Party, tmp_path: Path) -> None:
    path = party.seal(tmp_path / "x")
    os.truncate(path, 2**42)
    _refused(party, path, FormatError)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 63, 64, 100, 500, 1000, -49, -48, -1])
def test_cut_off_anywhere(party: Party, tmp_path: Path, size: int) -> None:
    path = party.seal(tmp_path / "x")
    path.write_bytes(path.read_bytes()[:size])
    _refused(party, path, FormatError)


@pytest.mark.parametrize("extra", [b"\0", b"LLAP", b"\0" * 4096])
def test_something_appended(party: Party, tmp_path: Path, extra: bytes) -> None:
    path = party.seal(tmp_path / "x")
    path.write_bytes(path.read_bytes() + extra)
    _refused(party, path, FormatError)


def test_one_flipped_bit_at_every_byte(party: Party, tmp_path: Path) -> None:
    path = party.seal(tmp_path / "x", recipients=[party.identity.recipient, Party().identity.recipient])
    data = path.read_bytes()
    choice = random.Random(1)
    with path.open("r+b", buffering=0) as stream:
        for place, byte in enumerate(data):
            os.pwrite(stream.fileno(), bytes([byte ^ 1 << choice.randrange(8)]), place)
            with pytest.raises((TamperError, FormatError)):
                verify_file(path, party.publishers)
            if place % 7 == 0:
                _refused(party, path, TamperError, FormatError)
            os.pwrite(stream.fileno(), bytes([byte]), place)
    assert path.read_bytes() == data
    assert party.open(path)


def test_one_flipped_bit_at_every_byte_of_a_wrap_with_a_fitting_checksum(party: Party, tmp_path: Path) -> None:
    parts = Parts.of(party.seal(tmp_path / "x"))
    trailer = parts.trailer
    for place in range(trailer.index(b'"wraps"'), len(trailer)):
        parts.trailer = trailer[:place] + bytes([trailer[place] ^ 1]) + trailer[place + 1 :]
        _refused(party, parts.write(tmp_path / "y"), FormatError, KeysError)


FLIPS = 1000
PIECE_BYTES = 65536


def _flipped(path: Path, seed: int) -> Iterator[int | None]:
    """Flip one bit of the sealed file at `path`, anywhere, then set it right; for each flip the segment it lies in."""
    data = path.read_bytes()
    choice = random.Random(seed)
    with opened(path) as (_, structure), path.open("r+b", buffering=0) as stream:
        layout = structure.layout
        for _ in range(FLIPS):
            place = choice.randrange(len(data))
            in_body = layout.body_offset <= place < layout.digests_offset
            os.pwrite(stream.fileno(), bytes([data[place] ^ 1 << choice.randrange(8)]), place)
            yield (place - layout.body_offset) // PARAMETERS.segment_bytes if in_body else None
            os.pwrite(stream.fileno(), data[place : place + 1], place)
    assert path.read_bytes() == data


def test_a_thousand_random_flips_are_all_caught_by_who_reads_the_whole(
    party: Party, three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[bool] = []
    release = PrivateMemory.release

    def watched(memory: PrivateMemory) -> None:
        left.append(any(memory.view[place] for place in range(0, len(memory.view), 999)))
        release(memory)

    monkeypatch.setattr(PrivateMemory, "release", watched)
    for segment in _flipped(three, 2):
        with pytest.raises((TamperError, FormatError)) as refusal:
            open_sealed(three, [party.identity], party.publishers)
        assert segment is None or f"segment {segment} of 3 " in refusal.value.message
    # nothing was returned, and nothing of what had been decrypted by then is left
    assert len(left) > FLIPS / 2
    assert not any(left)
    assert party.open(three)


def test_a_thousand_random_flips_are_all_caught_by_who_reads_lazily(party: Party, three: Path) -> None:
    content = party.open(three)["model.bin"]
    for segment in _flipped(three, 3):
        released = bytearray()
        with pytest.raises((TamperError, FormatError)) as refusal:
            _release(party, three, released)
        assert content.startswith(released)
        if segment is None:
            assert not released
        else:
            # everything before the segment, nothing of it: pieces that reach into it are not returned either
            begin = segment * CAPACITY - 4096
            assert begin - PIECE_BYTES < len(released) <= max(begin, 0)
            assert f"segment {segment} of 3 " in refusal.value.message
    assert party.open(three)


def _release(party: Party, path: Path, released: bytearray) -> None:
    with open_lazily(path, [party.identity], party.publishers) as files:
        size = files.entries["model.bin"].size
        while len(released) < size:
            released += files.read("model.bin", len(released), min(PIECE_BYTES, size - len(released)))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_thousand_random_flips_are_all_caught_by_who_scatters(party: Party, three: Path, threads: int) -> None:
    content = party.open(three)["model.bin"]
    manifest = Manifest.of_files([("model.bin", len(content))])
    borders = [max(index * CAPACITY - 4096, 0) for index in range(3)] + [len(content)]
    untouched = b"\xaa" * len(content)
    for segment in _flipped(three, 4 + threads):
        target = bytearray(untouched)
        with (
            pytest.raises((TamperError, FormatError)),
            begun(three, [party.identity], party.publishers) as opening,
        ):
            scatter.read_into(opening, manifest, [memoryview(target)], threads=threads)
        for index, (begin, end) in enumerate(pairwise(borders)):
            piece = target[begin:end]
            verified = piece == content[begin:end] and segment is not None and index != segment
            assert verified or piece == untouched[begin:end]
            if threads == 1 and segment is not None:
                assert verified == (index < segment)
    assert party.open(three)


HOSTILE_NAMES = ["../x", "/etc/passwd", "a/../../x", "a/./b", ".", "a\\..\\x", "a\0b", "a//b", "C:\\x", "\u202etxt.exe"]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_path_traversal_in_the_names_of_a_folder(party: Party, tmp_path: Path, name: str) -> None:
    path = party.seal(tmp_path / "x", [("model.bin", b"weights")], kind="folder")
    parts = Parts.of(path)
    document = canonical.encode({"files": [{"name": name, "size": 7}]})
    payload = (len(document).to_bytes(4, "little") + document).ljust(4096, b"\0") + b"weights"
    parts.segments[0] = _encrypted(party, parts, path, payload, last=True)
    # even if its publisher signs it
    _refused(party, parts.redigest().resign(party.signer).write(path), FormatError)


def test_two_names_for_one_place_in_a_folder(party: Party, tmp_path: Path) -> None:
    path = party.seal(tmp_path / "x", [("model.bin", b"weights")], kind="folder")
    for names in (["a", "a"], ["a", "a/b"], ["a/b/c", "a/b"]):
        parts = Parts.of(path)
        document = canonical.encode({"files": [{"name": name, "size": 0} for name in names]})
        payload = (len(document).to_bytes(4, "little") + document).ljust(4096, b"\0")
        parts.segments[0] = _encrypted(party, parts, path, payload, last=True)
        _refused(party, parts.redigest().resign(party.signer).write(tmp_path / "y"), FormatError)


def test_symbolic_link_planted_where_a_sealed_file_is_written(party: Party, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"something of value")
    link = tmp_path / "x"
    link.symlink_to(victim)
    with pytest.raises(StorageError, match="a file of this name exists"):
        party.seal(link)
    seal_files([("a", b"1")], party.header(), [party.identity.recipient], party.signer, link, replace=True)
    assert not link.is_symlink()
    # the name of the temporary file cannot be guessed, and a link there would not be followed
    sealed = party.seal(tmp_path / "y")
    link.unlink()
    link.symlink_to(victim)
    rewrap_file(sealed, [party.identity], party.publishers, add=[Party().identity.recipient], target=link)
    assert not link.is_symlink()
    assert victim.read_bytes() == b"something of value"


def test_symbolic_links_that_lead_to_the_files_are_those_files(party: Party, tmp_path: Path) -> None:
    # a registry stores blobs and links to them; whoever plants another link gets another file, which is refused
    path, other = party.seal(tmp_path / "x"), Party().seal(tmp_path / "y")
    link = tmp_path / "link"
    link.symlink_to(path)
    assert party.open(link)
    link.unlink()
    link.symlink_to(other)
    _refused(party, link)
    for place in ("/dev/zero", "/dev/stdin", str(tmp_path)):
        link.unlink()
        link.symlink_to(place)
        _refused(party, link, FormatError, StorageError)


def test_json_said_in_another_way(party: Party, tmp_path: Path) -> None:
    parts = Parts.of(party.seal(tmp_path / "x"))
    for name in ("header", "trailer"):
        document = getattr(parts, name)
        for other in (document + b" ", document.replace(b",", b", ", 1), document.replace(b'"', b'"\\u0061', 1)):
            _refused(party, _with(parts, name, other).write(tmp_path / "y"), FormatError)
        unknown = canonical.encode({**canonical.decode(document, size_max=10_000, what="it"), "zz": 1})
        _refused(party, _with(parts, name, unknown).write(tmp_path / "y"), FormatError)


def _with(parts: Parts, name: str, document: bytes) -> Parts:
    return replace(parts, header=document) if name == "header" else replace(parts, trailer=document)


def _safetensors(**shapes: list[int]) -> bytes:
    header, position = {}, 0
    for name, shape in shapes.items():
        size = 4
        for dimension in shape:
            size *= dimension
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + os.urandom(position)


def _encrypted(party: Party, parts: Parts, path: Path, plaintext: bytes | bytearray, *, last: bool) -> bytes:
    """What whoever has the file key can make: a first segment of other contents that authenticates."""
    encryption = floe.Encryption(bytes(32), b"", PARAMETERS)
    encryption._message = floe._Message(
        PARAMETERS, _file_key(party, path), parts.floe_header[10:42], body_data(parts.header)
    )
    segment = bytearray(PARAMETERS.segment_bytes)
    return bytes(segment[: encryption.encrypt_into(plaintext, memoryview(segment), last=last)])


def _file_key(party: Party, path: Path) -> bytes:
    with opened(path) as (_, structure):
        return unwrap_file_key(structure, [party.identity])


def _multiply(a: bytes, b: bytes) -> bytes:
    """The product in GHASH's field (NIST SP 800-38D, algorithm 1)."""
    x, v, z = int.from_bytes(a), int.from_bytes(b), 0
    for place in range(127, -1, -1):
        z ^= v if x >> place & 1 else 0
        v = v >> 1 ^ (0xE1 << 120 if v & 1 else 0)
    return z.to_bytes(16)

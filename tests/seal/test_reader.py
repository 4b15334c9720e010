"""Opening: round trips at every border, nothing before the last byte is verified, and memory that is wiped."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palladion.errors import FormatError, KeysError, TamperError
from palladion.keys import Recipient, Wrap
from palladion.seal import reader
from palladion.seal.memory import PrivateMemory
from palladion.seal.reader import inspect_file, open_sealed, verify_file
from palladion.seal.recipients import FileIdentity, PassphraseIdentity
from tests.seal.factories import CAPACITY, Parts, Party, passphrase_recipient

names = st.from_regex(r"\A([a-z]{1,5}|x/[a-z]{1,5})\.bin\Z")


@pytest.mark.parametrize("payload_bytes", [4096, 4097, CAPACITY - 1, CAPACITY, CAPACITY + 1, 2 * CAPACITY])
def test_contents_survive_at_the_borders_of_segments(tmp_path: Path, payload_bytes: int) -> None:
    party = Party()
    content = os.urandom(payload_bytes - 4096)
    path = party.seal(tmp_path / "x", [("model.bin", content)])
    assert inspect_file(path).payload_bytes == payload_bytes
    assert party.open(path) == {"model.bin": content}


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.dictionaries(names, st.binary(max_size=10_000), min_size=1, max_size=5))
def test_files_survive_the_round_trip(tmp_path: Path, files: dict[str, bytes]) -> None:
    party = Party()
    path = party.seal(tmp_path / os.urandom(8).hex(), list(files.items()))
    assert party.open(path) == files


@pytest.mark.slow
@pytest.mark.parametrize("threads", [None, 1, 2, 5])
def test_the_number_of_threads_changes_nothing(tmp_path: Path, threads: int | None) -> None:
    party = Party()
    files = {"a": os.urandom(CAPACITY), "b/c": b"", "b/d": os.urandom(2 * CAPACITY + 7)}
    path = party.seal(tmp_path / "x", list(files.items()))
    assert party.open(path, threads=threads) == files


def test_each_recipient_alone_opens_it(tmp_path: Path) -> None:
    party, other = Party(), FileIdentity.generate()
    recipients: list[Recipient] = [party.identity.recipient, passphrase_recipient("correct horse"), other.recipient]
    path = party.seal(tmp_path / "x", recipients=recipients)
    for identity in (party.identity, other, PassphraseIdentity("correct horse")):
        assert party.open(path, FileIdentity.generate(), identity) == {"model.bin": b"weights"}


def test_a_stranger_is_told_who_could_open_it(tmp_path: Path) -> None:
    party = Party()
    path = party.seal(tmp_path / "x")
    with pytest.raises(KeysError, match=f"sealed to x25519 {party.identity.recipient.key_id}, and none"):
        party.open(path, FileIdentity.generate())
    with pytest.raises(KeysError):
        open_sealed(path, [], party.publishers)


def test_a_list_of_many_recipients_is_shortened(tmp_path: Path) -> None:
    party = Party()
    path = party.seal(tmp_path / "x", recipients=[FileIdentity.generate().recipient for _ in range(11)])
    with pytest.raises(KeysError, match="and 3 more, and none"):
        party.open(path)


def test_inspection_and_verification_need_no_identity(tmp_path: Path) -> None:
    party = Party()
    path = party.seal(tmp_path / "x", kind="onnx", recipient="Hector")
    info = inspect_file(path)
    assert info == verify_file(path, party.publishers)
    assert (info.header.kind, info.header.model, info.header.version, info.header.recipient) == (
        "onnx",
        "fraud",
        3,
        "Hector",
    )
    assert [wrap.key_id for wrap in info.wraps] == [party.identity.recipient.key_id]
    with open_sealed(path, [party.identity], party.publishers) as opened:
        assert opened.info == info


def test_without_a_pinned_publisher_nothing_opens(tmp_path: Path) -> None:
    party = Party()
    path = party.seal(tmp_path / "x")
    with pytest.raises(TamperError, match="none of the 0 that are trusted"):
        open_sealed(path, [party.identity], [])
    with pytest.raises(TamperError):
        verify_file(path, [])


def test_no_key_is_touched_before_the_publisher_is_verified(tmp_path: Path) -> None:
    class Untouchable:
        def unwrap(self, wrap: Wrap, context: bytes) -> bytes | None:
            raise AssertionError("touched")

    path = Party().seal(tmp_path / "x")
    with pytest.raises(TamperError):
        open_sealed(path, [Untouchable()], Party().publishers)


def test_files_lie_on_page_borders_and_are_read_only(tmp_path: Path) -> None:
    party = Party()
    path = party.seal(tmp_path / "x", [("a", b"1"), ("b", b"2" * 5000)])
    with open_sealed(path, [party.identity], party.publishers) as opened:
        for view in opened.files.values():
            assert view.readonly
            assert np.frombuffer(view, np.uint8).ctypes.data % 4096 == 0


def test_closing_wipes_the_memory_and_can_be_done_twice(tmp_path: Path) -> None:
    party = Party()
    path = party.seal(tmp_path / "x")
    opened = open_sealed(path, [party.identity], party.publishers)
    array = np.frombuffer(opened.files["model.bin"], np.uint8)
    view = opened.files["model.bin"]
    assert bytes(array) == b"weights"
    opened.close()
    opened.close()
    assert not array.any()
    assert repr(opened) == "<OpenedFiles ['model.bin'] closed>"
    del array, view


def test_a_closed_view_without_arrays_cannot_be_read(tmp_path: Path) -> None:
    party = Party()
    with open_sealed(party.seal(tmp_path / "x"), [party.identity], party.publishers) as opened:
        view = opened.files["model.bin"]
    with pytest.raises(ValueError, match="released"):
        bytes(view)


@pytest.mark.slow
@pytest.mark.parametrize("segment", [0, 1, 2])
@pytest.mark.parametrize("threads", [1, 2])
def test_what_was_decrypted_before_an_error_is_wiped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segment: int, threads: int
) -> None:
    left: list[bytes] = []

    class Watched(PrivateMemory):
        def release(self) -> None:
            left.append(bytes(self.view))
            super().release()

    monkeypatch.setattr(reader, "PrivateMemory", Watched)
    party = Party()
    parts = Parts.of(party.seal(tmp_path / "x", [("model.bin", b"\xff" * (3 * CAPACITY - 5000))]))
    # a segment that the publisher signed and that yet does not authenticate: decryption has begun by then
    broken = bytearray(parts.segments[segment])
    broken[-1] ^= 1
    parts.segments[segment] = bytes(broken)
    parts.redigest().resign(party.signer).write(tmp_path / "y")
    with pytest.raises(TamperError, match=f"segment {segment} of .*y does not authenticate"):
        party.open(tmp_path / "y", threads=threads)
    assert [content.strip(b"\0") for content in left] == [b""]


def test_a_payload_that_is_signed_but_broken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    party = Party()
    path = party.seal(tmp_path / "x")

    def refuse(payload: memoryview, *, what: str) -> None:
        raise FormatError(f"{what} has a manifest that {len(payload)} bytes do not hold")

    monkeypatch.setattr(reader, "decode_manifest", refuse)
    with pytest.raises(FormatError, match="do not hold"):
        party.open(path)


def test_a_file_key_of_another_length_is_refused(tmp_path: Path) -> None:
    class Odd:
        def unwrap(self, wrap: Wrap, context: bytes) -> bytes | None:
            return bytes(31)

    party = Party()
    with pytest.raises(TamperError, match="a file key of 31 bytes"):
        open_sealed(party.seal(tmp_path / "x"), [Odd()], party.publishers)

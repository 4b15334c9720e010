"""Keys in a TPM, with swtpm: round trips, other TPMs, other PCRs, PINs, and attacks on wraps."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError, KeysError, StorageError
from palladion.keys import Wrap
from palladion.seal.recipients import parse_identity, parse_recipient, read_identity, tpm_device, write_identity
from palladion.seal.recipients.tpm import TpmIdentity, TpmRecipient, generate_key, parse, parse_tpm_recipient
from palladion.seal.recipients.tpm_uri import TpmUri
from tests.seal.factories import Party
from tests.seal.recipients.tpm_vectors import KEY, TEXT
from tests.seal.recipients.tpms import Tpm, needs_swtpm, running

SECRET = bytes(range(32))
CONTEXT = b"context"
PIN = "correct horse"
RECIPIENT = TpmIdentity(KEY).recipient


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Tpm]:
    with running(tmp_path / "chip") as made:
        yield made


@pytest.fixture(autouse=True)
def no_pin_was_refused_before() -> Iterator[None]:
    tpm_device._refused.clear()
    yield
    tpm_device._refused.clear()


def new(tpm: Tpm, options: str = "", *, pin: str = PIN) -> TpmIdentity:
    return generate_key(f"tpm:?{options}{'&' if options else ''}tcti={tpm.tcti}", ask_pin=lambda _name: pin)


def again(identity: TpmIdentity, tpm: Tpm, *, pin: str = PIN) -> TpmIdentity:
    """The identity as another process has it, with the TPM at `tpm`."""
    return TpmIdentity(replace(identity.uri, tcti=tpm.tcti), ask_pin=lambda _name: pin)


@needs_swtpm
@pytest.mark.parametrize("options", ["", "pcrs=7", "pin=ask", "pcrs=0,7,16&pin=ask"])
def test_a_secret_survives_the_round_trip(tpm: Tpm, options: str) -> None:
    identity = new(tpm, options)
    wrap = identity.recipient.wrap(SECRET, CONTEXT)
    assert (wrap.kind, wrap.key_id, wrap.parameters, len(wrap.blob)) == ("tpm", identity.recipient.key_id, {}, 161)
    assert again(identity, tpm).unwrap(wrap, CONTEXT) == SECRET
    assert parse(str(identity), ask_pin=lambda _name: PIN).unwrap(wrap, CONTEXT) == SECRET


@needs_swtpm
def test_a_sealed_file_opens_with_the_tpm(tpm: Tpm, tmp_path: Path) -> None:
    party, identity = Party(), new(tpm)
    path = party.seal(tmp_path / "x", recipients=[party.identity.recipient, parse_recipient(str(identity.recipient))])
    assert party.open(path, identity) == party.open(path) == {"model.bin": b"weights"}


@needs_swtpm
def test_the_key_is_there_after_the_machine_was_started_again(tmp_path: Path) -> None:
    with running(tmp_path / "chip") as before:
        identity = new(before, "pcrs=7")
        wrap = identity.recipient.wrap(SECRET, CONTEXT)
    with running(tmp_path / "chip") as after:
        assert again(identity, after).unwrap(wrap, CONTEXT) == SECRET


@needs_swtpm
@pytest.mark.parametrize("options", ["", "pcrs=7", "pin=ask"])
def test_another_tpm_opens_nothing(tpm: Tpm, tmp_path: Path, options: str) -> None:
    identity = new(tpm, options)
    wrap = identity.recipient.wrap(SECRET, CONTEXT)
    with running(tmp_path / "stolen") as other, pytest.raises(KeysError, match="made in another one"):
        again(identity, other).unwrap(wrap, CONTEXT)


@needs_swtpm
@pytest.mark.parametrize("options", ["pcrs=7,16", "pcrs=16&pin=ask"])
def test_a_key_is_refused_once_something_else_was_started(tpm: Tpm, options: str) -> None:
    identity = new(tpm, options)
    wrap = identity.recipient.wrap(SECRET, CONTEXT)
    tpm.extend(5)
    assert again(identity, tpm).unwrap(wrap, CONTEXT) == SECRET
    tpm.extend(16)
    with pytest.raises(KeysError, match=r"PCR (7, )?16 hold other values") as caught:
        again(identity, tpm).unwrap(wrap, CONTEXT)
    assert "another recipient" in caught.value.hints[0]


@needs_swtpm
def test_a_pin_is_read_from_a_file_that_nobody_else_reads(tpm: Tpm, tmp_path: Path) -> None:
    file = tmp_path / "pin"
    file.write_text(f"{PIN}\n")
    file.chmod(0o600)
    identity = generate_key(f"tpm:?pin-source={file}&tcti={tpm.tcti}")
    wrap = identity.recipient.wrap(SECRET, CONTEXT)
    assert parse(str(identity)).unwrap(wrap, CONTEXT) == SECRET
    file.chmod(0o644)
    with pytest.raises(KeysError, match="others may read it"):
        parse(str(identity)).unwrap(wrap, CONTEXT)


@needs_swtpm
@pytest.mark.parametrize("pin", ["", "x" * 33])
def test_a_pin_that_no_tpm_takes_is_refused(tpm: Tpm, pin: str) -> None:
    with pytest.raises(KeysError, match="1 to 32 bytes"):
        new(tpm, "pin=ask", pin=pin)


@needs_swtpm
def test_without_anybody_to_ask_there_is_a_sentence(tpm: Tpm) -> None:
    with pytest.raises(KeysError, match="needs a PIN"):
        generate_key(f"tpm:?pin=ask&tcti={tpm.tcti}")


@needs_swtpm
def test_one_flipped_bit_is_found_in_every_part(tpm: Tpm) -> None:
    identity = new(tpm)
    wrap = identity.recipient.wrap(SECRET, CONTEXT)
    for place in [*range(0, len(wrap.blob), 9), len(wrap.blob) - 1]:
        blob = bytearray(wrap.blob)
        blob[place] ^= 1 << place % 8
        with pytest.raises(KeysError, match=r"open|damaged"):
            identity.unwrap(replace(wrap, blob=bytes(blob)), CONTEXT)


@needs_swtpm
def test_another_context_does_not_open(tpm: Tpm) -> None:
    identity = new(tpm)
    with pytest.raises(KeysError, match="moved here from another file"):
        identity.unwrap(identity.recipient.wrap(SECRET, CONTEXT), b"other")


@needs_swtpm
def test_a_key_is_proved_by_the_tpm_that_holds_it(tpm: Tpm, tmp_path: Path) -> None:
    identity = new(tpm)
    identity.prove()
    with running(tmp_path / "other") as other, pytest.raises(KeysError, match="made in another one"):
        again(identity, other).prove()


@needs_swtpm
def test_an_identity_file_names_the_key_and_is_no_secret(tpm: Tpm, tmp_path: Path) -> None:
    identity = new(tpm)
    path = tmp_path / "host.identity"
    write_identity(path, identity, created=datetime(2026, 1, 2, tzinfo=UTC))
    assert "of use with this machine's TPM only" in path.read_text()
    read = read_identity(path)
    assert isinstance(read, TpmIdentity)
    assert read.unwrap(identity.recipient.wrap(SECRET, CONTEXT), CONTEXT) == SECRET
    found = parse_identity(str(path))
    assert isinstance(found, TpmIdentity)
    assert found.recipient == identity.recipient


@pytest.mark.slow
def test_sealing_needs_no_tpm_and_no_library() -> None:
    program = (
        "import sys; from palladion.seal.recipients import parse_recipient; "
        "parse_recipient(sys.argv[1]).wrap(bytes(32), b'c'); print('tpm2_pytss' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(RECIPIENT)], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_recipient_has_one_text() -> None:
    text = str(RECIPIENT)
    assert text.startswith("pallr1t")
    assert parse_recipient(text) == parse_recipient(text.upper()) == parse_recipient(TEXT) == RECIPIENT
    assert parse_tpm_recipient(text).key_id == TpmIdentity(KEY).recipient.key_id


@given(st.binary(min_size=33, max_size=33))
def test_other_points_are_no_recipients(point: bytes) -> None:
    try:
        made = TpmRecipient(point)
    except ValueError:
        return
    assert parse_recipient(str(made)) == made  # half of all x have a point


def test_a_point_off_the_curve_is_refused_in_words() -> None:
    from palladion.seal.bech32 import encode_key

    with pytest.raises(FormatError, match="not a point of its curve"):
        parse_recipient(encode_key("pallr", b"\x02" + b"\xff" * 32, tag="t"))
    with pytest.raises(FormatError, match="33 bytes"):
        parse_recipient(encode_key("pallr", bytes(32), tag="t"))


def test_wraps_of_others_and_of_other_forms_never_reach_a_tpm() -> None:
    identity = TpmIdentity(replace(KEY, tcti="swtpm:path=/missing"))
    wrap = identity.recipient.wrap(SECRET, CONTEXT)
    assert identity.unwrap(replace(wrap, kind="x25519"), CONTEXT) is None
    assert identity.unwrap(replace(wrap, key_id="0" * 16), CONTEXT) is None
    for broken in (
        replace(wrap, parameters={"pcrs": "7"}),
        replace(wrap, blob=wrap.blob[:-1]),
        replace(wrap, blob=wrap.blob + b"\0"),
        replace(wrap, blob=b""),
    ):
        with pytest.raises(FormatError):
            identity.unwrap(broken, CONTEXT)
    with pytest.raises(KeysError, match="damaged"):
        identity.unwrap(replace(wrap, blob=wrap.blob[:80] + b"\x02" + b"\xff" * 32 + wrap.blob[113:]), CONTEXT)


def test_a_name_without_a_key_is_no_identity() -> None:
    with pytest.raises(FormatError, match="names no key"):
        parse_identity("tpm:?pcrs=7")
    with pytest.raises(FormatError, match="cannot hold one already"):
        generate_key(TEXT)
    with pytest.raises(ValueError, match="still to be made"):
        TpmIdentity(TpmUri())


def test_nothing_secret_is_printed() -> None:
    identity = TpmIdentity(KEY, ask_pin=lambda _name: PIN)
    identity._pin = PIN
    assert PIN not in repr(identity) + str(identity)
    assert not hasattr(identity, "__dict__")


def test_an_identity_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "host.identity"
    path.write_text(f"{TEXT}\n")
    path.chmod(0o644)
    with pytest.raises(KeysError, match="others may read it"):
        read_identity(path)
    with pytest.raises(StorageError):
        read_identity(tmp_path / "missing")


def test_a_wrap_is_another_one_each_time() -> None:
    wraps = {RECIPIENT.wrap(SECRET, CONTEXT).blob for _ in range(4)}
    assert len(wraps) == 4
    assert isinstance(RECIPIENT.wrap(SECRET, CONTEXT), Wrap)

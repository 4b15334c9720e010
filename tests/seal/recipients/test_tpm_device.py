"""Visits to a TPM: who is spoken to, what can be heard, how often a PIN is tried, and what is left behind."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from palladion.errors import KeysError, NotFoundError
from palladion.seal.recipients import tpm_device
from palladion.seal.recipients.tpm import TpmIdentity, generate_key
from palladion.seal.recipients.tpm_public import STORAGE_PRIMARY, point_key
from tests.seal.recipients.tpm_vectors import KEY
from tests.seal.recipients.tpms import Tpm, needs_swtpm, overheard, running

SECRET = bytes(range(32))


CONTEXT = b"context"


PIN = "correct horse"


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
def test_another_tpm_does_not_even_load_the_key_where_its_parent_is_not_compared(tpm: Tpm, tmp_path: Path) -> None:
    """Whoever rewrites the parent's name in a copied identity is stopped by the TPM itself."""
    identity = new(tpm)
    wrap = identity.recipient.wrap(SECRET, CONTEXT)
    with running(tmp_path / "stolen") as other:
        theirs = new(other)
        forged = TpmIdentity(replace(identity.uri, tcti=other.tcti, parent_name=theirs.uri.parent_name))
        with pytest.raises(KeysError, match="made in another one"):
            forged.unwrap(wrap, CONTEXT)


@needs_swtpm
def test_an_answer_of_another_parent_is_refused_before_anything_is_said_to_it(tpm: Tpm) -> None:
    identity = new(tpm)
    forged = TpmIdentity(replace(identity.uri, parent_name=b"\0\x0b" + bytes(32)))
    with pytest.raises(KeysError, match="made in another one"):
        forged.unwrap(identity.recipient.wrap(SECRET, CONTEXT), CONTEXT)


@needs_swtpm
def test_a_policy_cannot_be_taken_out_of_the_name(tpm: Tpm) -> None:
    identity = new(tpm, "pcrs=16")
    wrap = identity.recipient.wrap(SECRET, CONTEXT)
    tpm.extend(16)
    for pcrs in ((), (7,)):
        with pytest.raises(KeysError):
            TpmIdentity(replace(identity.uri, pcrs=pcrs)).unwrap(wrap, CONTEXT)


@needs_swtpm
@pytest.mark.parametrize("options", ["pin=ask", "pcrs=7&pin=ask"])
def test_a_wrong_pin_is_refused_once_and_not_tried_again(tpm: Tpm, options: str) -> None:
    identity = new(tpm, options)
    wrap = identity.recipient.wrap(SECRET, CONTEXT)
    with pytest.raises(KeysError, match="refuses the PIN") as caught:
        again(identity, tpm, pin="wrong").unwrap(wrap, CONTEXT)
    assert "wrong PINs lock" in caught.value.hints[0]
    with pytest.raises(KeysError, match="is not asked again"):
        again(identity, tpm).unwrap(wrap, CONTEXT)
    tpm_device._refused.clear()  # another process
    assert again(identity, tpm).unwrap(wrap, CONTEXT) == SECRET


@needs_swtpm
def test_no_pin_is_tried_where_one_more_would_lock_the_tpm(tpm: Tpm) -> None:
    identity = new(tpm, "pin=ask")
    wrap = identity.recipient.wrap(SECRET, CONTEXT)
    refusals = []
    for _ in range(5):
        tpm_device._refused.clear()
        with pytest.raises(KeysError) as caught:
            again(identity, tpm, pin="wrong").unwrap(wrap, CONTEXT)
        refusals.append(caught.value.message)
    assert "one wrong PIN away" in refusals[-1]
    assert sum("refuses the PIN" in message for message in refusals) == 2  # swtpm locks at the third
    # a key without a PIN goes on: it is left out of what the TPM locks
    other = new(tpm)
    assert other.unwrap(other.recipient.wrap(SECRET, CONTEXT), CONTEXT) == SECRET


@needs_swtpm
def test_a_key_under_a_persistent_parent_opens(tpm: Tpm) -> None:
    """Where somebody owns the TPM and its hierarchy has a password, a key that he has left there is the parent."""
    tss = tpm_device.library()
    shape, _ = tss.TPMT_PUBLIC.unmarshal(STORAGE_PRIMARY)
    with tpm_device.visit(tpm.tcti) as esys:
        owner = tss.ESYS_TR.OWNER
        parent, *_ = esys.create_primary(tss.TPM2B_SENSITIVE_CREATE(), tss.TPM2B_PUBLIC(shape), owner)
        esys.evict_control(owner, parent, 0x81000001)
        esys.flush_context(parent)
        esys.hierarchy_change_auth(owner, b"owned")
    identity = new(tpm, "parent=81000001")
    assert again(identity, tpm).unwrap(identity.recipient.wrap(SECRET, CONTEXT), CONTEXT) == SECRET
    with pytest.raises(KeysError, match="response code") as caught:
        new(tpm)
    assert "parent=81000001" in caught.value.hints[0]


@needs_swtpm
def test_nothing_is_left_in_the_tpm(tpm: Tpm) -> None:
    """More visits than it has places for keys and sessions."""
    identity = new(tpm, "pcrs=7")
    wrap = identity.recipient.wrap(SECRET, CONTEXT)
    wrong = replace(wrap, blob=wrap.blob[:-1] + bytes([wrap.blob[-1] ^ 1]))
    for _ in range(6):
        assert identity.unwrap(wrap, CONTEXT) == SECRET
        with pytest.raises(KeysError):
            identity.unwrap(wrong, CONTEXT)
    tpm.extend(7)
    for _ in range(6):
        with pytest.raises(KeysError, match="other values"):
            identity.unwrap(wrap, CONTEXT)


@needs_swtpm
def test_whoever_listens_between_processor_and_tpm_sees_no_secret(tpm: Tpm, monkeypatch: pytest.MonkeyPatch) -> None:
    agreed: list[bytes] = []
    agree = tpm_device.agree

    def noted(*given: Any) -> bytes:
        agreed.append(agree(*given))
        return agreed[-1]

    monkeypatch.setattr(tpm_device, "agree", noted)
    with overheard(tpm) as (on_the_way, said):
        identity = new(on_the_way, "pcrs=7&pin=ask")
        assert identity.unwrap(identity.recipient.wrap(SECRET, CONTEXT), CONTEXT) == SECRET
    point = point_key(identity.recipient.point).public_numbers()
    assert point.x.to_bytes(32, "big") in said  # public: so it is the whole conversation
    assert len(agreed) == 2
    assert not any(secret in said for secret in [*agreed, PIN.encode(), SECRET])


@needs_swtpm
def test_a_tpm_that_is_not_there_is_a_sentence() -> None:
    identity = TpmIdentity(replace(KEY, tcti="swtpm:path=/missing"))
    with pytest.raises(NotFoundError, match="no TPM answers at swtpm:path=/missing"):
        identity.unwrap(identity.recipient.wrap(SECRET, CONTEXT), CONTEXT)

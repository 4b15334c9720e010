"""The TPM's side, with swtpm: quotes, and the enrolment of a key by its maker's certificate."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from palladion.attest.roots import Roots
from palladion.attest.tpm import device
from palladion.attest.tpm.credential import accept, challenge
from palladion.attest.tpm.verifier import verify
from palladion.errors import KeysError, NotFoundError
from tests.attest.synthetic import ENDORSEMENT, NOW, certify, purposes
from tests.attest.tpm.vectors import QUOTES
from tests.seal.recipients.tpms import Tpm, needs_swtpm, running

MAKER = ec.generate_private_key(ec.SECP256R1())
ROOT = certify("a maker", MAKER, "a maker", MAKER, authority=True)
ROOTS = Roots({"tpm": (ROOT,)})
PUBLIC = bytes.fromhex(QUOTES["ecdsa"]["public"])


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Tpm]:
    with running(tmp_path / "chip") as made:
        yield made


def endorsed(key: Any) -> bytes:
    """The certificate that a maker gives an endorsement key."""

    class Holder:
        @staticmethod
        def public_key() -> Any:
            return key

    holder: Any = Holder()
    return certify("EK", holder, "a maker", MAKER, extensions=purposes(ENDORSEMENT))


def endorsement_of(tpm: Tpm) -> rsa.RSAPublicKey:
    modulus = int.from_bytes(device.endorsement_key(tcti=tpm.tcti)[-256:], "big")
    return rsa.RSAPublicNumbers(65537, modulus).public_key()


@needs_swtpm
def test_an_enrolled_keys_quotes_verify(tpm: Tpm) -> None:
    # 1. enrolled: the maker's certificate, a challenge, and the TPM's answer
    asked = challenge((endorsed(endorsement_of(tpm)),), device.signing_key(tcti=tpm.tcti), at=NOW, roots=ROOTS)
    trusted = accept(asked, device.activate(asked.credential, asked.encrypted_seed, tcti=tpm.tcti))
    # 2. quoted, after something else was started
    tpm.extend(7)
    evidence = device.attest(nonce=b"n" * 32, pcrs=[7, 0, 7], tcti=tpm.tcti)
    claims = verify(evidence, at=NOW, roots=Roots({"tpm": (trusted,)}))

    assert claims.bound == b"n" * 32
    assert set(claims.measurements) == {"pcr0", "pcr7"}
    assert claims.measurements["pcr7"] == tpm.pcr(7).hex() != bytes(32).hex()


@needs_swtpm
def test_the_key_is_the_same_at_each_start_and_another_in_another_tpm(tmp_path: Path) -> None:
    with running(tmp_path / "a") as one:
        first = device.signing_key(tcti=one.tcti)
    with running(tmp_path / "a") as again, running(tmp_path / "b") as other:
        assert device.signing_key(tcti=again.tcti) == first
        assert device.signing_key(tcti=other.tcti) != first


@needs_swtpm
def test_a_tpm_does_not_answer_for_a_key_of_another_one(tpm: Tpm, tmp_path: Path) -> None:
    mine = (endorsed(endorsement_of(tpm)),)
    asked = challenge(mine, PUBLIC, at=NOW, roots=ROOTS)  # a key that lies elsewhere
    with pytest.raises(KeysError, match="response code"):
        device.activate(asked.credential, asked.encrypted_seed, tcti=tpm.tcti)
    with running(tmp_path / "other") as other:
        asked = challenge(mine, device.signing_key(tcti=tpm.tcti), at=NOW, roots=ROOTS)
        with pytest.raises(KeysError, match="response code"):
            device.activate(asked.credential, asked.encrypted_seed, tcti=other.tcti)


@needs_swtpm
def test_a_makers_certificate_is_read_whole(tpm: Tpm) -> None:
    """Of more bytes than a TPM gives at once, at the place and with the rights that TCG's profile states."""
    tss = import_module("tpm2_pytss")
    certificate = b"\x30\x82\x05\x00" + bytes(range(256)) * 5
    flags = tss.TPMA_NV.AUTHREAD | tss.TPMA_NV.OWNERWRITE | tss.TPMA_NV.NO_DA
    shape = tss.TPMS_NV_PUBLIC(
        nvIndex=0x01C00002, nameAlg=tss.TPM2_ALG.SHA256, attributes=flags, dataSize=len(certificate) + 40
    )
    filled = certificate + bytes(40)
    with tss.ESAPI(tpm.tcti) as esys:
        index = esys.nv_define_space(b"", tss.TPM2B_NV_PUBLIC(shape))
        for place in range(0, len(filled), 512):
            esys.nv_write(index, filled[place : place + 512], place, tss.ESYS_TR.OWNER)
    assert device.endorsement_certificate(tcti=tpm.tcti) == certificate


@needs_swtpm
def test_a_tpm_without_a_certificate_says_so(tpm: Tpm) -> None:
    with pytest.raises(NotFoundError, match="holds no certificate"):
        device.endorsement_certificate(tcti=tpm.tcti)


@needs_swtpm
def test_a_tpm_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(NotFoundError, match="no TPM answers"):
        device.signing_key(tcti="swtpm:path=/missing")


@pytest.mark.parametrize(("nonce", "pcrs"), [(bytes(67), [0]), (b"", []), (b"", [24])])
def test_other_requests_are_the_callers_mistake(nonce: bytes, pcrs: list[int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        device.attest(nonce=nonce, pcrs=pcrs)

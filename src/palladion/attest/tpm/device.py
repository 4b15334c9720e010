"""On a machine with a TPM: its attestation key, quotes of its PCRs, and its answer when the key is enrolled.

The key is a primary of the endorsement hierarchy, made again from the TPM's own seed whenever it is needed: nothing has
to be kept, and clearing the TPM's owner does not change it.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from threading import Lock
from types import ModuleType
from typing import Any, TypeAlias

from palladion.attest.evidence import Evidence
from palladion.attest.tpm.structures import NONCE_BYTES_MAX, PCRS, parse_signing_key
from palladion.errors import KeysError, MissingExtraError, NotFoundError

DEVICE = "device:/dev/tpmrm0"
Esys: TypeAlias = Any  # a tpm2_pytss.ESAPI; the extra may be missing where this is type-checked
# Restricted signing, P-256, ECDSA with SHA-256, fixed to this TPM.
_SIGNING = bytes.fromhex("0023 000b 00050472 0000 0010 0018 000b 0003 0010 0000 0000")
# TCG EK Credential Profile 2.x, template L-1: the RSA 2048 endorsement key that makers certify.
_ENDORSEMENT = (
    bytes.fromhex("0001 000b 000300b2 0020 837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
    + bytes.fromhex("0006 0080 0043 0010 0800 00000000 0100")
    + bytes(256)
)
_CERTIFICATE_INDEX = 0x01C00002  # where that key's certificate lies
_NV_BYTES_MAX = 8 * 1024
_visits = Lock()


def attest(*, nonce: bytes, pcrs: Sequence[int], certificates: tuple[bytes, ...] = (), tcti: str = DEVICE) -> Evidence:
    """A fresh quote of `pcrs` (SHA-256 bank) over `nonce`, with their values, and the key's chain where there is one.

    Raises NotFoundError without a TPM, KeysError if it refuses, MissingExtraError without the `tpm` extra.
    """
    if len(nonce) > NONCE_BYTES_MAX or not pcrs or any(index not in PCRS for index in pcrs):
        raise ValueError(
            f"a nonce of {len(nonce)} bytes and PCR {list(pcrs)}, expected up to {NONCE_BYTES_MAX}, and some"
        )
    selection = "sha256:" + ",".join(str(index) for index in sorted(set(pcrs)))
    with _visit(tcti) as esys, _primary(esys, _SIGNING) as (key, public):
        attested, signature = esys.quote(key, selection, nonce)
        values = _values(esys, sorted(set(pcrs)))
    body = bytes(attested)
    document = len(body).to_bytes(2, "big") + body + signature.marshal()
    collateral: dict[str, object] = {"pcrs": {str(index): value.hex() for index, value in values.items()}}
    if not certificates:
        collateral |= {"key": parse_signing_key(public).spki.hex()}
    return Evidence("tpm", document, certificates, json.dumps(collateral).encode())


def signing_key(*, tcti: str = DEVICE) -> bytes:
    """The TPMT_PUBLIC of the key that signs quotes, to be enrolled."""
    with _visit(tcti) as esys, _primary(esys, _SIGNING) as (_, public):
        return public


def endorsement_certificate(*, tcti: str = DEVICE) -> bytes:
    """The endorsement key's certificate in DER, as the maker left it in the TPM. Raises NotFoundError if it did not."""
    with _visit(tcti) as esys:
        tss = _library()
        try:
            index = esys.tr_from_tpmpublic(_CERTIFICATE_INDEX)
        except tss.TSS2_Exception:
            raise NotFoundError("the TPM holds no certificate of its RSA key", "its maker may publish it") from None
        public, _ = esys.nv_read_public(index)
        size = min(int(public.nvPublic.dataSize), _NV_BYTES_MAX)
        step = 512  # every TPM gives so much at once
        parts = [bytes(esys.nv_read(index, min(step, size - at), at, index)) for at in range(0, size, step)]
    data = b"".join(parts)
    # makers reserve more room than they fill: DER says where it ends
    return data[: 4 + int.from_bytes(data[2:4], "big")] if data[:2] == b"\x30\x82" else data


def activate(credential: bytes, encrypted_seed: bytes, *, tcti: str = DEVICE) -> bytes:
    """The secret of a challenge (credential.py). Raises KeysError if it is for another TPM or another key."""
    with _visit(tcti) as esys, _primary(esys, _SIGNING) as (key, _), _primary(esys, _ENDORSEMENT) as (endorsement, _):
        tss = _library()
        cipher = tss.TPMT_SYM_DEF(algorithm=tss.TPM2_ALG.NULL)
        session = esys.start_auth_session(
            tss.ESYS_TR.NONE, tss.ESYS_TR.NONE, tss.TPM2_SE.POLICY, cipher, tss.TPM2_ALG.SHA256
        )
        try:
            esys.policy_secret(tss.ESYS_TR.ENDORSEMENT, session, b"", b"", b"", 0)
            blob, _ = tss.TPM2B_ID_OBJECT.unmarshal(credential)
            seed, _ = tss.TPM2B_ENCRYPTED_SECRET.unmarshal(encrypted_seed)
            return bytes(esys.activate_credential(key, endorsement, blob, seed, session2=session))
        finally:
            esys.flush_context(session)


def endorsement_key(*, tcti: str = DEVICE) -> bytes:
    """The TPMT_PUBLIC of the RSA endorsement key."""
    with _visit(tcti) as esys, _primary(esys, _ENDORSEMENT) as (_, public):
        return public


def _values(esys: Esys, pcrs: Sequence[int]) -> dict[int, bytes]:
    """Their values; a TPM gives up to eight at once."""
    found = {}
    for index in pcrs:
        _, _, digests = esys.pcr_read(f"sha256:{index}")
        found[index] = bytes(digests[0])
    return found


@contextmanager
def _primary(esys: Esys, shape: bytes) -> Iterator[tuple[Any, bytes]]:
    tss = _library()
    wanted, _ = tss.TPMT_PUBLIC.unmarshal(shape)
    handle, public, *_ = esys.create_primary(
        tss.TPM2B_SENSITIVE_CREATE(), tss.TPM2B_PUBLIC(wanted), tss.ESYS_TR.ENDORSEMENT
    )
    try:
        yield handle, public.publicArea.marshal()
    finally:
        esys.flush_context(handle)


@contextmanager
def _visit(tcti: str) -> Iterator[Esys]:
    tss = _library()
    quiet = {"TSS2_LOG": "all+NONE"} if "TSS2_LOG" not in os.environ else {}
    with _visits:
        os.environ.update(quiet)  # it prints what is explained here; the environment is asked once
        try:
            try:
                esys = tss.ESAPI(tcti)
            except (tss.TSS2_Exception, RuntimeError):
                raise NotFoundError(
                    f"no TPM answers at {tcti}", "check that it exists and that this user may use it (group tss)"
                ) from None
            with esys:
                yield esys
        except tss.TSS2_Exception as error:
            raise KeysError(
                f"the TPM refuses: response code 0x{error.rc:x}", f"tpm2_rc_decode 0x{error.rc:x}"
            ) from None
        finally:
            for name in quiet:
                os.environ.pop(name, None)


def _library() -> ModuleType:
    try:
        return import_module("tpm2_pytss")
    except (ImportError, RuntimeError):
        raise MissingExtraError(
            "evidence of a TPM needs tpm2-pytss", "apt-get install libtss2-dev, then pip install 'palladion[tpm]'"
        ) from None

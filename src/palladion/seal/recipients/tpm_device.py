"""One visit to a TPM: make a key under its storage hierarchy, or have one agree on a secret, and leave nothing loaded.

Every command that matters goes through a session that is salted to the parent key, whose name the identity pins: its
parameters are encrypted and authenticated on the way (TPM 2.0 Library, Part 1, §19.6 and §21), so that whoever listens
between processor and TPM, or answers for it, sees no secret and cannot make one up. A visit to swtpm takes some 20 ms.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib import import_module
from threading import Lock
from types import ModuleType
from typing import Any, TypeAlias

from palladion.errors import KeysError, MissingExtraError, NotFoundError, PalladionError
from palladion.seal.recipients.tpm_public import (
    COORDINATE_BYTES,
    STORAGE_PRIMARY,
    TpmPublic,
    point_key,
    template,
)
from palladion.seal.recipients.tpm_uri import OWNER, TpmUri

Esys: TypeAlias = Any  # a tpm2_pytss.ESAPI; the extra may be missing where this is type-checked
PIN_BYTES_MAX = 32  # a TPM takes as many as its key's name algorithm gives: SHA-256

_visits = Lock()  # of this process; the kernel's resource manager keeps processes apart
# keys whose PIN was refused: a TPM counts wrong ones and locks itself for minutes or hours, so none is tried after that
_refused: set[bytes] = set()


@dataclass(frozen=True)
class _Loaded:
    """A TPM with the parent key at hand, and an encrypted session of the wanted kind under it."""

    esys: Esys
    parent: Any
    parent_name: bytes


def library() -> ModuleType:
    """The library that speaks to TPMs. Raises MissingExtraError if it is not installed."""
    try:
        return import_module("tpm2_pytss")
    except (ImportError, RuntimeError):
        # it is a RuntimeError where TPM2-TSS's own libraries are older than it needs
        raise MissingExtraError(
            "a key in a TPM needs tpm2-pytss",
            "apt-get install libtss2-dev, then pip install 'palladion[tpm]'",
        ) from None


@contextmanager
def visit(tcti: str) -> Iterator[Esys]:
    """A connection to a TPM, one at a time. Raises NotFoundError if there is none, KeysError if it refuses or fails."""
    tss = library()
    with _visits, _without_logs():
        try:
            esys = tss.ESAPI(tcti)
        except (tss.TSS2_Exception, RuntimeError):
            raise NotFoundError(
                f"no TPM answers at {tcti}",
                "check that the device exists and that this user may use it (group tss), or name another with tcti=…",
            ) from None
        with plain_errors():
            try:
                yield esys
            finally:
                esys.close()


def make_key(uri: TpmUri, pin: str | None) -> TpmUri:
    """Make the key that `uri` describes; the result holds its two halves and its parent's name."""
    tss = library()
    with _parent(uri) as loaded:
        esys = loaded.esys
        policy = b""
        if uri.pcrs:
            with _session(loaded, uri, tss.TPM2_SE.TRIAL) as trial:
                policy = bytes(esys.policy_get_digest(trial))
        sensitive = tss.TPM2B_SENSITIVE_CREATE(tss.TPMS_SENSITIVE_CREATE(userAuth=(pin or "").encode()))
        shape, _ = tss.TPMT_PUBLIC.unmarshal(template(policy=policy, pin=pin is not None))
        with _session(loaded, uri, tss.TPM2_SE.HMAC) as session:
            private, public, *_ = esys.create(loaded.parent, sensitive, tss.TPM2B_PUBLIC(shape), session1=session)
        made = TpmPublic.parse(public.publicArea.marshal())
        if made.policy != policy:
            raise KeysError("the TPM made a key with another policy than it was asked for")
        return replace(uri, public=made, private=bytes(private), parent_name=loaded.parent_name)


def agree(uri: TpmUri, point: bytes, pin: Callable[[], str] | None) -> bytes:
    """What the key and the key of `point` (33 bytes, checked) agree on: 32 bytes, the x coordinate (ECDH).

    `pin` is asked where the key has one. Raises KeysError if the TPM is another one, its PCRs have changed, or the PIN
    is wrong.
    """
    tss = library()
    public = uri.public
    if public is None:
        raise ValueError("a key that is still to be made")
    numbers = point_key(point).public_numbers()
    given = tss.TPM2B_ECC_POINT(
        tss.TPMS_ECC_POINT(x=numbers.x.to_bytes(COORDINATE_BYTES, "big"), y=numbers.y.to_bytes(COORDINATE_BYTES, "big"))
    )
    with _parent(uri) as loaded:
        esys = loaded.esys
        if uri.has_pin:
            _check_tries(esys, uri)
        shape, _ = tss.TPMT_PUBLIC.unmarshal(public.data)
        with _session(loaded, uri, tss.TPM2_SE.HMAC) as session, _reading(loaded, uri):
            key = esys.load(loaded.parent, tss.TPM2B_PRIVATE(uri.private), tss.TPM2B_PUBLIC(shape), session1=session)
        try:
            if pin is not None:
                esys.tr_set_auth(key, pin())
            kind = tss.TPM2_SE.POLICY if uri.pcrs else tss.TPM2_SE.HMAC
            with _session(loaded, uri, kind) as session, _using(uri):
                result = esys.ecdh_zgen(key, given, session1=session)
        finally:
            esys.flush_context(key)
        x = bytes(result.point.x)
    return x.rjust(COORDINATE_BYTES, b"\0")


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what the library raises into a KeysError that names the TPM's response code."""
    tss = library()
    try:
        yield
    except tss.TSS2_Exception as error:
        raise KeysError(f"the TPM failed: response code 0x{error.rc:x}", _hint(error.rc)) from None


@contextmanager
def _parent(uri: TpmUri) -> Iterator[_Loaded]:
    tss = library()
    with visit(uri.tcti) as esys:
        if uri.parent == OWNER:
            shape, _ = tss.TPMT_PUBLIC.unmarshal(STORAGE_PRIMARY)
            handle, public, *_ = esys.create_primary(
                tss.TPM2B_SENSITIVE_CREATE(), tss.TPM2B_PUBLIC(shape), tss.ESYS_TR.OWNER
            )
        else:
            handle = esys.tr_from_tpmpublic(int(uri.parent, 16))
            public, *_ = esys.read_public(handle)
        try:
            # its name is a digest of the public key that the session's salt is encrypted to
            name = b"\0\x0b" + sha256(public.publicArea.marshal()).digest()
            if bytes(esys.tr_get_name(handle)) != name or uri.parent_name not in (b"", name):
                raise _another_tpm()
            yield _Loaded(esys, handle, name)
        finally:
            if uri.parent == OWNER:
                esys.flush_context(handle)
            else:
                esys.tr_close(handle)


@contextmanager
def _session(loaded: _Loaded, uri: TpmUri, kind: Any) -> Iterator[Any]:
    tss = library()
    esys = loaded.esys
    cipher = tss.TPMT_SYM_DEF(
        algorithm=tss.TPM2_ALG.AES,
        keyBits=tss.TPMU_SYM_KEY_BITS(aes=128),
        mode=tss.TPMU_SYM_MODE(aes=tss.TPM2_ALG.CFB),
    )
    session = esys.start_auth_session(loaded.parent, tss.ESYS_TR.NONE, kind, cipher, tss.TPM2_ALG.SHA256)
    try:
        flags = tss.TPMA_SESSION
        esys.trsess_set_attributes(session, flags.DECRYPT | flags.ENCRYPT | flags.CONTINUESESSION)
        if kind != tss.TPM2_SE.HMAC:
            esys.policy_pcr(session, b"", "sha256:" + ",".join(map(str, uri.pcrs)))
            if uri.has_pin:
                esys.policy_auth_value(session)
        yield session
    finally:
        esys.flush_context(session)


@contextmanager
def _reading(loaded: _Loaded, uri: TpmUri) -> Iterator[None]:
    """Say what it means when a TPM does not take a key: it is another's, or the text is damaged."""
    tss = library()
    try:
        yield
    except tss.TSS2_Exception as error:
        if _code(error) not in (tss.TPM2_RC.INTEGRITY, tss.TPM2_RC.SIZE, tss.TPM2_RC.BINDING, tss.TPM2_RC.HASH):
            raise
        raise _another_tpm() from None


@contextmanager
def _using(uri: TpmUri) -> Iterator[None]:
    tss = library()
    try:
        yield
    except tss.TSS2_Exception as error:
        code = _code(error)
        if code in (tss.TPM2_RC.POLICY_FAIL, tss.TPM2_RC.PCR_CHANGED):
            raise KeysError(
                f"the TPM refuses its key: PCR {', '.join(map(str, uri.pcrs))} hold other values than when it was made",
                "other firmware, boot settings or kernel were started; if that was you, open with another recipient, "
                "and palladion rewrap to a new key",
            ) from None
        if code in (tss.TPM2_RC.AUTH_FAIL, tss.TPM2_RC.BAD_AUTH):
            _refused.add(uri.private)
            raise KeysError(
                "the TPM refuses the PIN", "correct it before you try again: wrong PINs lock the TPM"
            ) from None
        if code == tss.TPM2_RC.LOCKOUT:
            raise _locked() from None
        raise


def _check_tries(esys: Esys, uri: TpmUri) -> None:
    """Refuse to try a PIN where one more wrong one would lock the TPM, or has: a service that restarts must not."""
    tss = library()
    if uri.private in _refused:
        raise KeysError(
            "the TPM has refused the PIN once, and is not asked again: wrong PINs lock it",
            "correct the PIN, and start this program again",
        )
    wanted = (tss.TPM2_PT.LOCKOUT_COUNTER, tss.TPM2_PT.MAX_AUTH_FAIL)
    counts = {}
    for name in wanted:
        _, answer = esys.get_capability(tss.TPM2_CAP.TPM_PROPERTIES, name, 1)
        listed = answer.data.tpmProperties
        counts[name] = next((int(row.value) for row in listed if row.property == name), 0)
    if counts[wanted[0]] + 1 >= counts[wanted[1]]:
        raise _locked()


def _locked() -> KeysError:
    return KeysError(
        "the TPM is locked against guessing, or one wrong PIN away from it: no PIN is tried",
        "wait until it forgets (tpm2_getcap properties-variable says how long), or reset it with its lockout password",
    )


def _another_tpm() -> PalladionError:
    return KeysError(
        "this TPM does not know the key: it was made in another one, or this one was cleared",
        "open with another recipient, and palladion rewrap to a key of this TPM",
    )


def _code(error: Any) -> int:
    return int(error.error if error.fmt1 else error.rc)


def _hint(code: int) -> str:
    tss = library()
    if code & 0xFFF in (tss.TPM2_RC.LOCKOUT, tss.TPM2_RC.RETRY):
        return "it is busy, or locked against guessing: wait, and try again"
    return f"tpm2_rc_decode 0x{code:x} says what it means; its owner's password may be set: name a parent=81000001 then"


@contextmanager
def _without_logs() -> Iterator[None]:
    """Keep TPM2-TSS from printing what we explain ourselves; it asks the environment once, when it first has a line."""
    if "TSS2_LOG" in os.environ:
        yield
        return
    os.environ["TSS2_LOG"] = "all+NONE"
    try:
        yield
    finally:
        os.environ.pop("TSS2_LOG", None)

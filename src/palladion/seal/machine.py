"""The customer's side of a licence: what a machine can show of itself, what it remembers, and what it asks for.

Reads `/etc`, `/sys` and a pod's files under a root that is handed in. Digests leave this module, raw serial numbers do
not (docs/licenses.md).
"""

import base64
import binascii
import fcntl
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, get_args

import msgspec

from palladion import canonical
from palladion.clock import parse_timestamp, timestamp
from palladion.errors import FormatError, PalladionError
from palladion.files import PRIVATE_FILE, make_private_directory, read_limited, storage_errors, write_atomically
from palladion.keys import Identity
from palladion.seal.recipients import FileIdentity, HybridIdentity, TpmIdentity

MachineKind = Literal["host", "machine-id", "vm", "pod", "tpm"]
KINDS: Final[tuple[MachineKind, ...]] = get_args(MachineKind)

FACT_BYTES_MAX = 4096  # of a file in /etc or /sys that holds one line
TOKEN_BYTES_MAX = 16 * 1024  # of a service account's token, which has about 1 KiB
CHALLENGE_BYTES_MAX = 16 * 1024  # ours has about 1 KiB, 3 KiB with a hybrid recipient
SEEN_BYTES_MAX = 1024 * 1024  # 4,096 licences, and the lists of as many publishers as anybody pins
LICENSES_SEEN_MAX = 4096  # each was signed by a pinned publisher; forgetting one would let its old files back in
PENDING_MAX = 16  # requests that wait for an answer; the oldest is given up
CLOCK_TOLERANCE = timedelta(minutes=5)  # what Kerberos allows between clocks that nobody tampers with (RFC 4120)
RECIPIENT_CHARACTERS_MAX = 2500  # a hybrid one has 1,959
SHOWN_MAX = 16  # digests of one kind: a machine has a few identities and one board

SEEN_FILE = "licenses.json"

Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Serial = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
Positive = Annotated[int, msgspec.Meta(ge=1, le=canonical.INTEGER_MAX)]

_Result = TypeVar("_Result")
_SerialOrNone = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{32})?\Z")]

_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_INSTANCE = re.compile(r"i-[0-9a-f]{8,32}")  # EC2 puts the instance's id where boards have their asset tag
# what boards say that were never given a number of their own: thousands share it
_PLACEHOLDERS = frozenset({"03000200-0400-0500-0006-000700080009", "12345678-1234-5678-90ab-cddeefaabbcc"})
_ACCOUNT = Path("var/run/secrets/kubernetes.io/serviceaccount")
_DOWNWARD = Path("etc/podinfo")  # where the documentation of Kubernetes mounts the downward API


@dataclass(frozen=True)
class Machine:
    """What one machine can show: digests by kind, the best first, and for each kind that it cannot show, why."""

    shown: Mapping[MachineKind, tuple[str, ...]]
    missing: Mapping[MachineKind, str] = field(default_factory=dict)

    def pick(self, kinds: Iterable[MachineKind]) -> dict[MachineKind, str]:
        """The entry of a licence that binds it to all of `kinds` of this machine. Raises PalladionError."""
        entry: dict[MachineKind, str] = {}
        for kind in kinds:
            if not self.shown.get(kind):
                raise PalladionError(
                    f"the machine shows no {kind}: {self._why(kind)}", "bind the licence to another kind"
                )
            entry[kind] = self.shown[kind][0]
        return entry

    def mismatch(self, entry: Mapping[MachineKind, str]) -> str | None:
        """Why this machine is not the one of a licence's `entry`; None if every kind in it fits."""
        for kind, digest in entry.items():
            if not self.shown.get(kind):
                return f"its {kind} cannot be read: {self._why(kind)}"
            if digest not in self.shown[kind]:
                return f"its {kind} is {self.shown[kind][0][:16]}…, the licence names {digest[:16]}…"
        return None

    def _why(self, kind: MachineKind) -> str:
        return self.missing.get(kind, "it was not looked for")


def machine_digest(kind: MachineKind, value: str) -> str:
    """What a licence states in place of a raw identifier: SHA-256 under a domain for each kind, in hex."""
    return sha256(f"palladion/v1/machine/{kind}/".encode() + value.encode()).hexdigest()


def host_texts(identities: Sequence[Identity]) -> list[str]:
    """The recipients (`pallr1x…`) of the identities that lie in files on this machine."""
    return [str(item.recipient) for item in identities if isinstance(item, FileIdentity | HybridIdentity | TpmIdentity)]


def read_machine(root: Path, identities: Sequence[Identity], *, now: datetime) -> Machine:
    """What the machine whose file system is at `root`, and which holds `identities`, can show.

    Its host kind is the public side of the identities in files; keys in an HSM or a cloud are not of one machine.
    That it holds them is proved when one opens the file, not here. A file that names a TPM's key is no secret: its tpm
    kind, and a host of that sort, are those whose key a TPM has just used.
    """
    proven, unproven = _proven(identities)
    shown: dict[MachineKind, tuple[str, ...]] = {}
    missing: dict[MachineKind, str] = {}
    readers: dict[MachineKind, Callable[[], list[str]]] = {
        "host": lambda: _hosts(identities, proven, unproven),
        "machine-id": lambda: [_machine_id(root)],
        "vm": lambda: _virtual_machine(root),
        "pod": lambda: [_pod(root, now)],
        "tpm": lambda: _tpms(proven, unproven),
    }
    for kind, read in readers.items():
        try:
            values = read()
        except PalladionError as error:
            missing[kind] = error.message
        else:
            shown[kind] = tuple(machine_digest(kind, value) for value in values[:SHOWN_MAX])
    return Machine(shown, missing)


class Challenge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request for a licence or its renewal, from a machine that nothing but files can reach. It holds no secret.

    Nothing signs it: the publisher compares `code` with whoever sent it. `serial` is "" where there is no licence yet.
    """

    v: Literal[1]
    nonce: Serial
    created: str
    serial: _SerialOrNone
    sequence: Annotated[int, msgspec.Meta(ge=0, le=canonical.INTEGER_MAX)]
    recipient: Annotated[str, msgspec.Meta(max_length=RECIPIENT_CHARACTERS_MAX, pattern=r"^[!-~]*\Z")]
    machine: dict[MachineKind, Annotated[tuple[Digest, ...], msgspec.Meta(min_length=1, max_length=SHOWN_MAX)]]

    @property
    def shows(self) -> Machine:
        """The machine that asks, as it describes itself."""
        return Machine(self.machine)

    @property
    def code(self) -> str:
        """Sixteen hex digits in groups of four, to be compared over the telephone."""
        digits = sha256(self._encoded()).hexdigest()[:16]
        return " ".join(digits[start : start + 4] for start in range(0, 16, 4))

    def encode(self) -> bytes:
        """The challenge file. Its digest authenticates nothing: it finds what a transfer damaged."""
        document = {"challenge": msgspec.to_builtins(self), "digest": sha256(self._encoded()).hexdigest()}
        return canonical.encode(document) + b"\n"

    def _encoded(self) -> bytes:
        return b"palladion/v1/challenge" + canonical.encode(msgspec.to_builtins(self))


@dataclass(frozen=True)
class Accepted:
    """A licence that was accepted here: an older one of its serial, or another one of its sequence, is refused."""

    sequence: int
    digest: str


@dataclass(frozen=True)
class LicensesSeen:
    """What a machine remembers between openings, so that the past cannot be put back.

    `latest` is the latest time seen, `licenses` are by serial, `revocations` the newest list's sequence by publisher,
    `pending` the nonces of requests that wait for an answer. `mending` is the one among them that was made while the
    clock was behind `latest`, for it had run ahead: its answer, and nothing else, sets `latest` back, to the time at
    which the publisher signed it.
    """

    latest: datetime | None = None
    licenses: Mapping[str, Accepted] = field(default_factory=dict)
    revocations: Mapping[str, int] = field(default_factory=dict)
    pending: tuple[str, ...] = ()
    mending: str = ""

    def encode(self) -> bytes:
        """Canonical JSON. Raises ValueError on what `decode_licenses_seen` would not accept."""
        document = {
            "v": 1,
            "latest": timestamp(self.latest) if self.latest else "",
            "licenses": {serial: [row.sequence, row.digest] for serial, row in self.licenses.items()},
            "revocations": dict(self.revocations),
            "pending": list(self.pending),
            "mending": self.mending,
        }
        try:
            msgspec.convert(document, _SeenDocument, strict=True)
        except msgspec.ValidationError as error:
            raise ValueError(f"this cannot be remembered: {error}") from None
        return canonical.encode(document)


def decode_licenses_seen(data: bytes, *, what: str) -> LicensesSeen:
    """What `encode` wrote. Raises FormatError, naming `what`: forgetting instead would let the past back in."""
    document = canonical.decode(data, size_max=SEEN_BYTES_MAX, what=what)
    try:
        found = msgspec.convert(document, _SeenDocument, strict=True)
        latest = parse_timestamp(found.latest) if found.latest else None
    except (msgspec.ValidationError, ValueError) as error:
        raise FormatError(f"{what} is not what a host remembers: {error}") from None
    licenses = {serial: Accepted(*row) for serial, row in found.licenses.items()}
    return LicensesSeen(latest, licenses, found.revocations, found.pending, found.mending)


def read_licenses_seen(folder: Path) -> LicensesSeen:
    """What the host with this folder remembers; nothing yet where there is no such file."""
    path = folder / SEEN_FILE
    with storage_errors(path):
        if not path.exists():
            return LicensesSeen()
    return decode_licenses_seen(read_limited(path, size_max=SEEN_BYTES_MAX, what="the file"), what=str(path))


def update_licenses_seen(folder: Path, change: Callable[[LicensesSeen], tuple[_Result, LicensesSeen]]) -> _Result:
    """Replace what the host with this folder remembers by what `change` makes of it; returns its result.

    What `change` raises leaves the file alone. Processes that start together wait for each other. Raises StorageError
    where the folder cannot be written: what cannot be remembered must not be granted.
    """
    make_private_directory(folder)
    lock = folder / f".{SEEN_FILE}.lock"
    with storage_errors(lock):
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        with storage_errors(lock):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        before = read_licenses_seen(folder)
        result, after = change(before)
        if after != before:
            write_atomically(folder / SEEN_FILE, after.encode())
        return result
    finally:
        os.close(descriptor)


def request(
    machine: Machine, seen: LicensesSeen, *, now: datetime, recipient: str = "", serial: str = "", sequence: int = 0
) -> tuple[Challenge, LicensesSeen]:
    """A challenge with a fresh nonce, and what to remember so that its answer is accepted, here and nowhere else."""
    shown = {kind: digests for kind, digests in machine.shown.items() if digests}
    challenge = Challenge(
        v=1,
        nonce=secrets.token_hex(16),
        created=timestamp(now),
        serial=serial,
        sequence=sequence,
        recipient=recipient,
        machine=shown,
    )
    # an opening in between clears it, so that nobody keeps such a request in store to turn the clock back with later
    behind = seen.latest is not None and now < seen.latest - CLOCK_TOLERANCE
    pending = (*seen.pending, challenge.nonce)[-PENDING_MAX:]
    return challenge, replace(seen, pending=pending, mending=challenge.nonce if behind else "")


def decode_challenge(data: bytes, *, what: str) -> Challenge:
    """The challenge in a file. Raises FormatError, naming `what`."""
    document = canonical.decode(data.removesuffix(b"\n"), size_max=CHALLENGE_BYTES_MAX, what=what)
    try:
        envelope = msgspec.convert(document, _Envelope, strict=True)
        parse_timestamp(envelope.challenge.created)
    except (msgspec.ValidationError, ValueError) as error:
        raise FormatError(f"{what} is not a request for a licence: {error}") from None
    if envelope.challenge.encode() != data:
        raise FormatError(f"{what} was damaged on its way: its digest is another one", "have it sent again")
    return envelope.challenge


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    challenge: Challenge
    digest: Digest


class _SeenDocument(msgspec.Struct, forbid_unknown_fields=True):
    v: Literal[1]
    latest: str
    licenses: Annotated[dict[Serial, tuple[Positive, Digest]], msgspec.Meta(max_length=LICENSES_SEEN_MAX)]
    revocations: dict[Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")], Positive]
    pending: Annotated[tuple[Serial, ...], msgspec.Meta(max_length=PENDING_MAX)]
    mending: _SerialOrNone


def _hosts(identities: Sequence[Identity], proven: Sequence[str], unproven: str) -> list[str]:
    tpms = {str(item.recipient) for item in identities if isinstance(item, TpmIdentity)}
    texts = [text for text in host_texts(identities) if text in proven or text not in tpms]
    if not texts:
        raise PalladionError(unproven if tpms else "this machine holds no identity in a file")
    return texts


def _tpms(proven: list[str], unproven: str) -> list[str]:
    if not proven:
        raise PalladionError(unproven)
    return proven


def _proven(identities: Sequence[Identity]) -> tuple[list[str], str]:
    """The recipients of the identities whose TPM has just used the key, and why there is none of the others."""
    found: list[str] = []
    reason = "this machine holds no identity of a TPM"
    for identity in identities:
        if isinstance(identity, TpmIdentity):
            try:
                # a copy of the file names the key; only the TPM that has it can use it
                identity.prove()
            except PalladionError as error:
                reason = error.message
            else:
                found.append(str(identity.recipient))
    return found, reason


def _machine_id(root: Path) -> str:
    text = _fact(root / "etc/machine-id")
    if not _MACHINE_ID.fullmatch(text) or text == "0" * 32:
        # empty in images that are made for copying, "uninitialized" before the first boot (machine-id(5))
        raise PalladionError("/etc/machine-id holds no id: 32 hexadecimal digits were expected")
    return text


def _virtual_machine(root: Path) -> list[str]:
    """The ids of this virtual machine; first what any account may read, so that a service need not be root."""
    found: list[str] = []
    reasons: list[str] = []
    for name, pattern in (
        ("sys/class/dmi/id/board_asset_tag", _INSTANCE),
        ("sys/hypervisor/uuid", _UUID),
        ("sys/class/dmi/id/product_uuid", _UUID),
    ):
        try:
            text = _fact(root / name)
        except PalladionError as error:
            reasons.append(error.message)
            continue
        if pattern.fullmatch(text) and text not in _PLACEHOLDERS and len(set(text) - {"-"}) > 1:
            found.append(text)
        else:
            reasons.append(f"/{name} holds no id")
    if not found:
        raise PalladionError("; ".join(reasons))
    return found


def _pod(root: Path, now: datetime) -> str:
    """Namespace and uid of the service account that this pod runs as.

    Nobody here can verify the token's signature: it is read as a statement of the node, as the other files are.
    """
    namespace, uid = _account(_claims(root / _ACCOUNT / "token"), now)
    for path in (_ACCOUNT / "namespace", _DOWNWARD / "namespace"):
        if (root / path).exists() and (stated := _fact(root / path)) != namespace:
            raise PalladionError(f"the token is of namespace {namespace[:64]!r}, and /{path} says {stated[:64]!r}")
    return f"{namespace}/{uid}"


def _account(claims: Mapping[str, Any], now: datetime) -> tuple[str, str]:
    expires = claims.get("exp")
    if isinstance(expires, int | float) and now.timestamp() > expires:
        # the kubelet renews it in time: one that has run out was copied from somewhere
        raise PalladionError("the service account's token has run out: a running pod has a fresh one")
    bound = claims.get("kubernetes.io")
    account = bound.get("serviceaccount") if isinstance(bound, dict) else None
    if isinstance(bound, dict) and isinstance(account, dict):
        namespace, uid = bound.get("namespace"), account.get("uid")
    else:
        # tokens of before Kubernetes 1.22
        namespace = claims.get("kubernetes.io/serviceaccount/namespace")
        uid = claims.get("kubernetes.io/serviceaccount/service-account.uid")
    if not (isinstance(namespace, str) and isinstance(uid, str) and namespace and _UUID.fullmatch(uid)):
        raise PalladionError("the service account's token names no namespace and uid")
    return namespace, uid


def _claims(path: Path) -> dict[str, Any]:
    parts = read_limited(path, size_max=TOKEN_BYTES_MAX, what="the service account's token").strip().split(b".")
    try:
        payload = parts[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
    except (IndexError, binascii.Error, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise PalladionError("the service account's token is no JSON Web Token") from None
    if not isinstance(claims, dict):
        raise PalladionError("the service account's token holds no claims")
    return claims


def _fact(path: Path) -> str:
    data = read_limited(path, size_max=FACT_BYTES_MAX, what="the file")
    return data.decode("ascii", errors="replace").strip().lower()

"""What the registry holds, as frozen values: models, versions, recipients, clients, operators, incidents.

No SQL and no checks here: `tables` says how they are stored, the module of each noun what may be written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

SealedKind = Literal["served", "original"]
PromotionKind = Literal["promote", "rollback"]
CanaryKind = Literal["begin", "end"]
Role = Literal["viewer", "analyst", "approver", "admin", "auditor"]
Standing = Literal["trusted", "watched", "throttled", "degraded", "suspended"]
IdentityKind = Literal["jwt", "spiffe", "certificate"]
IncidentState = Literal["open", "acknowledged", "closed"]
IncidentEventKind = Literal["opened", "acknowledged", "noted", "acted", "closed"]
CaseVerdict = Literal["theft", "false-alarm", "test", "unclear"]
Verdict = Literal["approved", "rejected", "withdrawn"]
DecoyKind = Literal["key", "rows", "texts", "file", "backup"]
END_USER = "~"  # stands before the id in the name of an end user, and in no name that anybody gives


@dataclass(frozen=True)
class ModelRow:
    """A model by name: who owns it, since when it is here, and the format of its first version."""

    name: str
    owner: str
    format: str
    created: datetime


@dataclass(frozen=True)
class SealedFile:
    """Where a sealed file lies (relative to the installation's folder of sealed files) and what it must be.

    Digests in lower-case hexadecimal: `digest` is the BLAKE3 root of the encrypted body, which the publisher signed and
    which stays when the file is wrapped to others; `header_digest` is SHA-256 of the header.
    """

    path: str
    digest: str
    header_digest: str


@dataclass(frozen=True)
class VersionTensor:
    """One tensor of a version: enough to compare versions without opening them."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    digest: str
    byte_count: int


@dataclass(frozen=True)
class SignedPrivacy:
    """What was stated of the privacy of a version's training, and the publisher's signature in hex.

    What they mean is in `lifecycle.privacy`.
    """

    document: Mapping[str, Any]
    signature: str


@dataclass(frozen=True)
class NewVersion:
    """What the caller knows of a version before it has a number. `publisher` is the key id of who signed it."""

    model: str
    content_digest: str
    graph_digest: str | None
    format: str
    publisher: str
    served: SealedFile
    tensors: tuple[VersionTensor, ...]
    original: SealedFile | None = None
    parent: int | None = None
    marks: tuple[dict[str, Any], ...] = ()
    note: str = ""
    privacy: SignedPrivacy | None = None


@dataclass(frozen=True)
class Version:
    """One immutable version, with the places where its sealed files lie now (those can move, see `Versions.reseal`)."""

    model: str
    number: int
    parent: int | None
    content_digest: str
    graph_digest: str | None
    format: str
    publisher: str
    marks: tuple[dict[str, Any], ...]
    note: str
    created: datetime
    served: SealedFile
    original: SealedFile | None
    privacy: SignedPrivacy | None = None


@dataclass(frozen=True)
class Promotion:
    """A version became the one that is served: by whom, when, forwards or back."""

    model: str
    number: int
    kind: PromotionKind
    actor: str
    at: datetime


@dataclass(frozen=True)
class Canary:
    """A version began, or ended, to be served to `percent` of the clients; `reason` says why it ended."""

    model: str
    number: int
    kind: CanaryKind
    percent: int
    reason: str
    actor: str
    at: datetime


@dataclass(frozen=True)
class Recipient:
    """Somebody who may unseal: a name for a public key. A revoked one stays listed: its copies stay traceable."""

    name: str
    kind: str
    public_key: str
    note: str
    created: datetime
    revoked_at: datetime | None


@dataclass(frozen=True)
class Delivery:
    """A copy that left the house: of which version, to whom, under which public key, and which sealed file it was.

    `fingerprinted` says whether the copy carries the recipient's fingerprint; a model can be too small for one.
    """

    model: str
    number: int
    recipient: str
    public_key: str
    fingerprinted: bool
    digest: str
    header_digest: str
    actor: str
    at: datetime


@dataclass(frozen=True)
class Client:
    """An authenticated caller of the API. `id` is random, so that it is never given twice, also not after a restore.

    A `reseller` asks for end users, who are clients of their own: its id is the `parent` of each, and their ids are
    made with its `secret`, which is empty for who never did, and once it was erased.
    """

    id: str
    organisation: str
    name: str
    scopes: tuple[str, ...]
    standing: Standing
    created: datetime
    revoked_at: datetime | None
    reseller: bool = False
    parent: str | None = None
    secret: bytes = field(default=b"", repr=False)

    @property
    def judged_with(self) -> str:
        """Under which name the watch knows those whom it judges together: its organisation; an end user is alone.

        No organisation has such a name. The queries of an end user count for its reseller already.
        """
        return self.organisation if self.parent is None else f"{END_USER}{self.id}"


@dataclass(frozen=True)
class ClientKey:
    """One API key of a client: the prefix that may be shown, never the key; a client can hold two while it changes."""

    prefix: str
    client: str
    created: datetime
    expires: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True)
class ClientIdentity:
    """By what else a client is known: an issuer and its subject, a SPIFFE id, or a certificate's fingerprint."""

    id: int
    client: str
    kind: IdentityKind
    value: str
    created: datetime
    revoked_at: datetime | None


@dataclass(frozen=True)
class ClientSource:
    """Another gate whose clients were taken over: its root's id, who signs for it, and as of when it was last heard.

    `pepper` is the text of the wrap that holds what its key hashes are keyed with; "" where that is this gate's own.
    """

    gate: str
    publisher: str
    issued: datetime
    pepper: str
    at: datetime


@dataclass(frozen=True)
class StandingChange:
    """A client's standing from `at` on, why, and who or what decided it."""

    client: str
    standing: Standing
    reason: str
    actor: str
    at: datetime


@dataclass(frozen=True)
class CalibrationRow:
    """A calibration file of a version: where it lies (relative to the folder of calibrations), and its SHA-256.

    `curve` is the document of its newest learning curve, if one was measured.
    """

    model: str
    number: int
    path: str
    digest: str
    simulated: bool
    clients: int
    at: datetime
    curve: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Operator:
    """A person who runs Palladion: role, and the public key or account that proves who it is."""

    name: str
    role: Role
    identity: str
    created: datetime
    revoked_at: datetime | None


@dataclass(frozen=True)
class Proposal:
    """What an operator wants changed, why and until when it can be decided; and by whom it was, if it was."""

    id: str
    change: dict[str, Any]
    reason: str
    proposer: str
    at: datetime
    expires: datetime
    verdict: Verdict | None = None
    decision: str | None = None
    decided_by: str | None = None
    decided_at: datetime | None = None


@dataclass(frozen=True)
class Incident:
    """A case: what it is called, whom it concerns, how far it is, and what was found when it was closed.

    `cleared` are those of its clients that were found to be honest.
    """

    id: str
    title: str
    state: IncidentState
    clients: tuple[str, ...]
    opened_at: datetime
    closed_at: datetime | None
    finding: str | None
    verdict: CaseVerdict | None = None
    cleared: tuple[str, ...] = ()


@dataclass(frozen=True)
class IncidentEvent:
    """One line of an incident's timeline."""

    incident: str
    kind: IncidentEventKind
    text: str
    actor: str
    at: datetime


@dataclass(frozen=True)
class Decoy:
    """What nobody honest touches, planted where only a thief finds it: an API key, queries of a model, a sealed file.

    `prefix` is a key's, as of real ones; `count` says how many rows or texts it holds. `incident` is the case that
    touches by nobody who is known were last added to.
    """

    id: str
    kind: DecoyKind
    label: str
    organisation: str | None
    model: str | None
    prefix: str | None
    count: int
    actor: str
    created: datetime
    retired_at: datetime | None
    touches: int
    touched_at: datetime | None
    incident: str | None

"""The publisher's TUF metadata: taken up only if it verifies, changed, and signed anew. No files, no clock.

All of it is one document: a power cut leaves the old state or the new one, and never a root without the metadata that
its keys have signed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self, cast

import msgspec
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp
from tuf.api.metadata import Role as TufRole

from palladion import canonical
from palladion.errors import ConflictError, FormatError, KeysError, TamperError
from palladion.keys import Signer
from palladion.release.keys import ROLES, ChannelKeys, RoleName, signers_of, tuf_key

# what a host reads at most before it knows whose bytes they are, and so what a publisher may write
ROOT_BYTES_MAX = 512_000
TIMESTAMP_BYTES_MAX = 16_384
SNAPSHOT_BYTES_MAX = 65_536  # ours names one file
TARGETS_BYTES_MAX = 5_000_000
ROOTS_MAX = 256  # that a host follows in one go
STATE_BYTES_MAX = 16 * 1024 * 1024  # targets with their quotes escaped, and 256 roots of some KiB

_LIMITS: dict[RoleName, int] = {
    "root": ROOT_BYTES_MAX,
    "targets": TARGETS_BYTES_MAX,
    "snapshot": SNAPSHOT_BYTES_MAX,
    "timestamp": TIMESTAMP_BYTES_MAX,
}


@dataclass(frozen=True)
class Lifetimes:
    """For how long each role's signatures are good; a host relies on nothing older.

    Timestamp and snapshot say for how long an attacker can hold a host back on old metadata, and for how long the
    machine that refreshes may be down; root and targets, for how long the owner may stay away.
    """

    root: timedelta = timedelta(days=365)
    targets: timedelta = timedelta(days=180)
    snapshot: timedelta = timedelta(days=14)
    timestamp: timedelta = timedelta(days=3)

    def of(self, role: RoleName) -> timedelta:
        """The lifetime of one role."""
        return cast("timedelta", getattr(self, role))


@dataclass
class SignedRoles:
    """All metadata of one channel; `roots` are the bytes of every version of the root, oldest first."""

    roots: list[bytes]
    root: Metadata[Root]
    targets: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]
    encoded: dict[RoleName, bytes] = field(default_factory=dict)

    @classmethod
    def unsigned(cls, keys: ChannelKeys) -> Self:
        """The metadata of a new channel, to be signed."""
        roles = cls([], Metadata(Root()), Metadata(Targets()), Metadata(Snapshot()), Metadata(Timestamp()))
        for name in ROLES:
            roles.of(name).signed.version = 0  # sign() counts up
        roles.set_keys(keys)
        return roles

    @classmethod
    def decode(cls, data: bytes, *, what: str) -> Self:
        """The metadata of `encode`. Raises FormatError, or TamperError unless root after root vouches for all of it.

        Thus whoever can write to the state can slip nothing in that the owner would sign with his next release.
        """
        document = canonical.decode(data, size_max=STATE_BYTES_MAX, what=what)
        try:
            state = msgspec.convert(document, _State, strict=True)
            encoded: dict[RoleName, bytes] = {
                "root": state.roots[-1].encode(),
                "targets": state.targets.encode(),
                "snapshot": state.snapshot.encode(),
                "timestamp": state.timestamp.encode(),
            }
            roles = cls(
                [text.encode() for text in state.roots],
                Metadata[Root].from_bytes(encoded["root"]),
                Metadata[Targets].from_bytes(encoded["targets"]),
                Metadata[Snapshot].from_bytes(encoded["snapshot"]),
                Metadata[Timestamp].from_bytes(encoded["timestamp"]),
                encoded,
            )
            roles._verify_roots()
            for name in ROLES:
                roles._verify(name)
        except (msgspec.ValidationError, ValueError) as error:
            raise FormatError(f"{what} is not the state of a release channel: {error}") from None
        except RepositoryError as error:
            raise TamperError(f"{what} was altered: {error}", "restore it from a backup") from None
        return roles

    def encode(self) -> bytes:
        """One canonical document with all metadata, byte for byte as it was signed."""
        texts = {name: self.encoded[name].decode() for name in ROLES if name != "root"}
        return canonical.encode({"v": 1, "roots": [data.decode() for data in self.roots], **texts})

    def of(self, name: RoleName) -> Metadata[Any]:
        """The metadata of one role."""
        return cast("Metadata[Any]", getattr(self, name))

    def set_keys(self, keys: ChannelKeys) -> None:
        """Make `keys` those of the channel, from the next root on."""
        everybody = {key for name in ROLES for key in keys.role(name).public_keys}
        self.root.signed.keys = {key.keyid: key for key in map(tuf_key, everybody)}
        for name in ROLES:
            role = keys.role(name)
            self.root.signed.roles[name] = TufRole([tuf_key(key).keyid for key in role.public_keys], role.threshold)

    def sign(self, changed: set[RoleName], signers: Sequence[Signer], *, now: datetime, lifetimes: Lifetimes) -> None:
        """Sign the `changed` roles, whatever has to follow, and the timestamp, each as a new version.

        A new root is signed by the old one's keys too. Raises KeysError if fewer signers are here than a role needs,
        ConflictError if the metadata would be larger than hosts accept.
        """
        previous = Metadata[Root].from_bytes(self.roots[-1]).signed if self.roots else None
        if "root" in changed:
            self._sign("root", signers, now + lifetimes.root, previous)
            self.roots.append(self.encoded["root"])
            if len(self.roots) > ROOTS_MAX:
                raise ConflictError(f"the channel has had {ROOTS_MAX} roots: begin a new one")
        # what a new root's keys have not signed, they have to
        changed = changed | {name for name in ROLES[1:] if not self._verified(name)}
        if "targets" in changed:
            self._sign("targets", signers, now + lifetimes.targets)
        if changed & {"targets", "snapshot"}:
            listed = MetaFile.from_data(self.targets.signed.version, self.encoded["targets"], ["sha256"])
            self.snapshot.signed.meta["targets.json"] = listed
            self._sign("snapshot", signers, now + lifetimes.snapshot)
        self.timestamp.signed.snapshot_meta = MetaFile.from_data(
            self.snapshot.signed.version, self.encoded["snapshot"], ["sha256"]
        )
        self._sign("timestamp", signers, now + lifetimes.timestamp)

    def can_sign(self, name: RoleName, signers: Sequence[Signer]) -> bool:
        """Whether `signers` are enough for a role under the present root."""
        role = self.root.signed.get_delegated_role(name)
        return bool(len(signers_of(role.keyids, signers)) >= role.threshold)

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Names and contents of the metadata files, in the order in which they may appear one after the other."""
        for version, data in enumerate(self.roots, start=1):
            yield f"{version}.root.json", data
        yield f"{self.targets.signed.version}.targets.json", self.encoded["targets"]
        yield f"{self.snapshot.signed.version}.snapshot.json", self.encoded["snapshot"]
        yield "timestamp.json", self.encoded["timestamp"]

    def _sign(self, name: RoleName, signers: Sequence[Signer], expires: datetime, previous: Root | None = None) -> None:
        metadata, root = self.of(name), self.root.signed
        metadata.signed.version += 1
        metadata.signed.expires = expires
        metadata.signatures.clear()
        key_ids = root.get_delegated_role(name).keyids + (previous.get_delegated_role(name).keyids if previous else [])
        chosen = signers_of(key_ids, signers)
        try:
            for signer in chosen:
                metadata.sign(signer, append=True)
            for judge in (root, previous) if previous else (root,):
                judge.verify_delegate(name, metadata.signed_bytes, metadata.signatures)
        except RepositoryError as error:
            # not enough signers, or an HSM that failed
            needed = root.get_delegated_role(name).threshold
            raise KeysError(
                f"the channel's {name} needs {needed} of its keys to sign, {len(chosen)} that fit were given: {error}",
                "unlock the owner root for releases, revocations and new roots; refreshing takes the online key alone",
            ) from None
        self.encoded[name] = metadata.to_bytes()
        if len(self.encoded[name]) > _LIMITS[name]:
            raise ConflictError(
                f"the channel's {name} would have {len(self.encoded[name])} bytes, and hosts read {_LIMITS[name]}"
            )

    def _verify_roots(self) -> None:
        roots = [Metadata[Root].from_bytes(data) for data in self.roots]
        for number, (older, newer) in enumerate(zip([roots[0], *roots], roots, strict=False), start=1):
            if newer.signed.type != "root" or newer.signed.version != number:
                raise ValueError(f"root {number} is not where it belongs")
            older.signed.verify_delegate("root", newer.signed_bytes, newer.signatures)
            newer.signed.verify_delegate("root", newer.signed_bytes, newer.signatures)

    def _verify(self, name: RoleName) -> None:
        metadata = self.of(name)
        if metadata.signed.type != name:
            raise ValueError(f"{metadata.signed.type} stands in the place of {name}")
        self.root.signed.verify_delegate(name, metadata.signed_bytes, metadata.signatures)

    def _verified(self, name: RoleName) -> bool:
        try:
            self._verify(name)
        except RepositoryError:
            return False
        return True


class _State(msgspec.Struct, forbid_unknown_fields=True):
    v: Literal[1]
    roots: Annotated[list[str], msgspec.Meta(min_length=1, max_length=ROOTS_MAX)]
    targets: str
    snapshot: str
    timestamp: str

"""Keys of the four TUF roles: our Ed25519 signers, which may live in an HSM, as python-tuf takes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, cast

from securesystemslib.signer import Key, SecretsHandler, Signature, SSlibKey
from securesystemslib.signer import Signer as TufSigner
from tuf.api.metadata import Root

from palladion.errors import FormatError
from palladion.keys import Ed25519Signer, Signer, ed25519_public_key

RoleName = Literal["root", "targets", "snapshot", "timestamp"]
ROLES: tuple[RoleName, ...] = ("root", "targets", "snapshot", "timestamp")
OFFLINE: tuple[RoleName, ...] = ("root", "targets")  # the owner's; the other two belong on the machine that refreshes

KEYS_MAX = 16  # of one role; every signature is verified by every host


@dataclass(frozen=True)
class Role:
    """Whose signatures a role's metadata needs: raw public keys, and how many of them have to sign."""

    public_keys: tuple[bytes, ...]
    threshold: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= len(set(self.public_keys)) == len(self.public_keys) <= KEYS_MAX:
            raise ValueError(
                f"{self.threshold} of {len(self.public_keys)} keys: expected at most {KEYS_MAX}, each once, "
                "and a threshold that they can reach"
            )


@dataclass(frozen=True)
class ChannelKeys:
    """The keys of a channel. A key that is stolen from the online machine must not sign for the owner's roles."""

    root: Role
    targets: Role
    snapshot: Role
    timestamp: Role

    def __post_init__(self) -> None:
        online = {*self.snapshot.public_keys, *self.timestamp.public_keys}
        if online.intersection(self.root.public_keys + self.targets.public_keys):
            raise ValueError("one key for an online and an offline role: who steals it online could publish")

    @classmethod
    def of(cls, *, owner: bytes, online: bytes) -> Self:
        """One key of the owner for root and targets, one of the refreshing machine for snapshot and timestamp."""
        return cls(root=Role((owner,)), targets=Role((owner,)), snapshot=Role((online,)), timestamp=Role((online,)))

    def role(self, name: RoleName) -> Role:
        """The keys of one role."""
        return cast("Role", getattr(self, name))


class RoleSigner(TufSigner):
    """One of our signers, as python-tuf takes it."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._public_key = tuf_key(signer.public_key)

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> Self:
        """Not offered: keys come from the keyring, never from an address."""
        raise NotImplementedError

    @property
    def public_key(self) -> SSlibKey:
        """The public key in TUF's form."""
        return self._public_key

    def sign(self, payload: bytes) -> Signature:
        """The Ed25519 signature of `payload`."""
        return Signature(self._public_key.keyid, self._signer.sign(payload).hex())


def role_signer(secret: bytes) -> Ed25519Signer:
    """The signing key of a role from the 32 secret bytes of a derived purpose."""
    return Ed25519Signer(secret)


def tuf_key(public_key: bytes) -> SSlibKey:
    """A raw Ed25519 public key in TUF's form."""
    return SSlibKey.from_crypto(ed25519_public_key(public_key, what="the key of a role"))


def require_sound_keys(root: Root) -> None:
    """Raise FormatError if one of a root's Ed25519 keys is none: python-tuf takes those that anybody signs for."""
    for key in root.keys.values():
        if key.keytype == "ed25519":
            try:
                raw = bytes.fromhex(key.keyval["public"])
            except (KeyError, TypeError, ValueError):
                raise FormatError("the channel's root has a key that is broken") from None
            ed25519_public_key(raw, what="a key of the channel's root")


def signers_of(key_ids: Sequence[str], signers: Sequence[Signer]) -> list[RoleSigner]:
    """Those of `signers` whose keys have one of the `key_ids`, each key once."""
    by_id = {signer.public_key.keyid: signer for signer in map(RoleSigner, signers)}
    return [signer for key_id, signer in by_id.items() if key_id in key_ids]

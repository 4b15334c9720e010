"""One installation on disk: where everything lies, and how its rooms are opened. Creation is in `create`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from palladion import files, keys
from palladion.clock import Clock
from palladion.errors import InstallationError, KeysError, TamperError
from palladion.keys import Identity, PublicKeys, Recipient, Root
from palladion.ledger.checkpoint import VerifierKey
from palladion.ledger.reader import LedgerReader
from palladion.ledger.writer import Ledger
from palladion.policy import POLICY_FILE, Policy, load_policy
from palladion.registry import Registry
from palladion.seal.recipients import FileIdentity, FileRecipient, parse_recipient, read_identity
from palladion.seal.sign import parse_publisher


@dataclass(frozen=True)
class Paths:
    """Where the parts of an installation lie."""

    home: Path
    directory: Path
    owner: Path
    host_identity: Path

    @property
    def policy(self) -> Path:
        """The policy file."""
        return self.home / POLICY_FILE

    @property
    def gate(self) -> Path:
        """The keyring file of the gate root."""
        return self.directory / "keys" / "gate.json"

    @property
    def registry(self) -> Path:
        """The registry, when it is SQLite."""
        return self.directory / "registry.sqlite"

    @property
    def ledger(self) -> Path:
        """The ledger's folder."""
        return self.directory / "ledger"

    @property
    def sealed(self) -> Path:
        """The folder of sealed versions."""
        return self.directory / "sealed"

    def served(self, model: str, number: int) -> Path:
        """The sealed file that the gate opens."""
        return self.sealed / model / f"{number}.sealed"

    def original(self, model: str, number: int) -> Path:
        """The sealed, unmarked original, for owner and escrow."""
        return self.sealed / model / f"{number}.original.sealed"


def paths_of(home: Path, policy: Policy) -> Paths:
    """The paths that a policy at `home` describes; relative ones are relative to `home`, `~` is the user's folder."""
    directory = home / Path(policy.installation.directory).expanduser()
    owner = home / Path(policy.keys.owner).expanduser() if policy.keys.owner else directory / "keys" / "owner.json"
    return Paths(home, directory, owner, home / Path(policy.keys.host_identity).expanduser())


def gate_identity(gate: Root) -> FileIdentity:
    """What opens the versions sealed to an unlocked gate root."""
    return FileIdentity(gate.identity_secret("gate"))


def owner_identity(owner: Root) -> FileIdentity:
    """What opens the originals sealed to an unlocked owner root."""
    return FileIdentity(owner.identity_secret("owner"))


class Installation:
    """An existing installation. Opening its rooms needs the clock and, for roots, an identity."""

    def __init__(self, paths: Paths, policy: Policy, clock: Clock) -> None:
        self.paths = paths
        self.policy = policy
        self.clock = clock

    @classmethod
    def find(cls, start: Path, clock: Clock) -> "Installation":
        """The installation in `start` or the nearest folder above it. Raises InstallationError if there is none."""
        start = start.resolve()
        for home in (start, *start.parents):
            if (home / POLICY_FILE).is_file():
                policy = load_policy(home / POLICY_FILE)
                paths = paths_of(home, policy)
                if not paths.directory.is_dir():
                    raise InstallationError(
                        f"{home / POLICY_FILE} names {paths.directory}, which does not exist",
                        "run palladion init, or palladion restore a backup",
                    )
                return cls(paths, policy, clock)
        raise InstallationError(
            f"no {POLICY_FILE} in {start} or above it", "run palladion init", "or name the folder with palladion --home"
        )

    def open_gate_root(self) -> Root:
        """Unlock the gate root with the host identity. Raises KeysError if it is missing or another host's."""
        identity = read_identity(self.paths.host_identity)
        return keys.open_root(self._keyring(self.paths.gate), [identity], what="the gate root")

    def open_owner_root(self, identities: Sequence[Identity]) -> Root:
        """Unlock the owner root. Raises KeysError if none of `identities` fits, or if it is not on this host."""
        root = keys.open_root(self._keyring(self.paths.owner), identities, what="the owner root")
        if root.public().keys["publisher"] not in self.publishers():
            raise TamperError(
                f"the owner root in {self.paths.owner} signs as a publisher that the policy does not trust",
                "compare trust.publishers in palladion.toml with palladion key list",
            )
        return root

    def public_keys(self, root: keys.RootName) -> PublicKeys:
        """The public side of a root, without unlocking it."""
        path = self.paths.gate if root == "gate" else self.paths.owner
        return keys.read_public(self._keyring(path), what=f"the {root} root")

    def publishers(self) -> list[bytes]:
        """Raw public keys of the publishers whose sealed files this installation accepts."""
        return [parse_publisher(text) for text in self.policy.trust.publishers]

    def owner_recipient(self) -> Recipient:
        """Whoever unlocks the owner root can open what is sealed to this."""
        return FileRecipient(self.public_keys("owner").keys["owner"])

    def gate_recipient(self) -> Recipient:
        """The host's gate, which opens the versions that it serves."""
        return FileRecipient(self.public_keys("gate").keys["gate"])

    def escrow_recipients(self) -> list[Recipient]:
        """Who can recover what the owner can, as the policy lists them."""
        return [parse_recipient(text) for text in self.policy.keys.escrow]

    def ledger_key(self) -> VerifierKey:
        """The public key that checks this installation's ledger."""
        return VerifierKey(self.policy.ledger.origin, self.public_keys("gate").keys["checkpoint"])

    def open_registry(self) -> Registry:
        """The registry; it has to exist."""
        return Registry.open(self.policy.registry.url or self.paths.registry, self.clock, create=False)

    def open_ledger(self, gate: Root) -> Ledger:
        """The ledger, locked for writing. Raises BusyError while another process writes."""
        return Ledger(self.paths.ledger, self.policy.ledger.origin, gate.signer("checkpoint"))

    def read_ledger(self) -> LedgerReader:
        """The ledger at its last checkpoint, without a lock."""
        return LedgerReader(self.paths.ledger, self.ledger_key())

    def _keyring(self, path: Path) -> bytes:
        if not path.is_file():
            raise KeysError(f"no keyring file at {path}", "attach the disk it is kept on, or restore a backup")
        return files.read_limited(path, size_max=keys.KEYRING_BYTES_MAX, what="the keyring file")

"""One installation on disk: where everything lies, and how its rooms are opened. Creation is in `create`."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from palladion import files, keys
from palladion.clock import Clock
from palladion.errors import FormatError, InstallationError, KeysError, PolicyError, StorageError, TamperError
from palladion.keys import Identity, PublicKeys, Recipient, Root
from palladion.ledger.checkpoint import VerifierKey, parse_verifier_key
from palladion.ledger.reader import LedgerReader
from palladion.ledger.remote import LedgerWriter, RemoteLedger, read_status
from palladion.ledger.writer import Ledger
from palladion.policy import POLICY_FILE, Policy, load_policy
from palladion.purposes import RootName
from palladion.registry import Records, Registry
from palladion.seal.recipients import FileIdentity, FileRecipient, parse_recipient, read_identity
from palladion.seal.sign import parse_publisher

# within the folder of calibrations; its name is its digest, which is all that binds it
TEXT_CALIBRATION = "texts/{}.safetensors"


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
    def admin(self) -> Path:
        """The socket on which the process that serves takes the records of commands; there while it runs."""
        return self.directory / "admin.sock"

    @property
    def calibrations(self) -> Path:
        """The folder of calibrations of the watch."""
        return self.directory / "calibrations"

    @property
    def sealed(self) -> Path:
        """The folder of sealed versions."""
        return self.directory / "sealed"

    @property
    def revocations(self) -> Path:
        """The signed list of what must not be opened any more; there once something was revoked."""
        return self.directory / "revocations"

    @property
    def licenses(self) -> Path:
        """The folder of licences that were issued: `SERIAL/SEQUENCE.license`."""
        return self.directory / "licenses"

    @property
    def release(self) -> Path:
        """The folder of release channels: each a folder to be served, and beside it the state that counts, `.json`."""
        return self.directory / "release"

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


def find_home(start: Path, *, exact: bool = False) -> Path | None:
    """The folder with a policy file: `start` or, unless `exact`, the nearest above it. None if there is none."""
    start = start.resolve()
    folders = [start] if exact else [start, *start.parents]
    return next((folder for folder in folders if (folder / POLICY_FILE).is_file()), None)


def gate_identity(gate: Root) -> FileIdentity:
    """What opens the versions sealed to an unlocked gate root; its `recipient` is whom to seal them to."""
    return FileIdentity(gate.identity_secret("gate"))


def owner_identity(owner: Root) -> FileIdentity:
    """What opens the originals sealed to an unlocked owner root; its `recipient` is whom to seal them to."""
    return FileIdentity(owner.identity_secret("owner"))


class FileKeys(Protocol):
    """What opens served files in place of the gate root: a key broker, which can take back what it gave."""

    def identity(self, path: Path) -> Identity:
        """What opens the sealed file at `path`."""
        ...

    def follow(self, lost: Callable[[str], object]) -> None:
        """Have `lost` told, from another thread, the id of each file whose key must not be used any more."""
        ...

    def keep(self, file_ids: Collection[str]) -> None:
        """Give up the keys of all other files than these; not while one of them is being opened."""
        ...


class Installation:
    """An existing installation. Opening its rooms needs the clock and, for roots, an identity."""

    def __init__(self, paths: Paths, policy: Policy, clock: Clock, file_keys: FileKeys | None = None) -> None:
        self.paths = paths
        self.policy = policy
        self.clock = clock
        self.file_keys = file_keys

    @classmethod
    def find(cls, start: Path, clock: Clock, *, exact: bool = False) -> "Installation":
        """The installation in `start` or, unless `exact`, the nearest folder above it.

        Raises InstallationError if there is none, or if its folder is gone.
        """
        home = find_home(start, exact=exact)
        if home is None:
            place = f"{start.resolve()}{'' if exact else ' or above it'}"
            hint = "or name the folder with palladion --home"
            raise InstallationError(f"no {POLICY_FILE} in {place}", "run palladion init", hint)
        policy = load_policy(home / POLICY_FILE)
        paths = paths_of(home, policy)
        if not paths.directory.is_dir():
            raise InstallationError(
                f"{paths.policy} names {paths.directory}, which does not exist",
                "run palladion init, or palladion restore a backup",
            )
        return cls(paths, policy, clock)

    def open_gate_root(self, identities: Sequence[Identity] | None = None) -> Root:
        """Unlock the gate root with the host identity, or with one of `identities` where they are given.

        Raises KeysError if it is missing or another host's, TamperError if it signs another ledger than the policy's.
        """
        root = self._open_root("gate", [self._host_identity()] if identities is None else identities)
        pinned = self.pinned_ledger_key()
        if pinned is not None and root.public().keys["checkpoint"] != pinned.public_key:
            raise TamperError(
                f"the gate root in {self.paths.gate} signs another ledger than ledger.key in {self.paths.policy} names",
                "one of the two was replaced: restore it from a backup",
            )
        return root

    def open_owner_root(self, identities: Sequence[Identity]) -> Root:
        """Unlock the owner root. Raises KeysError if none of `identities` fits, or if it is not on this host."""
        root = self._open_root("owner", identities)
        if root.public().keys["publisher"] not in self.publishers():
            raise TamperError(
                f"the owner root in {self.paths.owner} signs as a publisher that the policy does not trust",
                "compare trust.publishers in palladion.toml with palladion key list",
            )
        return root

    def public_keys(self, root: RootName) -> PublicKeys:
        """The public side of a root as its file states it: authenticated only when the root is opened."""
        found = keys.read_public(self.keyring(root), what=f"the {root} root")
        self._require_root(found.root, root)
        return found

    def stated_recipient(self, root: RootName) -> Recipient:
        """The recipient that a root's file states, to be shown or compared; seal to the opened root's instead."""
        try:
            return FileRecipient(self.public_keys(root).keys[root])
        except ValueError:
            raise FormatError(f"{self._keyring_path(root)} states a recipient's key that is none") from None

    def keyring(self, root: RootName) -> bytes:
        """The keyring file of a root. Raises KeysError if it is not there."""
        path = self._keyring_path(root)
        if not path.is_file():
            raise KeysError(f"no keyring file at {path}", "attach the disk it is kept on, or restore a backup")
        return files.read_limited(path, size_max=keys.KEYRING_BYTES_MAX, what="the keyring file")

    def publishers(self) -> list[bytes]:
        """Raw public keys of the publishers whose sealed files this installation accepts."""
        return [parse_publisher(text) for text in self.policy.trust.publishers]

    def escrow_recipients(self) -> list[Recipient]:
        """Who can recover what the owner can, as the policy lists them; each once, however it is written there."""
        return list(dict.fromkeys(parse_recipient(text) for text in self.policy.keys.escrow))

    def pinned_ledger_key(self) -> VerifierKey | None:
        """The key of the ledger that the policy names, or None if it names none. Raises PolicyError on a wrong one."""
        text, origin = self.policy.ledger.key, self.policy.ledger.origin
        if not text:
            return None
        try:
            key = parse_verifier_key(text)
        except FormatError as error:
            raise PolicyError(f"{self.paths.policy}: ledger.key: {error.message}") from None
        if key.name != origin:
            raise PolicyError(f"{self.paths.policy}: ledger.key is of the log {key.name}, ledger.origin is {origin!r}")
        return key

    def ledger_key(self) -> VerifierKey:
        """The public key that checks this installation's ledger: the pinned one, else the one that gate.json states."""
        pinned = self.pinned_ledger_key()
        if pinned is not None:
            return pinned
        return VerifierKey(self.policy.ledger.origin, self.public_keys("gate").keys["checkpoint"])

    def open_registry(self) -> Registry:
        """The registry; it has to exist."""
        return Registry.open(self.policy.registry.url or self.paths.registry, self.clock, create=False)

    def open_ledger(self, gate: Root) -> LedgerWriter:
        """The ledger for writing: through the process that serves, if one runs, else locked by this one.

        Close it after the registry: closing makes the process that serves act on what the registry then says. Raises
        BusyError while another command or process writes.
        """
        remote = RemoteLedger.connect(self.paths.admin)
        return remote if remote is not None else self.lock_ledger(gate)

    @contextmanager
    def recording(self, gate: Root) -> Iterator[tuple[LedgerWriter, Records]]:
        """The ledger and a transaction of the registry, for a change that is recorded before it takes effect.

        In this order: the registry commits after the record is durable, and the ledger closes last, so that a process
        that serves acts on what was committed. Raises BusyError while another command or process writes.
        """
        with self.open_ledger(gate) as ledger, self.open_registry() as registry, registry.write() as records:
            yield ledger, records

    def lock_ledger(self, gate: Root) -> Ledger:
        """The ledger, locked by this process, for one that serves. Raises BusyError while another process writes."""
        origin = self.policy.ledger.origin
        return Ledger(self.paths.ledger, origin, gate.signer("checkpoint"), gate.derive("journal"))

    def server_status(self) -> dict[str, Any] | None:
        """What the process that serves says of itself; None if none runs."""
        return read_status(self.paths.admin)

    def read_ledger(self) -> LedgerReader:
        """The ledger at its last checkpoint, without a lock."""
        return LedgerReader(self.paths.ledger, self.ledger_key())

    def _host_identity(self) -> Identity:
        try:
            return read_identity(self.paths.host_identity)
        except StorageError as error:
            raise KeysError(
                f"the host identity cannot be read: {error.message}",
                "attach the disk it is kept on; if it is lost, palladion key rewrap makes a new one",
            ) from None

    def _open_root(self, name: RootName, identities: Sequence[Identity]) -> Root:
        root = keys.open_root(self.keyring(name), identities, what=f"the {name} root")
        self._require_root(root.name, name)
        return root

    def _keyring_path(self, root: RootName) -> Path:
        return self.paths.gate if root == "gate" else self.paths.owner

    def _require_root(self, found: RootName, expected: RootName) -> None:
        if found != expected:
            raise TamperError(f"{self._keyring_path(expected)} holds the {found} root, expected the {expected} root")

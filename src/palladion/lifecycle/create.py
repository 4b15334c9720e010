"""Makes an installation: two roots, host identity, registry, ledger, policy file. All of it appears, or nothing."""

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from palladion import files, keys
from palladion.clock import Clock
from palladion.errors import InstallationError
from palladion.keys import Recipient
from palladion.ledger.checkpoint import VerifierKey, valid_origin
from palladion.ledger.record import Record
from palladion.ledger.writer import Ledger
from palladion.lifecycle.installation import Installation, Paths, paths_of
from palladion.policy import POLICY_FILE, parse_policy, template
from palladion.registry import Registry
from palladion.seal.recipients import FileIdentity, FileRecipient, StoredIdentity, read_identity, write_identity
from palladion.seal.sign import publisher_text

# the policy, until it takes its place: a folder that still holds it never became an installation
PENDING_POLICY = f"{POLICY_FILE}.pending"


@dataclass(frozen=True)
class Plan:
    """What `create_installation` is asked to make. Paths as they shall stand in the policy file."""

    home: Path
    host_identity: str
    escrow: tuple[str, ...] = ()
    origin: str = ""


def create_installation(
    plan: Plan, owner_wraps: Sequence[Recipient], escrow: Sequence[Recipient], *, actor: str, clock: Clock
) -> Installation:
    """Make an installation in `plan.home`; `owner_wraps` unlock the owner root (a passphrase, usually).

    The escrow recipients can unlock both roots, the owner the gate root as well: a lost host identity loses nothing.
    Raises InstallationError if there is one already.
    """
    origin = plan.origin or f"palladion.local/{secrets.token_hex(8)}"
    if not valid_origin(origin):
        raise InstallationError(f"{origin!r} cannot be a ledger's origin: one word without '+' was expected")
    # 1. the roots, in memory
    created = clock.now()
    owner, owner_file = keys.create_root("owner", [*owner_wraps, *escrow], created=created)
    identity, identity_is_new = _host_identity(plan.home / Path(plan.host_identity).expanduser())
    owner_recipient = FileRecipient(owner.public().keys["owner"])
    gate, gate_file = keys.create_root("gate", [identity.recipient, owner_recipient, *escrow], created=created)
    # 2. the policy that describes all this
    text = template(
        {
            "keys.host_identity": plan.host_identity,
            "keys.escrow": plan.escrow,
            "trust.publishers": (publisher_text(owner.public().keys["publisher"]),),
            "ledger.origin": origin,
            "ledger.key": str(VerifierKey(origin, gate.public().keys["checkpoint"])),
        }
    )
    # 3. everything beside its place
    with new_installation(plan.home, text, clock) as draft:
        paths = draft.paths
        files.write_atomically(paths.owner, owner_file)
        files.write_atomically(paths.gate, gate_file)
        Registry.open(paths.registry, clock).close()
        with Ledger.create(paths.ledger, origin, gate.signer("checkpoint"), gate.derive("journal")) as ledger:
            ledger.append(_first_records(origin, [owner, gate], actor, clock))
        if identity_is_new:
            files.make_private_directory(paths.host_identity.parent)
            write_identity(paths.host_identity, identity, created=created)
    return Installation.find(plan.home, clock, exact=True)


@contextmanager
def new_installation(home: Path, policy_text: str, clock: Clock) -> Iterator[Installation]:
    """An installation to fill, with its folder beside the place that it takes, with its policy, if the block ends well.

    Whatever ends the block otherwise, a killed process too, leaves nothing that hinders the next attempt. The host
    identity alone lies where the policy says: write it last. Owner root and registry lie in the folder, whatever the
    policy says. Raises InstallationError if `home` holds an installation, BusyError while another process makes one.
    """
    policy = parse_policy(policy_text.encode(), POLICY_FILE)
    paths = paths_of(home, policy)
    if paths.host_identity.resolve().is_relative_to(paths.directory.resolve()):
        raise InstallationError(
            f"the host identity {paths.host_identity} would lie in the installation folder",
            "put it elsewhere with --host-identity: a copy of the folder must not open what the host serves",
        )
    files.make_private_directory(home)
    with files.exclusive_lock(home, what=str(home)):
        # 1. nothing that exists is overwritten; what never became an installation goes
        beside = paths.directory.with_name(f"{paths.directory.name}.unfinished")
        _refuse_existing(paths.policy)
        _take_back(beside, paths)
        _refuse_existing(paths.directory)
        with files.scratch_directory(beside) as folder:
            # 2. the caller's part
            draft = replace(paths, directory=folder, owner=folder / "keys" / "owner.json")
            for part in (draft.gate.parent, draft.sealed):
                files.make_private_directory(part)
            yield Installation(draft, policy, clock)
            # 3. all of it on the disk, then into its place
            files.write_atomically(folder / PENDING_POLICY, policy_text.encode(), mode=0o644)
            files.sync_tree(folder)
            try:
                _take_place(folder, paths)
            except BaseException:
                _take_back(folder, paths)
                raise


def _take_place(folder: Path, paths: Paths) -> None:
    with files.storage_errors(paths.directory):
        folder.rename(paths.directory)
        files.sync_directory(paths.directory.parent)
    # the policy file last: with it the installation exists
    _refuse_existing(paths.policy)
    with files.storage_errors(paths.policy):
        (paths.directory / PENDING_POLICY).rename(paths.policy)
        files.sync_directory(paths.home)


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise InstallationError(f"{path} exists already", "an installation is never overwritten; choose another folder")


def _take_back(folder: Path, paths: Paths) -> None:
    """Undo the first of the two renames, if the second did not happen."""
    if (paths.directory / PENDING_POLICY).is_file():
        with files.storage_errors(paths.directory):
            paths.directory.rename(folder)


def _host_identity(path: Path) -> tuple[StoredIdentity, bool]:
    """The host's identity: one host may have several installations, and one identity for all of them."""
    if path.exists():
        return read_identity(path), False
    return FileIdentity.generate(), True


def _first_records(origin: str, roots: Sequence[keys.Root], actor: str, clock: Clock) -> list[Record]:
    records = [Record("ledger.created", clock.now(), actor, origin)]
    for root in roots:
        public = {name: key.hex() for name, key in root.public().keys.items()}
        records.append(Record("keys.created", clock.now(), actor, f"{root.name} root", {"id": root.root_id, **public}))
    return records

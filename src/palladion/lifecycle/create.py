"""Makes an installation: two roots, host identity, registry, ledger, policy file. All of it appears, or nothing."""

import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from palladion import files, keys, policy
from palladion.clock import Clock
from palladion.errors import InstallationError
from palladion.keys import Recipient
from palladion.ledger.checkpoint import valid_origin
from palladion.ledger.record import Record
from palladion.ledger.writer import Ledger
from palladion.lifecycle.installation import Installation, paths_of
from palladion.policy import POLICY_FILE, parse_policy, template
from palladion.registry import Registry
from palladion.seal.recipients import FileIdentity, FileRecipient, read_identity, write_identity
from palladion.seal.sign import publisher_text


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
        }
    )
    paths = paths_of(plan.home, parse_policy(text.encode(), POLICY_FILE))
    for path in (paths.policy, paths.directory):
        if path.exists():
            raise InstallationError(
                f"{path} exists already", "an installation is never overwritten; choose another folder"
            )
    # 3. everything in a folder beside, then one rename
    temporary = paths.directory.with_name(f"{paths.directory.name}.{os.getpid()}.tmp")
    try:
        files.make_private_directory(temporary / "keys")
        files.make_private_directory(temporary / "sealed")
        files.write_atomically(temporary / "keys" / "owner.json", owner_file)
        files.write_atomically(temporary / "keys" / "gate.json", gate_file)
        Registry.open(temporary / "registry.sqlite", clock).close()
        with Ledger.create(temporary / "ledger", origin, gate.signer("checkpoint")) as ledger:
            ledger.append(_first_records(origin, [owner, gate], actor, clock))
        if identity_is_new:
            files.make_private_directory(paths.host_identity.parent)
            write_identity(paths.host_identity, identity, created=created)
        with files.storage_errors(paths.directory):
            temporary.rename(paths.directory)
        # 4. the policy file last: with it the installation exists
        files.write_atomically(paths.policy, text.encode(), mode=0o644)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if not paths.policy.exists():
            shutil.rmtree(paths.directory, ignore_errors=True)
        raise
    return Installation(paths, policy.load_policy(paths.policy), clock)


def _host_identity(path: Path) -> tuple[FileIdentity, bool]:
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

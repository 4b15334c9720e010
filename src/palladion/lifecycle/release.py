"""The release channel of an installation, and signatures that others verify: OMS bundles and time stamps, on record."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from palladion import files
from palladion.errors import ConflictError, KeysError, NotFoundError
from palladion.host.host import Host
from palladion.keys import Ed25519Signer, Root
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.revoke import require_unrevoked, version_reason
from palladion.registry import names
from palladion.seal.oms import oms_key, sign_bundle
from palladion.seal.reader import inspect_file, verify_file
from palladion.seal.revocations import Revocations
from palladion.seal.timestamp import Send, Stamp, stamp_file

if TYPE_CHECKING:
    from cryptography import x509

    from palladion.release.channel import Channel
    from palladion.release.entries import Catalogue, Release
    from palladion.release.subscriber import Subscriber

ROOT_BYTES_MAX = 512_000  # as the client reads it; ours has 2 KiB
PUBLIC_FILE = 0o644  # a bundle holds no secret, and is meant to be handed on


@dataclass(frozen=True)
class Bundled:
    """An OMS bundle that was written, the public key that verifies it, and the record of it."""

    path: Path
    key: ec.EllipticCurvePublicKey
    receipt: Receipt


def create_channel(installation: Installation, owner: Root, name: str, *, actor: str) -> tuple[Path, Receipt]:
    """Begin the release channel `name`; returns the folder to be served. Raises ConflictError if there is one."""
    from palladion.release.channel import Channel
    from palladion.release.keys import ChannelKeys

    names.slug(name, what="the name of a release channel")
    gate = installation.open_gate_root()
    signers = _signers(owner, gate)
    keys = ChannelKeys.of(owner=signers[0].public_key, online=signers[1].public_key)
    folder, state = _places(installation, name)
    with installation.open_ledger(gate) as ledger:
        Channel.create(folder, state, keys, signers, clock=installation.clock)
        return folder, ledger.append([Record("release.created", installation.clock.now(), actor, name)])[0]


def publish(
    installation: Installation, owner: Root, name: str, sealed: Path, *, actor: str
) -> tuple["Release", Receipt]:
    """List the sealed file at `sealed` in the channel `name`, once every byte of its copy there is what was signed.

    Raises ConflictError on one that was revoked or is not meant for hosts, TamperError on one that is not whole.
    """
    from palladion.release.entries import release_of

    channel, gate = _channel(installation, name), installation.open_gate_root()
    # what cannot be published is not recorded as if it had been
    info = verify_file(sealed, installation.publishers())
    release_of(info.header, info.header_digest, length=0, sha256="")
    require_unrevoked(installation, info.header.model, info.header.version, info.header_digest)
    with installation.open_ledger(gate) as ledger:
        subject = f"{info.header.model}@{info.header.version}"
        details = {"channel": name, "header": info.header_digest, "file_id": info.header.file_id}
        record = Record("release.published", installation.clock.now(), actor, subject, details)
        receipt = ledger.append([record])[0]
        return channel.publish(sealed, installation.publishers(), _signers(owner, gate)), receipt


def refresh(installation: Installation, name: str) -> datetime:
    """Sign that the channel is still current, with this host's key alone; returns until when that holds."""
    return _channel(installation, name).refresh([_online(installation.open_gate_root())])


def rotate(installation: Installation, owner: Root, name: str, *, actor: str) -> Receipt:
    """Name this installation's gate as the one that refreshes, in place of whoever did."""
    from palladion.release.keys import ChannelKeys

    channel, gate = _channel(installation, name), installation.open_gate_root()
    signers = _signers(owner, gate)
    with installation.open_ledger(gate) as ledger:
        receipt = ledger.append([Record("release.rotated", installation.clock.now(), actor, name)])[0]
        channel.rotate(ChannelKeys.of(owner=signers[0].public_key, online=signers[1].public_key), signers)
        return receipt


def catalogue(installation: Installation, name: str) -> tuple[Path, "Catalogue"]:
    """The channel's folder and what it says."""
    channel = _channel(installation, name)
    return channel.folder, channel.catalogue()


def trusted_root(installation: Installation, name: str) -> bytes:
    """What a host is given beforehand, on a way of its own, to follow the channel."""
    return _channel(installation, name).trusted_root()


def revoke_in_channels(installation: Installation, owner: Root, listed: Revocations) -> list[str]:
    """Tell the hosts that follow a channel what the list of revocations says; returns the channels that changed."""
    changed = []
    for state in sorted(installation.paths.release.glob("*.json")):
        channel = _channel(installation, state.stem)
        said = channel.catalogue()
        new = dict(listed.files) | {
            release.header_digest: reason
            for release in said.releases
            if (reason := version_reason(listed, release.model, release.version)) is not None
        }
        for digest, reason in new.items():
            if digest not in said.revoked:
                channel.revoke(digest, reason, _signers(owner, installation.open_gate_root()))
                changed.append(state.stem)
    return sorted(set(changed))


def subscribe(host: Host, address: str, root: Path | None) -> "Subscriber":
    """This host's view of the channel at `address`; `root`, the channel's trusted root, is needed the first time.

    Raises KeysError if it is missing, ConflictError if this host follows the channel by another one.
    """
    from palladion.release.subscriber import Subscriber

    folder = host.folder / "channels" / sha256(address.encode()).hexdigest()[:16]
    kept = folder / "root.json"
    if root is not None:
        data = files.read_limited(root, size_max=ROOT_BYTES_MAX, what="the channel's root")
        if kept.exists() and kept.read_bytes() != data:
            raise ConflictError(
                f"this host follows {address} by another root", f"remove {folder} if the channel was begun anew"
            )
        files.make_private_directory(folder)
        files.write_atomically(kept, data)
    if not kept.exists():
        raise KeysError(
            f"this host has no root of the channel at {address}", "--root FILE, as the publisher gave it to you"
        )
    trusted = files.read_limited(kept, size_max=ROOT_BYTES_MAX, what="the channel's root")
    return Subscriber(address if "://" in address else Path(address), trusted, folder / "state", host.clock)


def sign(
    installation: Installation,
    owner: Root,
    path: Path,
    out: Path,
    *,
    actor: str,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> Bundled:
    """Write the OMS bundle of the file or folder at `path` to the new file `out`; with the owner's key, or with `key`.

    A bundle inside the folder that it is about is left out of it. Raises as `sign_bundle` does.
    """
    signing = key or oms_key(owner.derive("oms"))
    inside = path.is_dir() and out.resolve().is_relative_to(path.resolve())
    ignore = [out.resolve().relative_to(path.resolve()).as_posix()] if inside else []
    bundle = sign_bundle(path, signing, ignore=ignore)
    with installation.open_ledger(installation.open_gate_root()) as ledger:
        record = Record("bundle.signed", installation.clock.now(), actor, path.name, {"own_key": key is None})
        receipt = ledger.append([record])[0]
        with files.atomic_writer(out, mode=PUBLIC_FILE, replace=False) as stream:
            stream.write(bundle)
    return Bundled(out, signing.public_key(), receipt)


def stamp(
    installation: Installation, path: Path, roots: Sequence["x509.Certificate"], send: Send, *, actor: str
) -> tuple[Stamp, Receipt]:
    """Have a sealed file's signature stamped; the reply lies beside it. Raises as `stamp_file` does."""
    made = stamp_file(path, installation.publishers(), roots, send)
    with installation.open_ledger(installation.open_gate_root()) as ledger:
        details = {"authority": made.authority, "serial": str(made.serial), "header": inspect_file(path).header_digest}
        return made, ledger.append([Record("signature.stamped", made.time, actor, path.name, details)])[0]


def _places(installation: Installation, name: str) -> tuple[Path, Path]:
    return installation.paths.release / name, installation.paths.release / f"{name}.json"


def _channel(installation: Installation, name: str) -> "Channel":
    from palladion.release.channel import Channel

    names.slug(name, what="the name of a release channel")
    folder, state = _places(installation, name)
    if not state.exists():
        raise NotFoundError(f"no release channel {name!r}", f"palladion release init {name}")
    return Channel(folder, state, installation.clock)


def _signers(owner: Root, gate: Root) -> tuple[Ed25519Signer, Ed25519Signer]:
    """The owner's signer and the one that refreshes."""
    from palladion.release.keys import role_signer

    return role_signer(owner.derive("channel")), _online(gate)


def _online(gate: Root) -> Ed25519Signer:
    from palladion.release.keys import role_signer

    return role_signer(gate.derive("channel-online"))

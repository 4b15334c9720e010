"""Backups for tests: an installation with two versions, backed up and restored."""

import os
from pathlib import Path

from palladion.lifecycle.backup import back_up
from palladion.lifecycle.protect import protect
from palladion.lifecycle.restore import Restored, restore
from palladion.seal.recipients import FileIdentity
from tests.models import onnx_bytes, write

from .installations import ACTOR, OWNER, Made, make


def with_two_versions(folder: Path) -> Made:
    """An installation with an escrow recipient and two versions of one model."""
    made = make(folder, escrow=True)
    for seed in (1, 2):
        add_version(made, folder, seed)
    return made


def add_version(made: Made, folder: Path, seed: int) -> int:
    """Protect one more version; its number."""
    path = write(folder / f"{seed}.onnx", onnx_bytes(seed))
    return protect(made.installation, made.owner, path, "fraud", actor=ACTOR).version.number


def backed_up(made: Made, folder: Path) -> Path:
    """The state of a new backup in `folder`."""
    return back_up(made.installation, made.owner, [OWNER.recipient], folder, actor=ACTOR).state


def restored(
    state: Path, home: Path, made: Made, identity: FileIdentity = OWNER, *, host_identity: str | None = None
) -> Restored:
    """The backup `state` of `made`, restored into `home`."""
    publisher = made.owner.public().keys["publisher"]
    return restore(
        state, home, [identity], publisher=publisher, actor=ACTOR, clock=made.clock, host_identity=host_identity
    )


def flip(path: Path) -> None:
    """Change one bit in the middle of a file, and neither its size nor its times: what an old disk does."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

"""Gives a model back as plaintext files: the one way in which what was sealed comes to lie on a disk again."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from palladion import files
from palladion.errors import FormatError, StorageError
from palladion.keys import Identity
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import open_version, record_opened
from palladion.registry import names
from palladion.seal.reader import open_sealed
from palladion.seal.structure import SealedInfo

MODEL_KINDS = frozenset({"onnx", "safetensors", "opaque"})  # a keyring or a backup is never taken apart onto a disk


@dataclass(frozen=True)
class Unsealed:
    """What was written: the verified statement of the sealed file, the plaintext files, and the record of it."""

    info: SealedInfo
    files: tuple[Path, ...]
    receipt: Receipt


def unseal(
    installation: Installation, target: str | Path, identity: Identity, out: Path, *, reason: str, actor: str
) -> Unsealed:
    """Write the model of a sealed file (a path), or the original of a version (`fraud@3`), to the new file `out`.

    Its external data goes beside it. The files are private and nothing is overwritten. That it was opened, by whom and
    why, is on record before anything is written. Raises KeysError if `identity` does not open it, TamperError unless it
    was signed by a trusted publisher, StorageError if a file of such a name exists; then nothing is left behind.
    """
    names.label(reason, what="the reason")
    with _opened(installation, target, identity) as (info, contents):
        paths = [out, *(out.parent / name for name, _ in contents[1:])]
        taken = next((path for path in paths if os.path.lexists(path) or paths.count(path) > 1), None)
        if taken is not None:
            raise StorageError(f"{taken}: a file of this name exists, or would exist twice", "name another folder")
        with installation.open_ledger(installation.open_gate_root()) as ledger:
            record = record_opened(info, at=installation.clock.now(), actor=actor, reason=reason)
            receipt = ledger.append([record])[0]
        _write(zip(paths, (data for _, data in contents), strict=True))
        return Unsealed(info, tuple(paths), receipt)


@contextmanager
def _opened(
    installation: Installation, target: str | Path, identity: Identity
) -> Iterator[tuple[SealedInfo, Sequence[tuple[str, memoryview]]]]:
    """What a sealed file says of itself, and its files, the main one first."""
    if isinstance(target, str):
        with open_version(installation, target, identity, kind="original") as version:
            yield version.info, [(file.name, file.data) for file in version.model.files]
        return
    with open_sealed(target, [identity], installation.publishers()) as opened:
        if opened.info.header.kind not in MODEL_KINDS:
            raise FormatError(f"{target} is a sealed {opened.info.header.kind}, a model was expected")
        yield opened.info, list(opened.files.items())


def _write(contents: Iterable[tuple[Path, memoryview]]) -> None:
    """Write every file or none."""
    written: list[Path] = []
    try:
        for path, data in contents:
            if written:
                # external data may lie in folders of its own
                files.make_private_directory(path.parent)
            with files.atomic_writer(path, replace=False) as stream:
                stream.write(data)
            written.append(path)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise

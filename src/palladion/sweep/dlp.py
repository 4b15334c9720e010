"""What a data-loss-prevention system needs to know our weights by, and whether a file holds some: no weights in it.

Pieces of the weights, cut by content, are kept as salted hashes; of many, those with the smallest hashes, which are a
fair sample of all (bottom-k, Cohen and Kaplan, PODC 2007). The share of the sample that a file holds estimates the
share of the version.
"""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from palladion import __version__, files
from palladion.errors import ConflictError, FormatError, KeysError
from palladion.keys import Identity
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import OpenedModel, open_version, record_opened, versions_named
from palladion.model.model import Model
from palladion.model.read import read_file
from palladion.sweep import yara
from palladion.sweep.chunks import HASH_BYTES, SALT_BYTES, Cutter, average_for
from palladion.sweep.forms import form_bytes, forms_of

SAMPLE_MAX = 65_536  # pieces of one version in one form: 2 MB of JSON
RULES_BYTES_MAX = 512 * 1024 * 1024
PIECE_BYTES = 4 * 1024 * 1024
REASON = "rules for data-loss prevention"
_HEX = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{2})*\Z")]


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pieces of a version's weights in one form: how many there were, and hashes and sizes of those kept."""

    form: str
    pieces: Annotated[int, msgspec.Meta(ge=0)]
    hashes: _HEX  # of 12 bytes each, one after the other
    sizes: list[Annotated[int, msgspec.Meta(ge=1)]]

    def kept(self) -> dict[bytes, int]:
        """Sizes by hash. Raises FormatError unless there is one for each."""
        data = bytes.fromhex(self.hashes)
        if len(data) != HASH_BYTES * len(self.sizes):
            raise FormatError(f"{len(self.sizes)} sizes for {len(data)} bytes of hashes of {HASH_BYTES} bytes each")
        starts = range(0, len(data), HASH_BYTES)
        return {data[at : at + HASH_BYTES]: size for at, size in zip(starts, self.sizes, strict=True)}


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version by its samples, cut into pieces of `average` bytes."""

    version: str
    average: int
    samples: list[Sample]


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON form of an export."""

    v: Literal[1]
    made_by: str
    salt: Annotated[str, msgspec.Meta(pattern=rf"^[0-9a-f]{{{2 * SALT_BYTES}}}\Z")]
    versions: list[Known]


@dataclass(frozen=True)
class Share:
    """How much of a version's sample is in a file: `share` of 1, by `found` of `kept` pieces, in one form."""

    version: str
    form: str
    share: float
    found: int
    kept: int


@dataclass(frozen=True)
class Exported:
    """An export: its bytes, the versions in it, and those of which nothing could be taken."""

    data: bytes
    versions: tuple[str, ...]
    without: tuple[str, ...]


def export_rules(
    installation: Installation,
    named: Sequence[str],
    *,
    form: Literal["yara", "json"],
    actor: str,
    identity: Identity | None = None,
    bases: Sequence[Path] = (),
    salt: bytes | None = None,
) -> Exported:
    """The rules for versions (every one of every model, if none is named), each opened, which is recorded first.

    The gate opens them, and `identity` those that were sealed to others.
    Of the models at `bases`, which others have too, nothing is taken. Raises as `open_version` does; ConflictError
    where nothing could be taken at all.
    """
    salt = secrets.token_bytes(SALT_BYTES) if salt is None else salt
    avoid = [data for base in bases for data in yara.known_bytes(read_file(base))]
    texts: list[str] = []
    known: list[Known] = []
    done, without = [], []
    for version in versions_named(installation, named):
        name = f"{version.model}@{version.number}"
        if version.format == "opaque":
            without.append(name)  # bytes of whatever kind: no tensors are known of them
            continue
        with _opened(installation, name, identity) as opened:
            with installation.open_ledger(installation.open_gate_root()) as ledger:
                ledger.append([record_opened(opened.info, at=installation.clock.now(), actor=actor, reason=REASON)])
            made = _yara(name, opened.model, salt, avoid) if form == "yara" else _known(name, opened.model, salt, avoid)
        if made is None:
            without.append(name)
            continue
        done.append(name)
        if isinstance(made, str):
            texts.append(made)
        else:
            known.append(made)
    if not done:
        raise ConflictError(
            "no version has weights that could be told from others", "small models and quantised ones often have none"
        )
    if form == "yara":
        head = f"// made by palladion {__version__}: each string is a few bytes of the weights of a version\n\n"
        data = (head + "\n".join(texts)).encode()
    else:
        data = msgspec.json.encode(Rules(1, f"palladion {__version__}", salt.hex(), known))
    return Exported(data, tuple(done), tuple(without))


def read_rules(path: Path) -> Rules:
    """The JSON form of an export. Raises FormatError."""
    data = files.read_limited(path, size_max=RULES_BYTES_MAX, what="the rules")
    try:
        return msgspec.json.decode(data, type=Rules, strict=True)
    except msgspec.DecodeError as error:
        raise FormatError(f"{path} holds no rules of palladion dlp export --format json: {error}") from None


def check_file(path: Path, rules: Rules) -> list[Share]:
    """How much of each version is in a file, the largest share first; those of which nothing is there are left out.

    Reads the file once for each size of pieces. Raises FormatError, StorageError.
    """
    salt = bytes.fromhex(rules.salt)
    found: list[Share] = []
    for average in sorted({known.average for known in rules.versions}):
        try:
            cutter = Cutter(salt, average)
        except ValueError as error:
            raise FormatError(f"the rules cannot be used: {error}") from None
        samples = [
            (known.version, sample) for known in rules.versions if known.average == average for sample in known.samples
        ]
        kept = [sample.kept() for _, sample in samples]
        wanted = set().union(*kept) if kept else set()
        present = {digest for digest, _ in cutter.pieces(_parts(path)) if digest in wanted}
        for (version, sample), sizes in zip(samples, kept, strict=True):
            hits = [size for digest, size in sizes.items() if digest in present]
            if hits:
                share = sum(hits) / sum(sizes.values())
                found.append(Share(version, sample.form, share, len(hits), len(sizes)))
    return sorted(found, key=lambda item: (-item.share, item.version, item.form))


def _opened(installation: Installation, name: str, identity: Identity | None) -> OpenedModel:
    try:
        return open_version(installation, name, lazily=True)
    except KeysError as error:
        if identity is None:
            raise KeysError(
                error.message, *error.hints, "--passphrase-file opens what is sealed to the owner"
            ) from None
        return open_version(installation, name, identity, lazily=True)


def _yara(name: str, model: Model, salt: bytes, avoid: Sequence[bytes]) -> str | None:
    taken = yara.choose(model, salt, avoid=avoid)
    return yara.rule_text(name, taken, claim="a few bytes of its weights") if taken else None


def _known(name: str, model: Model, salt: bytes, avoid: Sequence[bytes]) -> Known | None:
    cutter = Cutter(salt, average_for(sum(tensor.byte_count for tensor in model.tensors.values())))
    common = {digest for data in avoid for digest, _ in cutter.pieces([data])}
    forms = dict.fromkeys(form for tensor in model.tensors.values() for form in forms_of(tensor))
    samples = [sample for form in forms if (sample := _sample(model, form, cutter, common)) is not None]
    return Known(name, cutter.average, samples) if samples else None


def _sample(model: Model, form: str, cutter: Cutter, common: set[bytes]) -> Sample | None:
    sizes: dict[bytes, int] = {}
    for tensor in model.tensors.values():
        if form in forms_of(tensor):
            sizes.update(cutter.inner(form_bytes(tensor, form)))
    kept = sorted(digest for digest in sizes if digest not in common)
    if not kept:
        return None
    pieces, kept = len(kept), kept[:SAMPLE_MAX]
    return Sample(form, pieces, b"".join(kept).hex(), [sizes[digest] for digest in kept])


def _parts(path: Path) -> Iterator[bytes]:
    with files.storage_errors(path), path.open("rb", buffering=0) as stream:
        while part := stream.read(PIECE_BYTES):
            yield part


def documents_of(shares: Iterable[Share]) -> list[dict[str, Any]]:
    """Shares as JSON."""
    return [
        {
            "version": item.version,
            "form": item.form,
            "share": round(item.share, 4),
            "found": item.found,
            "of": item.kept,
        }
        for item in shares
    ]

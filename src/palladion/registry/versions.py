"""Versions of models: numbered 1, 2, 3 … without gaps, written once. Where their sealed files lie can change."""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any, get_args

from sqlalchemy import func, insert, select

from palladion import canonical
from palladion.errors import ConflictError, FormatError, NotFoundError
from palladion.registry import names, privacy_tables, tables
from palladion.registry.diff import VersionDiff, diff
from palladion.registry.models import Models
from palladion.registry.rows import NewVersion, SealedFile, SealedKind, SignedPrivacy, Version, VersionTensor
from palladion.registry.transaction import Transaction

TENSORS_MAX = 1_000_000  # the largest mixture-of-experts models list some 100 000
TENSOR_NAME_BYTES_MAX = 2048  # exporters write paths of modules, some 200 bytes; PostgreSQL indexes 2704 at most
PRIVACY_BYTES_MAX = 8 * 1024  # the statement of a training, as the ledger records it
PUBLISHER_CHARACTERS_MAX = 128  # a key id, or a public key in hexadecimal

_VERSION = tables.version.c
_SEALED = tables.sealed_file.c
_TENSOR = tables.version_tensor.c
_PRIVACY = privacy_tables.version_privacy.c


class Versions:
    """The versions of one transaction."""

    def __init__(self, transaction: Transaction, models: Models) -> None:
        self._transaction = transaction
        self._models = models

    def next_number(self, model: str) -> int:
        """The number that the next version gets, if nobody else adds one first. Raises NotFoundError."""
        self._models.get(model)
        return self._newest(model) + 1

    def add(self, new: NewVersion, *, number: int | None = None) -> Version:
        """Register the next version of an existing model; its parent must be an earlier version of the same model.

        `number` is the one that the sealed file already carries, from `next_number`; ConflictError if another version
        took it meanwhile. Raises ConflictError if the model has a version of the same content, naming it.
        """
        _check(new)
        self._models.lock(new.model)
        self.refuse_known(new.model, new.content_digest)
        if new.parent is not None:
            self.get(new.model, new.parent)
        free = self._newest(new.model) + 1
        if number is not None and number != free:
            raise ConflictError(
                f"version {number} of {new.model} was expected to be the next, and that is {free}",
                "another process added a version meanwhile: run it again",
            )
        self._insert(new, free)
        return self.get(new.model, free)

    def get(self, model: str, number: int) -> Version:
        """One version. Raises NotFoundError, naming the newest there is."""
        found = self._select(model, number)
        if not found:
            self._models.get(model)
            newest = self._newest(model)
            raise NotFoundError(
                f"no version {number} of {model}", f"the newest is {newest}" if newest else "it has no version yet"
            )
        return found[0]

    def all(self, model: str) -> list[Version]:
        """Every version of a model, oldest first. Raises NotFoundError if there is no such model."""
        self._models.get(model)
        return self._select(model, None)

    def newest(self, model: str) -> Version | None:
        """The version with the highest number, or None. Raises NotFoundError if there is no such model."""
        self._models.get(model)
        number = self._newest(model)
        return self.get(model, number) if number else None

    def with_content(self, content_digest: str) -> list[tuple[str, int]]:
        """The versions, as (model, number), of whatever model, whose content is exactly this."""
        query = (
            select(_VERSION.model, _VERSION.number)
            .where(_VERSION.content_digest == content_digest)
            .order_by(_VERSION.model, _VERSION.number)
        )
        return [(row.model, row.number) for row in self._transaction.all(query)]

    def refuse_known(self, model: str, content_digest: str) -> None:
        """Raise ConflictError, naming the version, if `model` has one whose content is exactly this."""
        known = [number for name, number in self.with_content(content_digest) if name == model]
        if known:
            raise ConflictError(
                f"this is version {known[0]} of {model} already: same tensors, same graph",
                f"palladion model show {model}",
            )

    def tensors(self, model: str, number: int) -> list[VersionTensor]:
        """The tensors of a version, by name. Raises NotFoundError."""
        self.get(model, number)
        query = (
            select(_TENSOR.name, _TENSOR.dtype, _TENSOR.shape, _TENSOR.digest, _TENSOR.byte_count)
            .where(_TENSOR.model == model, _TENSOR.number == number)
            .order_by(_TENSOR.name)
        )
        return [
            VersionTensor(row.name, row.dtype, tuple(row.shape), row.digest, row.byte_count)
            for row in self._transaction.all(query)
        ]

    def diff(self, model: str, old: int, new: int) -> VersionDiff:
        """What changed from version `old` to version `new`. Raises NotFoundError."""
        before, after = self.get(model, old), self.get(model, new)
        return diff(
            self.tensors(model, old),
            self.tensors(model, new),
            graph_changed=before.graph_digest != after.graph_digest,
        )

    def reseal(self, model: str, number: int, kind: SealedKind, sealed: SealedFile) -> Version:
        """Record that a version's sealed file was written anew (rewrap, move); the earlier ones stay on record."""
        self.get(model, number)
        self._insert_sealed(model, number, kind, sealed)
        return self.get(model, number)

    def _newest(self, model: str) -> int:
        row = self._transaction.first(select(func.max(_VERSION.number)).where(_VERSION.model == model))
        return 0 if row is None or row[0] is None else int(row[0])

    def _insert(self, new: NewVersion, number: int) -> None:
        self._transaction.change(
            insert(tables.version).values(
                model=new.model,
                number=number,
                parent=new.parent,
                content_digest=new.content_digest,
                graph_digest=new.graph_digest,
                format=new.format,
                publisher=new.publisher,
                marks=list(new.marks),
                note=new.note,
                created=self._transaction.now(),
            )
        )
        self._transaction.change(
            insert(tables.version_tensor),
            [
                {
                    "model": new.model,
                    "number": number,
                    "name": tensor.name,
                    "dtype": tensor.dtype,
                    "shape": list(tensor.shape),
                    "digest": tensor.digest,
                    "byte_count": tensor.byte_count,
                }
                for tensor in new.tensors
            ],
        )
        self._insert_sealed(new.model, number, "served", new.served)
        if new.original is not None:
            self._insert_sealed(new.model, number, "original", new.original)
        if new.privacy is not None:
            self._transaction.change(
                insert(privacy_tables.version_privacy).values(
                    model=new.model,
                    number=number,
                    document=dict(new.privacy.document),
                    signature=new.privacy.signature,
                )
            )

    def _insert_sealed(self, model: str, number: int, kind: SealedKind, sealed: SealedFile) -> None:
        names.one_of(kind, get_args(SealedKind), what="the kind of a sealed file")
        _check_sealed(sealed)
        self._transaction.change(
            insert(tables.sealed_file).values(
                model=model,
                number=number,
                kind=kind,
                path=sealed.path,
                digest=sealed.digest,
                header_digest=sealed.header_digest,
                at=self._transaction.now(),
            )
        )

    def _select(self, model: str, number: int | None) -> list[Version]:
        """The versions of a model, or just one, each with the last sealed files on record."""
        versions = select(tables.version).where(_VERSION.model == model).order_by(_VERSION.number)
        files = select(tables.sealed_file).where(_SEALED.model == model).order_by(_SEALED.id)
        stated = select(privacy_tables.version_privacy).where(_PRIVACY.model == model)
        if number is not None:
            versions = versions.where(_VERSION.number == number)
            files = files.where(_SEALED.number == number)
            stated = stated.where(_PRIVACY.number == number)
        sealed = {
            (row.number, row.kind): SealedFile(row.path, row.digest, row.header_digest)
            for row in self._transaction.all(files)
        }
        private = {row.number: SignedPrivacy(row.document, row.signature) for row in self._transaction.all(stated)}
        return [_version(row, sealed, private.get(row.number)) for row in self._transaction.all(versions)]


def _version(row: Any, sealed: dict[tuple[int, str], SealedFile], privacy: SignedPrivacy | None) -> Version:
    served = sealed.get((row.number, "served"))
    if served is None:
        raise FormatError(f"the registry lists no sealed file for version {row.number} of {row.model}", tables.RESTORE)
    return Version(
        model=row.model,
        number=row.number,
        parent=row.parent,
        content_digest=row.content_digest,
        graph_digest=row.graph_digest,
        format=row.format,
        publisher=row.publisher,
        marks=tuple(row.marks),
        note=row.note,
        created=row.created,
        served=served,
        original=sealed.get((row.number, "original")),
        privacy=privacy,
    )


def _check(new: NewVersion) -> None:
    names.digest(new.content_digest, what="the content digest")
    if new.graph_digest is not None:
        names.digest(new.graph_digest, what="the graph digest")
    names.slug(new.format, what="the format of a version")
    names.token(new.publisher, what="the publisher", characters_max=PUBLISHER_CHARACTERS_MAX)
    names.note(new.note, what="the note of a version")
    if len(canonical.encode(list(new.marks))) > tables.JSON_BYTES_MAX:
        raise ValueError(f"the marks of a version take more than {tables.JSON_BYTES_MAX} bytes")
    if new.privacy is not None:
        names.token(new.privacy.signature, what="the signature of a statement", characters_max=128)
        if len(canonical.encode(dict(new.privacy.document))) > PRIVACY_BYTES_MAX:
            raise ValueError(f"the statement of a training's privacy takes more than {PRIVACY_BYTES_MAX} bytes")
    _check_tensors(new.tensors)


def _check_tensors(tensors: tuple[VersionTensor, ...]) -> None:
    if len(tensors) > TENSORS_MAX:
        raise FormatError(f"the model has {len(tensors)} tensors, more than the {TENSORS_MAX} allowed")
    _refuse_twice(tensor.name for tensor in tensors)
    for tensor in tensors:
        names.digest(tensor.digest, what=f"the digest of tensor {tensor.name!r}")
        names.slug(tensor.dtype, what=f"the element type of tensor {tensor.name!r}")
        size = len(tensor.name.encode())
        if size > TENSOR_NAME_BYTES_MAX:
            raise FormatError(f"a tensor's name has {size} bytes, more than the {TENSOR_NAME_BYTES_MAX} allowed")


def _refuse_twice(tensor_names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in tensor_names:
        if name in seen:
            raise ValueError(f"tensor {name!r} is listed twice")
        seen.add(name)


def _check_sealed(sealed: SealedFile) -> None:
    names.digest(sealed.digest, what="the digest of a sealed file")
    names.digest(sealed.header_digest, what="the digest of a sealed file's header")
    names.token(sealed.path, what="the path of a sealed file", characters_max=names.PATH_CHARACTERS_MAX)
    path = PurePosixPath(sealed.path)
    if path.is_absolute() or ".." in path.parts:
        # an absolute path would break when the installation is restored elsewhere
        raise ValueError(f"the path {sealed.path!r} leads out of the installation, a relative one was expected")

"""What is wrong with one file where it lies: the findings of what it is, what it holds, and who may do what with it."""

import os
import stat
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

from palladion import keys
from palladion.errors import PalladionError
from palladion.seal.sign import publisher_id
from palladion.sweep import secrets
from palladion.sweep.finding import Finding, found
from palladion.sweep.heads import Seen, sealed_header
from palladion.sweep.item import Item
from palladion.sweep.rows import Match, Ours
from palladion.sweep.whole import check_sealed

_OTHERS_READ, _OTHERS_WRITE = stat.S_IROTH, stat.S_IWGRP | stat.S_IWOTH
_SHARED_KEYS = frozenset({"private-key", "palladion-identity", "api-key", "cloud-key", "keyring"})
# what readers of archives and arrays raise at files that are broken, or broken on purpose
_BROKEN = (ValueError, KeyError, OSError, RuntimeError, EOFError, MemoryError, OverflowError, BadZipFile, zlib.error)

Identify = Callable[[Item, Seen, Ours], list[Finding]]


@dataclass(frozen=True)
class Judge:
    """Judges items. `kept` are files that are where they belong; `identify` looks for marks, with the owner's keys."""

    ours: Ours
    kept: frozenset[Path] = frozenset()
    publishers: frozenset[bytes] = frozenset()  # raw keys
    identify: Identify | None = None

    def sealed(self, item: Item) -> tuple[str, list[Finding]]:
        """What a sealed file is in words, and what is wrong with where it lies."""
        told = sealed_header(item)
        if told is None:
            return "", [found("not-read", item.place, "it begins as a sealed file does, and its header is broken")]
        model, version, purpose, kind, publisher = told
        ours = publisher in {publisher_id(key) for key in self.publishers}
        try:
            check_sealed(item, self.publishers if ours else ())
        except PalladionError as error:
            # anything could follow a header: what is not whole, or not what was signed, is not said to be sealed
            text = f"it has the header of a sealed file, and is none: {error.message}"
            return "", [found("not-read", item.place, text, size=item.size), *self.exposed(item, "what may be a model")]
        by = "ours" if ours else f"publisher {publisher}"
        if kind == "backup":
            text = f"a sealed backup, {by}"
            return text, [found("backup", item.place, text, size=item.size), *self.exposed(item, "a backup")]
        return f"{model}@{version} {purpose}, sealed, {by}", list(self._writable(item))

    def model(self, item: Item, seen: Seen) -> list[Finding]:
        """What is wrong with a model in plaintext."""
        findings, matches = [], self._matches(item, seen)
        what = f"{seen.format}, {_size(item.size)}" + (f": {item.context}" if item.context else "")
        if matches:
            findings = [self._ours(item, seen, match, what) for match in matches[:3]]
            if not matches[0].whole and self.identify is not None:
                findings += self.identify(item, seen, self.ours)
        elif self.identify is not None and (named := self.identify(item, seen, self.ours)):
            findings = named
        else:
            note = f"; {seen.note}" if seen.note else ""
            findings = [found(self._rule(item, seen), item.place, what + note, format=seen.format, size=item.size)]
        return [*findings, *self.exposed(item, "a model")]

    def data(self, item: Item, seen: Seen) -> list[Finding]:
        """What is wrong with a data set beside models; `ours` where we have sealed that very file."""
        what = f"{seen.format}, {_size(item.size)}, beside a model"
        return [
            found("data-set", item.place, what, format=seen.format, size=item.size),
            *self.exposed(item, "a data set"),
        ]

    def whole(self, item: Item, seen: Seen) -> list[Finding]:
        """Whether a file is, byte for byte, one that a version of ours holds, or an array that is a tensor of one."""
        matches = self._matches(item, seen) if seen.format == "NumPy array" else self._whole(item)
        return [self._ours(item, seen, match, _size(item.size)) for match in matches[:3]]

    def file(self, item: Item, seen: Seen) -> list[Finding]:
        """`whole` of any other file, and what keys are in it."""
        findings = self.whole(item, seen)
        if item.size <= secrets.TEXT_BYTES_MAX:
            data = item.read(0, item.size)
            findings += self._keyring(item, data)
            kept = item.path is not None and item.path in self.kept
            findings += [
                found(secret.rule, item.place, _secret(item, secret)) for secret in secrets.secrets_in(data) if not kept
            ]
            if kept:
                findings += self.exposed(item, "a key")
        if any(finding.rule in _SHARED_KEYS for finding in findings):
            findings += self.exposed(item, "a key")
        return findings

    def exposed(self, item: Item, what: str) -> list[Finding]:
        """Who else may read or change something that has to be kept."""
        findings = [found("public", item.place, f"{what}, open to {who}", size=item.size) for who in item.open_to]
        if item.access is not None:
            if item.access.mode & _OTHERS_READ and _reachable(item.path):
                findings.append(found("readable", item.place, f"{what} of mode {item.access.mode:04o}"))
            findings += self._writable(item)
        return findings

    def _writable(self, item: Item) -> Iterator[Finding]:
        access = item.access
        if access is None:
            return
        if access.mode & _OTHERS_WRITE:
            yield found("writable", item.place, f"mode {access.mode:04o}")
        for folder in access.writable:
            yield found("open-folder", item.place, f"anybody may write to {folder}")
        if access.owner not in {os.getuid(), 0}:
            yield found("other-owner", item.place, f"it belongs to account {access.owner}")

    def _rule(self, item: Item, seen: Seen) -> str:
        if seen.sort == "training" and not seen.vague:
            return "training-state"
        if "git repository" in item.context:
            return "model-in-history"
        if item.cached:
            return "hub-model"
        return "pickle" if seen.vague else "plain-model"

    def _whole(self, item: Item) -> list[Match]:
        try:
            return self.ours.of_file(item)
        except (PalladionError, *_BROKEN):
            return []

    def _matches(self, item: Item, seen: Seen) -> list[Match]:
        try:
            return self.ours.of_file(item) or self.ours.of_model(item, seen)
        except (PalladionError, *_BROKEN):
            return []  # broken, or too large to be read: it is a finding as it is

    def _ours(self, item: Item, seen: Seen, match: Match, what: str) -> Finding:
        kept = {"format": seen.format, "version": match.version, "size": item.size}
        if match.original:
            return found("our-model", item.place, f"the unmarked original of {match.version}, {what}", **kept)  # type: ignore[arg-type]
        if match.whole:
            return found("our-model", item.place, f"{match.version}, {what}", **kept)  # type: ignore[arg-type]
        part = f"{match.tensors} of {match.of} tensors of {match.version}"
        return found("our-tensors", item.place, f"{part}, {what}", **kept)  # type: ignore[arg-type]

    def _keyring(self, item: Item, data: bytes) -> list[Finding]:
        if b'"wraps"' not in data or len(data) > keys.KEYRING_BYTES_MAX:
            return []
        try:
            wraps = keys.read_wraps(data, what=item.place)
        except PalladionError:
            return []
        if item.path is not None and item.path in self.kept:
            return self.exposed(item, "a keyring")
        return [found("keyring", item.place, f"wrapped to {', '.join(sorted({wrap.kind for wrap in wraps}))}")]


def _secret(item: Item, secret: secrets.Secret) -> str:
    where = f"{secret.what}, line {secret.line}"
    return f"{where}: {item.context}" if item.context else where


def _reachable(path: Path | None) -> bool:
    """Whether others come to a file at all: every folder above it lets them through."""
    if path is None:
        return True
    try:
        return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.absolute().parents)
    except OSError:
        return True


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def merged(findings: list[Finding]) -> list[Finding]:
    """Findings, each once; the worst first within a place."""
    return list(dict.fromkeys(findings))

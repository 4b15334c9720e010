"""The sweep: every file of every place is looked at once, by its head, and judged; bounded, and never silently partial.

What could not be read is a finding of its own. Files are read, never run, unpickled or written.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from palladion.errors import NotFoundError, PalladionError
from palladion.sweep import archives, folders, git, images
from palladion.sweep.buckets import Bucket
from palladion.sweep.clouds import Cloud
from palladion.sweep.finding import Finding, Severity, at_least, found
from palladion.sweep.heads import NOTHING, Seen, look
from palladion.sweep.ignore import Ignored
from palladion.sweep.item import Item
from palladion.sweep.judge import Judge, merged
from palladion.transit.cloud import SCHEMES
from palladion.transit.connection import Limits

FINDINGS_MAX = 100_000  # of one severity: beyond, a report is of no use
FILES_MAX = 20_000_000
PlaceKind = Literal["folder", "file", "bucket", "cloud"]
_IMAGES = frozenset({"tar"})
Progress = Callable[[int, str], None]  # files done, the place of the last


@dataclass(frozen=True)
class Sealed:
    """A sealed file that was met: fine where it is, unless a finding says otherwise."""

    place: str
    text: str


@dataclass
class Swept:
    """What a sweep found: findings, sealed files, and counts of what was looked at and passed over."""

    findings: list[Finding] = field(default_factory=list)
    sealed: list[Sealed] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    files: int = 0
    byte_count: int = 0
    ignored: int = 0

    @property
    def severities(self) -> dict[str, int]:
        """How many findings there are of each severity."""
        return dict(Counter(finding.severity for finding in self.findings))

    def worst(self, least: Severity) -> list[Finding]:
        """The findings of at least a severity."""
        return [finding for finding in self.findings if at_least(finding.severity, least)]


class Sweep:
    """Looks at places, one after the other; `run` gives what was found."""

    def __init__(
        self,
        judge: Judge,
        *,
        ignored: Ignored | None = None,
        limits: Limits | None = None,
        history: bool = True,
        progress: Progress = lambda _done, _place: None,
    ) -> None:
        self._judge = judge
        self._ignored = ignored or Ignored([])
        self._limits = limits or Limits()
        self._history = history
        self._progress = progress
        self._swept = Swept()
        self._tables: dict[str, list[tuple[Item, Seen]]] = defaultdict(list)
        self._model_folders: set[str] = set()
        self._bucket: Bucket | None = None
        self._allowed = archives.allowance()
        self._listed: Counter[str] = Counter()

    def run(self, places: Sequence[str]) -> Swept:
        """Look at `places`: paths, s3://, gs://, az://. Raises NotFoundError on one that is not there, StorageError."""
        folders.forget()
        for place in places:
            for item in self._place(place):
                self._look(item, 0)
        self._data_sets()
        self._swept.ignored = self._ignored.count
        order = {"critical": 0, "high": 1, "medium": 2, "low": 3}
        self._swept.findings = sorted(
            merged(self._swept.findings), key=lambda item: (order[item.severity], item.place, item.rule)
        )
        return self._swept

    def _place(self, text: str) -> Iterator[Item]:
        scheme, separator, _ = text.partition("://")
        self._bucket = None
        if separator and scheme == "s3":
            self._bucket = Bucket(text, self._limits)
            self._swept.kinds["bucket"] += 1
            self._bucket.standing(self._report)
            yield from self._bucket.items(self._report)
        elif separator and scheme in SCHEMES:
            self._swept.kinds["cloud"] += 1
            yield from Cloud(text).items(self._report)
        elif separator:
            raise PalladionError(
                f"{scheme}:// is no kind of place that is swept", "a path, s3://, gs://, az:// and abfs:// are"
            )
        else:
            yield from self._folder(Path(text))

    def _folder(self, path: Path) -> Iterator[Item]:
        if not path.exists():
            raise NotFoundError(f"{path} does not exist")
        # what the caller named may be a link; those below are not followed
        folder = folders.Folder(path.resolve())
        self._swept.kinds["folder" if path.is_dir() else "file"] += 1
        yield from folder.items()
        for finding in folder.findings:
            self._report(finding)
        for repository in folder.repositories if self._history else ():
            if not self._ignored.covers(str(repository)):
                self._swept.kinds["repository"] += 1
                yield from git.blobs(repository, self._report)

    def _look(self, item: Item, depth: int) -> None:
        if self._ignored.covers(item.place):
            return
        self._swept.files += 1
        if self._swept.files > FILES_MAX:
            raise PalladionError(f"there are more than {FILES_MAX} files", "sweep fewer places at once")
        self._progress(self._swept.files, item.place)
        try:
            seen = look(item) if item.size else NOTHING
            self._take(item, seen, depth)
        except PalladionError as error:
            self._report(found("not-read", item.place, error.message))
        except OSError as error:
            self._report(found("not-read", item.place, (error.strerror or str(error)).lower()))
        except Exception as error:  # noqa: BLE001 (a file made to break a reader must not keep the others from being read)
            self._report(found("not-read", item.place, f"reading it fails with {type(error).__name__}"))

    def _take(self, item: Item, seen: Seen, depth: int) -> None:
        if seen.sort == "sealed":
            text, findings = self._judge.sealed(item)
            if text:
                self._swept.sealed.append(Sealed(item.place, text))
        elif seen.sort in {"model", "training"}:
            self._model_folders.add(item.parent)
            findings = self._judge.model(item, seen)
        elif seen.sort == "archive":
            findings = self._judge.whole(item, seen)
            if not depth and self._bucket is not None and not item.open_to:
                item = replace(item, open_to=self._bucket.object_open_to(item, self._report))
            self._archive(item, seen, depth)
        elif seen.sort == "pointer":
            findings = [found("lfs-pointer", item.place, _pointer(item))]
        else:
            findings = self._judge.file(item, seen)
            if seen.sort == "data" and not findings:
                self._tables[item.parent].append((item, seen))
        if seen.sort == "sealed":
            self._model_folders.add(item.parent)
        if findings and not depth and self._bucket is not None and not item.open_to:
            open_to = self._bucket.object_open_to(item, self._report)
            findings += [found("public", item.place, f"{findings[0].text}, open to {who}") for who in open_to]
        for finding in findings:
            self._report(finding)

    def _archive(self, item: Item, seen: Seen, depth: int) -> None:
        if not depth:
            self._allowed = archives.allowance()
        if depth >= archives.DEPTH_MAX:
            self._report(found("not-read", item.place, f"an archive within {depth} others"))
            return
        if seen.format == "tar" and item.whole and images.is_image(item):
            self._swept.kinds["image"] += 1
            inside: Iterable[Item] = images.layers(item, self._report, self._allowed)
        else:
            inside = archives.members(item, seen.format, self._report, self._allowed)
        for member in inside:
            self._look(member, depth + 1)

    def _data_sets(self) -> None:
        """Tables and records, where a model lies in the same folder: elsewhere they are anybody's."""
        for folder, tables in self._tables.items():
            if folder in self._model_folders:
                for item, seen in tables:
                    for finding in self._judge.data(item, seen):
                        self._report(finding)

    def _report(self, finding: Finding) -> None:
        """List a finding. Each severity has its own room: a flood of harmless ones hides none that is not."""
        self._listed[finding.severity] += 1
        count = self._listed[finding.severity]
        if count <= FINDINGS_MAX:
            self._swept.findings.append(finding)
        elif count == FINDINGS_MAX + 1:
            text = f"more than {FINDINGS_MAX} findings that are {finding.severity}: the rest is not listed"
            self._swept.findings.append(found("not-read", finding.place, text, severity=finding.severity))


def _pointer(item: Item) -> str:
    fields = dict(line.partition(" ")[::2] for line in item.head(1024).decode("utf-8", "replace").splitlines())
    return f"content {fields.get('oid', '?')[:23]}…, {fields.get('size', '?')} bytes, kept elsewhere"

"""The supply chain as a stage: what `palladion scan` says of the version's own files, and of a folder beside them.

A folder is what a model came with, or lies in on its way here. Everything in it is looked at by content: what can hold
code is an error, what is code, or is not known, a warning. Nothing is opened, and no link is followed.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from palladion.files import storage_errors
from palladion.model.read import sniff
from palladion.redteam.audit.exhibit import Exhibit
from palladion.redteam.audit.result import Figure, Observation, StageResult
from palladion.redteam.audit.stage import Allowance, Plan, Stage
from palladion.redteam.audit.subject import Subject
from palladion.scan import scan_file

RULE = "supply-chain"
FILES_MAX = 10_000
OBSERVATIONS_MAX = 200  # a folder of a thousand pickles is one fact
HEAD_BYTES = 1024 * 1024  # that tell what a file is
WHERE_CHARACTERS_MAX = 200
NUMPY_HEADER_BYTES = 4096
_NUMPY = b"\x93NUMPY"
_MODELS = frozenset({"onnx", "safetensors", "gguf"})
# Of a programme, by what it begins with: interpreters, and what Linux, Windows and macOS run.
_PROGRAMS = (b"#!", b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
_CODE = frozenset({".py", ".pyc", ".pyx", ".sh", ".bat", ".ps1", ".js", ".so", ".dll", ".dylib", ".jar", ".ipynb"})
# What is text and nothing else: configuration, vocabularies, words for people.
_TEXT = frozenset({".json", ".txt", ".md", ".yaml", ".yml", ".toml", ".csv", ".jsonl", ".model", ".rst", ""})


def _missing(subject: Subject) -> str | None:
    return None if subject.exhibit is not None else "there is neither a model's file nor a folder to scan"


def _run(subject: Subject, _plan: Plan, _allowance: Allowance) -> StageResult:
    shown = () if subject.exhibit is None else subject.exhibit.observations
    found = tuple(item for item in shown if item.rule == RULE)
    count = sum(item.level != "note" for item in found)
    figure = Figure(
        f"{RULE}.findings", "files, or parts of them, that are not mere data", count, None, None, "findings"
    )
    return StageResult(RULE, "done", (), (figure,), found)


def with_folder(exhibit: Exhibit | None, folder: Path, *, operator_domains: Collection[str], bytes_max: int) -> Exhibit:
    """What the file shows, and what lies in `folder`. Raises StorageError where it cannot be read."""
    seen = list(_limited(_looked_at(folder, operator_domains, bytes_max)))
    own = Exhibit(()) if exhibit is None else exhibit
    return replace(own, observations=(*own.observations, *seen))


def _looked_at(folder: Path, domains: Collection[str], bytes_max: int) -> Iterator[Observation]:
    with storage_errors(folder):
        paths = sorted(folder.rglob("*"))
    others: list[Path] = []
    data: set[Path] = set()
    for path in paths[:FILES_MAX]:
        where = str(path.relative_to(folder))
        if path.is_symlink():
            yield _seen("warning", f"{where} is a link: what it leads to is not what was checked", where)
        elif path.is_file() and _is_model(path):
            scanned = scan_file(path, operator_domains=domains, bytes_max=bytes_max)
            # an ONNX file's external data: numbers that its graph names
            data |= {path.parent / file.name for file in (scanned.model.files[1:] if scanned.model else ())}
            for finding in scanned.verdict.findings:
                yield _seen("error", f"{where}: {finding.message}", f"{where} {finding.rule}")
        elif path.is_file():
            others.append(path)
    for path in others:
        if path not in data:
            yield from _other(path, str(path.relative_to(folder)))
    if len(paths) > FILES_MAX:
        yield _seen("warning", f"{len(paths) - FILES_MAX} more files were not looked at", "folder")


def _is_model(path: Path) -> bool:
    return path.suffix.lower().removeprefix(".") in _MODELS or sniff(_head(path)) in _MODELS


def _head(path: Path) -> bytes:
    with storage_errors(path), path.open("rb") as stream:
        return stream.read(HEAD_BYTES)


def _other(path: Path, where: str) -> Iterator[Observation]:
    head, suffix = _head(path), path.suffix.lower()
    kind = sniff(head)
    if head.startswith(_PROGRAMS) or suffix in _CODE:
        yield _seen("warning", f"{where} is a program, or holds code", where)
    elif suffix == ".npz" and kind == "zip":
        yield _seen("warning", f"{where} may hold pickles among its arrays", where)
    elif kind not in {"unknown", "sealed"}:
        yield _seen("error", f"{where} is of a format that can hold code ({kind})", where)
    elif kind == "unknown" and not _is_numbers(head) and not _is_text(head, suffix):
        yield _seen("warning", f"{where} is not known to be mere data", where)


def _is_numbers(head: bytes) -> bool:
    """Whether it is an array of NumPy's, and none of objects, which are pickles."""
    return head.startswith(_NUMPY) and b"|O" not in head[:NUMPY_HEADER_BYTES]


def _is_text(head: bytes, suffix: str) -> bool:
    """Whether it looks like text that nobody runs. A letter that is cut in two at the end is one."""
    if suffix not in _TEXT or b"\x00" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 3
    return True


def _limited(found: Iterator[Observation]) -> Iterator[Observation]:
    for number, item in enumerate(found):
        if number == OBSERVATIONS_MAX:
            yield _seen("error", f"more than {OBSERVATIONS_MAX} findings: the rest is not listed", "folder")
            return
        yield item


def _seen(level: str, text: str, where: str) -> Observation:
    shown = where if len(where) <= WHERE_CHARACTERS_MAX else f"{where[:WHERE_CHARACTERS_MAX]}…"
    return Observation(RULE, level, text, shown)  # type: ignore[arg-type]  # one of three


SUPPLY_CHAIN = Stage(RULE, 1, "supply chain: what the files beside the model hold", 0.01, _missing, _run)

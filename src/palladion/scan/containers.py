"""Archives by what is in them: torch, TorchScript, NumPy, Keras, or files of any kind; each file is looked at."""

import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from palladion.errors import FormatError
from palladion.scan import zips
from palladion.scan.keras import scan_archive_config
from palladion.scan.look import Look
from palladion.scan.numpy_files import scan_array
from palladion.scan.pickles.streams import scan_pickles
from palladion.scan.pickles.strings import pickled
from palladion.scan.source import LimitError, Part, Source, pieces
from palladion.scan.texts import scan_torchscript
from palladion.scan.torch_export import is_export, scan_export_entry

TEXT_BYTES_MAX = 16 * 2**20
_SCRIPT = re.compile(r"(?:^|/)code/.*\.py$")
_DEBUG = re.compile(r"(?:^|/)code/.*\.debug_pkl$")
_RAW = re.compile(r"(?:^|/)(?:data|constants|tensors|\.data)/[^/]+$")
_SMALL = frozenset({"version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id"})
_TAR_BLOCK = 512


@dataclass(frozen=True)
class _Shape:
    """What an archive is: its kind, the folder of a torch file in it, and the storages that its pickles name."""

    kind: str
    root: str | None
    storages: set[str]


def scan_zip(source: Source, look: Look, where: str) -> str:
    """Look at every file of a ZIP archive; gives its format."""
    try:
        found = zips.entries(source, look, where)
    except LimitError as error:
        look.add("limit", where, f"{where}: {error.message}")
        return "zip"
    except FormatError as error:
        look.add("structure", where, f"{where}: {error.message}")
        return _despite(source, look, where)
    names = {entry.name for entry in found}
    torch = sorted(name.removesuffix("data.pkl") for name in names if name == "data.pkl" or name.endswith("/data.pkl"))
    if len(torch) > 1:
        look.add("archive-entry", where, f"{where} holds more than one data.pkl: readers disagree on which counts")
    root = torch[0] if torch else None
    script = root is not None and (f"{root}constants.pkl" in names or any(_SCRIPT.search(name) for name in names))
    export = is_export(names) if root is None and "config.json" not in names else None
    keras = (
        root is None
        and export is None
        and "config.json" in names
        and ("metadata.json" in names or "model.weights.h5" in names)
    )
    kind = (
        ("torchscript" if script else "torch") if root is not None
        else "torch-export" if export is not None
        else "keras" if keras
        else "npz" if found and all(entry.name.endswith(".npy") for entry in found) else "zip"
    )  # fmt: skip
    if kind == "zip" and "schema.json" in names:
        look.add("format", where, f"{where} is a file of skops, whose loader makes what it names")
    if any(name.endswith(".data/extern_modules") for name in names):
        look.add("format", where, f"{where} is a torch.package, whose loader runs the programs in it")
    shape = _Shape(kind, root if export is None else export, set())
    # pickles first: they say which of the other files are numbers
    for entry in sorted(found, key=lambda entry: not entry.name.endswith(".pkl")):
        if not entry.is_folder:
            _entry(source, entry, look, where, shape)
    return kind


def _despite(source: Source, look: Look, where: str) -> str:
    """A broken archive is refused; the pickle that a lenient reader would find is named all the same."""
    position, tried = 0, 0
    while tried < 16 and position < source.size:
        head = source.read(position, 4096)
        if head[:4] != b"PK\x03\x04" or len(head) < 30:
            break
        name_size, extra_size = int.from_bytes(head[26:28], "little"), int.from_bytes(head[28:30], "little")
        packed = int.from_bytes(head[18:22], "little")
        begin = position + 30 + name_size + extra_size
        if head[8:10] == b"\x00\x00" and packed:
            name = head[30 : 30 + name_size].decode("utf-8", "replace")
            if not _RAW.search(name):
                look.examine(Part(source, begin, packed), f"{where}/{name}")
        position, tried = begin + packed, tried + 1
    return "zip"


def _entry(source: Source, entry: zips.Entry, look: Look, where: str, shape: _Shape) -> None:
    shown = f"{where}/{entry.name}"
    if entry.flags & 0x2041:
        return  # encrypted: reported with its header
    try:
        inner = zips.unpacked(source, entry, look)
    except LimitError as error:
        look.add("archive-bomb", shown, f"{shown}: {error.message}")
        return
    except FormatError as error:
        look.add("structure", shown, f"{shown}: {error.message}")
        inner = Part(source, entry.data_begin, entry.packed)
        if entry.method:
            return
    if shape.root is not None and entry.name.startswith(shape.root):
        if shape.kind == "torch-export":
            scan_export_entry(inner, entry.name.removeprefix(shape.root), look, shown)
        else:
            _torch_entry(inner, entry.name, look, shown, shape)
    elif shape.kind == "keras" and entry.name == "config.json":
        scan_archive_config(inner, look, shown)
    else:
        look.examine(inner, shown)


def _torch_entry(inner: Source, name: str, look: Look, shown: str, shape: _Shape) -> None:
    own = name.removeprefix(shape.root or "")
    if own.endswith(".pkl"):
        outcome = scan_pickles(inner, look, shown, torch="script" if shape.kind == "torchscript" else "zip")
        shape.storages.update(outcome.storages)
    elif _SCRIPT.search(name):
        scan_torchscript(inner, look, shown)
    elif _DEBUG.search(name):
        # read by C++ alone, which knows tuples, text and numbers
        before = len(look.findings)
        scan_pickles(inner, look, shown, torch="script")
        # the source of what was compiled, which nothing runs
        look.findings[before:] = [item for item in look.findings[before:] if item.rule != "embedded-code"]
    elif _RAW.search(own) and own.rpartition("/")[2] in shape.storages:
        # numbers, unless somebody takes them for something else
        if (found := pickled(look, inner)) is not None and inner.size > 2:
            look.add("nested-pickle", shown, f"{shown}: the numbers of a tensor are a pickle{found}", "suspicious")
    elif own.startswith("data/"):
        look.add("structure", shown, f"{shown} belongs to no tensor", "suspicious")
        look.examine(inner, shown)
    elif own in _SMALL:
        if inner.size > 4096:
            look.add("structure", shown, f"{shown} has {inner.size} bytes, expected a few")
        look.examine(inner, shown)
    else:
        look.examine(inner, shown)


class _File:
    """A source as the file object that `tarfile` wants."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._position = 0

    def read(self, count: int = -1) -> bytes:
        """See io.RawIOBase."""
        data = self._source.read(self._position, self._source.size if count < 0 else count)
        self._position += len(data)
        return data

    def seek(self, position: int, whence: int = 0) -> int:
        """See io.IOBase."""
        self._position = position + (0, self._position, self._source.size)[whence]
        return self._position

    def tell(self) -> int:
        """See io.IOBase."""
        return self._position


def is_tar(source: Source) -> bool:
    """Whether a TAR archive begins here: by its mark, or of early ones by the checksum of the first header."""
    head = source.read(0, _TAR_BLOCK)
    if len(head) < _TAR_BLOCK:
        return False
    if head[257:262] == b"ustar":
        return True
    try:
        stated = int(head[148:156].rstrip(b"\x00 ").lstrip(b" ") or b"x", 8)
    except ValueError:
        return False
    return bool(head[:1].strip(b"\x00")) and stated == sum(head[:148]) + 8 * 0x20 + sum(head[156:])


def scan_tar(source: Source, look: Look, where: str) -> str:
    """Look at every file of a TAR archive."""
    seen: set[str] = set()
    end = 0
    try:
        with tarfile.open(fileobj=cast("tarfile._Fileobj", _File(source)), mode="r:", errorlevel=2) as archive:
            for member in archive:
                look.entry()
                end = max(end, archive.offset)
                _member(source, member, look, where, seen)
            end = max(end, archive.offset)
    except LimitError as error:
        look.add("limit", where, f"{where}: {error.message}")
    except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
        look.add("structure", where, f"{where} is a broken TAR archive: {str(error).lower()}")
    for piece in pieces(source, end):
        if piece.strip(b"\x00"):
            look.add("polyglot", where, f"{where}: bytes follow the end of the archive")
            break
    if {"pickle", "storages", "tensors"} <= seen:
        look.add(
            "format", where, f"{where} is a torch file of 2017 or before: load it where it was made, and save it again"
        )
    return "tar"


def _member(source: Source, member: tarfile.TarInfo, look: Look, where: str, seen: set[str]) -> None:
    shown = f"{where}/{member.name}"
    name = member.name.removeprefix("./")
    if member.isdir():
        if member.name not in {".", "./"} and not zips.is_sound_name(name or "."):
            look.add("archive-entry", shown, f"{shown} is a name that leads out of the archive")
        return
    if not zips.is_sound_name(name):
        look.add("archive-entry", shown, f"{shown} is a name that leads out of the archive, or is hard to see")
    if name.casefold() in seen:
        look.add("archive-entry", shown, f"{shown} is there twice: which one counts depends on its reader")
    seen.add(name.casefold())
    if not member.isreg() or member.issparse():
        look.add("archive-entry", shown, f"{shown} is a link, a device or a sparse file")
        return
    look.examine(Part(source, member.offset_data, member.size), shown)


def scan_arrays(source: Source, look: Look, where: str) -> str:
    """A NumPy file: one array, or several one after another."""
    scan_array(source, look, where)
    return "npy"


def scan_compressed(source: Source, look: Look, where: str, kind: str, unpack: Callable[[], Source]) -> str:
    """What is compressed as a whole: unpack it in memory, and look at it."""
    try:
        inner = unpack()
    except LimitError as error:
        look.add("archive-bomb", where, f"{where}: {error.message}")
        return kind
    except FormatError as error:
        look.add("structure", where, f"{where} ({kind}): {error.message}")
        return kind
    return f"{look.examine(inner, f'{where}, unpacked')}, {kind}"

"""What a file is, by its bytes, and the scan that fits it: the one place that knows all formats.

What is not known is refused. A format that is known and cannot be looked into is refused too, with the reason.
"""

import struct
from collections.abc import Callable

from palladion.errors import FormatError
from palladion.model import gguf, safetensors
from palladion.model.read import SNIFF_BYTES, read_memory, sniff
from palladion.scan import compressed, zips
from palladion.scan.containers import is_tar, scan_compressed, scan_tar, scan_zip
from palladion.scan.graphs import graph_findings
from palladion.scan.hdf5 import MAGIC as HDF5
from palladion.scan.hdf5 import scan_hdf5
from palladion.scan.look import Look
from palladion.scan.numpy_files import MAGIC as NUMPY
from palladion.scan.numpy_files import scan_array
from palladion.scan.onnx_texts import scan_onnx_texts
from palladion.scan.pickles.streams import acts_as_pickle, scan_pickles
from palladion.scan.pickles.strings import Strings
from palladion.scan.records import is_records
from palladion.scan.source import LimitError, Source
from palladion.scan.templates import scan_template
from palladion.scan.tensorflow import looks_like_saved_model, scan_saved_model
from palladion.scan.texts import is_text, scan_any_text
from palladion.scan.ubjson import MAGIC as UBJSON
from palladion.scan.ubjson import scan_ubjson

HEAD_BYTES = 4096
ONNX_BYTES_MAX = 2 * 2**30  # protobuf's own limit
USER_BLOCKS = tuple(512 * 2**power for power in range(12))  # where else an HDF5 file may begin
# What nobody here can look into, or what is no model at all.
_CLOSED = (
    (b"7z\xbc\xaf\x27\x1c", "7z"), (b"Rar!\x1a\x07", "rar"), (b"MSCF", "cab"), (b"!<arch>", "ar"), (b"070701", "cpio"),
    (b"LZIP", "lzip"), (b"\x1f\x9d", "compress"), (b"xar!", "xar"), (b"hsqs", "squashfs"),
    (b"SQLite format 3\x00", "sqlite"), (b"CBM1", "catboost"), (b"ggml", "ggml"), (b"lmgg", "ggml"), (b"fmgg", "ggml"),
    (b"tjgg", "ggml"), (b"ggjt", "ggml"), (b"ggla", "ggml"), (b"algg", "ggml"), (b"%PDF", "pdf"),
    (b"\xd0\xcf\x11\xe0", "ole"), (b"bplist", "plist"), (b"binf", "lightgbm"), (b"ptrt", "tensorrt"),
    (b"\x93PALL\r\n\x1a", "sealed"), (b"PAR1", "parquet"),
)  # fmt: skip
_PROGRAMS = (
    (b"\x7fELF", "elf"), (b"MZ", "exe"), (b"\xcf\xfa\xed\xfe", "mach-o"), (b"\xce\xfa\xed\xfe", "mach-o"),
    (b"\xca\xfe\xba\xbe", "class or mach-o"), (b"\x00asm", "wasm"), (b"dex\n", "dex"),
    (b"\x1bLua", "lua"), (b"BC\xc0\xde", "llvm"),
)  # fmt: skip
# Pictures and sound; those in a RIFF say which behind their size.
_PICTURES = (
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\x00", b"MM\x00*", b"\x00\x00\x01\x00",
    b"fLaC\x00\x00\x00\x22", b"OggS\x00\x02", b"ID3\x03", b"ID3\x04",
)  # fmt: skip
_RIFF = frozenset({b"WEBP", b"WAVE"})
_ARCHIVES = frozenset({"zip", "torch", "torchscript", "torch-export", "npz", "keras", "empty"})
_PYC = b"\r\n"  # behind a number that changes with every version of Python


def examine(look: Look, source: Source, where: str) -> str:
    """Look at a file and all that lies in it; gives its format, and leaves findings in `look`."""
    try:
        kind = _examine(look, source, where)
        _second_format(look, source, where, kind)
        look.search(0)  # what was tried out may have used up what is shared, and been passed over for it
    except LimitError as error:
        look.add("limit", where, f"{where}: {error.message}")
        return "unknown"
    except FormatError as error:
        look.add("structure", where, f"{where}: {error.message}")
        return "unreadable"
    except (ValueError, LookupError, TypeError, ArithmeticError, struct.error, RecursionError, MemoryError) as error:
        # a parser met what it was not made for: nobody can say what the file is
        look.add("structure", where, f"{where} cannot be read: {type(error).__name__}")
        return "unreadable"
    return kind


def _examine(look: Look, source: Source, where: str) -> str:
    if not source.size:
        return "empty"
    head = source.read(0, HEAD_BYTES)
    for magic, scan in _BY_MAGIC:
        if head.startswith(magic):
            return scan(source, look, where)
    if (closed := _refused_by_magic(head, look, where)) is not None:
        return closed
    bitmap = head[:2] == b"BM" and head[2:10] == struct.pack("<II", source.size & 0xFFFFFFFF, 0)
    if bitmap or head.startswith(_PICTURES) or (head[:4] == b"RIFF" and head[8:12] in _RIFF):
        return "picture"
    if _is_safetensors(head):
        return _safetensors(source, look, where)
    if is_records(source):
        return "tfrecords"
    if head[0] == 0x80:
        return scan_pickles(source, look, where).format
    if (how := compressed.compression_of(source)) is not None:
        unpack: Callable[[], Source] = lambda: compressed.uncompressed(source, how, look)  # noqa: E731 (called at once)
        return scan_compressed(source, look, where, how, unpack)
    if is_tar(source):
        return scan_tar(source, look, where)
    if acts_as_pickle(source, look):
        return scan_pickles(source, look, where).format
    if is_text(source):
        return scan_any_text(source, look, where)
    return _protobuf(source, look, where)


def _protobuf(source: Source, look: Look, where: str) -> str:
    start = source.read(0, SNIFF_BYTES)
    if looks_like_saved_model(start):
        return scan_saved_model(source, look, where)
    if sniff(start) == "onnx":
        return _onnx(source, look, where)
    if _is_sentencepiece(start):
        return "sentencepiece"
    look.add("format", where, f"{where} is of no format that is known to be mere data")
    return "unknown"


def _refused_by_magic(head: bytes, look: Look, where: str) -> str | None:
    for magic, name in _CLOSED:
        if head.startswith(magic):
            look.add("format", where, f"{where} is a file of {name}, which cannot be looked into")
            return name
    for magic, name in _PROGRAMS:
        if head.startswith(magic):
            look.add("program", where, f"{where} is a program ({name})")
            return name
    if head[2:4] == _PYC and len(head) >= 16 and head[16:17] == b"\xe3":
        look.add("program", where, f"{where} is compiled Python")
        return "pyc"
    if head[4:8] in {b"TFL3", b"ET12", b"ET13", b"KNN1"}:
        look.add("format", where, f"{where} is a flat buffer ({head[4:8].decode()}), which cannot be looked into")
        return "tflite"
    return None


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 8 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= 2**32


def _safetensors(source: Source, look: Look, where: str) -> str:
    start = memoryview(source.read(0, 8))
    begin = safetensors.header_bytes(start, source.size, what=where)
    head = memoryview(source.read(0, begin))
    _, metadata = safetensors.parse_header(head, source.size, what=where)
    strings = Strings(look, where)
    for key, value in metadata.items():
        strings.look_at(key)
        strings.look_at(value)
        scan_template(value, look, f"{where}, {key[:40]}")
    return "safetensors"


def _gguf(source: Source, look: Look, where: str) -> str:
    count = 2**20
    while True:
        try:
            layout = gguf.parse_header(memoryview(source.read(0, count)), source.size, what=where)
            break
        except gguf.IncompleteError:
            if count >= source.size:
                raise
            count *= 8
    strings = Strings(look, where)
    for key, value in layout.metadata.items():
        if not (key.startswith("tokenizer.ggml.") and value.startswith("[")):  # a vocabulary holds any word
            strings.look_at(value)
        scan_template(value, look, f"{where}, {key[:80]}")
    return "gguf"


def _onnx(source: Source, look: Look, where: str) -> str:
    """A model that lies in an archive: in one piece, since what it names beside itself is not looked for."""
    if source.size > ONNX_BYTES_MAX:
        raise LimitError(f"an ONNX model has {source.size} bytes")
    model = read_memory({"model.onnx": source.read(0, source.size)})
    if model.graph is not None:
        for finding in graph_findings(model.graph, look.operator_domains):
            look.add(finding.rule, finding.where, finding.message, finding.grade)
    scan_onnx_texts(source, look, where)
    return "onnx"


def _is_sentencepiece(data: bytes) -> bool:
    """Whether a tokenizer's vocabulary begins here: pieces, each a text with a number (sentencepiece_model.proto)."""
    at = 0
    for _ in range(3):
        if data[at : at + 1] != b"\x0a" or len(data) < at + 8:
            return False
        size = data[at + 1]
        piece = data[at + 2 : at + 2 + size]
        if size > 127 or piece[:1] != b"\x0a" or piece[2 + piece[1] : 3 + piece[1]] != b"\x15":
            return False
        at += 2 + size
    return True


def _second_format(look: Look, source: Source, where: str, kind: str) -> None:
    """Report bytes that are another file for readers that begin at another place, or at the end."""
    if kind not in {"pickle", "joblib", "torch-legacy", "text", "empty"} and source.read(0, 2) != b"PK":
        try:
            if acts_as_pickle(source, look):
                look.add("polyglot", where, f"{where} is a pickle too, for readers that take it for one")
        except LimitError:
            pass
    if kind.split(",", maxsplit=1)[0] in _ARCHIVES or "," in kind:
        return
    try:
        if zips.end_of_archive(source) is not None:
            look.add("polyglot", where, f"{where} is a ZIP archive too, for readers that begin at the end")
        head = source.read(0, 512)
        if kind != "tar" and head[257:262] == b"ustar":
            look.add("polyglot", where, f"{where} is a TAR archive too")
        if kind not in {"tar", "hdf5"}:
            for begin in USER_BLOCKS:
                if begin < source.size and source.read(begin, len(HDF5)) == HDF5:
                    look.add("polyglot", where, f"{where} is an HDF5 file too, behind {begin} bytes")
    except LimitError:
        return  # of something unpacked, no more than its beginning is kept


def _array(source: Source, look: Look, where: str) -> str:
    scan_array(source, look, where)
    return "npy"


def _hdf5(source: Source, look: Look, where: str) -> str:
    return scan_hdf5(source, look, where)


_BY_MAGIC: tuple[tuple[bytes, Callable[[Source, Look, str], str]], ...] = (
    (b"GGUF", _gguf),
    (b"PK\x03\x04", scan_zip),
    (b"PK\x05\x06", scan_zip),
    (b"PK\x07\x08", scan_zip),
    (HDF5, _hdf5),
    (NUMPY, _array),
    (UBJSON, scan_ubjson),
)

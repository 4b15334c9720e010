"""What a file is, by its first bytes: a model and of which format, a data set, an archive, something sealed, or none.

Nothing is unpickled and nothing runs. What the head leaves open, a megabyte decides (ONNX) or the names in an archive
(PyTorch, NumPy and Keras are zip files).
"""

import json
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from palladion.errors import PalladionError
from palladion.model.read import sniff
from palladion.sweep.archives import is_tar
from palladion.sweep.item import HEAD_BYTES, SNIFF_BYTES, Item, Ranged

Sort = Literal["model", "training", "data", "sealed", "archive", "pointer", "none"]

MEMBERS_LOOKED_AT = 4096  # names of a zip file that are looked at to tell what it is
HEADER_BYTES_MAX = 16 * 1024 * 1024  # of a safetensors header that is read; the largest models have 10 MB
_INFLATED_MAX = 64 * 1024
# of the names of tensors, or the strings of a pickle, that only training leaves
_TRAINING = ("exp_avg", "optimizer", "param_groups", "momentum_buffer", "adam_", "opt_state", "lr_scheduler")
# modules that pickled models name at their beginning
_FRAMEWORKS = (
    *(b"torch", b"numpy", b"sklearn", b"xgboost", b"lightgbm", b"catboost", b"keras", b"tensorflow", b"jax"),
    *(b"flax", b"paddle", b"transformers", b"spacy", b"gensim", b"scipy", b"pandas", b"joblib"),
)
_LEGACY_TORCH = bytes.fromhex("8a0a6cfc9c46f9206aa850192e")  # the magic number that torch.save wrote before 1.6
_TORCH_PARTS = {
    *(("data",), ("version",), ("byteorder",), ("code",), ("constants",), ("extra",)),
    *((".data",), (".format_version",), (".storage_alignment",)),
}
_ARCHIVES = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
    (b"!<arch>\ndebian-binary", "deb"),
    # those that are not opened here: they are findings, so that nothing is passed over in silence
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"LZIP\x01", "lzip"),
    (b"MSCF\0\0\0\0", "cabinet"),
    (b"xar!\0\x1c", "xar"),
    (b"hsqs", "squashfs"),
    (b"QFI\xfb", "qcow2"),
    (b"KDMV", "VMDK"),
    (b"vhdxfile", "VHDX"),
    (b"LUKS\xba\xbe", "LUKS"),
    (b"PACK\0\0\0\x02", "git pack"),
    (b"# v2 git bundle\n", "git bundle"),
    (b"# v3 git bundle\n", "git bundle"),
    (b"age-encryption.org/v1\n", "age"),
    (b"-----BEGIN AGE ENCRYPTED FILE-----", "age"),
    (b"-----BEGIN PGP MESSAGE-----", "OpenPGP"),
    (b"Salted__", "OpenSSL"),
)
_ZLIB_LEVELS = b"\x01\x5e\x9c\xda"
_LZMA = b"\x5d\0\0"  # of `lzma` before xz: 2^23 bytes of window and the like; the coder's first byte is 0
_MODELS = (
    (b"ftrt", "TensorRT"),
    (b"ptrt", "TensorRT"),
    (b"CBM1", "CatBoost"),
    (b"tree\nversion=v", "LightGBM"),
    (b'{"learner":{', "XGBoost"),
    (b"{L\0\0\0\0\0\0\0\x07learner{", "XGBoost"),
    *((magic, "GGML") for magic in (b"tjgg", b"lmgg", b"fmgg")),
    (b"RKNN", "RKNN"),
    (b"\xba\x16\x4f\x2f", "fastText"),
    (b"7767517\n", "ncnn"),
)
_TABLES = (
    (b"PAR1", "Parquet"),
    (b"ARROW1", "Arrow"),
    (b"Obj\x01", "Avro"),
    (b"ORC", "ORC"),
)
_CPIO = re.compile(rb"07070[12][0-9A-Fa-f]{104}|070707[0-7]{70}")
_KNOWN: tuple[tuple[Sort, tuple[tuple[bytes, str], ...]], ...] = (
    ("model", _MODELS),
    ("data", _TABLES),
    ("archive", _ARCHIVES),
)
# numbers alone, which nothing in them tells from noise: what frameworks call them, and of at least a MiB
_RAW_NAMES = re.compile(r".*(\.data-\d{5}-of-\d{5}|\.onnx[._]data|\.pdiparams|\.caffemodel|/weights?\.bin)")
_RAW_BYTES_MIN = 1024 * 1024
_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
_TEXT_LINES_MIN = 3


@dataclass(frozen=True)
class Seen:
    """What a file is: its sort, its format in words, and a note on what is in it; `vague` where it may be no model."""

    sort: Sort
    format: str = ""
    note: str = ""
    vague: bool = False


NOTHING = Seen("none")


def look(item: Item) -> Seen:
    """What a file is. Raises what reading it does, and never on what is in it."""
    head = item.head()
    if len(head) < 8:
        return NOTHING
    return _by_magic(item, head) or _by_content(item, head)


def _by_magic(item: Item, head: bytes) -> Seen | None:
    kind = sniff(head[:16])
    match kind:
        case "sealed":
            return Seen("sealed", "sealed file")
        case "safetensors":
            return _safetensors(item, head)
        case "gguf":
            return Seen("model", "GGUF")
        case "zip":
            return _zip(item, head)
        case "hdf5":
            note = "weights or a model of Keras" if b"model_weights" in head or b"keras" in head else ""
            return Seen("training" if _is_training(head) else "model", "HDF5", note)
        case "pickle":
            return _pickle(head)
    return _pickle(head) if _LEGACY_TORCH in head[:16] else _by_other_magic(head)


def _by_other_magic(head: bytes) -> Seen | None:
    if head[4:8] == b"TFL3":
        return Seen("model", "TensorFlow Lite")
    if head[4:8] == b"ET12":
        return Seen("model", "ExecuTorch")
    if head.startswith(b"\x93NUMPY"):
        return Seen("data", "NumPy array")
    if head.startswith(_POINTER):
        return Seen("pointer", "LFS pointer")
    if is_tar(head[:512]):
        return Seen("archive", "tar")
    if _CPIO.match(head):
        return Seen("archive", "cpio")
    for sort, known in _KNOWN:
        for magic, name in known:
            if head.startswith(magic):
                return Seen(sort, name)
    return None


def _by_content(item: Item, head: bytes) -> Seen:
    text = _is_text(head)
    if not text and head[:1] == b"\x78" and head[1] in _ZLIB_LEVELS and (inner := _inflated(head)):
        return _pickle(inner, "joblib") if inner.startswith(b"\x80") else Seen("archive", "zlib")
    if head.startswith(_LZMA) and head[13:14] == b"\0":
        return Seen("archive", "lzma")
    if text:
        return _table(head, whole=item.size <= len(head))
    # ONNX: fields of its top message, the graph among them; a pickle of the oldest protocols: opcodes in ASCII
    more = head if item.size <= len(head) else item.head(SNIFF_BYTES)
    if sniff(more) == "onnx":
        return Seen("model", "ONNX")
    raw = item.size >= _RAW_BYTES_MIN and _RAW_NAMES.fullmatch(f"/{item.name}")
    return Seen("model", "bare numbers", "known by its name") if raw else NOTHING


def _safetensors(item: Item, head: bytes) -> Seen:
    length = int.from_bytes(head[:8], "little")
    if length + 8 > item.size:
        return NOTHING
    names = head if length + 8 <= len(head) else item.head(min(length + 8, HEADER_BYTES_MAX))
    if b"data_offsets" not in names:
        return NOTHING
    return Seen("training" if _is_training(names[: length + 8]) else "model", "safetensors")


def _pickle(head: bytes, name: str = "") -> Seen:
    known = name or ("PyTorch (pickle)" if b"torch" in head else "pickle")
    sort: Sort = "training" if _is_training(head) else "model"
    vague = not any(word in head for word in _FRAMEWORKS)
    return Seen(sort, known, "whoever loads it runs what is in it", vague)


def _zip(item: Item, head: bytes) -> Seen:
    names = _names(item) if item.whole else _names_in(head)
    parts = [PurePosixPath(name) for name in names]
    if _is_torch(parts):
        script = any("code" in part.parts for part in parts)
        described = "TorchScript" if script else "PyTorch"
        pickled = _member(item, next(name for name, part in zip(names, parts, strict=True) if part.name == "data.pkl"))
        return Seen("training" if _is_training(pickled) else "model", described, "whoever loads it runs what is in it")
    if any(part.name == "model.weights.h5" for part in parts):
        return Seen("model", "Keras")
    if parts and all(part.suffix == ".npy" for part in parts):
        return Seen("model", "NumPy archive")
    return Seen("archive", "zip")


def _is_torch(parts: Sequence[PurePosixPath]) -> bool:
    """Whether these are names as torch.save writes them: all in one folder, `data.pkl` and what goes with it."""
    folders = {part.parts[0] for part in parts if len(part.parts) > 1}
    return (
        len(folders) == 1
        and any(part.name == "data.pkl" and len(part.parts) == 2 for part in parts)
        and all(part.suffix in {".pkl", ".debug_pkl"} or part.parts[1:2] in _TORCH_PARTS for part in parts)
    )


def _names(item: Item) -> Sequence[str]:
    try:
        with zipfile.ZipFile(Ranged(item)) as archive:
            return archive.namelist()[:MEMBERS_LOOKED_AT]
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return _names_in(item.head())


def _names_in(head: bytes) -> list[str]:
    """The names in the local headers of a zip file that lie in its beginning."""
    found, at = [], 0
    while (at := head.find(b"PK\x03\x04", at)) >= 0 and at + 30 <= len(head):
        size = int.from_bytes(head[at + 26 : at + 28], "little")
        found.append(head[at + 30 : at + 30 + size].decode("utf-8", "replace"))
        at += 30
    return found


def _member(item: Item, name: str) -> bytes:
    """The beginning of a member of a zip file; nothing where that cannot be read."""
    if not item.whole:
        return item.head()
    try:
        with zipfile.ZipFile(Ranged(item)) as archive, archive.open(name) as stream:
            return stream.read(_INFLATED_MAX)
    except (zipfile.BadZipFile, ValueError, OSError, KeyError, NotImplementedError, RuntimeError, zlib.error):
        return b""


def _is_training(data: bytes) -> bool:
    lowered = data.lower()
    return any(word.encode() in lowered for word in _TRAINING)


def _inflated(head: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(head, _INFLATED_MAX)
    except zlib.error:
        return b""


def _is_text(head: bytes) -> bool:
    if b"\0" in head[:4096]:
        return False
    try:
        head[:4096].decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > min(len(head), 4096) - 4 > 0  # a letter that was cut
    return True


def _table(head: bytes, *, whole: bool) -> Seen:
    """A table or a list of records as text, where it is one; other text is nothing."""
    lines = [line for line in head.split(b"\n") if line.strip()]
    lines = lines if whole else lines[:-1]
    if len(lines) < _TEXT_LINES_MIN:
        return NOTHING
    some = lines[: 2 * _TEXT_LINES_MIN]
    if all(line.lstrip().startswith(b"{") for line in some) and all(map(_is_record, some)):
        return Seen("data", "JSON lines")
    for separator in (b",", b"\t", b";"):
        counts = {line.count(separator) for line in some}
        if len(counts) == 1 and counts.pop() >= 1 and not any(b"{" in line or b"(" in line for line in some):
            return Seen("data", "CSV")
    return NOTHING


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def sealed_header(item: Item) -> "tuple[str, int, str, str, str] | None":
    """What a sealed file says of itself: model, version, purpose, kind, publisher; None where its header is broken."""
    from palladion.seal.header import PREFIX_BYTES, decode_header, decode_prefix

    try:
        head = item.head(HEAD_BYTES)
        size = decode_prefix(head[:PREFIX_BYTES], what=item.place)
        encoded = item.read(PREFIX_BYTES, size)
        header = decode_header(encoded, what=item.place)
    except PalladionError:
        return None
    return header.model, header.version, header.purpose, header.kind, header.publisher

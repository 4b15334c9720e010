"""Archives that readers see differently, that lead out of themselves, unpack without end, or hide a pickle."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator

from tests.models import onnx_bytes, safetensors_bytes
from tests.scan.corpus.pickles import SYSTEM, zipped
from tests.scan.corpus.sample import Sample, call

SAFE = {"model.safetensors": safetensors_bytes(), "config.json": b"{}"}


def containers() -> list[Sample]:
    """Every odd archive, and files that are two files."""
    parts = (("zip", _zips), ("tar", _tars), ("compressed", _compressed), ("polyglot", _polyglots), ("closed", _closed))
    return [Sample(label, data, family) for family, make in parts for label, data in make()]


def _changed(data: bytes, mark: bytes, offset: int, value: bytes, *, last: bool = False) -> bytes:
    """`data` with bytes replaced at `offset` behind the first (or last) `mark`."""
    at = (data.rindex(mark) if last else data.index(mark)) + offset
    return data[:at] + value + data[at + len(value) :]


def _zips() -> Iterator[tuple[str, bytes]]:
    evil = {"model.pkl": SYSTEM, **SAFE}
    whole = zipped(evil)
    local, central, end = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
    yield "pickle.zip", whole
    yield "pickle-deflated.zip", zipped(evil, 8)
    yield "pickle-bzip2.zip", zipped(evil, 12)
    yield "pickle-lzma.zip", zipped(evil, 14)
    yield "pickle-odd-name.zip", zipped({"weights.safetensors": SYSTEM})
    yield "pickle-no-suffix.zip", zipped({"data": call("os", "system", protocol=0)})
    yield "zip-in-zip.zip", zipped({"inner.zip": whole})
    yield "zip-in-zip-in-tar.tar", _tar({"a.zip": zipped({"inner.zip": whole})})
    for bit in (0x0001, 0x0020, 0x0040, 0x2000):
        flags = struct.pack("<H", bit)
        yield f"flag-{bit:#x}-both.zip", _changed(_changed(whole, local, 6, flags), central, 8, flags)
        yield f"flag-{bit:#x}-local.zip", _changed(whole, local, 6, flags)
        yield f"flag-{bit:#x}-central.zip", _changed(whole, central, 8, flags)
    yield "bad-crc.zip", _changed(_changed(whole, local, 14, b"\x01\x02\x03\x04"), central, 16, b"\x01\x02\x03\x04")
    yield "bad-crc-local.zip", _changed(whole, local, 14, b"\x01\x02\x03\x04")
    yield (
        "bad-crc-safe.zip",
        _changed(_changed(zipped(SAFE), local, 14, b"\x01\x02\x03\x04"), central, 16, b"\x01\x02\x03\x04"),
    )
    yield "name-differs.zip", _changed(whole, central, 46, b"notes.txt")
    yield "method-differs.zip", _changed(whole, local, 8, b"\x08\x00")
    yield "method-unknown.zip", _changed(_changed(whole, local, 8, b"\x63\x00"), central, 10, b"\x63\x00")
    yield "size-differs.zip", _changed(whole, local, 22, struct.pack("<I", 3))
    yield "size-lies.zip", _changed(_changed(whole, local, 22, struct.pack("<I", 3)), central, 24, struct.pack("<I", 3))
    yield "disk-number.zip", _changed(whole, central, 34, b"\x01\x00")
    yield "no-end.zip", whole[: whole.rindex(end)]
    yield "no-directory.zip", whole[: whole.index(central)]
    yield "cut.zip", whole[:-30]
    yield "count-lies.zip", _changed(whole, end, 10, b"\x01\x00", last=True)
    yield "two-ends.zip", whole + whole[whole.rindex(end) :]
    yield "prefix.zip", b"#!/bin/sh\necho palladion\n" + whole
    yield "prefix-zeros.zip", b"PK\x03\x04" + b"\x00" * 60 + whole
    yield "suffix.zip", whole + b"echo palladion"
    yield "gap.zip", _with_gap()
    yield "comment-hides.zip", _commented(whole)
    yield "duplicate.zip", _duplicated()
    yield (
        "duplicate-case.zip",
        zipped({"Model.safetensors": SAFE["model.safetensors"], "model.safetensors": SAFE["model.safetensors"]}),
    )
    for label, name in (
        ("up", "../../evil.txt"), ("absolute", "/etc/cron.d/x"), ("drive", "C:/evil.txt"),
        ("backslash", "..\\evil.txt"),
        ("control", "a\nb.txt"), ("hidden", "a\u202etxt.exe"), ("dot", "a/./b"), ("inner-up", "a/../../b"),
    ):  # fmt: skip
        yield f"name-{label}.zip", zipped({name: b"palladion"})
    yield "link.zip", _linked()
    yield "overlap.zip", _overlapping()
    yield "bomb.zip", _bomb(300)
    yield "bomb-nested.zip", zipped({f"{i}.zip": _bomb(60) for i in range(5)}, 8)
    yield "many.zip", _many(100_001)
    yield "deep.zip", _deep(12)
    yield "program.zip", zipped({"model.safetensors": SAFE["model.safetensors"], "lib.so": b"\x7fELF" + bytes(60)})
    yield "script.zip", zipped({"run.sh": b"#!/bin/sh\necho palladion\n"})
    yield "source.zip", zipped({"handler.py": b"import os\nimport sys\n\ndef handle(x):\n    return os.popen(x)\n"})


def _zeros(mebibytes: int) -> bytes:
    """So many zeros as deflate packs them, made from the first ones."""
    machine = zlib.compressobj(9, zlib.DEFLATED, -15)
    one = machine.compress(bytes(2**20)) + machine.flush(zlib.Z_FULL_FLUSH)
    return one * mebibytes + machine.flush()


def _bomb(mebibytes: int) -> bytes:
    packed = _zeros(mebibytes)
    crc = 0
    for _ in range(mebibytes):
        crc = zlib.crc32(bytes(2**20), crc)
    return _archive([(b"zeros", packed, 8, crc, mebibytes * 2**20)])


def _many(count: int) -> bytes:
    return _archive([(str(number).encode(), b"", 0, 0, 0) for number in range(count)])


def _archive(files: list[tuple[bytes, bytes, int, int, int]]) -> bytes:
    """An archive of what is packed already: name, bytes, method, checksum and size."""
    parts, directory, at = [], [], 0
    for name, packed, method, crc, size in files:
        common = struct.pack("<HHHHIIIHH", 0, method, 0, 0, crc, len(packed), size, len(name), 0)
        parts.append(b"PK\x03\x04\x14\x00" + common + name + packed)
        directory.append(b"PK\x01\x02\x14\x00\x14\x00" + common + bytes(10) + struct.pack("<I", at) + name)
        at += len(parts[-1])
    central = b"".join(directory)
    count = min(len(files), 0xFFFF)
    end = b""
    if len(files) > count:
        end = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, len(files), len(files), len(central), at)
        end += b"PK\x06\x07" + struct.pack("<IQI", 0, at + len(central), 1)
    end += b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count, count, len(central), at, 0)
    return b"".join(parts) + central + end


def _with_gap() -> bytes:
    """An archive with a file that its directory does not name."""
    data = bytearray(zipped({"model.pkl": SYSTEM, **SAFE}))
    first, second = data.index(b"PK\x01\x02"), data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    end = data.rindex(b"PK\x05\x06")
    removed = second - first
    del data[first:second]
    count, size = struct.unpack("<HI", data[end - removed + 10 : end - removed + 16])
    data[end - removed + 8 : end - removed + 16] = struct.pack("<HHI", count - 1, count - 1, size - removed)
    return bytes(data)


def _commented(inner: bytes) -> bytes:
    """A safe archive whose comment is a whole other one."""
    buffer = io.BytesIO(zipped(SAFE))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = inner[:60_000]
    return buffer.getvalue()


def _duplicated() -> bytes:
    import warnings

    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("model.bin", b"text")
        archive.writestr("model.bin", SYSTEM)
    return buffer.getvalue()


def _linked() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo("weights")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/hostname")
    return buffer.getvalue()


def _overlapping() -> bytes:
    """Two entries of the directory for one file."""
    data = bytearray(zipped({"a": b"palladion"}))
    begin, end = data.index(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    entry = bytearray(data[begin:end])
    entry[46:47] = b"b"
    count, size = struct.unpack("<HI", data[end + 10 : end + 16])
    data[end + 8 : end + 16] = struct.pack("<HHI", count + 1, count + 1, size + len(entry))
    return bytes(data[:end] + entry + data[end:])


def _deep(levels: int) -> bytes:
    data = SYSTEM
    for _ in range(levels):
        data = zipped({"inner": data})
    return data


def _tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _member(change: Callable[[tarfile.TarInfo], None]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("weights")
        change(entry)
        archive.addfile(entry)
    return buffer.getvalue()


def _tars() -> Iterator[tuple[str, bytes]]:
    for label, mode in (("plain", "w"), ("gz", "w:gz"), ("bz2", "w:bz2"), ("xz", "w:xz")):
        yield f"pickle-{label}.tar", _tar({"m/model.pkl": SYSTEM, "m/config.json": b"{}"}, mode)
    yield "tar-up.tar", _tar({"../evil": b"palladion"})
    yield "tar-absolute.tar", _tar({"/etc/evil": b"palladion"})
    yield "tar-twice.tar", _tar({"a": b"1"})[:1024] + _tar({"a": b"2"})
    yield "tar-legacy-torch.tar", _tar({"storages": b"x", "tensors": b"y", "pickle": SYSTEM})
    yield "tar-behind.tar", _tar({"a": b"1"}) + SYSTEM
    yield "tar-cut.tar", _tar({"a": b"1" * 2000})[:900]

    def symbolic(entry: tarfile.TarInfo) -> None:
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/hostname"

    def hard(entry: tarfile.TarInfo) -> None:
        entry.type, entry.linkname = tarfile.LNKTYPE, "../other"

    def device(entry: tarfile.TarInfo) -> None:
        entry.type = tarfile.CHRTYPE

    def pipe(entry: tarfile.TarInfo) -> None:
        entry.type = tarfile.FIFOTYPE

    for label, change in (("symbolic", symbolic), ("hard", hard), ("device", device), ("pipe", pipe)):
        yield f"tar-{label}.tar", _member(change)
    broken = bytearray(_tar({"model.pkl": SYSTEM}))
    broken[0:1] = b"x"
    yield "tar-checksum.tar", bytes(broken)


def _compressed() -> Iterator[tuple[str, bytes]]:
    for label, squeeze in (
        ("gz", gzip.compress),
        ("bz2", bz2.compress),
        ("xz", lzma.compress),
        ("zlib", zlib.compress),
    ):
        data = squeeze(SYSTEM)
        yield f"{label}-cut.{label}", data[:-6]
        yield f"{label}-behind.{label}", data + b"palladion"
    yield "gz-two-members.gz", gzip.compress(b"text\n") + gzip.compress(SYSTEM)
    yield "gz-bomb.gz", b"\x1f\x8b\x08" + bytes(7) + _zeros(300) + struct.pack("<II", 0, 300 * 2**20)
    yield "zstd.zst", b"\x28\xb5\x2f\xfd" + bytes(20)
    yield "lz4.lz4", b"\x04\x22\x4d\x18" + bytes(20)


def _polyglots() -> Iterator[tuple[str, bytes]]:
    archive = zipped({"data.pkl": SYSTEM})
    yield "safetensors-zip.safetensors", safetensors_bytes() + archive
    yield "pickle-zip.pkl", b"\x80\x04N." + archive
    yield "onnx-zip.onnx", onnx_bytes() + archive
    yield "json-zip.json", b'{"a": 1}' + archive
    yield "picture-zip.png", b"\x89PNG\r\n\x1a\n" + bytes(30) + archive
    yield "text-hdf5.txt", b"palladion\n".ljust(512) + b"\x89HDF\r\n\x1a\n" + bytes(100)
    yield "pickle-hdf5.pkl", (b"\x80\x04N." + bytes(508)) + b"\x89HDF\r\n\x1a\n"
    head = bytearray(b"\x89PNG\r\n\x1a\n".ljust(512, b"\x00"))
    head[257:262] = b"ustar"
    yield "picture-tar.png", bytes(head)
    yield "pickle-in-safetensors-name.safetensors", SYSTEM
    yield "pickle-as-picture.png", SYSTEM
    yield "pickle-as-text.txt", call("os", "system", protocol=0)
    yield "text-then-bytes.txt", b"palladion " * 600 + SYSTEM


def _closed() -> Iterator[tuple[str, bytes]]:
    for label, magic in (
        ("7z", b"7z\xbc\xaf\x27\x1c"), ("rar", b"Rar!\x1a\x07\x01\x00"), ("cab", b"MSCF"), ("elf", b"\x7fELF"),
        ("exe", b"MZ"),
        ("class", b"\xca\xfe\xba\xbe"), ("wasm", b"\x00asm"), ("tflite", b"\x1c\x00\x00\x00TFL3"), ("cbm", b"CBM1"),
        ("sqlite", b"SQLite format 3\x00"), ("ole", b"\xd0\xcf\x11\xe0"), ("pdf", b"%PDF-1.7"), ("ggml", b"lmgg"),
        ("unknown", b"\x01\x02\x03\x04"), ("xar", b"xar!"), ("ar", b"!<arch>\n"),
    ):  # fmt: skip
        yield f"closed.{label}", magic + bytes(range(200, 240))
    yield "closed.pmml", b'<?xml version="1.0"?><PMML version="4.4"></PMML>'
    yield "closed.xml", b'<?xml version="1.0"?><net name="m"></net>'
    yield (
        "closed.skops",
        zipped({"schema.json": b'{"__class__": "Net", "__module__": "os", "__loader__": "ObjectNode"}'}),
    )
    yield "closed.sh", b"#!/bin/sh\necho palladion\n"
    yield "closed.html", b"<html><script>alert(1)</script></html>"
    yield "closed.pyc", b"\xa7\r\r\n" + bytes(12) + b"\xe3" + bytes(40)

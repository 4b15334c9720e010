"""HDF5 files (format specification 3.0), as Keras keeps models in them: the configuration, and links to other files.

The tree of the file is not walked: a configuration stands in one piece wherever it is kept, and so does the name of
another file, so that both are found by going through all bytes once, whatever the tree says.
"""

import json
import re
from collections.abc import Iterator

from palladion.scan.keras import scan_config
from palladion.scan.look import Look
from palladion.scan.pickles.programs import CODE
from palladion.scan.source import PIECE_BYTES, Source

MAGIC = b"\x89HDF\r\n\x1a\n"
OVERLAP_BYTES = 64 * 1024
CONFIG_BYTES_MAX = 16 * 2**20
CONFIGS_MAX = 256
HEAPS_MAX = 4096
_CONFIG = re.compile(rb'\{\s{0,9}"(?:[\w\\]{1,64})"\s{0,9}:')
_EXTERNAL_LINK = re.compile(rb"\x01[\x00-\x1f]\x40")
# Two that begin with fixed bytes: one pattern with a choice in front takes several times as long.
_EXTERNAL_FILES = re.compile(rb"\x01\x00\x00\x00(?=..(..)(.{8}))", re.DOTALL)
_VIRTUAL = re.compile(rb"\x04\x03(?=(.{8}))", re.DOTALL)
_LAMBDA = re.compile(rb'"class_name"\s*:\s*"(?:Lambda|__lambda__)"')
_DANGEROUS = re.compile(
    rb"__import__\s*\(|os\.system|subprocess\.|exec\s*\(|eval\s*\(|from [a-z]{2,12} import |import [a-z]{2,12} as "
)


def scan_hdf5(source: Source, look: Look, where: str) -> str:
    """Report Lambda layers, foreign classes, and links to other files; gives the format."""
    configs = 0
    decoded_to = 0
    for begin, window in _windows(source):
        for found in _CONFIG.finditer(window):
            at = begin + found.start()
            if at < decoded_to or configs >= CONFIGS_MAX:
                continue
            configs += 1
            decoded_to = at + _configuration(source, at, look, where)
        if _LAMBDA.search(window):
            look.add("keras-code", where, f"{where} holds a Lambda layer, whose code runs when it is loaded or used")
        if _DANGEROUS.search(window) and CODE.search(window.decode("latin-1")):
            look.add("embedded-code", where, f"{where} holds program text that runs commands or code", "suspicious")
        for found in _EXTERNAL_LINK.finditer(window):
            if (target := _external(window[found.start() : found.start() + 4096])) is not None:
                look.add("external-data", where, f"{where} links to {target!r}: another file is read in its place")
    if configs >= CONFIGS_MAX:
        look.add("limit", where, f"{where} holds more than {CONFIGS_MAX} configurations")
    _foreign_storage(source, look, where)
    return "hdf5"


def _windows(source: Source) -> Iterator[tuple[int, bytes]]:
    begin = 0
    while begin < source.size:
        yield begin, source.read(begin, PIECE_BYTES + OVERLAP_BYTES)
        begin += PIECE_BYTES


def _configuration(source: Source, at: int, look: Look, where: str) -> int:
    """Look at the JSON that begins at `at`; gives how many bytes of it were understood."""
    size = OVERLAP_BYTES
    while True:
        text = source.read(at, min(size, CONFIG_BYTES_MAX)).decode("utf-8", "replace").split("\x00")[0]
        try:
            document, end = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            if size >= CONFIG_BYTES_MAX or at + size >= source.size or len(text) < size // 2:
                if "class_name" in text[:4096] or "\\u00" in text[:4096]:
                    look.add("structure", where, f"{where} holds a configuration that is no JSON", "suspicious")
                return 1
            size *= 8
            continue
        if isinstance(document, dict):
            scan_config(document, look, where)
        return len(text[:end].encode())


def _external(data: bytes) -> str | None:
    """The file that a link message of type 64 names, if the bytes are one."""
    flags = data[1]
    at = 3 + (8 if flags & 4 else 0) + (1 if flags & 16 else 0)
    width = 1 << (flags & 3)
    size = int.from_bytes(data[at : at + width], "little")
    at += width
    name = data[at : at + size]
    at += size
    length = int.from_bytes(data[at : at + 2], "little")
    info = data[at + 2 : at + 2 + length]
    parts = info[1:].split(b"\x00")
    if not 0 < size <= 1024 or len(name) < size or len(info) < length or length < 4 or info[:1] != b"\x00":
        return None
    if (
        len(parts) != 3
        or parts[2]
        or not parts[0]
        or not _printable(parts[0])
        or not _printable(parts[1])
        or not _printable(name)
    ):
        return None
    return parts[0].decode("utf-8", "replace")


def _printable(data: bytes) -> bool:
    return data.decode("utf-8", "replace").isprintable()


def _foreign_storage(source: Source, look: Look, where: str) -> None:
    """Data sets whose numbers lie in other files: raw ones, named in a heap, or virtual ones, in a global heap."""
    heaps: dict[bytes, str] = {}
    for begin, window in _windows(source):
        for found in re.finditer(rb"HEAP|GCOL", window[: PIECE_BYTES + 3]):
            if len(heaps) >= HEAPS_MAX:
                break
            heaps[(begin + found.start()).to_bytes(8, "little")] = found.group().decode()
    if not heaps:
        return
    # an address of a heap, behind what the two messages begin with
    for _, window in _windows(source):
        for found in _EXTERNAL_FILES.finditer(window):
            if heaps.get(found.group(2)) == "HEAP" and found.group(1) != b"\x00\x00":
                look.add("external-data", where, f"{where} keeps numbers in other files (external storage)")
        for found in _VIRTUAL.finditer(window):
            if heaps.get(found.group(1)) == "GCOL":
                look.add("external-data", where, f"{where} takes numbers from other files (a virtual data set)")

"""Text that an ONNX file carries beside what it computes (onnx.proto): names, descriptions, metadata, strings.

A runtime ignores it, and tools read it. The file is walked by ranges, so that its weights are passed over unread.
"""

from collections.abc import Iterator, Mapping

from palladion.errors import FormatError
from palladion.scan.look import Look
from palladion.scan.pickles.strings import Strings
from palladion.scan.source import LimitError, Source
from palladion.scan.templates import scan_template

FIELDS_MAX = 4_000_000
TEXT_BYTES_MIN = 8  # shorter ones hold no program
TEXT_BYTES_MAX = 2**20  # of one text that are looked at
DEPTH_MAX = 64  # graphs in graphs
_WINDOW_BYTES = 64 * 1024
# Of each message: the texts by their fields, and the messages within.
_MESSAGES: Mapping[str, tuple[Mapping[int, str], Mapping[int, str]]] = {
    "model": ({2: "producer_name", 3: "producer_version", 4: "domain", 6: "doc_string"},
              {7: "graph", 14: "entry", 25: "function"}),
    "graph": ({2: "name", 10: "doc_string"},
              {1: "node", 5: "tensor", 11: "value", 12: "value", 13: "value", 16: "entry"}),
    "node": ({3: "name", 6: "doc_string"}, {5: "attribute", 9: "entry"}),
    "attribute": ({4: "string", 9: "strings", 13: "doc_string"}, {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"}),
    "tensor": ({6: "string_data", 12: "doc_string"}, {16: "entry"}),
    "value": ({3: "doc_string"}, {4: "entry"}),
    "function": ({1: "name", 8: "doc_string"}, {7: "node", 11: "attribute", 14: "entry"}),
    "entry": ({1: "key", 2: "metadata"}, {}),
}  # fmt: skip


def scan_onnx_texts(source: Source, look: Look, where: str) -> None:
    """Report program text, pickles and templates in the texts of an ONNX file that was read before."""
    seen: set[bytes] = set()
    try:
        for label, data in _texts(source):
            if data in seen:
                continue
            if len(data) <= 256:
                seen.add(data)
            shown = f"{where}, {label}"
            strings = Strings(look, shown)
            try:
                text = data.decode()
            except UnicodeDecodeError:
                strings.look_at(data)
                continue
            strings.look_at(text)
            if not text.isprintable():
                strings.look_at(data)
            if label == "metadata":
                scan_template(text, look, shown)
    except LimitError as error:
        look.add("limit", where, f"{where}: {error.message}")
    except FormatError as error:
        look.add("structure", where, f"{where}: {error.message}")


def _texts(source: Source) -> Iterator[tuple[str, bytes]]:
    window = _Window(source)
    waiting = [("model", 0, source.size, 0)]
    budget = FIELDS_MAX
    while waiting:
        kind, at, end, depth = waiting.pop()
        texts, inner = _MESSAGES[kind]
        while at < end:
            budget -= 1
            if budget < 0 or depth > DEPTH_MAX:
                raise LimitError("an ONNX file has more, or deeper, fields than a scan follows")
            key, at = window.number(at, end)
            number, wire = key >> 3, key & 7
            if wire == 2:
                size, at = window.number(at, end)
                if at + size > end:
                    raise FormatError("a field of an ONNX file is cut off")
                if number in texts and size >= TEXT_BYTES_MIN:
                    yield texts[number], window.read(at, min(size, TEXT_BYTES_MAX))
                elif number in inner:
                    waiting.append((inner[number], at, at + size, depth + 1))
                at += size
            elif wire == 0:
                _, at = window.number(at, end)
            elif wire in {1, 5}:
                at += 8 if wire == 1 else 4
            else:
                raise FormatError("a field of an ONNX file is of an unknown kind")


class _Window:
    """Reads small pieces of a source that lie beside each other."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._begin = 0
        self._data = b""

    def read(self, at: int, count: int) -> bytes:
        offset = at - self._begin
        if offset < 0 or offset + count > len(self._data):
            self._begin, offset = at, 0
            self._data = self._source.read(at, max(count, _WINDOW_BYTES))
        return self._data[offset : offset + count]

    def number(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for index, byte in enumerate(self.read(at, min(10, end - at))):
            value |= (byte & 127) << (7 * index)
            if byte < 128:
                return value, at + index + 1
        raise FormatError("a number in an ONNX file is cut off")

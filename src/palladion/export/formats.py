"""The forms in which entries leave as lines or messages, by name; Parquet, which is a file, is `parquet`'s."""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from palladion.export import cef, ocsf, syslog
from palladion.export.item import Item, Source, visible

Encode = Callable[[Item, Source], bytes]


@dataclass(frozen=True)
class Form:
    """How an entry is written in a file, how it is sent, and how one message on a connection is told from the next."""

    line: Encode  # without the line break
    message: Encode
    framed: Callable[[bytes], bytes]


def line_of(data: bytes) -> bytes:
    """The line of a file, or of a stream of lines."""
    return data + b"\n"


def encode_record(item: Item, _: Source) -> bytes:
    """Entry number, leaf hash and the record as it is; the client's name beside it, where it may be told."""
    named = b"" if item.name is None else b'"client":%s,' % msgspec.json.encode(item.name)
    return one_line(b'{%s"entry":%d,"leaf":"%s","record":%s}' % (named, item.number, item.leaf.encode(), item.data))


def encode_event(item: Item, source: Source) -> bytes:
    """The OCSF event, in one line for every reader."""
    return one_line(ocsf.encode(item, source))


def one_line(document: bytes) -> bytes:
    """The same JSON, with what ends a line for some readers, or steers a terminal, in JSON's own escapes."""
    if document.isascii() and b"\x7f" not in document:
        return document
    return visible(document.decode()).encode()


FORMS = MappingProxyType(
    {
        "ocsf": Form(encode_event, encode_event, line_of),
        "cef": Form(cef.encode, syslog.encode_cef, syslog.framed),
        "syslog": Form(syslog.encode, syslog.encode, syslog.framed),
        "jsonl": Form(encode_record, encode_record, line_of),
    }
)

"""The messages of `inference.proto` as protobuf's own classes, made at the start: no compiler, no generated code.

They live in a pool of their own, so that a program that also holds another copy of the protocol's messages, as every
client of it does, can hold both.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from palladion.errors import MissingExtraError

PROTO = Path(__file__).with_name("inference.proto")
PACKAGE, SERVICE = "inference", "inference.GRPCInferenceService"
_TOKEN = re.compile(r"//[^\n]*|\"[^\"\n]*\"|[A-Za-z_][\w.]*|\d+|[{}()<>=;,]|\s+")
# protobuf's numbers of types (descriptor.proto): they are part of its format
_SCALARS = {
    "double": 1, "float": 2, "int64": 3, "uint64": 4, "int32": 5, "bool": 8, "string": 9, "bytes": 12, "uint32": 13,
}  # fmt: skip
_MESSAGE, _OPTIONAL, _REPEATED = 11, 1, 3


@dataclass(frozen=True)
class Messages:
    """The classes of messages by name, and by the name of an rpc what it takes and gives.

    `decode_error` is what a class raises for bytes that are none of its messages.
    """

    classes: dict[str, Any]
    rpcs: dict[str, tuple[str, str]]
    decode_error: type[Exception]

    def __getitem__(self, name: str) -> Any:
        return self.classes[name]


@cache
def load_messages() -> Messages:
    """Read the file that is part of this package. Raises MissingExtraError."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
    except ImportError:
        raise missing() from None
    file = descriptor_pb2.FileDescriptorProto(name=PROTO.name, package=PACKAGE, syntax="proto3")
    rpcs = _Reader(PROTO.read_text(encoding="utf-8"), file).read()
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = [item.name for item in file.message_type]
    found = {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in names}
    return Messages(found, rpcs, message.DecodeError)


def missing() -> MissingExtraError:
    """What to say where the extra is not installed."""
    return MissingExtraError("gate.grpc_listen is set, and gRPC is not installed", "pip install 'palladion[grpc]'")


class _Reader:
    """Reads the part of proto3 that the file is written in; anything else is a ValueError, and a fault of ours."""

    def __init__(self, text: str, file: Any) -> None:
        self._tokens = _tokens(text)
        self._file = file
        self._rpcs: dict[str, tuple[str, str]] = {}

    def read(self) -> dict[str, tuple[str, str]]:
        self._take("syntax", "=", '"proto3"', ";", "package", PACKAGE, ";")
        while self._tokens:
            match self._next():
                case "service":
                    self._take(SERVICE.rpartition(".")[2], "{")
                    while self._next("rpc", "}") == "rpc":
                        self._rpc()
                case "message":
                    self._message(self._file.message_type.add())
                case word:
                    raise ValueError(f"{word!r} is not read here")
        return self._rpcs

    def _rpc(self) -> None:
        name = self._next()
        self._take("(")
        taken = self._next()
        self._take(")", "returns", "(")
        given = self._next()
        self._take(")", ";")
        self._rpcs[name] = (taken, given)

    def _message(self, message: Any) -> None:
        message.name = self._next()
        self._take("{")
        while (word := self._next()) != "}":
            if word == "message":
                self._message(message.nested_type.add())
            elif word == "oneof":
                message.oneof_decl.add(name=self._next())
                self._take("{")
                while (kind := self._next()) != "}":
                    self._field(message, kind).oneof_index = len(message.oneof_decl) - 1
            elif word == "map":
                self._map(message)
            elif word == "repeated":
                self._field(message, self._next()).label = _REPEATED
            else:
                self._field(message, word)

    def _map(self, message: Any) -> None:
        """A map is a list of pairs: `map<K, V> some_name` is made of messages called SomeNameEntry."""
        self._take("<", "string", ",")
        kind = self._next()
        self._take(">")
        name = self._next()
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=_SCALARS["string"], label=_OPTIONAL)
        self._typed(entry.field.add(name="value", number=2, label=_OPTIONAL), kind)
        field = message.field.add(name=name, number=self._number(), type=_MESSAGE, label=_REPEATED)
        field.type_name = entry.name

    def _field(self, message: Any, kind: str) -> Any:
        field = message.field.add(name=self._next(), label=_OPTIONAL)
        field.number = self._number()
        self._typed(field, kind)
        return field

    def _number(self) -> int:
        self._take("=")
        number = int(self._next())
        self._take(";")
        return number

    def _typed(self, field: Any, kind: str) -> None:
        if kind in _SCALARS:
            field.type = _SCALARS[kind]
        else:
            # found from the message outwards, as names are in the language
            field.type, field.type_name = _MESSAGE, kind

    def _next(self, *expected: str) -> str:
        if not self._tokens:
            raise ValueError("it ends too early")
        token = self._tokens.pop()
        if expected and token not in expected:
            raise ValueError(f"{token!r} stands where {' or '.join(expected)} was expected")
        return token

    def _take(self, *expected: str) -> None:
        for token in expected:
            self._next(token)


def _tokens(text: str) -> list[str]:
    """The words of a file, the last one first."""
    found, place = [], 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise ValueError(f"{text[place]!r} is not read here")
        place = match.end()
        if not match[0].isspace() and not match[0].startswith("//"):
            found.append(match[0])
    return found[::-1]

"""What a protocol of questions and answers is: how a request becomes arrays, and how outputs become an answer.

One codec serves both sides: towards clients, and, where the model runs at an upstream, towards that. Pure; who may ask,
what is watched and what is disclosed is decided between the two halves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import msgspec
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.gate.contract import Outputs
from palladion.gate.decode import Feeds
from palladion.gate.problems import Problem
from palladion.model.run import Port

NUMBER_DIGITS_MAX = 15  # every reader of JSON holds so many; an upstream may name its versions by any text

Headers = Mapping[bytes, bytes]


@dataclass(frozen=True, eq=False)
class About:
    """What may be said of a served model: its name, the version's number as text, and its ports.

    `outputs` are those that clients may get something of.
    """

    model: str
    version: str
    inputs: Sequence[Port]
    outputs: Sequence[Port]

    @cached_property
    def types(self) -> Mapping[str, str]:
        """The types of outputs, by name."""
        return {port.name: port.dtype for port in self.outputs}

    @cached_property
    def number(self) -> int | str:
        """The version as JSON says it: a number, unless an upstream names its versions otherwise."""
        text = self.version
        is_number = text.isascii() and text.isdecimal() and len(text) <= NUMBER_DIGITS_MAX
        return int(text) if is_number else text


# structs, as all that is made for each request: a dataclass takes three times as long to make, a frozen one ten times
class Asked(msgspec.Struct, eq=False):
    """A decoded request: arrays by input name, the number of queries, and what its answer needs to know of it."""

    feeds: Feeds
    rows: int
    form: Any = None


class Encoded(msgspec.Struct, eq=False):
    """A body and the headers that belong to it, besides its length."""

    body: bytes
    headers: list[tuple[bytes, bytes]] = []


class Protocol_(Protocol):  # noqa: N801 (a protocol in both senses)
    """The codec of one route, made for the ports of its model."""

    @property
    def paths(self) -> Mapping[str, str]:
        """What is served: by path "ask" (POST), or "describe" (GET). "ask describe" takes both.

        "ready" (GET) says whether the model can be asked; "server" (GET) is about no model, so that routes share it.
        """
        ...

    @property
    def media_types(self) -> frozenset[bytes]:
        """Content types, in lower case and without parameters, that a request's body may have."""
        ...

    def decode(self, body: bytes, headers: Headers) -> Asked:
        """The inputs in a client's request. Raises Problem that names the field at fault."""
        ...

    def encode(self, asked: Asked, outputs: Mapping[str, NDArray[Any]], about: About) -> Encoded:
        """The answer to a client: `outputs` are what is disclosed, by name."""
        ...

    def describe(self, path: str, about: About) -> Encoded:
        """What a client has to know to ask."""
        ...


@runtime_checkable
class ErrorForm(Protocol):
    """A protocol or an endpoint whose clients look for the words of a problem in a place of their own."""

    def error_members(self, problem: Problem) -> Mapping[str, object]:
        """Members that go into the problem's JSON beside its own."""
        ...


class NotFiniteError(FormatError):
    """An answer of an upstream has a number that is infinite, or none.

    Inputs can make a sound model say so: it tells nothing of the server's health.
    """


class UpstreamProtocol(Protocol):
    """The codec towards an upstream."""

    def encode_request(self, feeds: Feeds, rows: int) -> tuple[bytes, Encoded]:
        """The target (path and query) of a POST, and what is sent."""
        ...

    def decode_answer(self, body: bytes, headers: Sequence[tuple[bytes, bytes]], rows: int) -> Outputs:
        """The outputs by name. Raises FormatError for anything that is not exactly an answer.

        NotFiniteError where that is so for a number that is infinite, or none, alone.
        """
        ...

"""What the data path takes and gives: a request without its transport, and a response."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from palladion.access.certificates import Certificate
from palladion.gate.problems import MEDIA_TYPE, Problem

JSON = b"application/json"
REQUEST_HEADER = b"palladion-request"


@dataclass(frozen=True)
class Peer:
    """What can be believed of who asks beyond the headers: its certificate, and what a proxy tells that is believed.

    `user` is the client's own user, `payment` a name of its means of payment, `device` one of its device, `tls` the
    fingerprint of the program that spoke TLS, and `system` the number of the autonomous system that it came out of.
    """

    certificate: Certificate | None = None
    user: str | None = None
    payment: str | None = None
    device: str | None = None
    tls: str | None = None
    system: int | None = None


STRANGER = Peer()


# not frozen, as nothing that is made for each request: that triples what making one costs
@dataclass(eq=False, slots=True)
class Request:
    """A request: headers in lower case, the body on demand (it raises Problem), address and peer if to be believed."""

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    body: Callable[[], Awaitable[bytes]]
    address: str | None = None
    peer: Peer = STRANGER


@dataclass(eq=False)
class Stream:
    """A body that comes in parts. Whoever has it closes it, whether or not a part was taken."""

    parts: AsyncGenerator[bytes, None]
    release: Callable[[], None] = lambda: None

    async def close(self) -> None:
        """End it where it is, and give back its place. Closing it twice does no harm."""
        release, self.release = self.release, lambda: None
        try:
            await self.parts.aclose()
        finally:
            release()


class Response(msgspec.Struct, eq=False):  # a dataclass takes three times as long to make
    """A response: status, headers and body, or a stream in its place; the kind of the `problem`, if it is one."""

    status: int
    body: bytes
    headers: list[tuple[bytes, bytes]] = []
    stream: Stream | None = None
    problem: str = ""

    def request_id(self) -> str:
        """The id under which the ledger tells of it; none for what is told of in no record of its own."""
        return next((value.decode("ascii") for name, value in self.headers if name == REQUEST_HEADER), "")

    @classmethod
    def of_problem(cls, problem: Problem, members: Mapping[str, object] = MappingProxyType({})) -> "Response":
        """What a problem looks like to the client, with further `members` in its JSON."""
        headers = [(b"content-type", MEDIA_TYPE.encode()), *problem.headers()]
        return cls(problem.status, problem.body(members), headers, problem=problem.kind)

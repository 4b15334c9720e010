"""What the parser of answers makes of bytes, in pieces of any size, with nothing else around it."""

from collections.abc import Iterable
from typing import NamedTuple

from palladion.gate.upstream.answer import Answer, AnswerParser
from palladion.gate.upstream.errors import UpstreamError
from palladion.gate.upstream.limits import UpstreamLimits

LIMITS = UpstreamLimits(head_bytes_max=4096)
BODY_BYTES_MAX = 1000


class Reading(NamedTuple):
    """An answer, or the kind of its fault; how many bytes were read, and whether its connection can be used again."""

    outcome: Answer | str
    read: int
    reusable: bool = False


def read(parts: Iterable[bytes], *, head_only: bool = False, parser: AnswerParser | None = None) -> Reading:
    """Feed an answer in parts until it is complete, and then that no more comes."""
    parser = parser or AnswerParser("it", LIMITS, secure=False)
    parser.begin(head_only=head_only, body_bytes_max=BODY_BYTES_MAX)
    fed = 0
    try:
        for part in parts:
            fed += len(part)
            parser.feed(part)
            if parser.complete:
                break
        else:
            parser.end()
    except UpstreamError as error:
        return Reading(error.kind, fed)
    return Reading(Answer(parser.status, parser.headers, parser.take()), fed, parser.reusable)


def bytewise(data: bytes) -> Iterable[bytes]:
    """One byte at a time."""
    return (data[place : place + 1] for place in range(len(data)))

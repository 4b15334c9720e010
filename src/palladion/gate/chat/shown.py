"""What the watch is shown of a request to a language model: what the client says that it did not say before.

A conversation is sent anew with each request, system prompt and all. What counts is what is new in it. No text is kept:
of each message a digest, for as long as there is room.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from palladion.gate.chat.kinds import Asked
from palladion.watch.text.encoder import Vectors
from palladion.watch.text.query import NOT_SAID, Parameters, Query

MESSAGES_MAX = 65_536  # of all clients together that are known again, some 10 MiB
MESSAGES_OF_CLIENT_MAX = 1024  # or one account could have all others' conversations looked at as if they were new
TEXTS_AT_ONCE = 16  # of one request looked at in one go, some 3 ms in which nothing else happens
TEXT_WEIGHT = 8  # of rows of numbers: so many texts at once that more would make each hardly cheaper
_DIGEST_BYTES = 8


@dataclass(frozen=True)
class Shown:
    """The texts of a request, and how answers to them are to be drawn; `answers` are given to each."""

    texts: Sequence[str]
    parameters: Parameters
    answers: int

    def parts(
        self,
        *,
        at: float,
        answer_chars: float = NOT_SAID,
        failed: bool = False,
        vectors: Sequence[Vectors] | None = None,
    ) -> list[list[Query]]:
        """The queries, some at a time. `answer_chars` are those of all answers together; `at` in seconds since 1970.

        `vectors` are what the calibration's encoder makes of the texts.
        """
        each = answer_chars / max(1, len(self.texts) * self.answers)
        made = [None] * len(self.texts) if vectors is None else vectors
        queries = [
            Query(text, self.parameters, at, each, failed, vector)
            for text, vector in zip(self.texts, made, strict=True)
        ]
        return [queries[start : start + TEXTS_AT_ONCE] for start in range(0, len(queries), TEXTS_AT_ONCE)]


class SaidBefore:
    """Which messages clients have sent before. For one event loop."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, OrderedDict[bytes, None]] = OrderedDict()  # who asked longest ago comes first
        self._count = 0

    def show(self, client: str, asked: Asked) -> Shown:
        """What is new in a request of a client, before it is bound. Raises Problem for what cannot be looked at."""
        answers = asked.parameters.choices or 1
        return Shown([self.newest(client, said) for said in asked.said], asked.parameters, answers)

    def newest(self, client: str, said: Sequence[str]) -> str:
        """What of these texts a client did not say before; nothing new is the last of them, asked again."""
        known = self._known.setdefault(client, OrderedDict())
        self._known.move_to_end(client)
        digests = [_digest(client, text) for text in said]
        new = [text for text, digest in zip(said, digests, strict=True) if digest not in known]
        before = len(known)
        for digest in digests:
            known[digest] = None
            known.move_to_end(digest)
        while len(known) > MESSAGES_OF_CLIENT_MAX:
            known.popitem(last=False)
        self._count += len(known) - before
        while self._count > MESSAGES_MAX:
            _, forgotten = self._known.popitem(last=False)
            self._count -= len(forgotten)
        # what was asked before and is asked again is the last message
        return "\n".join(new or said[-1:])


def _digest(client: str, text: str) -> bytes:
    keyed = blake2b(text.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES, key=client.encode()[:64])
    return keyed.digest()

"""One request for embeddings: what the server says of each text, and what of it the client is told. Pure."""

import base64
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.gate.chat.answered import DECIMALS_ALL, heard
from palladion.gate.chat.asked import EmbeddingAsked
from palladion.gate.chat.terms import Terms
from palladion.gate.chat.texts import Label
from palladion.gate.chat.usage import Tally, Usage

TEXTS_MAX = 4096  # as many as `gate.rows_max` can be
DIMENSIONS_MAX = 65_536


class HeardEmbedding(msgspec.Struct):
    """The embedding of one text."""

    index: Annotated[int, Meta(ge=0, lt=TEXTS_MAX)]
    embedding: Annotated[list[float], Meta(min_length=1, max_length=DIMENSIONS_MAX)]


class HeardEmbeddings(msgspec.Struct):
    """An upstream's answer."""

    data: Annotated[list[HeardEmbedding], Meta(max_length=TEXTS_MAX)]
    usage: Usage | None = None


HEARD = msgspec.json.Decoder(HeardEmbeddings)


class Embeddings:
    """A bound request for embeddings."""

    tokens_max = 0  # nothing is generated

    def __init__(
        self,
        asked: EmbeddingAsked,
        label: Label,
        *,
        request_bytes: int,
        encoding: Literal["float", "base64"] | None,
    ) -> None:
        """`asked` is bound already; `encoding` is what the client wants."""
        self._rows = asked.rows
        self._label = label
        self._base64 = encoding == "base64"
        self.tally = Tally(request_bytes, 0)

    def whole(self, body: bytes, given: Terms) -> tuple[bytes, str]:
        """The answer that the client gets, and how it ended. Raises FormatError."""
        return self.read(body)(given)

    def read(self, body: bytes) -> Callable[[Terms], tuple[bytes, str]]:
        """Read and count the server's answer; returns what tells it under some terms. Raises FormatError."""
        answer = heard(HEARD, body)
        found = sorted(answer.data, key=lambda item: item.index)
        if [item.index for item in found] != list(range(self._rows)):
            raise FormatError(f"the server gave {len(found)} embeddings, {self._rows} were asked for")
        if len({len(item.embedding) for item in found}) != 1:
            raise FormatError("the server gave embeddings of several lengths")
        if answer.usage is not None:
            self.tally.report(answer.usage.prompt_tokens, 0)
        return partial(self._tell, found)

    def _tell(self, found: Sequence[HeardEmbedding], given: Terms) -> tuple[bytes, str]:
        # (texts, dimensions)
        vectors = np.array([item.embedding for item in found], np.float64)
        if given.decimals < DECIMALS_ALL:
            vectors = np.round(vectors, given.decimals) + 0.0
        usage = {"prompt_tokens": self.tally.prompt, "total_tokens": self.tally.prompt}
        document = {
            "object": "list",
            "model": self._label.model,
            "data": [
                {"object": "embedding", "index": index, "embedding": self._encoded(vector)}
                for index, vector in enumerate(vectors)
            ],
            "usage": usage,
        }
        return msgspec.json.encode(document), "stop"

    def _encoded(self, vector: NDArray[np.float64]) -> Any:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode() if self._base64 else vector.tolist()

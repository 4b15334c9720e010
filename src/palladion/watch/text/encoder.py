"""A sentence encoder in ONNX: texts as vectors that lie near each other where they say alike, in whatever words.

It stands beside the n-grams where a policy names one (docs/watch.md). It and its tokenizer are files of the user's; a
calibration names both by their digests, so that nobody is weighed by other ones than it was made with.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b, sha256
from threading import Lock
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.model.read import read_memory
from palladion.model.run import Session, open_session
from palladion.watch.text.wordpiece import WordPiece

ENCODER_BYTES_MAX = 1 << 30  # of the file; the largest encoders of sentences that run on a CPU have half of it
WIDTH_MIN = 16  # as many directions are kept of it
WIDTH_MAX = 1024  # numbers of a vector: those of the largest BERT
_NUMBERS, _MASK, _KINDS = "input_ids", "attention_mask", "token_type_ids"  # as exports from Hugging Face call them
_WHOLE = frozenset({"int64", "int32"})
_DECIMAL = frozenset({"float32", "float16"})

Vectors = NDArray[np.float32]


class Digests(NamedTuple):
    """What names an encoder: SHA-256 of its ONNX file and of its tokenizer.json, in hexadecimal."""

    encoder: str
    tokenizer: str

    @classmethod
    def of(cls, encoder: bytes, tokenizer: bytes) -> "Digests":
        """Those of the files."""
        return cls(sha256(encoder).hexdigest(), sha256(tokenizer).hexdigest())


class Encoder(Protocol):
    """What texts become vectors by."""

    @property
    def digests(self) -> Digests:
        """What names it."""
        ...

    @property
    def width(self) -> int:
        """How many numbers a vector has."""
        ...

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """A unit vector for each text (texts, width)."""
        ...


@dataclass(frozen=True)
class NotOpened:
    """An encoder that a calibration names and nobody has opened: enough to say what the calibration is of."""

    digests: Digests
    width: int

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Raises ValueError: its caller has forgotten to open it."""
        raise ValueError(f"{len(texts)} texts cannot be encoded, the encoder {self.digests.encoder[:16]} is not opened")


class SentenceEncoder:
    """An encoder that is ready. May be asked from several threads at once; close it after use."""

    def __init__(self, encoder: bytes, tokenizer: bytes, *, threads: int = 1, known: int = 0) -> None:
        """From both files; `threads` texts are worked on at once, and the vectors of the last `known` texts are kept.

        Where clients ask, keep none: whoever guesses a text would see, by the time it takes, that another has asked it.
        Raises FormatError for a file that is no encoder of texts, or that fails on a long one.
        """
        if len(encoder) > ENCODER_BYTES_MAX:
            raise FormatError(f"the encoder has more than {ENCODER_BYTES_MAX} bytes")
        self.digests = Digests.of(encoder, tokenizer)
        self._tokens = WordPiece.read(tokenizer, what="the tokenizer")
        # each text alone, on one core: texts together took as much time for each (docs/performance.md), and so a vector
        # does not depend, to the last bit, on what else is asked
        self._session = open_session(read_memory({"the encoder": encoder}), threads=1)
        self._feeds = _feeds(self._session)
        self._output = _output(self._session)
        self._pool = ThreadPoolExecutor(threads, "palladion-encoder") if threads > 1 else None
        self._known: OrderedDict[bytes, Vectors] = OrderedDict()
        self._room, self._lock = known, Lock()
        # the longest text there is, of the largest token there is: an encoder for fewer fails now and not later
        self.width = len(self._encoded([self._tokens.largest] * self._tokens.length))
        if not WIDTH_MIN <= self.width <= WIDTH_MAX:
            raise FormatError(f"the encoder gives {self.width} numbers a text, expected {WIDTH_MIN} to {WIDTH_MAX}")
        if len(self._encoded(self._tokens.numbers("a text"))) != self.width:
            raise FormatError("the encoder gives texts of other lengths vectors of other lengths")

    def close(self) -> None:
        """End its threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """A unit vector for each text (texts, width). Raises FormatError where the encoder fails."""
        found = map(self.vector, texts) if self._pool is None else self._pool.map(self.vector, texts)
        return np.array(list(found), np.float32).reshape(len(texts), self.width)

    def vector(self, text: str) -> Vectors:
        """The unit vector of a text (width,). Raises FormatError where the encoder fails."""
        key = blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                return known
        made = self._encoded(self._tokens.numbers(text))
        with self._lock:
            self._known[key] = made
            while len(self._known) > self._room:
                self._known.popitem(last=False)
        return made

    def _encoded(self, numbers: Sequence[int]) -> Vectors:
        row = np.array([numbers])
        given = {_NUMBERS: row, _MASK: np.ones_like(row), _KINDS: np.zeros_like(row)}
        feeds = {name: given[name].astype(dtype) for name, dtype in self._feeds.items()}
        try:
            (found,) = self._session.run(feeds)[self._output]
        except ValueError as error:
            raise FormatError(f"the encoder does not give one vector for a text: {error}") from None
        # of hidden states the mean; all tokens count, because no text is filled up
        pooled = found.mean(axis=0, dtype=np.float64) if found.ndim == 2 else found.astype(np.float64)
        length = float(np.sqrt(pooled @ pooled))
        if not 0 < length < np.inf:
            raise FormatError("the encoder gives a text no vector that has a direction")
        vector = np.asarray(pooled / length, np.float32)
        vector.setflags(write=False)
        return vector


def _feeds(session: Session) -> Mapping[str, str]:
    """The element type of each input. Raises FormatError where it is not that of an encoder."""
    known = {_NUMBERS, _MASK, _KINDS}
    for port in session.inputs:
        if port.name not in known or port.dtype not in _WHOLE or len(port.shape) != 2:
            raise FormatError(f"the encoder takes {port.name!r}, expected {', '.join(sorted(known))} of whole numbers")
        if isinstance(port.shape[1], int) or (isinstance(port.shape[0], int) and port.shape[0] != 1):
            raise FormatError(f"the encoder takes tokens in the shape {port.shape}, expected one text of any length")
    if _NUMBERS not in {port.name for port in session.inputs}:
        raise FormatError(f"the encoder takes no {_NUMBERS}")
    return {port.name: port.dtype for port in session.inputs}


def _output(session: Session) -> str:
    """The output to use: the first with a vector for each token, else the first with one for each text."""
    for sizes in (3, 2):
        for port in session.outputs:
            if len(port.shape) == sizes and port.dtype in _DECIMAL:
                return port.name
    raise FormatError("the encoder gives no vectors: neither for tokens nor for texts")

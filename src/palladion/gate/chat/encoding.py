"""Sentence encoders at work beside the gate's event loop: a text takes milliseconds, in which others are answered.

What is made here is what the watch would have made itself (`watch.text.features`), only not while everybody waits.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from palladion.watch.text.encoder import SentenceEncoder, Vectors
from palladion.watch.text.features import TextFeatures


class Encoding:
    """An encoder with threads of its own. For one event loop; close it after use."""

    def __init__(self, features: TextFeatures, encoder: SentenceEncoder, *, threads: int) -> None:
        """`features` say what of a text is looked at; `threads` texts are worked on at once."""
        self._features, self._encoder = features, encoder
        self._pool = ThreadPoolExecutor(threads, "palladion-encoder")

    async def vectors(self, texts: Sequence[str]) -> list[Vectors]:
        """A unit vector for each text. Raises FormatError where the encoder fails.

        One text after the other: a request with hundreds of them stands in the queue with one, as all others do.
        """
        loop = asyncio.get_running_loop()
        return [await loop.run_in_executor(self._pool, self._vector, text) for text in texts]

    def close(self) -> None:
        """Finish what is worked on, and drop what waits."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _vector(self, text: str) -> Vectors:
        return self._encoder.vector(self._features.words(text))

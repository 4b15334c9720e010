"""Encoders beside the event loop: others are answered meanwhile, and nobody's hundred texts hold up another's one."""

import asyncio
import threading
from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.gate.chat.encoding import Encoding
from palladion.watch.text.encoder import SentenceEncoder, Vectors
from palladion.watch.text.ngrams import LOOKED_BYTES
from tests.watch.text import talk
from tests.watch.text.encoders import encoder

from .talking import run


class Slow:
    """An encoder whose texts wait until they are let go, and which notes in which order they came."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.seen: list[str] = []

    def vector(self, text: str) -> Vectors:
        self.seen.append(text)
        if not self.go.wait(20):
            raise FormatError("nobody let it go")
        return np.zeros(3, np.float32)


def encoding(slow: Slow | None = None, threads: int = 1) -> Encoding:
    features = talk.calibration().instruments.features
    return Encoding(features, encoder() if slow is None else cast("SentenceEncoder", slow), threads=threads)


def test_vectors_are_what_the_watch_would_have_made_itself() -> None:
    texts = ["The river.", "stone " * 5000]

    async def test() -> Sequence[Vectors]:
        work = encoding(threads=2)
        found = await work.vectors(texts)
        work.close()
        return found

    found = asyncio.run(test())

    features = talk.calibration().instruments.features
    np.testing.assert_array_equal(found, encoder().vectors([features.words(text) for text in texts]))
    assert len(features.words(texts[1])) <= LOOKED_BYTES


def test_the_loop_goes_on_and_a_request_with_one_text_does_not_wait_for_one_with_many() -> None:
    slow = Slow()

    async def test() -> None:
        work = encoding(slow)
        many = asyncio.create_task(work.vectors([f"many {number}" for number in range(20)]))
        while not slow.seen:
            await asyncio.sleep(0)  # the loop turns while the first text is worked on
        one = asyncio.create_task(work.vectors(["one"]))
        await asyncio.sleep(0)
        slow.go.set()
        await one
        assert not many.done()
        await many
        work.close()

    run(test)
    assert slow.seen.index("one") <= 2
    assert len(slow.seen) == 21


def test_after_closing_nothing_is_worked_on() -> None:
    async def test() -> None:
        work = encoding(Slow())
        work.close()
        with pytest.raises(RuntimeError, match="after shutdown"):
            await work.vectors(["a"])

    run(test)

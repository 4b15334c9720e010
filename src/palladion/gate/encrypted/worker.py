"""The process that computes on ciphertexts: the only place where SEAL reads bytes that clients have sent.

It reads its program from standard input, gives up everything but computing (`sandbox`), and answers frames until its
input ends. What is broken is refused; what breaks it ends it, and the gate starts another.
"""

import sys
from collections.abc import Sequence
from typing import Any, BinaryIO

from palladion.errors import FormatError
from palladion.gate.encrypted import frames
from palladion.gate.encrypted.sandbox import confine
from palladion.private.homomorphic.columns import evaluate_columns
from palladion.private.homomorphic.evaluate import EvaluationKeys, Evaluator
from palladion.private.homomorphic.program import parse_program

REASON_CHARACTERS_MAX = 300


def main(arguments: Sequence[str]) -> None:
    """Serve frames: `arguments` are the most bytes of memory and seconds of CPU that the process may take."""
    memory_bytes, cpu_seconds = map(int, arguments)
    source, target = sys.stdin.buffer, sys.stdout.buffer
    frame = _read(source)
    if frame is None or frame[0] != frames.PROGRAM:
        return
    worker = Worker(Evaluator(parse_program(frame[1][0])))
    filtered = confine(memory_bytes=memory_bytes, cpu_seconds=cpu_seconds)
    _write(target, frames.READY, [b"\x01" if filtered else b"\x00"])
    while (frame := _read(source)) is not None:
        kind, parts = frame
        answer = worker.take(kind, parts)
        if answer is not None:
            _write(target, *answer)


class Worker:
    """One evaluator, and the evaluation keys that it was given, by their id."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._keys: dict[bytes, EvaluationKeys | str] = {}

    def take(self, kind: int, parts: Sequence[bytes]) -> tuple[int, list[bytes]] | None:
        """The answer to a frame, if it gets one."""
        try:
            if kind == frames.KEYS:
                self._keys[parts[0]] = self._parsed(parts[1], parts[2])
                return None
            if kind == frames.DROP:
                self._keys.pop(parts[0], None)
                return None
            return frames.ANSWER, self._evaluated(kind, parts)
        except (FormatError, RuntimeError, ValueError, TypeError, IndexError, MemoryError) as error:
            # SEAL's own errors are of the second and third kind
            return frames.REFUSED, [str(error)[:REASON_CHARACTERS_MAX].encode()]

    def _parsed(self, rotation: bytes, squares: bytes) -> "EvaluationKeys | str":
        context = self._evaluator.ring.context
        try:
            return EvaluationKeys(
                context.from_galois_str(rotation), context.from_relin_str(squares) if squares else None
            )
        except (RuntimeError, ValueError, MemoryError) as error:
            # told when they are used: nobody waits for an answer to keys
            return f"the evaluation keys cannot be read: {error}"

    def _evaluated(self, kind: int, parts: Sequence[bytes]) -> list[bytes]:
        context = self._evaluator.ring.context
        ciphertexts: list[Any] = [context.from_cipher_str(part) for part in parts[1:]]
        if any(item.is_transparent() for item in ciphertexts):
            # an answer to it could be computed into the weights by whoever sees it
            raise FormatError("a ciphertext that hides nothing")
        if kind == frames.COLUMNS:
            found = evaluate_columns(self._evaluator, ciphertexts)
        else:
            keys = self._keys.get(parts[0])
            if not isinstance(keys, EvaluationKeys):
                raise FormatError(keys or "the evaluation keys are not here")
            found = [self._evaluator.interleaved(item, keys) for item in ciphertexts]
        return [bytes(item.to_string()) for item in found]


def _read(source: BinaryIO) -> tuple[int, list[bytes]] | None:
    head = source.read(frames.HEAD_BYTES)
    if len(head) < frames.HEAD_BYTES:
        return None
    kind, count = frames.parse_head(head)
    return kind, [source.read(size) for size in frames.parse_sizes(source.read(count))]


def _write(target: BinaryIO, kind: int, parts: Sequence[bytes]) -> None:
    target.write(frames.head(kind, parts))
    for part in parts:
        target.write(part)
    target.flush()

"""What a worker answers to frames, in this process and without a sandbox."""

import numpy as np
import pytest

from palladion.gate.encrypted import frames
from palladion.gate.encrypted.worker import Worker
from palladion.private.homomorphic.client import HEClient
from palladion.private.homomorphic.evaluate import Evaluator
from tests.private.homomorphic.programs import needs_seal, program, rows

PROGRAM = program((6, 3))
NAME = b"keys"


@pytest.fixture(scope="module")
def client() -> HEClient:
    needs_seal()
    return HEClient(PROGRAM.bundle)


@pytest.fixture
def worker(client: HEClient) -> Worker:
    return Worker(Evaluator(PROGRAM))


def test_a_worker_computes_with_the_keys_that_it_was_given(worker: Worker, client: HEClient) -> None:
    asked = rows(PROGRAM, 2)
    parts = [NAME, *client.encrypt(asked)]
    assert worker.take(frames.INTERLEAVED, parts) == (frames.REFUSED, [b"the evaluation keys are not here"])
    assert worker.take(frames.KEYS, [NAME, *client.evaluation_keys]) is None
    answer = worker.take(frames.INTERLEAVED, parts)
    assert answer is not None
    assert answer[0] == frames.ANSWER
    assert np.allclose(client.decrypt(answer[1], 2), PROGRAM.run(asked), atol=1e-2)
    assert worker.take(frames.DROP, [NAME]) is None
    assert worker.take(frames.INTERLEAVED, parts) == (frames.REFUSED, [b"the evaluation keys are not here"])


@pytest.mark.parametrize("part", [b"", b"no ciphertext", bytes(1000)])
def test_what_seal_does_not_read_is_refused(worker: Worker, client: HEClient, part: bytes) -> None:
    worker.take(frames.KEYS, [NAME, *client.evaluation_keys])
    answer = worker.take(frames.INTERLEAVED, [NAME, part])
    assert answer is not None
    assert answer[0] == frames.REFUSED


def test_keys_that_are_none_are_told_when_they_are_used(worker: Worker, client: HEClient) -> None:
    assert worker.take(frames.KEYS, [NAME, b"rubbish", b""]) is None
    answer = worker.take(frames.INTERLEAVED, [NAME, *client.encrypt(rows(PROGRAM, 1))])
    assert answer is not None
    assert answer[0] == frames.REFUSED
    assert b"cannot be read" in answer[1][0]


def test_a_ciphertext_that_hides_nothing_is_refused(worker: Worker, client: HEClient) -> None:
    worker.take(frames.KEYS, [NAME, *client.evaluation_keys])
    (good,) = client.encrypt(rows(PROGRAM, 1))
    half = PROGRAM.bundle.parameters.ciphertext_bytes // 2
    transparent = good[:-half] + bytes(half)
    answer = worker.take(frames.INTERLEAVED, [NAME, transparent])
    assert answer == (frames.REFUSED, [b"a ciphertext that hides nothing"])


def test_a_worker_without_memory_says_so_and_goes_on(
    worker: Worker, client: HEClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise MemoryError("no memory")

    with monkeypatch.context() as patched:
        patched.setattr(Worker, "_evaluated", full)
        assert worker.take(frames.INTERLEAVED, [NAME]) == (frames.REFUSED, [b"no memory"])
    with monkeypatch.context() as patched:
        patched.setattr("palladion.gate.encrypted.worker.EvaluationKeys", full)
        assert worker.take(frames.KEYS, [NAME, *client.evaluation_keys]) is None
    answer = worker.take(frames.INTERLEAVED, [NAME, *client.encrypt(rows(PROGRAM, 1))])
    assert answer is not None
    assert b"no memory" in answer[1][0]

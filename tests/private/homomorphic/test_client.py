"""A client and an evaluator: encrypted answers are those in the clear."""

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.errors import FormatError, KeysError
from palladion.private.homomorphic import columns
from palladion.private.homomorphic.client import HEClient
from palladion.private.homomorphic.columns import evaluate_columns
from palladion.private.homomorphic.evaluate import EvaluationKeys, Evaluator
from palladion.private.homomorphic.program import Program
from tests.private.homomorphic.programs import needs_seal, program, rows

ERROR_MAX = 1e-2


@pytest.fixture(autouse=True)
def _seal() -> None:
    needs_seal()


def interleaved(made: Program, client: HEClient, count: int) -> float:
    """The largest error over so many rows."""
    evaluator = Evaluator(made)
    context = evaluator.ring.context
    rotation, squares = client.evaluation_keys
    keys = EvaluationKeys(context.from_galois_str(rotation), context.from_relin_str(squares) if squares else None)
    asked = rows(made, count)
    answers = [
        bytes(evaluator.interleaved(context.from_cipher_str(data), keys).to_string()) for data in client.encrypt(asked)
    ]
    return float(np.abs(client.decrypt(answers, count) - made.run(asked)).max())


def test_a_linear_model_answers_as_in_the_clear() -> None:
    made = program((12, 3))
    client = HEClient(made.bundle)
    assert interleaved(made, client, made.bundle.layout.rows + 3) < ERROR_MAX


@pytest.mark.slow
@pytest.mark.parametrize(
    ("widths", "copies"),
    [((64, 10), 2), ((64, 32, 10), 1), ((64, 32, 10), 4), ((5, 20, 3), 1), ((9, 7, 5, 2), 1), ((4, 3, 3, 3, 2), 1)],
)
def test_networks_of_every_shape_answer_as_in_the_clear(widths: tuple[int, ...], copies: int) -> None:
    made = program(widths, copies=copies)
    assert interleaved(made, HEClient(made.bundle), min(made.bundle.layout.rows, 50)) < ERROR_MAX


@pytest.mark.slow
@pytest.mark.parametrize("head_bytes", [columns.HEAD_BYTES, 0])
def test_columns_answer_as_in_the_clear_by_either_way(head_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "HEAD_BYTES", head_bytes)  # of bytes that are not as expected, SEAL makes each product
    for widths in ((6, 3), (6, 4, 3)):
        made = program(widths)
        client, evaluator = HEClient(made.bundle), Evaluator(made)
        asked = rows(made, made.bundle.parameters.slots)
        sent = [evaluator.ring.context.from_cipher_str(data) for data in client.encrypt_columns(asked)]
        answers = [bytes(item.to_string()) for item in evaluate_columns(evaluator, sent)]
        assert np.abs(client.decrypt_columns(answers, len(asked)) - made.run(asked)).max() < ERROR_MAX


def test_a_secret_key_comes_back_and_another_one_reads_nothing() -> None:
    made = program((4, 2))
    client = HEClient(made.bundle)
    asked = rows(made, 1)
    (data,) = client.encrypt(asked)
    same, other = HEClient(made.bundle, client.secret_bytes()), HEClient(made.bundle)
    # what is encrypted is not at the scale of an answer, which only changes the unit
    unit = 2.0 ** (made.bundle.parameters.scale_bits) / made.bundle.answer_scale
    assert np.allclose(same.decrypt([data], 1)[0] / unit, asked[0, :2], atol=1e-3)
    assert not np.allclose(other.decrypt([data], 1)[0] / unit, asked[0, :2], atol=1e-1)


def test_a_secret_key_of_other_parameters_is_refused() -> None:
    other = HEClient(program((4, 3, 2)).bundle)
    with pytest.raises(KeysError, match="not one for this bundle's parameters"):
        HEClient(program((4, 2)).bundle, other.secret_bytes())


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (np.zeros((1, 3)), "expected"),
        (np.zeros((0, 4)), "expected"),
        (np.zeros(4), "expected"),
        (np.full((1, 4), np.nan), "no number"),
        (np.array([[0.0, 0.0, 1.5, 0.0]]), "as feature 2, outside of the -1 to 1"),
    ],
)
def test_rows_that_mean_nothing_are_not_encrypted(asked: NDArray[np.float64], reason: str) -> None:
    client = HEClient(program((4, 2)).bundle)
    with pytest.raises(FormatError, match=reason):
        client.encrypt(asked)


def test_rows_outside_of_the_ranges_can_be_allowed() -> None:
    client = HEClient(program((4, 2)).bundle)
    assert len(client.encrypt(np.full((1, 4), 1.5), outside="allow")) == 1


@pytest.mark.parametrize("data", [b"", b"no ciphertext", bytes(300_000)])
def test_an_answer_that_is_none_is_an_error_in_words(data: bytes) -> None:
    client = HEClient(program((4, 2)).bundle)
    with pytest.raises(FormatError, match="answer"):
        client.decrypt([data], 1)


def test_labels_are_those_of_the_largest_output() -> None:
    client = HEClient(program((4, 2)).bundle)
    assert client.label(np.array([[0.1, 0.3], [2.0, -1.0]])) == ["label 1", "label 0"]


def test_a_client_shows_no_secret() -> None:
    client = HEClient(program((4, 2)).bundle)
    assert repr(client) == f"<HEClient of {client.bundle.id}>"


def test_a_second_square_by_columns_is_refused_and_would_be_wrong() -> None:
    made = program((4, 3, 3, 2))
    assert not made.bundle.by_columns
    client, evaluator = HEClient(made.bundle), Evaluator(made)
    sent = [evaluator.ring.context.from_cipher_str(data) for data in client.encrypt_columns(rows(made, 2))]
    with pytest.raises(FormatError, match="several hidden layers"):
        evaluate_columns(evaluator, sent)

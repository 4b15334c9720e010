"""What a service said, compared with what it said before."""

import pytest

from palladion.errors import InconclusiveError
from palladion.redteam.audit.said import alike, kind, table


def test_answers_of_one_model_are_alike_and_others_are_not() -> None:
    before = [[0.25, 0.75], [0.5, 0.5]]
    assert alike([[0.2500001, 0.7499999], [0.5, 0.5]], before)
    assert not alike([[0.3, 0.7], [0.5, 0.5]], before)
    assert not alike([1, 0], before)
    assert not alike(None, before)


def test_kinds_are_said_in_words() -> None:
    assert (kind([[0.5, 0.5]]), kind([1])) == ("2 scores a row", "labels alone")


def test_rows_of_different_widths_are_no_answer() -> None:
    assert table([1, 0]).tolist() == [1, 0]
    with pytest.raises(InconclusiveError):
        table([[0.5, 0.5], [1.0]])
    with pytest.raises(InconclusiveError):
        table([[0.5, 0.5], None])

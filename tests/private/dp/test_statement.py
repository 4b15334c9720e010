"""The statement of a training: what it says comes back, and nothing else is one."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError
from palladion.private.dp.statement import (
    STATEMENT_BYTES_MAX,
    decode_statement,
    number_text,
    read_statement,
)
from tests.private.dp.statements import statement


def test_a_statement_comes_back_from_its_bytes() -> None:
    assert decode_statement(statement().encode(), what="it") == statement()


def test_a_file_may_be_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "statement.json"
    path.write_text(json.dumps(msgspec.to_builtins(statement()), indent=2))
    assert read_statement(path) == statement()


@pytest.mark.parametrize(
    "change",
    [
        {"epsilon": "0"},
        {"epsilon": "1001"},
        {"epsilon": "-1"},
        {"epsilon": "nan"},
        {"epsilon": "1e5"},
        {"delta": "1"},
        {"delta": "0"},
        {"sampling_rate": "1.1"},
        {"sampling_rate": "0.5"},  # of a descent over all rows
        {"noise_multiplier": "0"},
        {"clipping": "0"},
        {"steps": 0},
        {"rows": 0},
        {"unit": "user"},
        {"noise": "none"},
        {"accountant": "mine"},
        {"libraries": {"a\u202eb": "1"}},
        {"extra": "1"},
    ],
    ids=str,
)
def test_what_no_training_can_have_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "statement.json"
    path.write_text(json.dumps(msgspec.to_builtins(statement()) | change))
    with pytest.raises(FormatError, match="no statement"):
        read_statement(path)


@pytest.mark.parametrize("text", ["", "{", "[" * 5000, "null", "[]"])
def test_a_file_that_is_no_document_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "statement.json"
    path.write_text(text)
    with pytest.raises(FormatError):
        read_statement(path)


def test_a_file_of_any_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "statement.json"
    path.write_bytes(b" " * (STATEMENT_BYTES_MAX + 1))
    with pytest.raises(FormatError):
        read_statement(path)


def test_a_statement_that_no_reader_would_accept_is_not_written() -> None:
    with pytest.raises(ValueError, match="expected"):
        statement(epsilon="0").encode()
    with pytest.raises(ValueError, match="not a statement"):
        statement(steps=0).encode()


@given(st.floats(1e-9, 1e9))
def test_a_number_that_is_rounded_up_is_never_below(value: float) -> None:
    up = float(number_text(value, up=True))
    assert value <= up <= value * (1 + 2e-5)
    assert float(number_text(value)) == pytest.approx(value, rel=1e-11)
    decode_statement(statement(noise_multiplier=number_text(min(value, 9e8), up=True)).encode(), what="it")

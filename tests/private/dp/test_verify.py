"""Statements held against their own figures."""

import builtins
from typing import Any

import pytest

from palladion.errors import FormatError
from palladion.private.dp.verify import verify_statement
from tests.private.dp.statements import statement


def test_figures_that_cost_no_more_than_stated_hold() -> None:
    checked = verify_statement(statement())
    assert checked.statement == statement()
    assert checked.recomputed is not None
    assert checked.recomputed <= 4


@pytest.mark.parametrize("change", [{"epsilon": "1"}, {"noise_multiplier": "2"}, {"steps": 6000}, {"delta": "1e-12"}])
def test_figures_that_cost_more_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="its own figures"):
        verify_statement(statement(**change))


@pytest.mark.parametrize("accountant", ["analytic-gaussian", "pld", "rdp", "prv"])
def test_a_small_epsilon_is_held_as_a_large_one_is(accountant: str) -> None:
    figures = {"noise_multiplier": "300", "steps": 1, "delta": "1e-5", "rows": 1000, "accountant": accountant}
    with pytest.raises(FormatError, match="its own figures"):
        verify_statement(statement(epsilon="0.000001", **figures))
    assert verify_statement(statement(epsilon="0.008", **figures)).recomputed == pytest.approx(0.0079, abs=2e-4)


@pytest.mark.parametrize(("delta", "rows"), [("0.7", 1000), ("0.0011", 1000)])
def test_a_delta_that_gives_a_row_up_is_refused(delta: str, rows: int) -> None:
    with pytest.raises(FormatError, match="publishes one of them whole"):
        verify_statement(statement(delta=delta, rows=rows))
    assert verify_statement(statement(delta="0.001", rows=rows)).recomputed is not None


@pytest.mark.slow
def test_sampled_training_is_recomputed() -> None:
    pytest.importorskip("dp_accounting", reason="dp-accounting is not installed: pip install 'palladion[dp]'")
    sampled = {"mechanism": "dp-sgd", "accountant": "prv", "sampling_rate": "0.1", "noise_multiplier": "1.5"}
    # Opacus says 6.29 of these by its own accountant
    assert verify_statement(statement(epsilon="6.3", delta="1e-5", steps=300, **sampled)).recomputed == pytest.approx(
        6.29, abs=0.02
    )
    with pytest.raises(FormatError, match=r"come to 6\.29"):
        verify_statement(statement(epsilon="3", delta="1e-5", steps=300, **sampled))


def test_what_cannot_be_recomputed_here_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "dp_accounting":
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    sampled = statement(mechanism="dp-sgd", accountant="pld", sampling_rate="0.1")
    assert verify_statement(sampled).recomputed is None

"""Disclosure: the table of docs/gate.md, for every standing and every kind of answer."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from palladion.gate import disclosure
from palladion.gate.contract import Contract
from palladion.gate.disclosure import LEVELS, Level, Terms, disclose, disclose_to, levels, rate_divisor
from palladion.registry.rows import Standing

SCORES = np.array([[0.5812, 0.2437, 0.1218, 0.0433, 0.0100], [0.0512, 0.1637, 0.1218, 0.3433, 0.32]])
NUMBERS = np.array([[1234.567], [-0.0987]])
LABELS = np.array(["ham", "spam"], object)


def _contract(**changes: Any) -> Contract:
    values = {"scores": "p", "label": None, "kind": "classes", "answer": "scores", "decimals": 17, "top_k": 0}
    return Contract(**{**values, **changes})


def _disclose(contract: Contract, standing: Standing, scores: NDArray[Any] = SCORES) -> dict[str, Any]:
    shown = disclose({"p": scores, "l": LABELS, "secret": SCORES}, contract, LEVELS[standing])
    return {name: values.tolist() for name, values in shown.items()}


def test_the_page_shows_the_table_that_stands_with_the_code() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "gate.md").read_text(encoding="utf-8")
    table = page.partition("<!-- begin disclosure -->\n")[2].partition("<!-- end disclosure -->")[0]
    assert table.strip() in (disclosure.__doc__ or "")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()[2:]]
    assert [row[0] for row in rows] == list(get_args(Standing))
    rates = {1: "full", 4: "a quarter"}
    assert [row[2] for row in rows] == [*(rates[rate_divisor(standing)] for standing in LEVELS), "none"]
    digits = {1: "one", 2: "two", 3: "three"}
    reduced = f"{digits[levels.REDUCED_DECIMALS]} decimal and the {digits[levels.REDUCED_TOP_K]} highest"
    assert f"scores to {reduced}; numbers to {digits[levels.REDUCED_DIGITS]} significant" in rows[2][1]
    assert f"numbers to {digits[levels.LABEL_DIGITS]} significant" in rows[3][1]


def test_every_standing_but_suspended_discloses_something() -> None:
    assert set(LEVELS) == set(get_args(Standing)) - {"suspended"}


def test_a_quarter_of_the_rate_is_left_to_the_throttled_and_the_degraded() -> None:
    divisors = {standing: rate_divisor(standing) for standing in LEVELS}
    assert divisors == {"trusted": 1, "watched": 1, "throttled": 4, "degraded": 4}


@pytest.mark.parametrize("contract", [_contract(), _contract(label="l"), _contract(kind="numbers", top_k=2)])
def test_watched_discloses_exactly_what_trusted_does(contract: Contract) -> None:
    assert LEVELS["watched"] == LEVELS["trusted"]
    assert _disclose(contract, "watched") == _disclose(contract, "trusted")


def test_trusted_gets_what_the_contract_says() -> None:
    assert _disclose(_contract(), "trusted") == {"p": SCORES.tolist()}
    assert _disclose(_contract(label="l"), "trusted") == {"p": SCORES.tolist(), "l": LABELS.tolist()}
    assert _disclose(_contract(decimals=2, top_k=1), "trusted") == {"p": [[0.58, 0, 0, 0, 0], [0, 0, 0, 0.34, 0]]}


def test_throttled_gets_one_decimal_of_the_three_highest() -> None:
    reduced = {"p": [[0.6, 0.2, 0.1, 0.0, 0.0], [0.0, 0.2, 0.0, 0.3, 0.3]]}
    assert _disclose(_contract(), "throttled") == reduced
    assert _disclose(_contract(label="l"), "throttled") == {**reduced, "l": LABELS.tolist()}


def test_throttled_never_gets_more_than_the_contract() -> None:
    assert _disclose(_contract(decimals=0, top_k=1), "throttled") == {"p": [[1, 0, 0, 0, 0], [0, 0, 0, 1, 0]]}


def test_degraded_gets_the_label_alone() -> None:
    assert _disclose(_contract(), "degraded") == {"label": [0, 3]}
    assert _disclose(_contract(label="l"), "degraded") == {"l": LABELS.tolist()}
    assert _disclose(_contract(label="l", kind="numbers"), "degraded", NUMBERS) == {"l": LABELS.tolist()}


def test_numbers_lose_digits() -> None:
    contract = _contract(kind="numbers")
    assert _disclose(contract, "trusted", NUMBERS) == {"p": [[1234.567], [-0.0987]]}
    assert _disclose(contract, "throttled", NUMBERS) == {"p": [[1200.0], [-0.099]]}
    assert _disclose(contract, "degraded", NUMBERS) == {"p": [[1000.0], [-0.1]]}
    assert _disclose(contract, "throttled", NUMBERS[:, 0]) == {"p": [1200.0, -0.099]}


@pytest.mark.parametrize("standing", LEVELS)
@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_a_route_that_promises_the_label_shows_nothing_else(standing: Standing, kind: str) -> None:
    contract = _contract(label="l", kind=kind, answer="label")
    assert _disclose(contract, standing, NUMBERS if kind == "numbers" else SCORES) == {"l": LABELS.tolist()}


@pytest.mark.parametrize("standing", LEVELS)
def test_a_label_is_made_where_the_model_has_none(standing: Standing) -> None:
    assert _disclose(_contract(answer="label"), standing) == {"label": [0, 3]}


@pytest.mark.parametrize("standing", LEVELS)
def test_outputs_that_the_contract_does_not_name_stay_inside(standing: Standing) -> None:
    for contract in (_contract(), _contract(label="l"), _contract(scores=None, label="l"), _contract(kind="numbers")):
        assert _disclose(contract, standing).keys() <= {"p", "l", "label"}


@pytest.mark.parametrize("standing", LEVELS)
def test_labels_are_handed_on_untouched_at_every_standing(standing: Standing) -> None:
    assert disclose({"p": SCORES, "l": LABELS}, _contract(label="l"), LEVELS[standing])["l"] is LABELS


@pytest.mark.parametrize(
    "scores",
    [
        pytest.param([0.33, 0.33, 0.34], id="a tie after rounding"),
        pytest.param([0.25, 0.25, 0.25, 0.25], id="a real tie"),
        pytest.param([-5.0, -1.0, -3.0, -2.0], id="logits"),
        pytest.param([-0.31, -0.29, -0.33, -0.28], id="logits that tie"),
        pytest.param([-1.0, 0.0, -2.0, -3.0], id="a highest score of zero"),
        pytest.param([0.0, 0.0, 0.0, 0.0], id="nothing at all"),
    ],
)
@pytest.mark.parametrize("decimals", [0, 1, 17])
@pytest.mark.parametrize("top_k", [0, 1, 2])
@pytest.mark.parametrize("level", ["contract", "reduced"])
def test_the_highest_class_stays_the_highest(scores: list[float], decimals: int, top_k: int, level: Level) -> None:
    rows = np.array([scores, scores[::-1]], np.float32)
    shown = disclose({"p": rows}, _contract(decimals=decimals, top_k=top_k), level)["p"]
    assert shown.argmax(axis=1).tolist() == rows.argmax(axis=1).tolist()


_FLOATS = st.floats(-50, 50, width=32)


@pytest.mark.slow
@given(
    arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(2, 6)), elements=_FLOATS),
    st.integers(0, 17),
    st.integers(0, 7),
    st.sampled_from(["contract", "reduced"]),
)
def test_no_scores_can_make_the_highest_class_change(
    rows: NDArray[np.float32], decimals: int, top_k: int, level: Level
) -> None:
    before = rows.copy()
    shown = disclose({"p": rows}, _contract(decimals=decimals, top_k=top_k), level)["p"]
    assert shown.argmax(axis=1).tolist() == rows.argmax(axis=1).tolist()
    # a step more than rounding, at most, for the class that is named; and the model's own array is left alone
    named = np.take_along_axis(shown - rows, rows.argmax(axis=1)[:, None], axis=1)
    coarse = 10.0 ** -min(decimals, 1) if level == "reduced" and decimals > 1 else 0.0
    assert np.abs(named).max() <= 1.5 * (coarse + 10.0**-decimals) + 1e-5
    assert np.array_equal(rows, before)


def test_of_many_equal_scores_the_first_ones_are_shown() -> None:
    shown = _disclose(_contract(top_k=3), "trusted", np.tile([0.1, 0.2, 0.0], 200)[None])
    assert shown == {"p": [[*[0.0, 0.2, 0.0] * 3, *[0.0] * 591]]}


def test_what_is_hidden_of_logits_looks_lower_than_what_is_shown() -> None:
    shown = _disclose(_contract(top_k=2), "trusted", np.array([[-5.0, -1.0, -3.0, -2.0]]))
    assert shown == {"p": [[-2.0, -1.0, -2.0, -2.0]]}


def test_rounding_leaves_no_negative_zero() -> None:
    assert str(_disclose(_contract(decimals=1), "trusted", np.array([[0.9, -0.01]]))) == "{'p': [[0.9, 0.0]]}"


def test_scores_that_are_no_numbers_break_nothing() -> None:
    rows = np.array([[np.nan, 0.5, 0.5, 0.1], [np.inf, -np.inf, 0.0, 1.0]])
    for standing in LEVELS:
        for kind in ("classes", "numbers"):
            assert set(_disclose(_contract(kind=kind), standing, rows)) <= {"p", "label"}


def test_perturbation_is_put_on_scores_and_never_on_a_label() -> None:
    terms = Terms(_contract(label="l"), "contract", "reverse-sigmoid", 0.2)
    shown = disclose_to(terms, {"p": SCORES, "l": LABELS})
    assert shown["l"] is LABELS
    assert not np.allclose(shown["p"], SCORES)
    assert shown["p"].argmax(axis=1).tolist() == SCORES.argmax(axis=1).tolist()


def test_without_perturbation_terms_disclose_what_the_contract_does() -> None:
    shown = disclose_to(Terms(_contract(decimals=2), "reduced"), {"p": SCORES})
    assert shown["p"].tolist() == disclose({"p": SCORES}, _contract(decimals=2), "reduced")["p"].tolist()


@pytest.mark.parametrize("kind", ["numbers", "embedding"])
def test_what_is_no_class_score_is_not_perturbed(kind: str) -> None:
    shown = disclose_to(Terms(_contract(kind=kind), "contract", "reverse-sigmoid", 0.2), {"p": SCORES})
    assert shown["p"].tolist() == SCORES.tolist()


def test_boxes_keep_their_names_and_classes_at_every_standing() -> None:
    outputs = {
        "b": np.array([[[10.0, 11.0, 30.0, 29.0]]]),
        "s": np.array([[0.83]]),
        "c": np.array([[7]]),
    }
    contract = _contract(kind="boxes", boxes="b", scores="s", label="c", grid=8.0, rank=3)
    seen = {level: disclose(outputs, contract, level) for level in ("contract", "reduced", "label")}
    assert all(shown.keys() == outputs.keys() and shown["c"] is outputs["c"] for shown in seen.values())
    assert seen["contract"]["b"] is outputs["b"]
    assert seen["reduced"]["b"].tolist() == [[[8.0, 8.0, 32.0, 32.0]]]
    assert (seen["reduced"]["s"].tolist(), seen["label"]["s"].tolist()) == ([[0.8]], [[1.0]])
    assert seen["label"]["b"].tolist() == [[[0.0, 0.0, 32.0, 32.0]]]


def test_a_mask_goes_out_under_its_own_name() -> None:
    painted = np.zeros((1, 4, 4), np.int64)
    painted[0, 0, 0] = 3
    contract = _contract(kind="mask", scores=None, label="m", grid=2.0, rank=3)
    assert disclose({"m": painted}, contract, "contract") == {"m": painted}
    assert disclose({"m": painted}, contract, "reduced")["m"].tolist() == np.zeros((1, 4, 4)).tolist()


TYPES = st.sampled_from([np.float16, np.float32, np.float64])


@pytest.mark.filterwarnings("error")
@given(
    st.sampled_from(["classes", "numbers", "embedding", "boxes", "mask"]),
    TYPES,
    st.data(),
    st.sampled_from(list(LEVELS.values())),
    st.sampled_from([None, "reverse-sigmoid", "modelguard-w"]),
    st.sampled_from([float("inf"), 0.5, 1.76e308]),
    st.integers(0, 17),
)
def test_whatever_a_model_says_in_finite_numbers_is_disclosed_in_finite_ones(
    kind: Any, dtype: Any, data: st.DataObject, level: Level, method: Any, threshold: float, decimals: int
) -> None:
    shape = (2, 3, 4) if kind == "mask" else (2, 4)
    largest = float(np.finfo(dtype).max)
    numbers = st.one_of(
        st.floats(-largest, largest, width=np.dtype(dtype).itemsize * 8),
        st.sampled_from([largest, -largest, 0.0, 0.5]),
    )
    outputs = {"p": data.draw(arrays(dtype, shape, elements=numbers))}
    boxes = {"scores": None, "boxes": "p", "rank": 2} if kind == "boxes" else {}
    contract = _contract(kind=kind, grid=8.0, threshold=threshold, decimals=decimals, top_k=2, typed=True, **boxes)
    shown = disclose_to(Terms(contract, level, method, 0.3), outputs)
    for name, values in shown.items():
        with np.errstate(over="ignore"):
            assert np.isfinite(values.astype(outputs[name].dtype if name in outputs else values.dtype)).all()


def test_half_precision_keeps_the_label_of_scores_that_are_hidden() -> None:
    scores = np.array([[-3, -2, -4]], np.float16)
    shown = disclose({"p": scores}, _contract(decimals=4, top_k=1, typed=True), "contract")["p"]
    assert shown.astype(np.float16).argmax() == 1


def test_a_typed_answer_is_on_its_side_of_the_threshold_in_its_type() -> None:
    scores = np.array([[0.70000005, 0.29999995]], np.float32)
    shown = disclose({"p": scores}, _contract(decimals=1, threshold=0.7, typed=True), "contract")["p"]
    assert float(shown.astype(np.float32)[0, 0]) >= 0.7
    assert shown[0, 1] == 0.3


@pytest.mark.parametrize("method", ["reverse-sigmoid", "modelguard-w"])
def test_decisions_stay_under_perturbation(method: Any) -> None:
    scores = np.array([[0.75, 0.25], [0.52, 0.48]])
    terms = Terms(_contract(decimals=4, threshold=0.7), "contract", method, 0.2)
    shown = disclose_to(terms, {"p": scores})["p"]
    assert ((shown >= 0.7) == (scores >= 0.7)).all()

"""The ownership mark: found whatever a thief does to a copy, and never in what is independent of the key.

Null hypothesis in every test that finds nothing: the suspect is independent of the key.
"""

import math
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import numpy as np
import pytest

from palladion.mark.carriers import derive, signs
from palladion.mark.match import matches
from palladion.mark.places import places
from palladion.mark.stats import log10_p_signs
from palladion.mark.weights import (
    AMPLITUDE,
    Evidence,
    OwnershipKey,
    TensorKey,
    find_in_tensor,
    find_ownership,
    mark_place,
    ownership_key,
    ownership_payload,
    predicted_log10_p,
    predictions,
    tensor_key,
)
from palladion.model.model import Model
from palladion.model.read import read_memory

from .suspects import (
    KEY,
    OTHER_KEY,
    OTHER_OWNERSHIP,
    OWNERSHIP,
    PAYLOAD,
    Array,
    as_type,
    each,
    marked,
    matrix,
    network,
    noisy,
    numbers_of,
    one_matrix,
    pruned,
    quantised,
    rescaled,
    rounded,
    saved,
    tuned,
    with_weights,
)

ORIGINAL = network()
MARKED = marked(ORIGINAL)
WEIGHTS = sum(place.size for place in places(ORIGINAL))

# What is done to a copy, and the share of the statistic of an untouched one that must be left at least.
ATTACKS: dict[str, tuple[Callable[[Array], Array], float]] = {
    "exact copy": (np.asarray, 0.95),
    "bf16": (as_type("bfloat16"), 0.9),
    "fp16": (as_type("float16"), 0.95),
    "fp8": (as_type("float8_e4m3fn"), 0.3),
    "int8": (rounded(8), 0.4),
    "int8, stored as such": (quantised("int8"), 0.4),
    "uint8 with a zero point": (quantised("uint8", zero_point=128), 0.4),
    "int8 for each row": (quantised("int8", axis=0), 0.6),
    "int8 for each column": (quantised("int8", axis=1), 0.6),
    "int4 in groups of 32": (rounded(4, 32), 0.08),
    "prune 50 %": (pruned(0.5), 0.6),
    "prune 90 %": (pruned(0.9), 0.2),
    "prune 50 %, then int4": (lambda weights: rounded(4, 32)(pruned(0.5)(weights)), 0.05),
    "noise 20 %": (noisy(0.2), 0.035),
    "scaled by 3": (lambda weights: 3 * weights, 0.95),
    "negated": (np.negative, 0.95),
    "rows and columns scaled": (lambda weights: rescaled(0)(rescaled(1)(weights)), 0.9),
    "transposed": (lambda weights: weights.T if weights.ndim == 2 else weights, 0.95),
    "fine-tuned along a direction": (tuned, 0.08),
}


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
def test_the_mark_is_found_after(attack: str) -> None:
    change, share = ATTACKS[attack]
    found = find_ownership(ORIGINAL, saved(each(MARKED, change)), OWNERSHIP)
    assert found.statistic > share * math.sqrt(WEIGHTS)
    assert found.log10_p < -7
    assert (found.places, found.comparable, len(found.tensors)) == (4, 4, 4)
    assert found.log10_p >= log10_p_signs(found.statistic)


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
def test_another_key_finds_nothing_after(attack: str) -> None:
    suspect = saved(each(MARKED, ATTACKS[attack][0]))
    for index in range(4):
        assert find_ownership(ORIGINAL, suspect, OwnershipKey(derive(OTHER_KEY, f"{index}"), PAYLOAD)).log10_p > -3


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_is_found_in_the_unmarked_original_after(attack: str) -> None:
    suspect = saved(each(numbers_of(ORIGINAL), ATTACKS[attack][0]))
    for index in range(4):
        assert find_ownership(ORIGINAL, suspect, OwnershipKey(derive(KEY, f"{index}"), PAYLOAD)).log10_p > -3


def test_nothing_is_found_in_a_stranger_or_in_nothing() -> None:
    for suspect in (network(50), saved({}), saved({"a": np.ones(3, np.float32)})):
        found = find_ownership(ORIGINAL, suspect, OWNERSHIP)
        assert (found.log10_p, found.statistic, found.tensors) == (0, 0, ())
    assert found.comparable == 0


def _permuted_columns(weights: Array) -> Array:
    return weights[..., np.random.default_rng(4).permutation(weights.shape[-1])]


NULLS: dict[str, Callable[[Array], Array]] = {
    "itself": np.asarray,
    "int8": rounded(8),
    "uint8": quantised("uint8", zero_point=128, axis=1),
    "int4": rounded(4, 32),
    "pruned": pruned(0.5),
    "noisy": noisy(0.2),
    "scaled": rescaled(0),
    "transposed": np.transpose,
    "tuned": tuned,
    "columns permuted": lambda weights: np.concatenate([weights[:48], _permuted_columns(weights[48:])]),
    "marked by another": lambda weights: marked(saved({"w": weights}), OTHER_OWNERSHIP)["w"],
    "half a stranger": lambda weights: np.where(np.tri(96, 64) > 0, weights, matrix(seed=60)),
}


def _at_most_as_often_small_as_they_say(log10_ps: Array) -> None:
    for level in (1e-1, 1e-2, 1e-3):
        found = int((log10_ps <= math.log10(level)).sum())
        assert found <= len(log10_ps) * level + 4 * math.sqrt(len(log10_ps) * level), (level, found)


@pytest.mark.slow
@pytest.mark.parametrize("null", NULLS)
def test_p_values_of_suspects_that_are_independent_of_the_key_are_valid(null: str) -> None:
    # 4,000 keys from one stream, seed KEY; an alignment that saw the key would show in mean and variance first
    keys, original = 4000, one_matrix()
    suspect = saved({"w": NULLS[null](numbers_of(original)["w"])})
    ((_, found),) = matches(original, suspect)
    assert found is not None
    if not found.squares:  # nothing but the original: there is nothing to correlate with
        assert find_ownership(original, suspect, OWNERSHIP).log10_p == 0
        return
    carriers = signs(derive(KEY, "null"), keys * found.residual.size).reshape(keys, -1)
    statistics = carriers @ found.residual.ravel() / np.linalg.norm(found.residual)
    assert abs(statistics.mean()) < 4 / math.sqrt(keys)
    assert abs(statistics.var() - 1) < 4 * math.sqrt(2 / keys)
    _at_most_as_often_small_as_they_say(np.array([log10_p_signs(float(t)) for t in statistics]))


@pytest.mark.slow
@pytest.mark.parametrize("null", NULLS)
def test_the_whole_test_is_valid_over_many_keys(null: str) -> None:
    # 150 keys, derived from zeros; bench/marks.py takes 2,000
    original = network()
    suspect = saved(each(numbers_of(original), NULLS[null] if null != "half a stranger" else noisy(1.0)))
    keys = [OwnershipKey(derive(bytes(32), f"{index}"), PAYLOAD) for index in range(150)]
    _at_most_as_often_small_as_they_say(np.array([find_ownership(original, suspect, key).log10_p for key in keys]))


def test_tensors_that_were_renamed_are_found_and_named() -> None:
    suspect = saved({f"x{index}": numbers for index, numbers in enumerate(reversed(MARKED.values()))})
    found = find_ownership(ORIGINAL, suspect, OWNERSHIP)
    assert found.statistic > 0.95 * math.sqrt(WEIGHTS)
    assert {item.tensor for item in found.tensors} == {place.name for place in places(ORIGINAL)}
    assert all(item.suspect.startswith("x") for item in found.tensors)


def test_one_stolen_tensor_among_strangers_is_found_and_the_only_one_named() -> None:
    stolen = rounded(8)(MARKED["second"])
    suspect = saved(numbers_of(network(70)) | {"second": stolen})
    found = find_ownership(ORIGINAL, suspect, OWNERSHIP)
    assert [item.tensor for item in found.tensors] == ["second"]
    assert found.log10_p < -200
    assert (found.places, found.comparable) == (4, 4)


def test_one_untouched_tensor_among_ruined_ones_is_found() -> None:
    suspect = saved(each(MARKED, noisy(1.0)) | {"second": MARKED["second"]})
    found = find_ownership(ORIGINAL, suspect, OWNERSHIP)
    assert found.log10_p < -1000
    # the ruined ones do not drown it in the statistic of all of them either
    assert found.statistic > 0.9 * math.sqrt(64 * 128)


def test_tensors_that_were_put_back_to_the_original_do_not_drown_the_others() -> None:
    # layers of a public base: whoever has them can undo the mark there
    suspect = saved(MARKED | {"first": numbers_of(ORIGINAL)["first"], "third": numbers_of(ORIGINAL)["third"]})
    found = find_ownership(ORIGINAL, suspect, OWNERSHIP)
    assert found.statistic > 0.9 * math.sqrt(WEIGHTS - 96 * 64 - 64 * 132)


def test_the_best_tensor_alone_counts_where_the_others_say_nothing() -> None:
    original = saved({f"{index}": matrix(96, 64, seed=index) for index in range(9)})
    # nothing but the first was stolen; the others are the public base, trained on a little
    suspect = saved(each(numbers_of(original), noisy(0.01)) | {"0": marked(original)["0"]})
    found = find_ownership(original, suspect, OWNERSHIP)
    best = next(item.log10_p for item in found.tensors if item.tensor == "0")
    assert len(found.tensors) == 9
    assert found.log10_p == pytest.approx(best + math.log10(9) + math.log10(2))
    assert found.log10_p < 3 * log10_p_signs(found.statistic)


def test_the_prediction_is_close_to_what_is_found() -> None:
    original = saved({"a": matrix(256, 256), "b": matrix(256, 128, seed=5)})
    copy = marked(original)
    count = 256 * 384
    for noise in (0.0, 0.01, 0.05, 0.2):

        def disturbed(weights: Array, size: float = noise) -> Array:
            rows = np.sqrt(np.square(weights).mean(axis=1, keepdims=True))
            random = np.random.default_rng(7).standard_normal(weights.shape)
            return np.asarray(weights + size * rows * random, np.float32)

        found = find_ownership(original, saved(each(copy, disturbed)), OWNERSHIP).log10_p
        assert found == pytest.approx(predicted_log10_p(count, noise=noise), rel=0.25)
    assert predicted_log10_p(0, noise=0.0) == 0
    assert predicted_log10_p(4 * count, noise=0.0) == pytest.approx(4 * predicted_log10_p(count, noise=0.0), rel=1e-2)


def test_a_larger_amplitude_is_found_more_surely() -> None:
    copies = [
        with_weights(ORIGINAL, lambda place, a=amplitude: mark_place(place, OWNERSHIP, amplitude=a))  # type: ignore[misc]
        for amplitude in (AMPLITUDE / 2, AMPLITUDE, 2 * AMPLITUDE)
    ]
    half, normal, double = (
        find_ownership(ORIGINAL, saved(each(copy, rounded(4, 32))), OWNERSHIP).statistic for copy in copies
    )
    assert half < normal < double


def test_the_key_of_a_mark_follows_from_owner_and_original() -> None:
    keys = {ownership_key(root, digest) for root in (KEY, OTHER_KEY) for digest in ("00" * 32, "01" * 32)}
    assert len(keys) == 4
    assert ownership_key(KEY, "00" * 32) == ownership_key(KEY, "00" * 32)


def test_what_a_mark_says_follows_from_publisher_and_original() -> None:
    payloads = {ownership_payload(who, digest) for who in ("aa", "bb") for digest in ("00" * 32, "01" * 32)}
    assert len(payloads) == 4
    assert {len(payload) for payload in payloads} == {16}
    # recomputed by hand: SHA-256 over the three parts, each after its length in four bytes
    parts = b"\0\0\0\x14palladion/v1/payload\0\0\0\x02aa\0\0\0\x02cc"
    assert ownership_payload("aa", "cc") == sha256(parts).digest()[:16]


@pytest.mark.parametrize("attack", ["exact copy", "int8, stored as such", "prune 90 %", "transposed"])
def test_the_payload_is_read_without_an_error_after(attack: str) -> None:
    found = find_ownership(ORIGINAL, saved(each(MARKED, ATTACKS[attack][0])), OWNERSHIP)
    assert found.payload_errors == 0
    assert found.decoded == PAYLOAD


def test_another_payload_is_read_as_what_it_is_not() -> None:
    # a claimant who committed to other words than those in the model: the mark is weaker, and the words differ
    claimed = OwnershipKey(KEY, bytes(16))
    found = find_ownership(ORIGINAL, saved(MARKED), claimed)
    assert found.log10_p > -300
    if found.payload_errors is not None:
        assert found.decoded == PAYLOAD
        assert found.payload_errors == int.from_bytes(PAYLOAD).bit_count()


def test_a_payload_is_not_read_where_there_is_no_mark() -> None:
    found = find_ownership(ORIGINAL, saved(each(numbers_of(ORIGINAL), noisy(0.01))), OWNERSHIP)
    assert (found.payload_errors, found.decoded) == (None, None)


def test_marks_of_the_first_scheme_have_no_payload_and_stay_provable() -> None:
    key = OwnershipKey(KEY, None)
    (place,) = places(one_matrix())
    carrier = signs(derive(KEY, "tensor", "w"), place.size).reshape(place.weights.shape)
    as_before = saved({"w": (place.weights + AMPLITUDE * place.scale * carrier).astype(np.float32)})
    found = find_ownership(one_matrix(), as_before, key)
    assert found.statistic > 0.95 * math.sqrt(place.size)
    assert (found.payload_errors, found.decoded) == (None, None)
    assert np.allclose(mark_place(place, key), numbers_of(as_before)["w"], rtol=1e-6)


def test_a_court_can_test_one_tensor_with_its_key_alone() -> None:
    disclosed = tensor_key(OWNERSHIP, "second")
    shown = saved({"second": numbers_of(ORIGINAL)["second"]})
    found = find_in_tensor(shown, saved(each(MARKED, rounded(8))), "second", disclosed)
    assert [item.tensor for item in found.tensors] == ["second"]
    assert found.statistic > 0.4 * math.sqrt(64 * 128)
    assert (found.payload_errors, found.decoded) == (0, PAYLOAD)
    assert (found.places, found.comparable) == (1, 1)
    # and nothing else: it is no key of another tensor, and of no other model
    assert find_in_tensor(ORIGINAL, saved(MARKED), "first", disclosed).log10_p > -3
    assert find_in_tensor(shown, saved(MARKED), "second", tensor_key(OTHER_OWNERSHIP, "second")).log10_p > -3


def test_a_tensor_that_the_original_has_not_cannot_be_tested() -> None:
    with pytest.raises(ValueError, match="no place 'bias'"):
        find_in_tensor(ORIGINAL, saved(MARKED), "bias", tensor_key(OWNERSHIP, "bias"))


@pytest.mark.parametrize("kind", [OwnershipKey, TensorKey])
def test_keys_have_their_lengths_and_are_not_shown(kind: type[OwnershipKey] | type[TensorKey]) -> None:
    for key, payload in ((bytes(31), PAYLOAD), (KEY, bytes(15)), (b"", None)):
        with pytest.raises(ValueError, match="got"):
            kind(key, payload)
    shown = repr(kind(KEY, PAYLOAD))
    assert repr(KEY) not in shown
    assert KEY.hex() not in shown


def test_what_is_predicted_falls_with_what_is_done() -> None:
    found = predictions([100_000, 50_000, 50_000])
    assert list(found) == ["exact copy", "int8", "int4", "blind", "largest tensor, int4"]
    assert (
        found["exact copy"] < found["int8"] < found["int4"] < found["largest tensor, int4"] < -9 < found["blind"] <= 0
    )
    assert found["int4"] == pytest.approx(predicted_log10_p(200_000, noise=0.1) + math.log10(2))
    assert set(predictions([]).values()) == {0.0}


def test_evidence_of_nothing_is_none() -> None:
    evidence = Evidence()
    assert evidence.statistic == 0
    assert evidence.add(0.0, 0.0, 1e-4) == 0
    assert evidence.statistic == 0


def test_evidence_counts_tensors_by_their_noise() -> None:
    evidence = Evidence()
    assert evidence.add(30.0, 100.0, 1.0) == 3
    assert evidence.add(30.0, 100.0, 2.0) == 3
    assert evidence.statistic == pytest.approx((30 + 15) / math.sqrt(100 + 25))


def _onnx(tensors: dict[str, Array]) -> bytes:
    """A network of two matrices in ONNX."""
    import onnx
    from onnx import helper

    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "first"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "second"], ["y"]),
        ],
        "network",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 96])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 128])],
        [onnx.numpy_helper.from_array(tensors[name], name) for name in ("first", "second")],
    )
    data: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return data


def _original_onnx() -> Model:
    return read_memory({"m.onnx": _onnx({"first": matrix(96, 64), "second": matrix(64, 128, seed=2)})})


def test_a_copy_that_was_saved_as_safetensors_is_found() -> None:
    original = _original_onnx()
    found = find_ownership(original, saved(marked(original)), OWNERSHIP)
    assert found.statistic > 0.95 * math.sqrt(96 * 64 + 64 * 128)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"per_channel": True}, {"weight_type": "QUInt8"}], ids=str)
def test_a_copy_that_onnx_runtime_quantised_is_found(options: dict[str, Any], tmp_path: Any) -> None:
    pytest.importorskip("onnx", reason="quantisation needs the onnx package: install the dev extra")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if "weight_type" in options:
        options = {"weight_type": getattr(QuantType, options["weight_type"])}
    original = _original_onnx()
    (tmp_path / "m.onnx").write_bytes(_onnx(marked(original)))
    quantize_dynamic(tmp_path / "m.onnx", tmp_path / "q.onnx", **options)
    suspect = read_memory({"q.onnx": (tmp_path / "q.onnx").read_bytes()})
    assert {"int8", "uint8"} & {tensor.dtype.name for tensor in suspect.tensors.values()}
    found = find_ownership(original, suspect, OWNERSHIP)
    assert found.statistic > 0.3 * math.sqrt(96 * 64 + 64 * 128)
    assert find_ownership(original, suspect, OTHER_OWNERSHIP).log10_p > -3

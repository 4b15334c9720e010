"""Calibration files: one calibration, one sequence of bytes; everything else is refused."""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion import canonical
from palladion.errors import FormatError
from palladion.model import safetensors
from palladion.model.tensors import DTYPES, Tensor
from palladion.watch import calibration_file as module
from palladion.watch.calibration import HORIZON_MAX
from palladion.watch.calibration_file import decode_calibration, encode_calibration
from palladion.watch.conformal import Conformal
from palladion.watch.features import DIRECTIONS_MAX, FEATURES
from palladion.watch.rows import Rows

from . import factories, few

SEED = 71
CALIBRATION = factories.calibration(clients=20, organisations=3)
DATA = encode_calibration(CALIBRATION)


def changed(
    arrays: Mapping[str, Rows | None] | None = None, document: Mapping[str, Any] | None = None, **metadata: str
) -> bytes:
    """The file with other arrays (None leaves one out) and other entries of its document (None leaves one out)."""
    tensors, known = safetensors.parse(memoryview(DATA), what="it")
    about = {**json.loads(known["palladion"]), **(document or {})}
    text = canonical.encode({key: value for key, value in about.items() if value is not None}).decode()
    found: dict[str, Any] = {name: np.array(tensor.data) for name, tensor in tensors.items()} | dict(arrays or {})
    kept = [
        Tensor(name, DTYPES[str(array.dtype)], array.shape, array) for name, array in found.items() if array is not None
    ]
    return safetensors.serialise(kept, {"palladion": text, **metadata})


def array(name: str) -> Rows:
    tensors, _ = safetensors.parse(memoryview(DATA), what="it")
    return np.array(tensors[name].data, np.float64)


def with_value(name: str, value: float) -> dict[str, Rows]:
    """The array of that name with another first value."""
    values = array(name)
    values.flat[0] = value
    return {name: values}


def test_a_calibration_survives_its_file() -> None:
    decoded = decode_calibration(DATA, what="it")

    assert decoded.about == CALIBRATION.about
    assert encode_calibration(decoded) == DATA
    episode = factories.honest(np.random.default_rng(SEED))
    np.testing.assert_array_equal(decoded.instruments.score([episode])[0], CALIBRATION.instruments.score([episode])[0])
    np.testing.assert_array_equal(decoded.clients.suprema, CALIBRATION.clients.suprema)
    assert decoded.groups.keys() == CALIBRATION.groups.keys()


def test_the_same_calibration_always_gives_the_same_bytes() -> None:
    again = replace(CALIBRATION, groups=dict(sorted(CALIBRATION.groups.items(), reverse=True)))

    assert encode_calibration(again) == DATA


def test_the_tests_own_way_to_write_a_file_is_the_right_one() -> None:
    assert changed() == DATA


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, len(DATA) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_is_another_calibration(place: int, bit: int) -> None:
    data = bytearray(DATA)
    data[place] ^= 1 << bit

    try:
        decoded = decode_calibration(bytes(data), what="it")
    except FormatError:
        return

    assert encode_calibration(decoded) == bytes(data)


@pytest.mark.slow
def test_no_flipped_bit_of_the_header_passes_for_the_same_file() -> None:
    header = 8 + struct.unpack("<Q", DATA[:8])[0]
    for place in range(header):
        data = bytearray(DATA)
        data[place] ^= 1 + place % 255
        try:
            decoded = decode_calibration(bytes(data), what="it")
        except FormatError:
            continue
        # a digit of the seed or of the model's digest: a claim that nothing in the file contradicts
        assert decoded.about != CALIBRATION.about, place


@pytest.mark.parametrize("length", [0, 7, 8, 100, 3000, len(DATA) - 1])
def test_a_file_that_ends_early_is_refused(length: int) -> None:
    with pytest.raises(FormatError):
        decode_calibration(DATA[:length], what="it")


def test_a_file_that_goes_on_is_refused() -> None:
    with pytest.raises(FormatError):
        decode_calibration(DATA + b"\0", what="it")


def test_errors_name_the_file_in_question() -> None:
    with pytest.raises(FormatError, match="the calibration fraud/3-ab"):
        decode_calibration(b"", what="the calibration fraud/3-ab.safetensors")


def test_a_file_that_is_too_large_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALIBRATION_BYTES_MAX", 100)

    with pytest.raises(FormatError, match="more than the 100 allowed"):
        decode_calibration(DATA, what="it")


NAMES = sorted(safetensors.parse(memoryview(DATA), what="it")[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("groups.")])
def test_a_file_without_one_of_its_arrays_is_refused(name: str) -> None:
    with pytest.raises(FormatError, match=f"has no float64 tensor '{name}'"):
        decode_calibration(changed({name: None}), what="it")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_values_that_are_not_finite_are_refused(name: str, value: float) -> None:
    with pytest.raises(FormatError, match=f"'{name}' has a value that is not finite"):
        decode_calibration(changed(with_value(name, value)), what="it")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "defect",
    [lambda array: array[None], lambda array: array[:0], lambda array: array.astype(np.float32)],
    ids=["more dimensions", "empty", "single precision"],
)
def test_arrays_of_lying_shapes_and_types_are_refused(name: str, defect: Callable[[Rows], Rows]) -> None:
    with pytest.raises(FormatError, match=f"'{name}' has the shape|has no float64 tensor '{name}'"):
        decode_calibration(changed({name: defect(array(name))}), what="it")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "features.class_means"])
def test_arrays_that_do_not_fit_each_other_are_refused(name: str) -> None:
    with pytest.raises(FormatError):
        decode_calibration(changed({name: np.concatenate([array(name)] * 2)}), what="it")


@pytest.mark.parametrize("name", ["features.scale", "features.deviations", "effects.width", "effects.spread"])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_scales_that_would_divide_by_nothing_are_refused(name: str, value: float) -> None:
    with pytest.raises(FormatError, match="a scale that is not positive"):
        decode_calibration(changed(with_value(name, value)), what="it")


def test_a_negative_variance_is_refused() -> None:
    with pytest.raises(FormatError, match="a scale that is not positive"):
        decode_calibration(changed(with_value("effects.between", -0.1)), what="it")


@pytest.mark.parametrize("name", ["clients", "groups.2", "scores.quantiles"])
def test_lists_that_do_not_ascend_are_refused(name: str) -> None:
    with pytest.raises(FormatError, match="not ascend"):
        decode_calibration(changed(with_value(name, 1e9)), what="it")


def test_an_array_that_nobody_reads_is_refused() -> None:
    with pytest.raises(FormatError, match="is not written the way calibrations are"):
        decode_calibration(changed({"extra": np.zeros(3)}), what="it")


def test_organisations_of_a_size_that_is_not_calibrated_are_refused() -> None:
    with pytest.raises(FormatError, match="is not written the way calibrations are"):
        decode_calibration(changed({"groups.4": np.zeros(3)}), what="it")


def test_more_directions_than_a_state_can_hold_are_refused() -> None:
    many = {"features.deviations": np.ones(DIRECTIONS_MAX + 1)}

    with pytest.raises(FormatError, match="33 directions, more than the 32 allowed"):
        decode_calibration(changed(many), what="it")


def test_a_calibration_of_other_features_is_refused_with_a_way_out() -> None:
    with pytest.raises(FormatError, match="was made for other features") as refused:
        decode_calibration(changed(document={"features": list(FEATURES)[:-1]}), what="it")

    assert refused.value.hints == ("calibrate again: palladion watch calibrate",)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"format": "calibration-2"}, "not a calibration of a format that is known"),
        ({"format": None}, "not a calibration of a format that is known"),
        ({"features": None}, "other features"),
        ({"created": None}, "does not say what it is of"),
        ({"created": "yesterday"}, "does not say what it is of"),
        ({"created": "2026-06-01T12:00:00Z"}, "does not say what it is of"),
        ({"model": None}, "does not say what it is of"),
        ({"version": "3"}, "does not say what it is of"),
        ({"simulated": 1}, "does not say what it is of"),
        ({"horizon": 0}, f"a horizon outside 1 to {HORIZON_MAX}"),
        ({"horizon": HORIZON_MAX + 1}, f"a horizon outside 1 to {HORIZON_MAX}"),
        ({"group_horizon": -1}, f"a horizon outside 1 to {HORIZON_MAX}"),
        ({"clients": 10**6}, "claims 1000000 clients, and holds 20"),
        ({"extra": 1}, "not written the way calibrations are"),
        ({"features": list(FEATURES) * 300}, "more than the"),
    ],
    ids=str,
)
def test_claims_that_do_not_fit_are_refused(document: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        decode_calibration(changed(document=document), what="it")


def test_metadata_of_others_are_refused() -> None:
    with pytest.raises(FormatError, match="is not a calibration of Palladion"):
        decode_calibration(changed(author="somebody"), what="it")


@pytest.mark.parametrize("text", ["{", "[]", "7", '{"a": 1}', '{"a":1,"a":1}', "\ud800"], ids=ascii)
def test_metadata_that_are_no_canonical_document_are_refused(text: str) -> None:
    size = struct.unpack("<Q", DATA[:8])[0]
    header = json.loads(DATA[8 : 8 + size])
    header["__metadata__"]["palladion"] = text
    encoded = json.dumps(header).encode()

    with pytest.raises(FormatError):
        decode_calibration(struct.pack("<Q", len(encoded)) + encoded + DATA[8 + size :], what="it")


FEW = few.calibration()


def test_what_clients_are_held_against_beside_their_past_survives_its_file() -> None:
    decoded = decode_calibration(encode_calibration(FEW), what="it")

    assert decoded.about == FEW.about
    assert (decoded.about.kind, decoded.about.recorded) == ("few real", 48)
    assert decoded.past is not None
    assert FEW.past is not None
    np.testing.assert_array_equal(decoded.past.clients.suprema, FEW.past.clients.suprema)
    found = FEW.instruments.score([few.whole(np.random.default_rng(SEED))])[0]
    assert decoded.past.supremum(found, factories.HORIZON) == FEW.past.supremum(found, factories.HORIZON)


@pytest.mark.parametrize("missing", ["past.clients", "past.mean", "past.width"])
def test_half_of_a_test_beside_the_past_is_refused(missing: str) -> None:
    tensors, metadata = safetensors.parse(memoryview(encode_calibration(FEW)), what="it")
    kept = [Tensor(name, DTYPES["float64"], item.shape, item.data) for name, item in tensors.items() if name != missing]

    with pytest.raises(FormatError):
        decode_calibration(safetensors.serialise(kept, metadata), what="it")


def test_too_few_clients_with_a_past_are_refused() -> None:
    assert FEW.past is not None
    short = replace(FEW, past=replace(FEW.past, clients=Conformal(FEW.past.clients.suprema[:18])))

    with pytest.raises(FormatError, match="18 clients with a past, fewer than 19"):
        decode_calibration(encode_calibration(short), what="it")


@pytest.mark.parametrize(
    ("simulated", "clients", "kind", "recorded"),
    [
        (True, 1050, "simulated", 0),
        (False, 15, "few real", 20),
        (False, 998, "few real", 1003),
        (False, 999, "real", 1004),
    ],
)
def test_a_calibration_says_what_it_is(*, simulated: bool, clients: int, kind: str, recorded: int) -> None:
    about = replace(factories.ABOUT, simulated=simulated, clients=clients, fitted_recorded=0 if simulated else 5)

    assert (about.kind, about.recorded) == (kind, recorded)


def test_a_calibration_from_before_the_further_tests_weighs_as_it_did() -> None:
    before = replace(CALIBRATION, instruments=replace(CALIBRATION.instruments, own=None))
    data = encode_calibration(before)

    decoded = decode_calibration(data, what="it")

    assert b'"own.' not in data
    assert encode_calibration(decoded) == data
    scores = decoded.instruments.score([factories.foreign(np.random.default_rng(SEED))])[0]
    by_means = decoded.instruments.effects.statistic(np.cumsum(scores, axis=0), np.arange(1, len(scores) + 1))
    np.testing.assert_array_equal(decoded.instruments.path(scores), by_means)
    state = decoded.new_state()
    assert state.to_bytes().startswith(b"PWC2")
    assert decoded.fits(state)
    assert not CALIBRATION.fits(state)
    assert not decoded.fits(CALIBRATION.new_state())


@pytest.mark.parametrize("missing", ["own.near", "own.scales"])
def test_half_of_the_further_tests_is_refused(missing: str) -> None:
    tensors, metadata = safetensors.parse(memoryview(DATA), what="it")
    kept = [Tensor(name, DTYPES["float64"], item.shape, item.data) for name, item in tensors.items() if name != missing]

    with pytest.raises(FormatError, match=f"no float64 tensor '{missing}'"):
        decode_calibration(safetensors.serialise(kept, metadata), what="it")


@pytest.mark.parametrize(
    ("name", "place"), [("own.near", 1), ("own.near", 2), ("own.scales", (0, 1)), ("own.scales", (3, 1))], ids=str
)
def test_further_tests_on_no_scale_are_refused(name: str, place: int | tuple[int, int]) -> None:
    tensors, metadata = safetensors.parse(memoryview(DATA), what="it")
    arrays = {key: np.array(item.data) for key, item in tensors.items()}
    arrays[name][place] = -1.0
    written = [Tensor(key, DTYPES["float64"], array.shape, array) for key, array in arrays.items()]

    with pytest.raises(FormatError, match="a variance or a scale that is not positive"):
        decode_calibration(safetensors.serialise(written, metadata), what="it")

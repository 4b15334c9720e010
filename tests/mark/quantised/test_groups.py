"""Which tensors of a file without a graph are quantised weights."""

import ml_dtypes
import numpy as np
import pytest

from palladion.mark.quantised.codings import Floats8, Integers
from palladion.mark.quantised.groups import looks_like_weights, quantised_among
from palladion.mark.quantised.nibbles import Nibbles
from palladion.mark.quantised.words import Words
from palladion.model.tensors import Tensor
from tests.mark.quantised import test_nibbles, test_words
from tests.mark.suspects import Array, matrix, tensor

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many


def among(**arrays: Array) -> dict[str, object]:
    """What is found, by name; a double underscore is a dot."""
    tensors = {key.replace("__", "."): values for key, values in arrays.items()}
    return dict(quantised_among({name: tensor(name, values) for name, values in tensors.items()}))


def bell(dtype: str = "int8", centre: float = 0, deviation: float = 20, shape: tuple[int, int] = (64, 64)) -> Array:
    numbers = np.random.default_rng(1).normal(centre, deviation, shape)
    limits = np.iinfo(dtype)
    return np.asarray(np.clip(np.rint(numbers), limits.min, limits.max), dtype)


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (np.array(0.5, np.float32), 0.5),
        (np.array([0.5], np.float16), 0.5),
        (np.arange(96, dtype=np.float32), np.arange(96)[:, None]),
        (np.arange(96, dtype=ml_dtypes.bfloat16)[:, None], np.arange(96)[:, None]),
        (np.arange(6, dtype=np.float32).reshape(3, 2), np.kron(np.arange(6).reshape(3, 2), np.ones((32, 32)))),
    ],
)
def test_the_scales_beside_8_bit_numbers_multiply_them(scale: Array, expected: Array) -> None:
    codes = matrix().astype(ml_dtypes.float8_e4m3fn)
    for ending in ("weight_scale", "weight_scale_inv"):
        found = among(a__weight=codes, **{f"a__{ending}": scale})["a.weight"]
        assert isinstance(found, Floats8)
        assert np.allclose(found.read(), codes.astype(np.float32) * expected)
        assert found.beside == (f"a.{ending}",)
    integers = among(a__weight=bell(shape=(96, 64)), a__weight_scale=scale)["a.weight"]
    assert isinstance(integers, Integers)
    assert np.allclose(integers.read(), bell(shape=(96, 64)) * expected)


def test_blocks_of_128_may_end_short() -> None:
    codes = np.ones((200, 300), ml_dtypes.float8_e4m3fn)
    scale = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = among(w=codes, w_scale_inv=scale)["w"]
    assert isinstance(found, Floats8)
    assert [found.read()[row, column] for row, column in ((127, 127), (128, 128), (199, 299))] == [0.0, 4.0, 5.0]


@pytest.mark.parametrize(
    "scale",
    [np.ones(64, np.float32), np.ones((5, 2), np.float32), np.ones((3, 2, 1), np.float32), np.ones(96, np.int32)],
)
def test_scales_that_do_not_fit_are_none(scale: Array) -> None:
    found = among(w=matrix().astype(ml_dtypes.float8_e4m3fn), w_scale=scale)["w"]
    assert isinstance(found, Floats8)
    assert not found.beside


def test_int8_of_bitsandbytes_has_its_scales_by_another_name() -> None:
    found = among(a__weight=bell(), a__SCB=np.full(64, 2, np.float32))["a.weight"]
    assert isinstance(found, Integers)
    assert (found.read() == 2.0 * bell()).all()


@pytest.mark.parametrize("numbers", [bell(), bell(deviation=10), bell("uint8", 128, 30), bell(centre=9, deviation=40)])
def test_a_bell_of_many_values_looks_like_weights(numbers: Array) -> None:
    assert isinstance(among(w=numbers)["w"], Integers)


def _codes() -> Array:
    return bell("uint8", 8, 3, (256, 512)).clip(0, 15)


def _noise() -> np.random.Generator:
    return np.random.default_rng(2)


@pytest.mark.parametrize(
    ("defect", "numbers"),
    [
        ("few", bell(shape=(63, 64))),
        ("a mask", _noise().integers(0, 2, (64, 64)).astype(np.uint8)),
        ("few values", bell(deviation=3)),
        ("compressed or encrypted bytes", _noise().integers(0, 256, (256, 256), dtype=np.uint8)),
        ("ids", np.arange(65_536).astype(np.uint8).reshape(256, 256)),
        (
            "two codes in a byte",
            bell("uint8", 8, 3, (256, 256)).clip(0, 15) * 16 + bell("uint8", 8, 3, (256, 256)).clip(0, 15),
        ),
        ("halves of 16-bit floats", matrix(256, 256).astype(np.float16).view(np.uint8)),
        ("halves of bfloat16", matrix(256, 256).astype(ml_dtypes.bfloat16).view(np.uint8)),
        ("8-bit floats as bytes", matrix(256, 256).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)),
        ("exponents", _noise().integers(100, 127, (256, 256)).astype(np.uint8)),
        (
            "text",
            np.frombuffer(b"The quick brown fox jumps over the lazy dog. " * 200, np.uint8)[:8192].reshape(64, 128),
        ),
        (
            "two kinds",
            np.where(_noise().random((64, 64)) < 0.5, bell(centre=-80, deviation=8), bell(centre=80, deviation=8)),
        ),
        ("all one", np.full((64, 64), 3, np.int8)),
    ],
)
def test_other_bytes_do_not(defect: str, numbers: Array) -> None:
    assert not among(w=numbers), defect


def test_a_bell_in_a_row_is_no_matrix() -> None:
    assert looks_like_weights(tensor("w", bell().reshape(-1)))
    assert not among(w=bell().reshape(-1))


def test_every_format_is_found_by_its_names() -> None:
    words, _ = test_words.gptq()
    nibbles, _ = test_nibbles.layer(test_nibbles.NF4)
    tensors: dict[str, Tensor] = {**words, **nibbles, "plain": tensor("plain", matrix())}
    found = quantised_among(tensors)
    assert {name: type(kind) for name, kind in found.items()} == {"a.qweight": Words, "w": Nibbles}

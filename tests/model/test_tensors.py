import numpy as np
import pytest

from palladion import canonical
from palladion.errors import FormatError
from palladion.model.tensors import DTYPES, NAME_BYTES_MAX, RANK_MAX, Tensor, tensor_from_array, tensor_from_bytes
from palladion.registry.versions import TENSOR_NAME_BYTES_MAX


def test_a_tensor_is_a_view_of_the_bytes_it_was_made_from() -> None:
    data = np.arange(6, dtype="<f4").tobytes()

    tensor = tensor_from_bytes("w", DTYPES["float32"], (2, 3), memoryview(data), what="w")

    assert tensor.data.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert np.shares_memory(tensor.data, np.frombuffer(data, np.uint8))


def test_a_tensor_cannot_be_written_to() -> None:
    tensor = Tensor("w", DTYPES["float32"], (3,), np.zeros(3, np.float32))

    with pytest.raises(ValueError, match="read-only"):
        tensor.data[0] = 1


def test_the_callers_array_stays_writable() -> None:
    array = np.zeros(3, np.float32)

    Tensor("w", DTYPES["float32"], (3,), array)

    array[0] = 1
    assert array[0] == 1


@pytest.mark.parametrize("name", sorted(DTYPES))
def test_every_type_can_be_read_at_an_odd_address(name: str) -> None:
    dtype = DTYPES[name]
    shape = (4, 3 * dtype.block)
    data = memoryview(bytes(1 + dtype.byte_count(shape)))[1:]

    tensor = tensor_from_bytes("w", dtype, shape, data, what="w")

    assert tensor.byte_count == 12 * dtype.bits // 8
    assert tensor.element_count == 12 * dtype.block
    assert tensor.data.tobytes() == bytes(data)


def test_packed_types_fill_up_their_last_byte() -> None:
    assert DTYPES["int4"].byte_count((3,)) == 2
    assert DTYPES["uint2"].byte_count((5,)) == 2
    assert DTYPES["float6_e2m3fn"].byte_count((3,)) == 3


def test_quantised_types_come_in_whole_blocks_of_a_row() -> None:
    dtype = DTYPES["q4_k"]
    assert (dtype.packed, dtype.block, dtype.byte_count((2, 512))) == (True, 256, 4 * 144)
    assert DTYPES["q8_0"].packed
    for shape in ((2, 128), (256, 1), ()):
        with pytest.raises(FormatError, match="expected whole blocks of 256"):
            tensor_from_bytes("w", dtype, shape, memoryview(bytes(144)), what="w")


def test_a_scalar_has_one_element_and_an_empty_tensor_none() -> None:
    scalar = tensor_from_bytes("s", DTYPES["float64"], (), memoryview(bytes(8)), what="s")
    empty = tensor_from_bytes("e", DTYPES["float64"], (0, 7), memoryview(b""), what="e")

    assert (scalar.element_count, empty.element_count) == (1, 0)
    assert empty.data.shape == (0, 7)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 2), "holds 12 bytes, expected 16"),
        ((-1, 3), "negative dimension"),
        ((2**62, 4), "no memory can hold"),
        ((0, 2**62, 2), "no memory can hold"),
        ((0, 2**53), "no memory can hold"),
        ((1,) * (RANK_MAX + 1), "65 dimensions"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        tensor_from_bytes("w", DTYPES["float32"], shape, memoryview(bytes(12)), what="tensor 'w'")


def test_the_largest_sizes_that_are_read_can_be_registered() -> None:
    empty = tensor_from_bytes("w", DTYPES["float32"], (0, 2**53 - 1), memoryview(b""), what="tensor 'w'")

    assert canonical.decode(canonical.encode(list(empty.shape)), size_max=100, what="it") == [0, 2**53 - 1]
    assert NAME_BYTES_MAX == TENSOR_NAME_BYTES_MAX


def test_a_name_longer_than_the_registry_takes_is_refused() -> None:
    flat = np.zeros(1, np.float32)
    assert tensor_from_array("n" * NAME_BYTES_MAX, DTYPES["float32"], (1,), flat, what="w").element_count == 1
    with pytest.raises(FormatError, match="of a tensor has 2050 bytes, at most 2048 allowed"):
        tensor_from_array("ä" * 1025, DTYPES["float32"], (1,), flat, what="w")


def test_a_bool_is_0_or_1() -> None:
    with pytest.raises(FormatError, match="bool"):
        tensor_from_array("m", DTYPES["bool"], (2,), np.array([1, 2], np.uint8), what="m")


def test_data_of_another_type_or_shape_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="carried by"):
        Tensor("w", DTYPES["float32"], (2,), np.zeros(2, np.float64))
    with pytest.raises(ValueError, match="expected"):
        Tensor("w", DTYPES["float32"], (2,), np.zeros(3, np.float32))

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError
from palladion.model.protobuf import BYTES, FIXED32, FIXED64, VARINT, Budget, Field, Message, Schema, peek
from palladion.model.wire_rows import CHUNK_BYTES
from tests.model.wire import blob, integer, tag, varint

SAMPLE = Schema(
    "Sample",
    {
        1: Field("number", VARINT),
        2: Field("text", BYTES),
        3: Field("single", FIXED32),
        4: Field("floats", FIXED32, repeated=True),
        5: Field("numbers", VARINT, repeated=True),
        6: Field("doubles", FIXED64, repeated=True),
        7: Field("texts", BYTES, repeated=True),
        8: Field("wide", FIXED64),
    },
)


def message(data: bytes, budget: Budget | None = None) -> Message:
    return Message(memoryview(data), SAMPLE, "sample", budget or Budget())


def test_fields_are_read_by_name_and_absent_ones_are_empty() -> None:
    # the examples of protobuf.dev/programming-guides/encoding: 150 and "testing"
    read = message(b"\x08\x96\x01" + b"\x12\x07testing")

    assert (read.integer("number"), read.text("text")) == (150, "testing")
    assert not read.has("single")
    assert read.float32("single") == 0
    assert read.texts("texts") == ()
    assert (message(b"").integer("number"), message(b"").text("text")) == (0, "")


@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.booleans())
def test_integers_read_the_same_packed_and_unpacked(values: list[int], packed: bool) -> None:
    data = blob(5, b"".join(map(varint, values))) if packed else b"".join(integer(5, value) for value in values)

    assert message(data).integers("numbers", "<i8").tolist() == values


@given(st.lists(st.floats(width=32, allow_nan=False)), st.integers(0, 3))
def test_floats_read_the_same_however_they_are_split_and_packed(values: list[float], packed: int) -> None:
    array = np.array(values, "<f4")
    first, second = array[: len(array) // 2], array[len(array) // 2 :]
    loose = [b"".join(tag(4, 5) + item.tobytes() for item in part) for part in (first, second)]
    data = (blob(4, first.tobytes()) if packed & 1 else loose[0]) + (
        blob(4, second.tobytes()) if packed & 2 else loose[1]
    )

    assert message(data).floats("floats", "<f4").tobytes() == array.tobytes()


def test_unpacked_floats_are_a_view_with_a_stride_of_5_bytes() -> None:
    data = b"".join(tag(4, 5) + np.float32(value).tobytes() for value in range(1000))

    floats = message(data).floats("floats", "<f4")

    assert floats.tolist() == list(range(1000))
    assert floats.strides == (5,)
    assert np.shares_memory(floats, np.frombuffer(data, np.uint8))
    assert not floats.flags.writeable


def test_doubles_are_read() -> None:
    data = blob(6, np.arange(3.0).tobytes()) + tag(6, 1) + np.float64(3).tobytes()

    assert message(data).floats("doubles", "<f8").tolist() == [0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("packed", [True, False])
def test_numbers_that_cross_the_borders_of_chunks_are_read_right(packed: bool) -> None:
    values = np.random.default_rng(5).integers(0, 2**40, CHUNK_BYTES, np.int64)
    values[::3] %= 100
    encoded = [varint(int(value)) for value in values]
    data = blob(5, b"".join(encoded)) if packed else b"".join(tag(5, 0) + item for item in encoded)

    assert (message(data).integers("numbers", "<i8") == values).all()


def test_runs_of_one_field_between_others_are_joined() -> None:
    data = integer(5, 1) + blob(7, "a") + integer(5, 2) + integer(5, 3) + blob(7, "b") + blob(5, b"\x04\x05")

    read = message(data)

    assert read.integers("numbers", "<i8").tolist() == [1, 2, 3, 4, 5]
    assert read.texts("texts") == ("a", "b")


def test_byte_strings_can_be_gone_through_again_and_again() -> None:
    strings = message(blob(7, "a") + blob(7, b"\xff")).strings("texts")

    assert list(strings) == list(strings) == [b"a", b"\xff"]
    assert len(strings) == 2
    assert b"a" in strings
    assert b"b" not in strings


def test_a_padded_number_has_the_value_the_reference_gives_it() -> None:
    assert message(b"\x08\x81\x80\x00").integer("number") == 1
    assert message(blob(5, b"\x81\x80\x00\x02")).integers("numbers", "<i8").tolist() == [1, 2]


BROKEN: dict[str, tuple[bytes, str]] = {
    "number without an end": (b"\x08\x80", "cut off or longer"),
    "number of 11 bytes": (b"\x08" + b"\x80" * 10 + b"\x00", "cut off or longer"),
    "number of 65 bits": (b"\x08" + b"\xff" * 9 + b"\x02", "cut off or longer"),
    "tag without a value": (b"\x08", "cut off or longer"),
    "field number 0": (b"\x00\x00", "unknown field 0"),
    "unknown field": (integer(99, 1), "unknown field 99"),
    "group": (b"\x0b\x0c", "wire type 3"),
    "end of a group": (b"\x0c", "wire type 4"),
    "wire type 7": (b"\x0f", "wire type 7"),
    "number where text belongs": (integer(2, 1), "text has wire type 0"),
    "text where a number belongs": (blob(1, "a"), "number has wire type 2"),
    "singular field twice": (integer(1, 1) + integer(1, 1), "number is given twice"),
    "padded tag": (b"\x88\x00\x01", "shortest form"),
    "text longer than the message": (b"\x12\x05abc", "claims 5 bytes, and only 3 follow"),
    "text of 2^63 bytes": (b"\x12" + varint(2**63) + b"abc", "only 3 follow"),
    "float cut off": (tag(3, 5) + b"abc", "cut off"),
    "double cut off": (tag(8, 1) + b"abcdefg", "cut off"),
    "repeated float cut off": (tag(4, 5) + b"abc", "cut off"),
    "repeated float cut off after a good one": (tag(4, 5) + b"abcd" + tag(4, 5) + b"abc", "cut off"),
    "repeated number cut off": (tag(5, 0), "cut off"),
    "repeated number cut off after a good one": (integer(5, 1) + tag(5, 0) + b"\x80", "cut off"),
    "repeated number without an end": (tag(5, 0) + b"\x80" * 200, "cut off"),
    "repeated text cut off": (tag(7, 2) + b"\x09a", "claims 9 bytes"),
}


@pytest.mark.parametrize("defect", BROKEN)
def test_a_broken_message_is_refused_with_its_defect_named(defect: str) -> None:
    data, reason = BROKEN[defect]

    with pytest.raises(FormatError, match=f"^sample .*{reason}"):
        message(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (blob(5, b"\x01\x80"), "cut off or longer"),
        (blob(5, b"\x80" * 20), "cut off or longer"),
        (blob(5, b"\x80" * 10 + b"\x01"), "cut off or longer"),
        (blob(5, b"\xff" * 9 + b"\x02"), "cut off or longer"),
        (integer(5, 1) + tag(5, 0) + b"\xff" * 9 + b"\x02", "cut off or longer"),
        (blob(5, varint(2**31)), "not in -2147483648 to 2147483647"),
        (integer(5, -(2**31) - 1), "not in"),
    ],
)
def test_broken_numbers_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        message(data).integers("numbers", "<i4")


def test_broken_floats_and_texts_are_refused() -> None:
    with pytest.raises(FormatError, match="not a multiple of 4"):
        message(blob(4, b"abcde")).floats("floats", "<f4")
    with pytest.raises(FormatError, match="text is not UTF-8"):
        message(blob(2, b"\xff")).text("text")


@given(st.binary(max_size=60))
def test_noise_is_read_or_refused(noise: bytes) -> None:
    try:
        read = message(noise)
        read.text("text")
        read.texts("texts")
        read.integers("numbers", "<i8")
        read.floats("floats", "<f4")
        read.floats("doubles", "<f8")
    except FormatError:
        pass


def test_a_file_of_too_many_parts_is_refused() -> None:
    with pytest.raises(FormatError, match="more than 3 parts"):
        message(blob(7, "a") + integer(5, 1) + blob(7, "b"), Budget(3))


@pytest.mark.slow
def test_many_empty_strings_take_no_memory() -> None:
    data = blob(7, b"") * 50_000
    tracemalloc.start()
    try:
        strings = message(data).strings("texts")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert len(strings) == 50_000
    assert peak < 20_000


@pytest.mark.slow
def test_the_cost_of_a_message_grows_with_its_length() -> None:
    # a scan that looked ahead to the end of the message for every short run would take minutes here
    data = (integer(5, 1) + tag(4, 5) + b"abcd") * 20_000

    started = time.process_time()
    message(data)

    assert time.process_time() - started < 5


def test_a_repeated_number_has_a_one_byte_tag() -> None:
    with pytest.raises(ValueError, match="one-byte tag"):
        Schema("Wide", {16: Field("numbers", VARINT, repeated=True)})


def test_peeking_names_the_fields_at_the_start() -> None:
    good = integer(1, 1) + blob(2, "a")

    assert peek(memoryview(good), SAMPLE, fields_max=9) == ({"number", "text"}, True)
    assert peek(memoryview(good + b"\xff\xff"), SAMPLE, fields_max=9) == ({"number", "text"}, False)
    assert peek(memoryview(good[:-1]), SAMPLE, fields_max=9) == ({"number", "text"}, False)
    assert peek(memoryview(good), SAMPLE, fields_max=1) == ({"number"}, True)
    assert peek(memoryview(b""), SAMPLE, fields_max=9) == (set(), True)

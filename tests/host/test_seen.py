"""What a host has seen: floors that only rise, one encoding, and limits that are kept on both sides."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion import canonical
from palladion.errors import ConflictError, FormatError, StorageError
from palladion.host.seen import MODELS_MAX, SEEN_BYTES_MAX, Seen, decode_seen
from palladion.seal.header import new_header
from palladion.seal.structure import SealedInfo

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def info(version: int, *, model: str = "fraud", publisher: str = "0123456789abcdef") -> SealedInfo:
    """What a verified file says of itself."""
    header = new_header(kind="opaque", purpose="served", publisher=publisher, created=NOW, model=model, version=version)
    return SealedInfo(header=header, header_digest="", root="", wraps=(), segments=1, payload_bytes=1, file_bytes=1)


names = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
everything_seen = st.builds(Seen, st.dictionaries(names, st.integers(0, canonical.INTEGER_MAX), max_size=4))


@given(seen=everything_seen)
def test_what_was_seen_survives_the_round_trip(seen: Seen) -> None:
    assert decode_seen(seen.encode(), what="it") == seen


@given(place=st.integers(0), value=st.integers(0, 255))
def test_whatever_parses_encodes_to_the_same_bytes(place: int, value: int) -> None:
    data = bytearray(Seen({"0123456789abcdef/fraud": 3, "0123456789abcdef/churn": 12}).encode())
    data[place % len(data)] = value
    try:
        seen = decode_seen(bytes(data), what="it")
    except FormatError:
        return
    assert seen.encode() == data


@given(versions=st.lists(st.integers(0, 10), min_size=1, max_size=12))
def test_the_floor_is_the_highest_version_that_was_remembered(versions: list[int]) -> None:
    seen, floor = Seen(), 0
    for version in versions:
        if version < floor:
            with pytest.raises(ConflictError, match=f"version {version} is older than version {floor}, which this"):
                seen.check(info(version))
        else:
            seen.check(info(version))
        seen = seen.with_version(info(version))
        floor = max(floor, version)
        seen.check(info(floor))
    assert list(seen.versions.values()) == ([floor] if floor else [])


def test_an_older_version_is_refused_with_a_way_out() -> None:
    with pytest.raises(ConflictError) as refusal:
        Seen().with_version(info(4)).check(info(3))
    assert "--allow-older" in refusal.value.hints[0]


def test_floors_of_other_models_and_other_publishers_do_not_count() -> None:
    seen = Seen().with_version(info(9))
    seen.check(info(1, model="churn"))
    seen.check(info(1, publisher="f" * 16))
    assert seen.with_version(info(1, model="churn")).versions == {
        "0123456789abcdef/fraud": 9,
        "0123456789abcdef/churn": 1,
    }


def test_a_file_without_a_version_is_not_remembered_and_does_not_stand_in_for_one_that_has_a_version() -> None:
    assert Seen().with_version(info(0)) == Seen()
    with pytest.raises(ConflictError):
        Seen().with_version(info(1)).check(info(0))


def test_what_was_seen_is_a_value_that_does_not_change() -> None:
    seen = Seen()
    seen.with_version(info(3))
    assert seen == Seen()


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"v": 1},
        {"versions": {}},
        {"v": 2, "versions": {}},
        {"v": 1, "versions": []},
        {"v": 1, "versions": {"a": -1}},
        {"v": 1, "versions": {"a": "1"}},
        {"v": 1, "versions": {"a": True}},
        {"v": 1, "versions": {"a": None}},
        {"v": 1, "versions": {}, "more": 1},
    ],
    ids=str,
)
def test_a_memory_of_another_shape_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="it is not what a host remembers"):
        decode_seen(canonical.encode(document), what="it")


@pytest.mark.slow
def test_what_could_not_be_read_again_is_not_written() -> None:
    full = {f"0123456789abcdef/{index}": 1 for index in range(MODELS_MAX)}
    assert decode_seen(Seen(full).encode(), what="it").versions == full
    with pytest.raises(StorageError, match=f"{MODELS_MAX + 1} models to remember"):
        Seen({**full, "one more": 1}).encode()
    long = {f"{index:05}" + "n" * 250: 1 for index in range(MODELS_MAX)}
    with pytest.raises(StorageError, match=f"in {SEEN_BYTES_MAX} are allowed"):
        Seen(long).encode()


def test_too_much_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(FormatError, match=f"more than the {SEEN_BYTES_MAX} allowed"):
        decode_seen(b" " * (SEEN_BYTES_MAX + 1), what="it")

"""Binding: one spelling of a request, and no two requests with the same digest."""

from dataclasses import replace
from hashlib import sha256, sha512

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.attest.binding import FILE_IDS_MAX, device_nonce, report_data
from palladion.attest.evidence import Evidence

NONCE, KEY = bytes(range(32)), b"\x05" * 32
IDS = ("ab" * 16, "cd" * 16)
GPU = Evidence("nvidia", b"gpu report")


def test_the_digests_are_what_the_page_says() -> None:
    """Written out once more by hand, so that a change of the code changes no machine's evidence unseen."""
    ids = bytes.fromhex(IDS[0] + IDS[1])
    transcript = b"\0\0\0\x03" + b"\0\0\0\x20" + NONCE + b"\0\0\0\x20" + KEY + b"\0\0\0\x20" + ids
    device = sha256(b"palladion/v1/attest/device-nonce\0" + transcript).digest()
    gpu = sha256(b"nvidia\0gpu report").digest()
    parts = b"\0\0\0\x02" + b"\0\0\0\x20" + device + b"\0\0\0\x20" + gpu

    assert device_nonce(NONCE, KEY, IDS) == device
    assert (
        report_data(NONCE, KEY, IDS, devices=(GPU,))
        == sha512(b"palladion/v1/attest/report-data\0" + transcript + parts).digest()
    )


def test_the_order_of_files_and_devices_does_not_matter() -> None:
    tpm = Evidence("tpm", b"quote")

    one = report_data(NONCE, KEY, IDS, devices=(GPU, tpm))

    assert one == report_data(NONCE, KEY, tuple(reversed(IDS)), devices=(tpm, GPU))
    assert len(one) == 64


@pytest.mark.parametrize(
    "other",
    [
        report_data(bytes(32), KEY, IDS, devices=(GPU,)),
        report_data(NONCE, b"\x06" * 32, IDS, devices=(GPU,)),
        report_data(NONCE, KEY + b"\0", IDS, devices=(GPU,)),
        report_data(NONCE, KEY, IDS[:1], devices=(GPU,)),
        report_data(NONCE, KEY, (), devices=(GPU,)),
        report_data(NONCE, KEY, IDS),
        report_data(NONCE, KEY, IDS, devices=(replace(GPU, document=b"gpu reporT"),)),
        report_data(NONCE, KEY, IDS, devices=(replace(GPU, kind="tpm"),)),
        report_data(NONCE, KEY, IDS, devices=(GPU, GPU)),
    ],
)
def test_whatever_is_bound_changes_the_digest(other: bytes) -> None:
    assert other != report_data(NONCE, KEY, IDS, devices=(GPU,))


@given(st.binary(min_size=1, max_size=100), st.binary(min_size=1, max_size=100))
def test_no_byte_moves_from_one_part_to_the_next(first: bytes, second: bytes) -> None:
    if first != second:
        assert device_nonce(NONCE, first) != device_nonce(NONCE, second)


@pytest.mark.parametrize(
    ("nonce", "key", "ids"),
    [
        (b"", KEY, IDS),
        (bytes(31), KEY, IDS),
        (NONCE, b"", IDS),
        (NONCE, bytes(2049), IDS),
        (NONCE, KEY, ("AB" * 16,)),
        (NONCE, KEY, ("ab" * 15,)),
        (NONCE, KEY, (IDS[0], IDS[0])),
        (NONCE, KEY, tuple(f"{number:032x}" for number in range(FILE_IDS_MAX + 1))),
    ],
    ids=["no nonce", "short nonce", "no key", "long key", "large letters", "short id", "id twice", "too many"],
)
def test_what_has_another_form_is_a_mistake_of_the_caller(nonce: bytes, key: bytes, ids: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected|digits"):
        report_data(nonce, key, ids)

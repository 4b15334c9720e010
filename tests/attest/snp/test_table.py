"""The host's table of certificates: what a guest needs of it, and no step outside."""

import struct
import uuid
from collections.abc import Mapping

import pytest

from palladion.attest.snp.table import read_table
from palladion.errors import FormatError
from tests.attest.synthetic import SnpReport, snp_lab, to_pem

NAMES = {
    "vcek": "63da758d-e664-4564-adc5-f4b93be8accd",
    "vlek": "a8074bc2-a25a-483e-aae6-39c045a0b8a1",
    "ask": "4ab7b379-bbac-4fe4-a02f-05aef327c782",
    "ark": "c0b406a4-a803-4952-9743-3fb6014cd0ae",
    "crl": "92f81bc3-5811-4d3d-97ff-d19f88dc67ea",
    "other": "00000000-0000-0000-0000-000000000001",
}


def table(certificates: Mapping[str, bytes], *, lists: tuple[bytes, ...] = (), little: bool = False) -> bytes:
    """As hosts write it: entries, one of zeros, and the contents behind them."""
    contents = [*certificates.items(), *(("crl", one) for one in lists)]
    entries, body = b"", b""
    start = 24 * (len(contents) + 1)
    for name, content in contents:
        identifier = uuid.UUID(NAMES[name])
        entries += (identifier.bytes_le if little else identifier.bytes) + struct.pack(
            "<II", start + len(body), len(content)
        )
        body += content
    return entries + bytes(24) + body


@pytest.mark.parametrize("little", [False, True])
def test_certificates_come_leaf_first_in_either_order_of_bytes(little: bool) -> None:
    data = table({"ark": b"ark", "ask": b"ask", "vcek": b"leaf", "other": b"?"}, lists=(b"l1", b"l2"), little=little)

    assert read_table(data, leased=False) == ((b"leaf", b"ask"), (b"l1", b"l2"))


def test_the_leaf_is_of_the_key_that_signed() -> None:
    data = table({"vcek": b"chip", "vlek": b"leased", "ask": b"ask"})

    assert read_table(data, leased=True)[0] == (b"leased", b"ask")
    assert read_table(table({"vcek": b"chip"}), leased=True)[0] == ()


def test_certificates_in_pem_are_taken() -> None:
    certificate = snp_lab().vcek(SnpReport())

    assert read_table(table({"vcek": to_pem(certificate).encode()}), leased=False)[0] == (certificate,)


@pytest.mark.parametrize("data", [b"", bytes(24), bytes(4096)])
def test_a_host_may_give_none(data: bytes) -> None:
    assert read_table(data, leased=False) == ((), ())


@pytest.mark.parametrize(
    "data",
    [
        table({"vcek": b"leaf"})[:24],
        table({"vcek": b"leaf"})[:-1],
        table({"vcek": b"leaf"})[:30],
        table({"other": b""})[:24] * 17 + bytes(24),
        uuid.UUID(NAMES["vcek"]).bytes + struct.pack("<II", 2**32 - 1, 2**32 - 1) + bytes(24),
        table({"vcek": bytes(9000)}),
        table({"vcek": b"-----BEGIN something"}),
        table({"crl": bytes(300_000)}),
    ],
    ids=["no end", "cut", "entry cut", "too many", "far away", "long", "no PEM", "long list"],
)
def test_broken_tables_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        read_table(data, leased=False)

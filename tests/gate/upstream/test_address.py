"""Addresses of model servers."""

import pytest

from palladion.gate.upstream.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "address", "authority"),
    [
        ("https://models.test", Address("models.test", 443, secure=True), "models.test"),
        ("https://models.test:8443/", Address("models.test", 8443, secure=True), "models.test:8443"),
        ("http://127.0.0.1:8000", Address("127.0.0.1", 8000), "127.0.0.1:8000"),
        ("http://[::1]:80", Address("::1", 80), "[::1]"),
        ("unix:/run/engine.sock", Address("localhost", 0, unix_path="/run/engine.sock"), "localhost"),
    ],
)
def test_an_address_is_read(text: str, address: Address, authority: str) -> None:
    read = parse_address(text)
    assert (read, read.authority) == (address, authority)
    assert parse_address(str(read)) == read


@pytest.mark.parametrize(
    "text",
    [
        "http://models.test",
        "https://models.test/v1",
        "https://models.test/?key=x",
        "https://user:pass@models.test",
        "https://models.test\r\nx: y",
        "ftp://models.test",
        "models.test:80",
        "unix:run/engine.sock",
        "unix:/a\0b",
        "unix:/" + "a" * 107,
    ],
)
def test_an_address_that_is_none_or_would_be_overheard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        parse_address(text)


def test_unencrypted_http_to_another_machine_has_to_be_asked_for() -> None:
    assert str(parse_address("http://models.test:8000", insecure_http=True)) == "http://models.test:8000"

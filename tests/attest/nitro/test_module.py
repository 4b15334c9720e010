"""The enclave's side: requests as AWS's library writes them, and a module's answers, good and bad."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from palladion.attest.nitro.cbor import decode, encode
from palladion.attest.nitro.module import DEVICE, REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX, ask_device, attest
from palladion.attest.nitro.verifier import verify
from palladion.errors import FormatError, NotFoundError, StorageError
from tests.attest.nitro.synthetic import nitro_lab
from tests.attest.synthetic import NOW

IOCTL = 0xC0200A00  # what the driver of Linux defines: _IOWR(0x0A, 0x0, struct nsm_message), of 32 bytes


class Device:
    """Linux's driver, strict: it takes that one call, reads the request where it says, and writes an answer."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self.answer = answer
        self.size: int | None = None

    def ioctl(self, descriptor: int, request: int, message: Any, mutate: bool) -> int:
        assert descriptor > 2
        assert (request, mutate, ctypes.sizeof(message)) == (IOCTL, True, 32)
        outgoing, outgoing_size, incoming, incoming_size = message
        if outgoing_size > REQUEST_BYTES_MAX or incoming_size > RESPONSE_BYTES_MAX:
            raise OSError(90, "Message too long")
        answer = self.answer(ctypes.string_at(outgoing, outgoing_size))
        ctypes.memmove(incoming, answer, len(answer))
        message[3] = len(answer) if self.size is None else self.size
        return 0


def module(request: bytes) -> bytes:
    """Answers one request only: an Attestation with exactly its three fields."""
    match decode(request, what="the request"):
        case {"Attestation": {"user_data": user_data, "nonce": nonce, "public_key": public_key}}:
            document = nitro_lab().evidence(user_data=user_data, nonce=nonce, public_key=public_key).document
            return encode({"Attestation": {"document": document}})
    return encode({"Error": "InvalidOperation"})


def test_a_request_is_written_as_awss_library_writes_it() -> None:
    asked = []

    def ask(request: bytes) -> bytes:
        asked.append(request)
        return module(request)

    attest(nonce=b"\x01\x02", ask=ask)
    assert asked == [b"\xa1\x6bAttestation\xa3\x69user_data\xf6\x65nonce\x42\x01\x02\x6apublic_key\xf6"]


def test_a_document_of_the_device_verifies_and_binds(tmp_path: Path) -> None:
    node = tmp_path / "nsm"
    node.touch()
    device = Device(module)
    evidence = attest(
        nonce=bytes(32),
        public_key=b"k" * 32,
        user_data=b"u" * 64,
        ask=lambda request: ask_device(request, device=node, ioctl=device.ioctl),
    )
    claims = verify(evidence, at=NOW, roots=nitro_lab().roots)
    assert (claims.bound, claims.public_key, claims.user_data) == (bytes(32), b"k" * 32, b"u" * 64)


def test_outside_of_an_enclave_there_is_a_sentence() -> None:
    if DEVICE.exists():
        pytest.skip("this machine is a Nitro enclave")
    with pytest.raises(NotFoundError, match="no Nitro security module"):
        attest(nonce=bytes(32))


@pytest.mark.parametrize("size", [0, RESPONSE_BYTES_MAX + 1, 2**63])
def test_a_size_that_does_not_fit_is_refused(tmp_path: Path, size: int) -> None:
    node = tmp_path / "nsm"
    node.touch()
    device = Device(module)
    device.size = size
    with pytest.raises(FormatError, match="answers"):
        ask_device(encode({"Attestation": {}}), device=node, ioctl=device.ioctl)


def test_a_device_that_fails_is_a_sentence(tmp_path: Path) -> None:
    node = tmp_path / "nsm"
    node.touch()

    def fails(*_arguments: object) -> int:
        raise OSError(5, "Input/output error")

    with pytest.raises(StorageError, match="gives no answer"):
        ask_device(b"\xa0", device=node, ioctl=fails)


@pytest.mark.parametrize(
    "answer",
    [
        encode({"Attestation": {}}),
        encode({"Attestation": {"document": "text"}}),
        encode({"Attestation": {"document": b"x", "more": 1}}),
        encode({"DescribePCR": {"lock": 0}}),
        encode("Attestation"),
        b"\xff",
        b"",
    ],
)
def test_other_answers_are_refused(answer: bytes) -> None:
    with pytest.raises(FormatError):
        attest(nonce=bytes(32), ask=lambda _request: answer)


def test_what_the_module_refuses_is_told() -> None:
    with pytest.raises(StorageError, match="InvalidOperation"):
        attest(nonce=bytes(32), ask=lambda _request: encode({"Error": "InvalidOperation"}))


@pytest.mark.parametrize("fields", [{"nonce": bytes(513)}, {"nonce": b"", "public_key": bytes(1025)}])
def test_more_than_fits_is_the_callers_mistake(fields: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match="at most"):
        attest(**fields, ask=module)

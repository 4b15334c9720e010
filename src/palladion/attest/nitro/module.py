"""Inside an enclave: asks the Nitro security module for a document about it (/dev/nsm).

Not yet run on Nitro hardware: requests and answers follow AWS's own library (aws-nitro-enclaves-nsm-api, src/api and
src/driver), and are tested against a double of the device that is as strict.
"""

import ctypes
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from palladion.attest.evidence import Evidence
from palladion.attest.nitro import cbor
from palladion.attest.nitro.document import NONCE_BYTES_MAX, PUBLIC_KEY_BYTES_MAX, USER_DATA_BYTES_MAX
from palladion.errors import FormatError, NotFoundError, StorageError

DEVICE = Path("/dev/nsm")
REQUEST_BYTES_MAX = 0x1000  # the driver's own limits
RESPONSE_BYTES_MAX = 0x3000
# _IOWR(0x0A, 0, struct nsm_message): two iovecs, of 16 bytes each where pointers have 8
_MESSAGE_BYTES = 32
_IOCTL = 3 << 30 | _MESSAGE_BYTES << 16 | 0x0A << 8

Ask: TypeAlias = Callable[[bytes], bytes]


def attest(*, nonce: bytes, public_key: bytes = b"", user_data: bytes = b"", ask: Ask | None = None) -> Evidence:
    """A fresh document that binds the three. `ask` gives a request to the module and returns its answer.

    Raises NotFoundError outside of an enclave, StorageError or FormatError if the module does not answer as it should.
    """
    for value, most in (
        (nonce, NONCE_BYTES_MAX),
        (public_key, PUBLIC_KEY_BYTES_MAX),
        (user_data, USER_DATA_BYTES_MAX),
    ):
        if len(value) > most:
            raise ValueError(f"{len(value)} bytes to be bound, at most {most} fit")
    fields = {"user_data": user_data or None, "nonce": nonce or None, "public_key": public_key or None}
    answer = (ask or ask_device)(cbor.encode({"Attestation": fields}))
    match cbor.decode(answer, what="the answer of the Nitro module"):
        case {"Attestation": {"document": bytes(document), **rest}, **more} if not rest and not more:
            return Evidence("nitro", document)
        case {"Error": str(code), **more} if not more:
            raise StorageError(f"the Nitro module refuses: {code[:64]!r}")
    raise FormatError("the Nitro module answers something else than a document")


def ask_device(request: bytes, *, device: Path = DEVICE, ioctl: Callable[..., int] = fcntl.ioctl) -> bytes:
    """What the module answers to `request`. Raises NotFoundError, StorageError."""
    if len(request) > REQUEST_BYTES_MAX:
        raise ValueError(f"a request of {len(request)} bytes, at most {REQUEST_BYTES_MAX} are taken")
    outgoing = ctypes.create_string_buffer(request, len(request))
    incoming = ctypes.create_string_buffer(RESPONSE_BYTES_MAX)
    message = (ctypes.c_uint64 * 4)(
        ctypes.addressof(outgoing), len(request), ctypes.addressof(incoming), RESPONSE_BYTES_MAX
    )
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise NotFoundError(
            f"no Nitro security module at {device}: {error.strerror}", "this runs inside a Nitro enclave only"
        ) from None
    try:
        ioctl(descriptor, _IOCTL, message, True)
    except OSError as error:
        raise StorageError(f"the Nitro module at {device} gives no answer: {error.strerror}") from None
    finally:
        with suppress(OSError):
            os.close(descriptor)
    size = message[3]
    if not 0 < size <= RESPONSE_BYTES_MAX:
        raise FormatError(f"the Nitro module says that it answers {size} bytes, at most {RESPONSE_BYTES_MAX} fit")
    return incoming.raw[:size]

"""A GPU's attestation report: bytes to a checked value. Signed by whom is verifier.py's.

It is an SPDM 1.1 GET_MEASUREMENTS request and the answer to it, one behind the other (DMTF DSP0274 1.1.3, §10.11); the
opaque data is NVIDIA's (nvtrust, spdm_msrt_resp_msg.py; measured on an H100's report).
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from palladion.attest.chains import refuse

REPORT_BYTES_MAX = 16 * 1024  # NVML's own limit is 8 KiB; an H100's has 4,117
NONCE_BYTES = 32
SIGNATURE_BYTES = 96
BLOCKS_MAX = 64
VALUE_BYTES = 48  # SHA-384
OPAQUE_BYTES_MAX = 4096
OPAQUE_FIELDS_MAX = 64
VERSION_CHARACTERS_MAX = 32
_REQUEST = struct.Struct("<BBBB32sB")
_ANSWER = struct.Struct("<BBBBB3s")
_BLOCK = struct.Struct("<BBHBH")
_FIELD = struct.Struct("<HH")
_VERSION_1_1, _GET_MEASUREMENTS, _MEASUREMENTS = 0x11, 0xE0, 0x60
_SIGNED, _ALL = 0x01, 0xFF
_DMTF = 1
_TYPES = range(8)  # DSP0274, table 45; bit 7 would say that a value is raw and not a digest
_DRIVER, _VBIOS, _NVDEC0, _FWID = 3, 6, 11, 20
_DISABLED = b"\x55"
_WHAT = "the GPU's report"


@dataclass(frozen=True)
class Report:
    """What a GPU states. `measurements` are by SPDM index, from 1; `fwid` is of the firmware that signs, if given.

    `signed` is what `signature` (r, s) is over: request and answer, in that order.
    """

    nonce: bytes
    measurements: Mapping[int, bytes]
    driver: str
    vbios: str
    nvdec0_disabled: bool
    fwid: bytes
    signed: bytes
    signature: tuple[bytes, bytes]


def parse_report(data: bytes) -> Report:
    """The report that `data` is. Raises AttestationError, `malformed`."""
    if not _REQUEST.size + _ANSWER.size < len(data) <= REPORT_BYTES_MAX:
        refuse("malformed", f"{_WHAT} has {len(data)} bytes, at most {REPORT_BYTES_MAX} are read")
    version, code, attributes, wanted, nonce, _slot = _REQUEST.unpack_from(data)
    if (version, code, attributes, wanted) != (_VERSION_1_1, _GET_MEASUREMENTS, _SIGNED, _ALL):
        refuse("malformed", f"{_WHAT} does not begin with SPDM 1.1's request of all measurements, signed")
    version, code, _, _, blocks, length = _ANSWER.unpack_from(data, _REQUEST.size)
    if (version, code) != (_VERSION_1_1, _MEASUREMENTS):
        refuse("malformed", f"{_WHAT} holds no answer of SPDM 1.1 with measurements")
    offset = _REQUEST.size + _ANSWER.size
    record, offset = _take(data, offset, int.from_bytes(length, "little"))
    _, offset = _take(data, offset, NONCE_BYTES)  # the GPU's own, which makes its answer its own
    size, offset = _take(data, offset, 2)
    opaque, offset = _take(data, offset, int.from_bytes(size, "little"))
    if len(data) - offset != SIGNATURE_BYTES:
        refuse("malformed", f"{_WHAT} has {len(data) - offset} bytes of signature, expected {SIGNATURE_BYTES}")
    fields = _fields(opaque)
    fwid = fields.get(_FWID, b"")
    if len(fwid) not in (0, VALUE_BYTES):
        refuse("malformed", f"{_WHAT} names its firmware by {len(fwid)} bytes, expected {VALUE_BYTES}")
    half = offset + SIGNATURE_BYTES // 2
    return Report(
        nonce=nonce,
        measurements=_measurements(record, blocks),
        driver=_driver(fields.get(_DRIVER, b"")),
        vbios=_vbios(fields.get(_VBIOS, b"")),
        nvdec0_disabled=fields.get(_NVDEC0) == _DISABLED,
        fwid=fwid,
        signed=data[:offset],
        signature=(data[offset:half], data[half:]),
    )


def _measurements(record: bytes, blocks: int) -> Mapping[int, bytes]:
    found: dict[int, bytes] = {}
    offset = 0
    while offset < len(record):
        if offset + _BLOCK.size > len(record):
            refuse("malformed", f"{_WHAT} has a measurement that is cut off")
        index, specification, size, kind, value_size = _BLOCK.unpack_from(record, offset)
        if (specification, size, value_size) != (_DMTF, VALUE_BYTES + 3, VALUE_BYTES) or kind not in _TYPES:
            refuse("malformed", f"{_WHAT} has a measurement that is no SHA-384 digest of DMTF's form")
        value, offset = _take(record, offset + _BLOCK.size, VALUE_BYTES)
        if not 0 < index <= BLOCKS_MAX or index in found:
            refuse("malformed", f"{_WHAT} has measurement {index} twice, or one beyond {BLOCKS_MAX}")
        found[index] = value
    if not found or len(found) != blocks:
        refuse("malformed", f"{_WHAT} has {len(found)} measurements and says {blocks}")
    return MappingProxyType(found)


def _fields(data: bytes) -> Mapping[int, bytes]:
    """NVIDIA's opaque data: type, length, value. Types that mean nothing here are left alone."""
    if len(data) > OPAQUE_BYTES_MAX:
        refuse("malformed", f"{_WHAT} has {len(data)} bytes of opaque data, at most {OPAQUE_BYTES_MAX} are read")
    found: dict[int, bytes] = {}
    offset = 0
    while offset < len(data):
        head, offset = _take(data, offset, _FIELD.size)
        kind, size = _FIELD.unpack(head)
        value, offset = _take(data, offset, size)
        if kind in found or len(found) == OPAQUE_FIELDS_MAX:
            refuse("malformed", f"{_WHAT} has opaque field {kind} twice, or more than {OPAQUE_FIELDS_MAX} of them")
        found[kind] = value
    return found


def _take(data: bytes, offset: int, size: int) -> tuple[bytes, int]:
    if size > len(data) - offset:
        refuse("malformed", f"{_WHAT} is cut off")
    return data[offset : offset + size], offset + size


def _driver(value: bytes) -> str:
    text = value.removesuffix(b"\0").decode("latin-1")
    if not (0 < len(text) <= VERSION_CHARACTERS_MAX and all(c.isascii() and (c.isalnum() or c in ".-") for c in text)):
        refuse("malformed", f"{_WHAT} names no version of the driver")
    return text


def _vbios(value: bytes) -> str:
    """`96.00.9F.00.01` of a number of eight bytes: the low four from the top down, and then the fifth."""
    if len(value) != 8:
        refuse("malformed", f"{_WHAT} names no version of the VBIOS")
    return ".".join(f"{byte:02X}" for byte in (*reversed(value[:4]), value[4]))

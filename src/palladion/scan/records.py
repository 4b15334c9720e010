"""TFRecord files (tensorflow/core/lib/io/record_writer.h), as TensorBoard writes its events: records of mere data."""

from palladion.scan.source import Source

RECORDS_MAX = 1_000_000
_POLYNOMIAL = 0x82F63B78  # CRC-32C, RFC 3720


def is_records(source: Source) -> bool:
    """Whether the whole file consists of records, whose lengths carry their checksum."""
    at = 0
    for _ in range(RECORDS_MAX):
        head = source.read(at, 12)
        if len(head) < 12 or (at == 0 and head[4:8] != bytes(4)):
            return False
        if _masked(head[:8]) != int.from_bytes(head[8:], "little"):
            return False
        at += 16 + int.from_bytes(head[:8], "little")
        if at >= source.size:
            return at == source.size
    return False


def _masked(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

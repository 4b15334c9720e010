"""Protocol Buffers by hand, for files that no honest writer would make."""


def varint(value: int) -> bytes:
    value %= 2**64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def tag(number: int, wire: int) -> bytes:
    return varint(number << 3 | wire)


def integer(number: int, value: int) -> bytes:
    return tag(number, 0) + varint(value)


def blob(number: int, data: bytes | str) -> bytes:
    data = data.encode() if isinstance(data, str) else data
    return tag(number, 2) + varint(len(data)) + data


def tensor(name: str, dims: list[int], data: bytes, *, data_type: int = 1) -> bytes:
    """A TensorProto with raw_data."""
    return b"".join(integer(1, size) for size in dims) + integer(2, data_type) + blob(8, name) + blob(9, data)


def graph(*initializers: bytes, extra: bytes = b"") -> bytes:
    """A GraphProto with one Identity node."""
    node = blob(1, "x") + blob(2, "y") + blob(4, "Identity")
    return blob(1, node) + b"".join(blob(5, item) for item in initializers) + extra


def model(graph_bytes: bytes, extra: bytes = b"") -> bytes:
    """A ModelProto of IR version 8 and operator set 17."""
    return integer(1, 8) + blob(7, graph_bytes) + blob(8, blob(1, "") + integer(2, 17)) + extra

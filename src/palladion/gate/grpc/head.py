"""What has to be known of a ModelInferRequest before it is read: that it is not too many pieces, and whom it asks.

Only the fields of the message itself are looked at, without what is in them (protobuf.dev, "Encoding"). Two bytes on
the wire can become a hundred in memory, so pieces are counted before protobuf makes objects of them.
"""

from collections.abc import Mapping

from palladion.gate.problems import Problem
from palladion.gate.protocols.open_inference import ID_CHARACTERS_MAX, NAME_CHARACTERS_MAX, TENSORS_MAX

MODEL_NAME, MODEL_VERSION, ID, PARAMETERS, INPUTS, OUTPUTS, RAW = range(1, 8)
PARAMETERS_MAX = 16  # two are known
_BYTES = 2  # the only wire type that a field of this message has
_TIMES_MAX: Mapping[int, int] = {
    MODEL_NAME: 1, MODEL_VERSION: 1, ID: 1, PARAMETERS: PARAMETERS_MAX, INPUTS: TENSORS_MAX, OUTPUTS: TENSORS_MAX,
    RAW: TENSORS_MAX,
}  # fmt: skip
_NAME_ALONE: Mapping[int, int] = {MODEL_NAME: 1, MODEL_VERSION: 1}
_NAMES: Mapping[int, str] = {
    MODEL_NAME: "model_name", MODEL_VERSION: "model_version", ID: "id", PARAMETERS: "parameters", INPUTS: "inputs",
    OUTPUTS: "outputs", RAW: "raw_input_contents",
}  # fmt: skip
_TENSORS = {INPUTS, OUTPUTS}
PIECES_MAX = 64  # of a tensor: name, datatype, contents, sizes one by one, and parameters
_PIECE_KINDS = {0, _BYTES}  # numbers and what has a length
_LENGTH_BYTES_MAX = 5  # of a length: a message has at most 2 GiB
_NUMBER_BYTES_MAX = 10


def read_head(data: bytes) -> tuple[str, str]:
    """The model's name and version in a ModelInferRequest whose fields are known, and few enough. Raises Problem."""
    return _read(data, _TIMES_MAX)


def read_name(data: bytes) -> tuple[str, str]:
    """The model's name and version in a message that has nothing else. Raises Problem."""
    return _read(data, _NAME_ALONE)


def _read(data: bytes, times_max: Mapping[int, int]) -> tuple[str, str]:
    texts = {MODEL_NAME: b"", MODEL_VERSION: b""}
    times = [0] * 8
    place, end = 0, len(data)
    while place < end:
        number, kind = data[place] >> 3, data[place] & 7
        if number not in times_max or kind != _BYTES:
            raise Problem("bad-input", f"field {number} of type {kind} is not one of this message")
        times[number] += 1
        if times[number] > times_max[number]:
            raise Problem("bad-input", f"it comes more than {times_max[number]} times", field=_NAMES[number])
        length, start = _length(data, place + 1)
        place = start + length
        if place > end:
            raise Problem("bad-request", "the message ends within a field")
        if number in texts:
            texts[number] = data[start:place]
        elif number in _TENSORS:
            _count_pieces(data, start, place, _NAMES[number])
        elif number == ID and length > 4 * ID_CHARACTERS_MAX:
            raise Problem("bad-input", f"it has {length} bytes", field="id")
    return _text(texts[MODEL_NAME], "model_name"), _text(texts[MODEL_VERSION], "model_version")


def _count_pieces(data: bytes, place: int, end: int, field: str) -> None:
    """Refuse a tensor of more pieces than one has; what is in them is not looked at."""
    pieces = 0
    while place < end:
        pieces += 1
        kind = data[place] & 7
        if pieces > PIECES_MAX or kind not in _PIECE_KINDS or data[place] >= 0x80:
            raise Problem("bad-input", "it has more pieces than a tensor, or others", field=field)
        if kind == _BYTES:
            length, start = _length(data, place + 1)
            place = start + length
        else:
            number = data[place + 1 : place + 1 + _NUMBER_BYTES_MAX]
            place += 2 + next((at for at, byte in enumerate(number) if byte < 0x80), _NUMBER_BYTES_MAX)
    if place > end:
        raise Problem("bad-request", "the message ends within a field")


def _length(data: bytes, place: int) -> tuple[int, int]:
    """A length, and where what it measures begins."""
    found = 0
    for index, byte in enumerate(data[place : place + _LENGTH_BYTES_MAX]):
        found |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return found, place + index + 1
    raise Problem("bad-request", "a length in the message is none")


def _text(data: bytes, field: str) -> str:
    if len(data) > NAME_CHARACTERS_MAX:
        raise Problem("bad-input", f"it has {len(data)} bytes", field=field)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Problem("bad-input", "it is not UTF-8 text", field=field) from None

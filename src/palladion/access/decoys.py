"""What decoys are recognised by: queries that exist nowhere but where they were planted. Pure; no files, no registry.

Keys are hashed as all keys are (`identity`). Rows are kept sealed and compared number by number: rounding them into
cells and keeping digests of these would miss whatever lies beside the edge of a cell. Texts are keyed digests. Finding
out that a query is none costs the same however many decoys there are.
"""

import secrets
import struct
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b, shake_256
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from palladion.errors import FormatError, TamperError

KEY_BYTES = 32
TOLERANCE, TOLERANCE_MIN, TOLERANCE_MAX = 1e-3, 1e-6, 1e-2  # below, single precision itself would be in the way
NUMBERS_MIN = 4  # of a row that are not 0: a row of fewer is asked by chance
WIDTH_MAX = 1_000_000
TEXT_CHARACTERS_MIN = 20  # in normal form: what is shorter is asked by chance
TEXT_CHARACTERS_MAX = 16_384
PADDING_MAX = 4  # times as many characters are looked at: spaces and composed letters make a text longer
JOINED_MAX = 30  # marks on one letter (UAX 15, stream-safe text): normalising takes the square of their number
PIECE_CHARACTERS = 1024  # normalised at once: a character can become 18, and too long a text is left there
DIGEST_BYTES = 16

DIRECTIONS = 4  # with one or two, a few thousand decoys of pictures would lie in half of all cells
CELL = 4.0  # tolerances: a row lies in five cells on average, and 2 % of pictures in one of 5000 others
DEVIATIONS = 6.0  # of a sum with random signs: it is beyond with probability 3e-8 (Hoeffding)
_DECOMPOSED = range(0xC0, 0x30000)  # beyond, nothing is composed and nothing is a mark
_VOWELS, _FINALS = range(0x1161, 0x1176), range(0x11A8, 0x11C3)  # of Hangul, which has a rule in place of a table
_UNIT = 2.0**-600  # of a sum, the width of a cell: so small that no query can make one overflow
_MAGIC = b"PDR1"
_NONCE_BYTES = 12
_HEAD = struct.Struct("<IId?")
_CIPHER_PERSON, _SIGN_PERSON, _TEXT_PERSON = b"pall/decoy-rows", b"pall/decoy-sign", b"pall/decoy-text"

Rows = NDArray[np.float64]
_Cell = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class PlantedRows:
    """The `rows` (rows, width) of a decoy, by its id; each number may be off by `tolerance`.

    That is a share of the largest number which stands in the same place of any of the decoy's rows; with `one_unit`, as
    pixels have, in any place.
    """

    decoy: str
    rows: NDArray[np.float32]
    tolerance: float
    one_unit: bool = False

    @property
    def slack(self) -> NDArray[np.float32]:
        """By how much each number (width,) may be off."""
        sizes = np.abs(self.rows).max(axis=0)
        if self.one_unit:
            sizes = np.full_like(sizes, sizes.max())
        slack: NDArray[np.float32] = sizes * np.float32(self.tolerance)
        return slack


def check_rows(rows: NDArray[Any], tolerance: float) -> NDArray[np.float32]:
    """The rows of a decoy as they are kept. Raises FormatError on rows that cannot be told from honest ones."""
    if not TOLERANCE_MIN <= tolerance <= TOLERANCE_MAX:
        raise FormatError(f"a tolerance of {tolerance:g}, {TOLERANCE_MIN:g} to {TOLERANCE_MAX:g} was expected")
    if rows.ndim < 2 or not len(rows) or rows.dtype.kind not in "fiub":
        raise FormatError(f"rows of shape {rows.shape} and type {rows.dtype}, a table of numbers was expected")
    with np.errstate(over="ignore"):
        kept = rows.reshape(len(rows), -1).astype(np.float32)
    if kept.shape[1] > WIDTH_MAX:
        raise FormatError(f"a row has {kept.shape[1]} numbers, at most {WIDTH_MAX} are allowed")
    if not np.isfinite(kept).all():
        raise FormatError("a number is none, infinite, or does not fit single precision")
    few = np.flatnonzero(np.count_nonzero(kept, axis=1) < NUMBERS_MIN)
    if few.size:
        raise FormatError(
            f"row {few[0] + 1} has fewer than {NUMBERS_MIN} numbers that are not 0: somebody honest could ask it",
            "plant rows that exist nowhere else",
        )
    return kept


def seal_rows(key: bytes, model: str, planted: PlantedRows) -> bytes:
    """What is kept of rows: sealed under the gate root's "decoys", bound to decoy and model."""
    rows = planted.rows
    content = _HEAD.pack(*rows.shape, planted.tolerance, planted.one_unit) + rows.astype("<f4").tobytes()
    nonce = secrets.token_bytes(_NONCE_BYTES)
    sealed = AESGCM(_subkey(key, _CIPHER_PERSON)).encrypt(nonce, content, _associated(planted.decoy, model))
    return _MAGIC + nonce + sealed


def open_rows(key: bytes, model: str, decoy: str, data: bytes) -> PlantedRows:
    """The rows that `seal_rows` has sealed. Raises FormatError, and TamperError on what was changed or moved."""
    start = len(_MAGIC) + _NONCE_BYTES
    if data[: len(_MAGIC)] != _MAGIC or len(data) < start:
        raise FormatError(f"what is kept of decoy {decoy} is no sealed rows")
    cipher = AESGCM(_subkey(key, _CIPHER_PERSON))
    try:
        content = cipher.decrypt(data[len(_MAGIC) : start], data[start:], _associated(decoy, model))
    except InvalidTag:
        raise TamperError(f"what is kept of decoy {decoy} was changed, or is of another gate") from None
    rows, width, tolerance, one_unit = _HEAD.unpack_from(content)
    numbers = np.frombuffer(content, "<f4", offset=_HEAD.size).reshape(rows, width)
    return PlantedRows(decoy, numbers, tolerance, one_unit)


class RowDecoys:
    """All decoys of one model whose rows are equally wide. What a query costs does not depend on how many they are.

    Each row is added up with keyed random signs, in four ways; the four sums say in which cell it lies. Only queries in
    a cell of a decoy are compared with it. Nobody without the key can ask for a cell.
    """

    def __init__(self, key: bytes, model: str, planted: Sequence[PlantedRows]) -> None:
        """`key` is the gate root's "decoys". Raises ValueError unless there are some, equally wide."""
        if not planted or len({item.rows.shape[1] for item in planted}) != 1:
            raise ValueError("the decoys of a model have different widths, or there are none")
        self.width: int = planted[0].rows.shape[1]
        self._names = [item.decoy for item in planted]
        self._rows = np.concatenate([item.rows for item in planted])
        self._of = np.repeat(np.arange(len(planted)), [len(item.rows) for item in planted])
        self._slack = np.stack([item.slack for item in planted])  # (decoys, width)
        self._directions, reach = self._aim(_signs(key, model, self.width))
        self._cells = self._spread(reach)

    def touched(self, inputs: Rows) -> list[str]:
        """The decoys of which a row is among the queries `inputs` (queries, width), all finite; each once."""
        found: list[str] = []
        get = self._cells.get
        for query, (a, b, c, d) in enumerate(inputs.dot(self._directions).tolist()):
            near = get((a // _UNIT, b // _UNIT, c // _UNIT, d // _UNIT))
            if near is not None:
                found += self._equal(inputs[query], near)
        return list(dict.fromkeys(found)) if found else found

    def _equal(self, query: Rows, near: Sequence[int]) -> list[str]:
        rows = list(near)
        decoys = self._of[rows]
        equal = (np.abs(self._rows[rows] - query) <= self._slack[decoys]).all(axis=1)
        return [self._names[decoy] for decoy in decoys[equal].tolist()]

    def _aim(self, signs: Rows) -> tuple[Rows, Rows]:
        """The directions (width, 4), and how far from a decoy's sums those of an equal query can be (decoys,).

        In cells; both are scaled by the largest numbers of any decoy, so that columns of whatever unit count alike.
        """
        largest = np.abs(self._rows).max(axis=0).astype(np.float64)
        weights = np.divide(1.0, largest, out=np.zeros_like(largest), where=largest > 0)
        slack = self._slack * weights
        # all errors against us, or what errors come to that do not know the signs: whichever is less
        reach = np.minimum(slack.sum(axis=1), DEVIATIONS * np.sqrt((slack**2).sum(axis=1)))
        cell = CELL * float(reach.max())
        return np.asfortranarray(signs * (weights / cell * _UNIT)[:, None]), reach / cell

    def _spread(self, reach: Rows) -> dict[_Cell, tuple[int, ...]]:
        sums = self._rows.astype(np.float64).dot(self._directions) / _UNIT
        near = reach[self._of][:, None]
        cells: dict[_Cell, list[int]] = {}
        for row, (low, high) in enumerate(
            zip(np.floor(sums - near).tolist(), np.floor(sums + near).tolist(), strict=True)
        ):
            for cell in _between(low, high):
                cells.setdefault(cell, []).append(row)
        return {cell: tuple(some) for cell, some in cells.items()}


class TextDecoys:
    """All prompts of one model that are decoys."""

    def __init__(self, key: bytes, model: str, digests: Iterable[tuple[str, bytes]]) -> None:
        """`digests` are those of `text_digests`, one after the other, each with the id of its decoy."""
        _joining()  # not in the middle of a request
        self._key = key
        self._model = model
        self._known = {
            data[start : start + DIGEST_BYTES]: decoy
            for decoy, data in digests
            for start in range(0, len(data), DIGEST_BYTES)
        }

    def touched(self, texts: Iterable[str]) -> list[str]:
        """The decoys that are among `texts`, however spaced and in whatever case, each once."""
        known = [self._decoy(_normal(text)) for text in texts]
        return list(dict.fromkeys(decoy for decoy in known if decoy is not None))

    def _decoy(self, normal: str | None) -> str | None:
        if normal is None or not TEXT_CHARACTERS_MIN <= len(normal) <= TEXT_CHARACTERS_MAX:
            return None
        return self._known.get(_text_digest(self._key, self._model, normal))


def text_digests(key: bytes, model: str, texts: Sequence[str]) -> bytes:
    """What is kept of prompts: keyed digests of their normal forms. Raises FormatError on one that is none."""
    found: dict[bytes, None] = {}
    for number, text in enumerate(texts, 1):
        normal = _normal(text)
        if normal is None:
            raise FormatError(
                f"prompt {number} has more than {JOINED_MAX} marks on one letter, "
                f"or {TEXT_CHARACTERS_MAX * PADDING_MAX} characters with its spaces: it would never be recognised"
            )
        if not TEXT_CHARACTERS_MIN <= len(normal) <= TEXT_CHARACTERS_MAX:
            raise FormatError(
                f"prompt {number} has {len(normal)} characters, "
                f"{TEXT_CHARACTERS_MIN} to {TEXT_CHARACTERS_MAX} were expected",
                "a short one is asked by somebody honest",
            )
        found[_text_digest(key, model, normal)] = None
    return b"".join(found)


def _normal(text: str) -> str | None:
    """The normal form of a text, or None where making it takes long; of one that is too long, a beginning that is too.

    The time it takes grows with the length of the text, whatever is in it.
    """
    if len(text) > TEXT_CHARACTERS_MAX * PADDING_MAX:
        return None
    if text.isascii():
        return " ".join(text.casefold().split())
    joined = bytes(map(_joining().__contains__, text))
    if bytes([True] * (JOINED_MAX + 1)) in joined:
        return None
    pieces, start, letters = [], 0, 0
    while start < len(text) and letters <= TEXT_CHARACTERS_MAX:
        # where nothing joins what is before it, the normal forms of pieces are that of the whole
        end = joined.find(False, start + PIECE_CHARACTERS)
        end = end if end >= 0 else len(text)
        pieces.append(unicodedata.normalize("NFKC", text[start:end]).casefold())
        letters += sum(map(len, pieces[-1].split()))
        start = end
    return " ".join("".join(pieces).split())


@cache
def _joining() -> frozenset[str]:
    """All characters that begin, decomposed, with a mark, or with what is composed with the letter before it."""
    marked, composed = [], {chr(code) for code in (*_VOWELS, *_FINALS)}
    for character in map(chr, _DECOMPOSED):
        parts = unicodedata.decomposition(character).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            composed.add(chr(int(parts[1], 16)))
        if parts or unicodedata.combining(character):
            marked.append(character)
    for character in marked:
        first = unicodedata.normalize("NFKD", character)[0]
        if unicodedata.combining(first) or first in composed:
            composed.add(character)
    return frozenset(composed)


def _text_digest(key: bytes, model: str, normal: str) -> bytes:
    keyed = blake2b(digest_size=DIGEST_BYTES, key=_checked(key), person=_TEXT_PERSON)
    keyed.update(model.encode() + b"\0")
    keyed.update(normal.encode(errors="surrogatepass"))
    return keyed.digest()


def _signs(key: bytes, model: str, width: int) -> Rows:
    """+1 and -1 (width, 4), which nobody without the key knows."""
    seed = _subkey(key, _SIGN_PERSON) + f"{model}\0{width}".encode()
    bits = np.unpackbits(np.frombuffer(shake_256(seed).digest((width * DIRECTIONS + 7) // 8), np.uint8))
    signs: Rows = bits[: width * DIRECTIONS].reshape(width, DIRECTIONS).astype(np.float64) * 2 - 1
    return signs


def _between(low: Sequence[float], high: Sequence[float]) -> list[_Cell]:
    """Every cell from one corner to another; along each direction these are equal, or neighbours."""
    cells: list[_Cell] = [()]
    for first, last in zip(low, high, strict=True):
        cells = [(*cell, place) for cell in cells for place in dict.fromkeys((first, last))]
    return cells


def _associated(decoy: str, model: str) -> bytes:
    return f"{decoy}\0{model}".encode()


def _subkey(key: bytes, person: bytes) -> bytes:
    return blake2b(digest_size=KEY_BYTES, key=_checked(key), person=person).digest()


def _checked(key: bytes) -> bytes:
    if len(key) != KEY_BYTES:
        raise ValueError(f"the key has {len(key)} bytes, expected {KEY_BYTES}")
    return key

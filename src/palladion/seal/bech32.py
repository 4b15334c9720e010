"""Text forms of keys with a checksum: Bech32m (BIP-350), so that a mistyped key is refused instead of used.

Owns characters and checksum; what a prefix means is said by the callers.
"""

from palladion.errors import FormatError

# BIP-173: up to here the checksum finds any four wrong characters. In a longer text it is still 30 bits, so a damaged
# copy passes once in 2^30; it finds any burst of six, and any three wrong characters, but for one pair: two that stand
# 1,023 apart, the code's length, and are wrong by the same five bits cancel out. The length of the key is checked too.
TEXT_CHARACTERS_MAX = 90
_CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32M = 0x2BC830A3
_CHECKSUM_CHARACTERS = 6


def encode_key(prefix: str, key: bytes, *, tag: str = "") -> str:
    """`key` in lower case behind `prefix`, `1` and an optional `tag` character that names the kind of key."""
    groups = [_CHARSET.index(character) for character in tag] + _to_groups(key)
    return f"{prefix}1{''.join(_CHARSET[group] for group in groups + _checksum(prefix, groups))}"


def decode_key(
    text: str,
    prefix: str,
    *,
    tag: str = "",
    key_bytes: int = 32,
    characters_max: int = TEXT_CHARACTERS_MAX,
    what: str,
) -> bytes:
    """The key of an `encode_key` text, also all in upper case. Raises FormatError, which never quotes the text.

    A kind of key whose text is longer than others says so with `characters_max`.
    """
    found, groups = decode_groups(text, characters_max=characters_max, what=what)
    if found != prefix:
        raise FormatError(f"{what} does not begin with {prefix}1")
    if groups[: len(tag)] != [_CHARSET.index(character) for character in tag]:
        raise FormatError(f"{what} is of a kind that this version does not know, expected {prefix}1{tag}")
    key = _from_groups(groups[len(tag) :])
    if key is None or len(key) != key_bytes:
        raise FormatError(f"{what} does not hold {key_bytes} bytes")
    return key


def decode_groups(text: str, *, characters_max: int = TEXT_CHARACTERS_MAX, what: str) -> tuple[str, list[int]]:
    """Prefix and 5-bit groups of a Bech32m text whose checksum holds. Raises FormatError otherwise."""
    if len(text) > characters_max:
        raise FormatError(f"{what} has {len(text)} characters, more than the {characters_max} allowed")
    if text != text.lower() and text != text.upper():
        raise FormatError(f"{what} mixes upper and lower case")
    prefix, separator, data = text.lower().rpartition("1")
    if not separator or not prefix or not all("!" <= character <= "~" for character in prefix):
        raise FormatError(f"{what} is not a key: it has no prefix")
    groups = [_CHARSET.find(character) for character in data]
    if -1 in groups or len(groups) < _CHECKSUM_CHARACTERS:
        raise FormatError(f"{what} is too short or has a character that no key has")
    if _polymod(_expanded(prefix) + groups) != _BECH32M:
        raise FormatError(f"{what} is mistyped: its checksum does not hold", "copy it again, whole")
    return prefix, groups[:-_CHECKSUM_CHARACTERS]


def _polymod(values: list[int]) -> int:
    state = 1
    for value in values:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATORS):
            state ^= generator if top >> bit & 1 else 0
    return state


def _expanded(prefix: str) -> list[int]:
    return [ord(character) >> 5 for character in prefix] + [0] + [ord(character) & 31 for character in prefix]


def _checksum(prefix: str, groups: list[int]) -> list[int]:
    state = _polymod(_expanded(prefix) + groups + [0] * _CHECKSUM_CHARACTERS) ^ _BECH32M
    return [state >> 5 * (_CHECKSUM_CHARACTERS - 1 - place) & 31 for place in range(_CHECKSUM_CHARACTERS)]


def _to_groups(key: bytes) -> list[int]:
    count = -(-len(key) * 8 // 5)
    number = int.from_bytes(key) << count * 5 - len(key) * 8
    return [number >> 5 * (count - 1 - place) & 31 for place in range(count)]


def _from_groups(groups: list[int]) -> bytes | None:
    """The bytes of `groups`, or None if the last group's spare bits are not zero or a whole group is spare."""
    length, spare = divmod(len(groups) * 5, 8)
    number = 0
    for group in groups:
        number = number << 5 | group
    # one key has one text: spare bits that may differ would give it several
    if spare >= 5 or number & ((1 << spare) - 1):
        return None
    return (number >> spare).to_bytes(length)

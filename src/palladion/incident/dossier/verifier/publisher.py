"""The text form of a publisher's key, `pallp1e…`: Bech32m (BIP-350) over the tag `e` and the 32 bytes of the key.

It is computed from the key that signed. A text that came with the dossier could be that of somebody else's key.
"""

_CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32M = 0x2BC830A3
_PREFIX, _ED25519 = "pallp", "e"


def publisher_text(key: bytes) -> str:
    """The text of a raw Ed25519 key, as `palladion` prints it."""
    number = int.from_bytes(key) << 4  # 256 bits and 4 of padding: 52 groups of five
    groups = [_CHARSET.index(_ED25519), *(number >> 5 * (51 - place) & 31 for place in range(52))]
    expanded = [*(ord(c) >> 5 for c in _PREFIX), 0, *(ord(c) & 31 for c in _PREFIX)]
    state = _polymod([*expanded, *groups, *[0] * 6]) ^ _BECH32M
    checksum = [state >> 5 * (5 - place) & 31 for place in range(6)]
    return f"{_PREFIX}1{''.join(_CHARSET[group] for group in groups + checksum)}"


def _polymod(values: list[int]) -> int:
    state = 1
    for value in values:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATORS):
            state ^= generator if top >> bit & 1 else 0
    return state

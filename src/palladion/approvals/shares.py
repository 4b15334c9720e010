"""A secret in shares that people write down: Shamir's scheme with a digest (SLIP-39).

Fewer shares than needed say nothing of the secret. The library is not constant in time: run it on a machine alone.
"""

from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Any

from palladion.errors import FormatError, KeysError, MissingExtraError

SHARES_MAX = 16  # SLIP-39 counts to 16
SECRET_BYTES = 32
WORDS = 33  # of a share of 32 bytes
SHARE_CHARACTERS_MAX = 1000  # 33 words of at most 8 letters take 300


def split(secret: bytes, *, shares: int, needed: int) -> list[str]:
    """The shares of a secret of 32 bytes, each 33 words. Raises KeysError for numbers that make no sense."""
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret of {len(secret)} bytes, {SECRET_BYTES} were expected")
    if not 2 <= needed <= shares <= SHARES_MAX:
        raise KeysError(
            f"{needed} of {shares} shares were asked for",
            f"at least 2 have to be needed, and at most {SHARES_MAX} made: with 1 of N, each share is the secret",
        )
    library = _library()
    made: list[str] = library.generate_mnemonics(1, [(needed, shares)], secret, iteration_exponent=0)[0]
    if join(made[:needed]) != secret:
        raise KeysError("the shares that were made do not give the secret back")
    return made


def join(texts: Sequence[str]) -> bytes:
    """The secret of as many shares as are needed; others of the same split do no harm.

    Raises FormatError for a word or checksum that is wrong, KeysError if they are too few or of several splits.
    """
    library = _library()
    shares = [_parsed(text, number) for number, text in enumerate(texts, 1)]
    if not shares:
        raise KeysError("no share was given")
    if len({(share.identifier, share.group_count, share.member_threshold) for share in shares}) > 1:
        raise KeysError("the shares are of different splits", "take those that were made together")
    distinct = {share.index: share for share in shares}
    if any(distinct[share.index] != share for share in shares):
        raise KeysError("two shares have the same number and different words")
    needed = shares[0].member_threshold
    if len(distinct) < needed:
        raise KeysError(f"{len(distinct)} different shares were given, {needed} are needed")
    # the library takes exactly as many as are needed
    chosen = list(distinct.values())[:needed]
    try:
        secret: bytes = library.combine_mnemonics([share.mnemonic() for share in chosen])
    except library.MnemonicError as error:
        raise KeysError(f"the shares do not fit together: {str(error).lower()}") from None
    if len(secret) != SECRET_BYTES:
        raise KeysError(f"the shares give a secret of {len(secret)} bytes, {SECRET_BYTES} were expected")
    return secret


def _parsed(text: str, number: int) -> Any:
    library = _library()
    words = " ".join(text.lower().split()) if len(text) <= SHARE_CHARACTERS_MAX else ""
    share = None
    with suppress(library.MnemonicError):
        share = library.Share.from_mnemonic(words)
    if share is None:
        # outside of any handler: the library's message may quote the words, and would stay beside ours
        raise FormatError(
            f"share {number} is none: a word is wrong or missing, {WORDS} were expected", "compare it with the paper"
        )
    if (share.group_count, share.group_threshold) != (1, 1):
        raise FormatError(f"share {number} is of another kind of split than palladion makes")
    return share


def _library() -> ModuleType:
    try:
        return import_module("shamir_mnemonic")
    except ImportError:
        raise MissingExtraError("splitting a secret needs shamir-mnemonic", "pip install 'palladion[split]'") from None

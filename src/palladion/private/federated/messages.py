"""What server and sites say to each other: MessagePack in, frozen objects out; what is too large is not parsed.

Five questions make a round (Bonawitz et al., CCS 2017, figure 4, with signatures): advertise keys, share secrets, send
the masked update, agree on who is in the sum, reveal what takes the masks off. The last may ask for the keys of the
next round too, so that a round after a round takes four exchanges.
"""

from typing import Annotated, Any, TypeAlias

import msgspec

from palladion.errors import FormatError
from palladion.private.federated.shamir import SHARE_BYTES
from palladion.private.federated.terms import ROUNDS_MAX, SITES_MAX, SIZE_MAX, Terms

PER_SITE_MAX = 512  # bytes of keys, signatures, shares, digests and names of one site in one message
OVERHEAD_MAX = 4096
REASON_MAX = 500

Key: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Signature: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Share: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=SHARE_BYTES, max_length=SHARE_BYTES)]
# two shares and a tag of AES-GCM
SealedShares: TypeAlias = Annotated[
    bytes, msgspec.Meta(min_length=2 * SHARE_BYTES + 16, max_length=2 * SHARE_BYTES + 16)
]
Number: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=ROUNDS_MAX)]
Numbers: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=4 * SIZE_MAX)]  # 4 bytes each, little-endian
_MANY = msgspec.Meta(max_length=SITES_MAX)


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all; `terms` is the digest of those that the sender goes by."""

    terms: Key
    round: Number


class Advertise(Message, frozen=True, tag="advertise", kw_only=True):
    """Asks for a site's keys of this round."""


class Advert(Message, frozen=True, tag="advert", kw_only=True):
    """A site's keys of a round, signed by its pinned identity."""

    site: Name
    cipher_key: Key
    mask_key: Key
    signature: Signature


class AskShares(Message, frozen=True, tag="ask-shares", kw_only=True):
    """Tells a site who takes part, and asks for shares of its secrets for each."""

    adverts: Annotated[list[Advert], _MANY]


class Shares(Message, frozen=True, tag="shares", kw_only=True):
    """Sealed shares by receiver, and digests of the two shares of each, by which a wrong one is known later."""

    sealed: Annotated[dict[Name, SealedShares], _MANY]
    digests: Annotated[dict[Name, tuple[Key, Key]], _MANY]


class AskUpdate(Message, frozen=True, tag="ask-update", kw_only=True):
    """Passes on the shares for a site, by sender, with their digests, and the model to train: float32."""

    sealed: Annotated[dict[Name, SealedShares], _MANY]
    digests: Annotated[dict[Name, tuple[Key, Key]], _MANY]
    model: Numbers


class Update(Message, frozen=True, tag="update", kw_only=True):
    """A masked update, and the digest of the seed of its own mask."""

    masked: Numbers
    seed_digest: Key


class AskAgreement(Message, frozen=True, tag="ask-agreement", kw_only=True):
    """Names those whose masked updates came."""

    survivors: Annotated[list[Name], _MANY]


class Agreement(Message, frozen=True, tag="agreement", kw_only=True):
    """A site's signature of the one set of survivors that it will help to unmask."""

    signature: Signature


class AskReveal(Message, frozen=True, tag="ask-reveal", kw_only=True):
    """Shows who agreed, and asks for the shares that take the masks off; and for keys of the round after it."""

    signatures: Annotated[dict[Name, Signature], _MANY]
    advertise_next: bool = False


class Revealed(Message, frozen=True, tag="revealed", kw_only=True):
    """Shares of the own seeds of survivors, and of the mask keys of those who dropped out; never both of one site."""

    seeds: Annotated[dict[Name, Share], _MANY]
    keys: Annotated[dict[Name, Share], _MANY]
    next: Advert | None = None


class Refused(Message, frozen=True, tag="refused", kw_only=True):
    """A site will not go on, and says why."""

    reason: Annotated[str, msgspec.Meta(max_length=REASON_MAX)]


Question: TypeAlias = Advertise | AskShares | AskUpdate | AskAgreement | AskReveal
Reply: TypeAlias = Advert | Shares | Update | Agreement | Revealed | Refused
_write = msgspec.msgpack.Encoder().encode
_questions: Any = msgspec.msgpack.Decoder(Question)
_replies: Any = msgspec.msgpack.Decoder(Reply)


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    return _write(message)


def decode_question(data: bytes, terms: Terms) -> Question:
    """What the server asks. Raises FormatError."""
    return _decoded(_questions, data, terms, "the server's question")  # type: ignore[no-any-return]


def decode_reply(data: bytes, terms: Terms, site: str) -> Reply:
    """What a site says. Raises FormatError naming it."""
    return _decoded(_replies, data, terms, f"what {site} sent")  # type: ignore[no-any-return]


def _decoded(decoder: Any, data: bytes, terms: Terms, what: str) -> Any:
    size_max = 4 * terms.size + PER_SITE_MAX * len(terms.sites) + OVERHEAD_MAX
    if len(data) > size_max:
        raise FormatError(f"{what} has {len(data)} bytes, {size_max} at most were expected")
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise FormatError(f"{what} is no message of federated learning: {error}") from None

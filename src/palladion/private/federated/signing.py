"""What sites sign with their pinned identities: the keys of a round, and who they agree is in its sum."""

from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature

from palladion.errors import TamperError
from palladion.keys import ed25519_public_key
from palladion.private.federated.masks import Round
from palladion.private.federated.messages import Advert
from palladion.private.federated.terms import Terms


def advert_text(at: Round, site: str, cipher_key: bytes, mask_key: bytes) -> bytes:
    """What is signed of a site's keys of a round."""
    return at.bound("advert", site) + cipher_key + mask_key


def agreement_text(at: Round, survivors: Sequence[str]) -> bytes:
    """What is signed of the survivors of a round."""
    return at.bound("agreement", *sorted(survivors))


def verify_advert(advert: Advert, terms: Terms, at: Round) -> Advert:
    """The advert. Raises TamperError, naming the site, unless it is of these terms, this round and its pinned key."""
    if advert.site not in terms.sites:
        raise TamperError(f"{advert.site[:64]!r} is no site of these terms")
    if (advert.terms, advert.round) != (at.terms, at.number):
        raise TamperError(f"{advert.site} goes by other terms, or is in another round than {at.number}")
    text = advert_text(at, advert.site, advert.cipher_key, advert.mask_key)
    _verify(terms, advert.site, text, advert.signature, "keys")
    return advert


def verify_agreement(terms: Terms, at: Round, site: str, survivors: Sequence[str], signature: bytes) -> None:
    """Raises TamperError, naming the site, unless it agreed to these survivors."""
    _verify(terms, site, agreement_text(at, survivors), signature, "agreement")


def _verify(terms: Terms, site: str, text: bytes, signature: bytes, what: str) -> None:
    try:
        ed25519_public_key(terms.sites[site], what=f"the key of {site}").verify(signature, text)
    except (InvalidSignature, ValueError):
        raise TamperError(
            f"the {what} of {site} are not signed by the key that is pinned for it",
            "somebody exchanged them on the way, or the site uses another identity",
        ) from None

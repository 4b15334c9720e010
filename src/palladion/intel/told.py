"""The record of a case that is told to others: which bundle, by its digest, and where to. Who may read it says more."""

from datetime import datetime
from hashlib import sha256

from palladion.errors import FormatError
from palladion.intel.bundle import CampaignFacts
from palladion.ledger.record import TEXT_CHARACTERS_MAX, Record
from palladion.transit.url import shown_address


def written_record(facts: CampaignFacts, bundle: bytes, to: str, *, actor: str, now: datetime) -> Record:
    """A case is written as a bundle into the file `to`."""
    details = {
        "bundle": sha256(bundle).hexdigest(),
        "to": to[:TEXT_CHARACTERS_MAX],
        "accounts": facts.accounts,
        "answers": facts.answers,
        "networks": len(facts.networks),
        "signature": facts.sketch is not None,
        "tlp": facts.marking,
    }
    return Record("intel.told", now, actor, f"incident:{facts.case}", details)


def pushed_record(bundle: bytes, url: str, *, actor: str, now: datetime) -> Record:
    """A bundle is sent to a collection; `bundle` is what names the record in which it was written."""
    details = {"bundle": sha256(bundle).hexdigest(), "to": shown(url)}
    return Record("intel.told", now, actor, "bundle", details)


def shown(url: str) -> str:
    """What is recorded of an address: all but user, query and fragment: they can be credentials. Raises FormatError."""
    try:
        return shown_address(url)[:TEXT_CHARACTERS_MAX]
    except ValueError as error:
        raise FormatError(f"the address cannot be read: {error}") from None

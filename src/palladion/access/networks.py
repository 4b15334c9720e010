"""By what of an address and of a user's name limits count: one key for all that one peer can make many of.

Whether an address or a name can be believed is decided by whoever hands it in.
"""

import re
import unicodedata
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address

SUBSCRIBER_BITS = 64  # of an IPv6 address: a subscriber has at least as many hosts as the other 64 bits name
BLOCK_BITS = 24  # of an IPv4 address: the smallest block that is routed on its own, so neighbours have one provider
SITE_BITS = 48  # of an IPv6 address: what a provider gives to one site
OTHER_CHARACTERS_MAX = 64  # of what is no address
CACHED = 4096  # reading an address takes 3 µs, and the same peers come again
# Default_Ignorable_Code_Point (Unicode 16, DerivedCoreProperties): nobody sees them, whatever their category is.
# Letters (Hangul fillers) and marks (variation selectors) are among them, and codes that are not assigned yet.
IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


@lru_cache(CACHED)
def network_of(address: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 one; what is no address counts as one network, by its beginning."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:OTHER_CHARACTERS_MAX]
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    # ::ffff:192.0.2.1 is how a socket for both families calls 192.0.2.1
    return str(parsed.ipv4_mapped or IPv6Network((int(parsed), SUBSCRIBER_BITS), strict=False))


@lru_cache(CACHED)
def neighbourhood_of(address: str) -> str:
    """The /24 of an IPv4 address, or the /48 of an IPv6 one: what one provider gives to a site; empty if it is none."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if not isinstance(parsed, IPv4Address):
        if parsed.ipv4_mapped is None:
            return str(IPv6Network((int(parsed), SITE_BITS), strict=False))
        parsed = parsed.ipv4_mapped
    return str(IPv4Network((int(parsed), BLOCK_BITS), strict=False))


def caseless(name: str) -> str:
    """A user's name as limits know it: however it is written, and with whatever nobody sees in it, the same one.

    Unicode's toNFKC_Casefold (chapter 3.13), without format characters as well.
    """
    if name.isascii():
        return name.strip().lower()
    # first, so that a letter and a mark that were kept apart are composed; folding what is visible makes none of these
    visible = "".join(character for character in IGNORABLE.sub("", name) if unicodedata.category(character) != "Cf")
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", visible).casefold()).strip()

"""By what of an address and of a user's name limits count: one key for all that one peer can make many of.

Whether an address or a name can be believed is decided by whoever hands it in.
"""

import unicodedata
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Network, ip_address

SUBSCRIBER_BITS = 64  # of an IPv6 address: a subscriber has at least as many hosts as the other 64 bits name
OTHER_CHARACTERS_MAX = 64  # of what is no address
CACHED = 4096  # reading an address takes 3 µs, and the same peers come again


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


def caseless(name: str) -> str:
    """A user's name as limits know it: however it is written, and with whatever nobody sees in it, the same one.

    Unicode's toNFKC_Casefold (chapter 3.13), with format characters in place of its list of ignorable ones.
    """
    if name.isascii():
        return name.strip().lower()
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(character for character in folded if unicodedata.category(character) != "Cf").strip()

"""Pseudonyms for the ledger, of clients, their networks and what links them: keyed, so that it names nobody by itself.

Deleting a client's row in the registry makes its pseudonym one that nobody can resolve any more; the tree stays whole.
An end user's id is made of its name: that holds for it only once the secret of its reseller is erased (`users`).
Of a network no row is kept anywhere: whoever has the key can try networks, which are few, and nobody else can.
"""

from hashlib import blake2b

from palladion.access.networks import neighbourhood_of

_PERSON = b"pall/pseudonym"
_IDENTITY_PERSON = b"pall/identity"
_NETWORK_PERSON = b"pall/network"
_LINK_PERSON = b"pall/link"
SHORT_BYTES = 8  # of what stands in every record of an answer; of a million networks, one pair in 10^7 ledgers is alike


def pseudonym(key: bytes, client: str) -> str:
    """The name of a client (by its id) in the ledger; `key` is the gate root's "pseudonyms", 32 bytes."""
    return f"client:{_digest(key, client, _PERSON)}"


def identity_pseudonym(key: bytes, kind: str, value: str) -> str:
    """The name of an identity of a client in the ledger: whoever has the key and a guess can confirm it."""
    return f"identity:{_digest(key, f'{kind} {value}', _IDENTITY_PERSON)}"


def network_pseudonym(key: bytes, address: str) -> str:
    """The name of the network that an address is in, its /24 or, of IPv6, its /48; empty for what is no address.

    The same for every client, so that the ledger shows which accounts came from one network.
    """
    network = neighbourhood_of(address)
    return _digest(key, network, _NETWORK_PERSON, SHORT_BYTES) if network else ""


def link_pseudonym(key: bytes, kind: str, value: str) -> str:
    """The name of something that accounts share: an organisation, a means of payment, a device, a TLS fingerprint."""
    return _digest(key, f"{kind} {value}", _LINK_PERSON, SHORT_BYTES)


def _digest(key: bytes, text: str, person: bytes, size: int = 10) -> str:
    if len(key) != 32:
        raise ValueError(f"the key has {len(key)} bytes, expected 32")
    return blake2b(text.encode(), digest_size=size, key=key, person=person).hexdigest()

"""Pseudonyms of clients for the ledger: keyed, so that the ledger names nobody to whom the key is not given.

Deleting a client's row in the registry makes its pseudonym one that nobody can resolve any more; the tree stays whole.
"""

from hashlib import blake2b

_PERSON = b"pall/pseudonym"
_IDENTITY_PERSON = b"pall/identity"


def pseudonym(key: bytes, client: str) -> str:
    """The name of a client (by its id) in the ledger; `key` is the gate root's "pseudonyms", 32 bytes."""
    return f"client:{_digest(key, client, _PERSON)}"


def identity_pseudonym(key: bytes, kind: str, value: str) -> str:
    """The name of an identity of a client in the ledger: whoever has the key and a guess can confirm it."""
    return f"identity:{_digest(key, f'{kind} {value}', _IDENTITY_PERSON)}"


def _digest(key: bytes, text: str, person: bytes) -> str:
    if len(key) != 32:
        raise ValueError(f"the key has {len(key)} bytes, expected 32")
    return blake2b(text.encode(), digest_size=10, key=key, person=person).hexdigest()

"""Pseudonyms of clients for the ledger: keyed, so that the ledger names nobody to whom the key is not given.

Deleting a client's row in the registry makes its pseudonym one that nobody can resolve any more; the tree stays whole.
"""

from hashlib import blake2b

_PERSON = b"pall/pseudonym"


def pseudonym(key: bytes, client: str) -> str:
    """The name of a client (by its id) in the ledger; `key` is the gate root's "pseudonyms", 32 bytes."""
    if len(key) != 32:
        raise ValueError(f"the key has {len(key)} bytes, expected 32")
    return f"client:{blake2b(client.encode(), digest_size=10, key=key, person=_PERSON).hexdigest()}"

"""Who is named in a dossier: clients and recipients by pseudonyms, unless the person who makes it asks for names.

An entry of the ledger cannot be changed without breaking its proof. One in which somebody is named is withheld instead,
and its hash is not given: all but a name can be known of an entry, and names be tried. A commitment stands in its
place, so that the entry can be shown later, and nothing else. (The proof of its neighbour in the tree holds the hash.)
"""

import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any

from palladion.access.pseudonyms import identity_pseudonym, pseudonym
from palladion.ledger.record import Record
from palladion.registry import Records
from palladion.registry.names import SLUG_CHARACTERS_MAX

# Names are slugs, as registry.names has them, or two of them as organisation/client. They are found in whatever case,
# also as parts of file names, hosts and addresses: wherever no letter or digit touches them.
_LETTERS = re.compile(r"[a-z0-9]+", re.ASCII | re.IGNORECASE)
_RUN = re.compile(r"[a-z0-9._/-]+", re.ASCII | re.IGNORECASE)
_NAME_CHARACTERS_MAX = 2 * SLUG_CHARACTERS_MAX + 1
_VERSION = re.compile(r"@[0-9]+")
# What code calls the fields of its records: as the key of a value, one of these says nothing of anybody.
_FIELDS = frozenset(
    re.findall(
        "[a-z0-9_]+",
        """
        accounts accused answered at by bytes category cause clients content control ended ended_entry entry evidence
        expires features files from id keyed kind links log10_p looked_for looks manifest matches mode model name
        network note owner place policy prefix queries reason recipient recipients recorded requests route routes scopes
        sha256 sha512 since source state state_at_opening status step suspect test tested text to touches values version
        versions why
        """,
    )
)
_WITHHELD = b"pall/withheld"


@dataclass(frozen=True)
class Names:
    """What every name is replaced by, in lower case, unless all may be `named`. `models` are names of models.

    `accounts` are names of clients by their pseudonyms, for a dossier that names them.
    """

    hidden: Mapping[str, str]
    models: frozenset[str] = frozenset()
    accounts: Mapping[str, str] = field(default_factory=dict)
    named: bool = False

    def covered(self, text: str) -> str:
        """`text` with pseudonyms in the place of names."""
        return text if self.named else self._covered(text)

    def value(self, value: Any) -> Any:
        """JSON with pseudonyms in the place of names, in all of its texts and in keys that are no field of ours."""
        return value if self.named else self._value(value)

    def names_somebody(self, record: Record) -> bool:
        """Whether a record holds a name."""
        told = [record.actor, record.subject, record.details]
        return bool(self._value(told) != told)

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._covered(value)
        if isinstance(value, dict):
            return {key if key in _FIELDS else self._covered(key): self._value(item) for key, item in value.items()}
        return [self._value(item) for item in value] if isinstance(value, list) else value

    @cached_property
    def _beginnings(self) -> frozenset[str]:
        """What names begin with, up to the first separator: most words of a text are none of these."""
        found = (_LETTERS.match(name) for name in (*self.hidden, *self.models))
        return frozenset(match.group() for match in found if match is not None)

    def _covered(self, text: str) -> str:
        parts, done = [], 0
        for word in _LETTERS.finditer(text):
            if word.start() >= done and word.group().lower() in self._beginnings:
                end, shown = self._longest(text, word)
                parts += [text[done : word.start()], shown]
                done = end
        return "".join([*parts, text[done:]])

    def _longest(self, text: str, word: re.Match[str]) -> tuple[int, str]:
        """The longest name that begins with `word`: where it ends, and what is shown for it. Else the word itself."""
        start = word.start()
        run = _RUN.match(text, start, start + _NAME_CHARACTERS_MAX)
        for end in range(run.end() if run else word.end(), word.end() - 1, -1):
            if end < len(text) and _LETTERS.match(text, end) and _LETTERS.match(text, end - 1):
                continue  # in the middle of a word
            found = text[start:end]
            name = found.lower()
            of_model = name in self.models
            if name in self.hidden and not (of_model and _VERSION.match(text, end)):
                return end, self.hidden[name]
            if of_model:
                return end, found
        return word.end(), word.group()


def names_of(records: Records, key: bytes, *, named: bool) -> Names:
    """Everybody whom the registry knows: organisations, their clients, and recipients of copies.

    `key` is the gate root's "pseudonyms".
    """
    clients = records.clients.all()
    hide = _hider(key)
    hidden: dict[str, str] = {}
    for client in clients:
        hidden[client.name] = hide("client-name", client.name)
    for recipient in records.recipients.all():
        hidden[recipient.name] = hide("recipient", recipient.name)
    accounts = {}
    for client in clients:
        name = f"{client.organisation}/{client.name}"
        hidden[client.organisation] = hide("organisation", client.organisation)
        hidden[name] = pseudonym(key, client.id)
        accounts[hidden[name]] = name
    models = frozenset(row.name for row in records.models.all())
    return Names(hidden, models, accounts if named else {}, named)


def opening_of(key: bytes, index: int) -> bytes:
    """What opens the commitment to entry `index`, 32 bytes; `key` is the gate root's "pseudonyms"."""
    return blake2b(index.to_bytes(8), key=key, person=_WITHHELD, digest_size=32).digest()


def commitment_to(opening: bytes, leaf: bytes) -> str:
    """The commitment to the leaf hash of an entry, HMAC-SHA-256 in hexadecimal: hides it, and fits no other."""
    return hmac.digest(opening, leaf, "sha256").hex()


def _hider(key: bytes) -> Callable[[str, str], str]:
    return lambda kind, name: f"{kind}:{identity_pseudonym(key, kind, name).partition(':')[2]}"

"""Sites in one process, and a road to them that loses and changes messages where a test wants it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from palladion.keys import Ed25519Signer
from palladion.private.dp.randomness import Seeded
from palladion.private.federated import Site, Terms
from palladion.private.federated.messages import decode_question, decode_reply, encode
from palladion.private.federated.site import Train

SIZE = 50


def name_of(number: int) -> str:
    """A site's name."""
    return f"site-{number}"


def signer_of(number: int) -> Ed25519Signer:
    """A site's identity."""
    return Ed25519Signer((number + 1).to_bytes(2) * 16)


def terms_of(sites: int = 10, **changes: Any) -> Terms:
    """Terms of so many sites, of which seven tenths suffice."""
    keys = {name_of(number): signer_of(number).public_key for number in range(sites)}
    chosen = {"size": SIZE, "rounds": 5, "threshold": sites * 7 // 10, "clip": 1.0, **changes}
    return Terms(session="test", sites=keys, **chosen)


def update_of(number: int, size: int = SIZE) -> np.ndarray:
    """An update of a norm below 1."""
    drawn = np.random.default_rng(number).standard_normal(size)
    return np.asarray(drawn / np.linalg.norm(drawn) * 0.9)


def fixed(update: np.ndarray) -> Train:
    """Training that comes to `update`, whatever the model."""
    return lambda _model, _round: update


@dataclass
class Road:
    """Carries questions to sites, keeps their states, and what was sent.

    `lost` names (kind of reply, site) that do not come; `changed` maps such to what is made of a reply on its way, and
    `asked` to what is made of the question.
    """

    terms: Terms
    sites: dict[str, Site]
    lost: set[tuple[str, str]] = field(default_factory=set)
    changed: dict[tuple[str, str], Callable[[Any], Any]] = field(default_factory=dict)
    asked: dict[tuple[str, str], Callable[[Any], Any]] = field(default_factory=dict)
    states: dict[str, bytes] = field(default_factory=dict)
    seen: dict[tuple[str, str], Any] = field(default_factory=dict)

    def ask(self, bodies: Mapping[str, bytes]) -> dict[str, bytes]:
        """As a server asks."""
        answered = {}
        for node, body in bodies.items():
            question: Any = decode_question(body, self.terms)
            kind, site = type(question).__name__, node.removeprefix("node of ")
            if (kind, site) in self.asked:
                question = self.asked[kind, site](question)
            if (kind, site) in self.lost:
                continue
            data, self.states[site] = self.sites[site].answer(encode(question), self.states.get(site, b""))
            reply: Any = decode_reply(data, self.terms, site)
            if (kind, site) in self.changed:
                reply = self.changed[kind, site](reply)
            self.seen[kind, site] = reply
            answered[node] = encode(reply)
        return answered

    @property
    def nodes(self) -> list[str]:
        """Names that are not the sites'."""
        return [f"node of {site}" for site in self.sites]


def road_of(terms: Terms, trains: Mapping[int, Train] | None = None, *, seed: int | None = None) -> Road:
    """A road to all sites, each of which has the update of its number unless `trains` says otherwise."""
    sites = {}
    for number in range(len(terms.sites)):
        train = (trains or {}).get(number, fixed(update_of(number, terms.size)))
        randomness = None if seed is None else Seeded(np.random.default_rng([seed, number]))
        name = name_of(number)
        sites[name] = Site(terms, name, signer_of(number), train, randomness=randomness)
    return Road(terms, sites)

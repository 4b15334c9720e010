"""Who is there for a round, with which keys: what nodes say of themselves, checked.

Whoever can connect may say anything: a node that does not prove to be a site is left out and ends nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from palladion.errors import InconclusiveError, PalladionError, TamperError
from palladion.private.federated import messages, signing
from palladion.private.federated.masks import Round
from palladion.private.federated.messages import Advert
from palladion.private.federated.terms import Terms

STRANGERS_MAX = 64  # nodes that are no sites and of which the reason is kept


@dataclass
class Present:
    """The sites of a round that have said their keys: `nodes` and `adverts` by site, `asked` are nodes, all of them."""

    terms: Terms
    at: Round
    adverts: dict[str, Advert] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)
    received: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)

    def question(self) -> bytes:
        """What asks a node for its keys."""
        return messages.encode(messages.Advertise(terms=self.at.terms, round=self.at.number))

    def heard(self, answered: Mapping[str, bytes]) -> None:
        """Take in what nodes answered to `question`; a site that was heard before has come back on another node.

        Raises TamperError where two of these say that they are one site.
        """
        new: set[str] = set()
        for node, data in answered.items():
            try:
                advert = self._advert(node, data)
            except PalladionError as error:
                if len(self.dropped) < STRANGERS_MAX:
                    self.dropped[f"node {node}"] = error.message
                continue
            if advert.site in new:
                raise TamperError(f"two nodes say that they are {advert.site}")
            new.add(advert.site)
            self._take(node, advert, len(data))

    def heard_early(self, node: str, advert: Advert) -> None:
        """Take in keys that a site gave with its last answer of the round before; not where they do not hold."""
        try:
            self._take(node, signing.verify_advert(advert, self.terms, self.at), 0)
        except PalladionError:
            self.asked.discard(node)  # it is asked again, and told off, when the round begins

    def sorted_adverts(self) -> dict[str, Advert]:
        """By site, in the order of names."""
        return dict(sorted(self.adverts.items()))

    def _take(self, node: str, advert: Advert, size: int) -> None:
        self.adverts[advert.site], self.nodes[advert.site] = advert, node
        self.received[advert.site] = size

    def _advert(self, node: str, data: bytes) -> Advert:
        reply = messages.decode_reply(data, self.terms, f"node {node}")
        if isinstance(reply, messages.Refused):
            raise InconclusiveError(reply.reason)
        if not isinstance(reply, Advert):
            raise TamperError("answered another question than it was asked")
        return signing.verify_advert(reply, self.terms, self.at)

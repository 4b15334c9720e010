"""The server's side of a round: asks the sites five times, and learns the sum of their updates, nothing else of them.

The last time it may ask for the keys of the next round too, which then takes four.

What a site sends is checked where it can be: a site that lies ends the round with its name, and a round with fewer
results than the terms want is an error, never a smaller sum. The server is trusted to pass messages on: one that does
not can end rounds, and is not told a sum of fewer sites than agreed.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from palladion.errors import InconclusiveError, PalladionError, TamperError
from palladion.private.federated import masks, messages, ring, shamir, signing
from palladion.private.federated.masks import Round
from palladion.private.federated.messages import Advert
from palladion.private.federated.present import Present
from palladion.private.federated.site import Vector, digest_of_seed, share_digests
from palladion.private.federated.terms import Terms

# bodies by node to the replies of those that did, by node; who does not reply in time is not among them
Ask = Callable[[Mapping[str, bytes]], Mapping[str, bytes]]
# the model as one site gets it: with its fingerprint
CopyFor = Callable[[str, Vector], Vector]
_Wanted = TypeVar("_Wanted", bound=messages.Message)
AWAY = "did not answer"


@dataclass(frozen=True)
class Summed:
    """What came of a round: the sum (size,) of clipped, noised updates, whose it is, and who dropped out and why.

    `received` counts bytes by site. Who is in `dropped` may be in the sum: it left after its update had come.
    `following` has who is there for the next round, if that was asked.
    """

    round: int
    total: NDArray[np.float64]
    survivors: tuple[str, ...]
    dropped: dict[str, str]
    model_digest: str
    sum_digest: str
    received: dict[str, int] = field(default_factory=dict)
    following: Present | None = field(default=None, repr=False, compare=False)


def aggregate(
    terms: Terms,
    number: int,
    model: Vector,
    nodes: Collection[str],
    ask: Ask,
    *,
    copy_for: CopyFor | None = None,
    present: Present | None = None,
    go_on: bool = False,
) -> Summed:
    """One round over `nodes`, whose names are not the sites': each says which one it is, and signs that.

    `present` is `following` of the round before; with `go_on`, nodes are asked for their keys of the next round.
    Raises TamperError naming a site that lied, InconclusiveError where fewer than `terms.threshold` results come.
    """
    aggregation = _Aggregation(terms, number, ask, nodes, present)
    return aggregation.run(np.asarray(model, np.float32), copy_for or _unchanged, go_on)


def _unchanged(_site: str, model: Vector) -> Vector:
    return model


class _Aggregation:
    def __init__(self, terms: Terms, number: int, ask: Ask, nodes: Collection[str], present: Present | None) -> None:
        if not 1 <= number <= terms.rounds:
            raise ValueError(f"round {number} was asked for, 1 to {terms.rounds} were agreed to")
        self._terms = terms
        self._at = Round(terms.digest, number)
        self._ask = ask
        self._connected = nodes
        if present is not None and (present.terms, present.at) != (terms, self._at):
            raise ValueError(f"keys of another round than {number} were got")
        self._present = present or Present(terms, self._at)
        self._following: Present | None = None
        # these three grow while the round goes on
        self._nodes = self._present.nodes
        self._dropped = self._present.dropped
        self._received = self._present.received

    def run(self, model: Vector, copy_for: CopyFor, go_on: bool) -> Summed:
        terms = self._terms
        if model.shape != (terms.size,) or not np.isfinite(model).all():
            raise ValueError(f"the model has the shape {model.shape} or holds NaN, ({terms.size},) was expected")
        # 1. Who is there, with which keys.
        adverts = self._adverts()
        # 2. Secrets of each, in shares for all.
        asked = messages.AskShares(**self._head, adverts=list(adverts.values()))
        shares = self._all(dict.fromkeys(adverts, asked), messages.Shares)
        for site, item in shares.items():
            self._require(
                set(item.sealed) == set(adverts) - {site} and set(item.digests) == set(adverts), site, "shares"
            )
        # 3. Updates, under masks that cancel out or are taken off later.
        updates = self._updates(shares, model, copy_for)
        # 4. One set of survivors, that all sign.
        survivors = sorted(updates)
        question = messages.AskAgreement(**self._head, survivors=survivors)
        agreed = self._all(dict.fromkeys(survivors, question), messages.Agreement)
        for site, agreement in agreed.items():
            signing.verify_agreement(terms, self._at, site, survivors, agreement.signature)
        # 5. What takes the masks off, and keys of the next round.
        signatures = {site: agreement.signature for site, agreement in agreed.items()}
        revealed = self._revealed(signatures, go_on and self._at.number < terms.rounds)
        total = self._unmasked(adverts, shares, updates, revealed)
        return Summed(
            self._at.number,
            total,
            tuple(survivors),
            {**self._dropped, **{site: AWAY for site in terms.sites if site not in self._nodes}},
            hashlib.sha256(model.astype("<f4").tobytes()).hexdigest(),
            hashlib.sha256(total.astype("<f8").tobytes()).hexdigest(),
            self._received,
            self._following,
        )

    @property
    def _head(self) -> dict[str, Any]:
        return {"terms": self._at.terms, "round": self._at.number}

    def _adverts(self) -> dict[str, Advert]:
        present = self._present
        known = present.asked if len(present.adverts) >= self._terms.threshold else set(present.nodes.values())
        asked = [node for node in self._connected if node not in known]
        if asked:
            present.asked.update(asked)
            present.heard(self._ask(dict.fromkeys(asked, present.question())))
        self._enough(present.adverts)
        return present.sorted_adverts()

    def _revealed(self, signatures: dict[str, bytes], go_on: bool) -> dict[str, messages.Revealed]:
        question = messages.AskReveal(**self._head, signatures=signatures, advertise_next=go_on)
        if not go_on:
            return self._all(dict.fromkeys(signatures, question), messages.Revealed)
        following = Present(self._terms, Round(self._at.terms, self._at.number + 1))
        asked = {self._nodes[site] for site in signatures}
        others = dict.fromkeys([node for node in self._connected if node not in asked], following.question())
        following.asked.update(asked, others)
        answers: dict[str, bytes] = {}
        revealed = self._all(dict.fromkeys(signatures, question), messages.Revealed, others, answers)
        try:
            following.heard(answers)
        except TamperError:  # whoever it is does so again when the next round begins, which it then ends
            following = Present(self._terms, following.at)
        for site, reply in revealed.items():
            if reply.next is not None and reply.next.site == site:
                following.heard_early(self._nodes[site], reply.next)
        self._following = following
        return revealed

    def _updates(
        self, shares: Mapping[str, messages.Shares], model: Vector, copy_for: CopyFor
    ) -> dict[str, messages.Update]:
        questions = {}
        for site in shares:
            sealed = {sender: item.sealed[site] for sender, item in shares.items() if sender != site}
            digests = {sender: item.digests[site] for sender, item in shares.items() if sender != site}
            copy = np.asarray(copy_for(site, model), np.float32)
            if copy.shape != model.shape or not np.isfinite(copy).all():
                raise ValueError(f"the copy for {site} has the shape {copy.shape} or holds NaN")
            numbers = copy.astype("<f4").tobytes()
            questions[site] = messages.AskUpdate(**self._head, sealed=sealed, digests=digests, model=numbers)
        updates = self._all(questions, messages.Update)
        for site, update in updates.items():
            self._require(len(update.masked) == 4 * self._terms.size, site, "a masked update")
        return updates

    def _unmasked(
        self,
        adverts: Mapping[str, Advert],
        shares: Mapping[str, messages.Shares],
        updates: Mapping[str, messages.Update],
        revealed: Mapping[str, messages.Revealed],
    ) -> NDArray[np.float64]:
        size, at = self._terms.size, self._at
        left = sorted(set(shares) - set(updates))
        order = {site: index for index, site in enumerate(sorted(adverts), 1)}
        for holder, item in revealed.items():
            self._require(set(item.seeds) == set(updates) and set(item.keys) == set(left), holder, "shares to unmask")
        total = np.zeros(size, np.uint32)
        for site, update in updates.items():
            held = {holder: item.seeds[site] for holder, item in revealed.items()}
            seed = self._secret(site, held, shares, order, 0)
            if seed is None or digest_of_seed(at, site, seed) != update.seed_digest:
                raise self._lied(site, "shared another seed than the one of its mask")
            total += np.frombuffer(update.masked, "<u4")
            total -= masks.own_mask(seed, at, site, size)
        for site in left:
            held = {holder: item.keys[site] for holder, item in revealed.items()}
            private = self._secret(site, held, shares, order, 1)
            if private is None or masks.public_of(private) != adverts[site].mask_key:
                raise self._lied(site, "shared another mask key than it advertised")
            for other in updates:
                mask = masks.pair_mask(private, adverts[other].mask_key, at, (site, other), size)
                # the survivor that comes first in order added the mask of the pair: it is taken off again
                total = total - mask if other < site else total + mask
        return ring.total_of(total, self._terms, len(updates))

    def _secret(
        self,
        owner: str,
        held: Mapping[str, bytes],
        shares: Mapping[str, messages.Shares],
        order: dict[str, int],
        which: int,
    ) -> bytes | None:
        for holder, share in held.items():
            stated = shares[owner].digests[holder][which]
            both = share + share  # the digest of the half that is asked for is all that counts
            if share_digests(self._at, owner, holder, both)[which] != stated:
                raise self._lied(holder, f"revealed another share of {owner}'s secret than it was given")
        return shamir.combine({order[holder]: share for holder, share in held.items()}, self._terms.threshold)

    def _all(
        self,
        questions: Mapping[str, messages.Message],
        wanted: type[_Wanted],
        others: Mapping[str, bytes] = MappingProxyType({}),
        answers: dict[str, bytes] | None = None,
    ) -> dict[str, _Wanted]:
        """The replies by site, of those that gave one. Raises InconclusiveError where they are too few.

        `others` are asked in the same breath, bodies by node, and what they say goes into `answers`.
        """
        # many sites are often asked one thing: that is written once
        written = {id(question): messages.encode(question) for question in questions.values()}
        bodies = {self._nodes[site]: written[id(question)] for site, question in questions.items()}
        answered = self._ask({**others, **bodies})
        if answers is not None:
            answers.update({node: data for node, data in answered.items() if node in others})
        found: dict[str, _Wanted] = {}
        for site in questions:
            data = answered.get(self._nodes[site])
            if data is None:
                self._dropped[site] = AWAY
                continue
            self._received[site] += len(data)
            reply = messages.decode_reply(data, self._terms, site)
            if isinstance(reply, messages.Refused):
                self._dropped[site] = reply.reason
                continue
            if not isinstance(reply, wanted) or (reply.terms, reply.round) != (self._at.terms, self._at.number):
                raise self._lied(site, "answered another question than it was asked")
            found[site] = reply
        self._enough(found)
        return found

    def _enough(self, found: Collection[str]) -> None:
        if len(found) < self._terms.threshold:
            reasons = "; ".join(f"{site}: {reason}" for site, reason in sorted(self._dropped.items())[:8])
            raise InconclusiveError(
                f"round {self._at.number} has {len(found)} results, {self._terms.threshold} were agreed to"
                + (f" ({reasons})" if reasons else ""),
                "nothing was learnt of it; the next round may begin when enough sites are back",
            )

    def _require(self, holds: bool, site: str, what: str) -> None:
        if not holds:
            raise self._lied(site, f"sent {what} of another form than was asked for")

    def _lied(self, site: str, what: str) -> PalladionError:
        return TamperError(
            f"{site} {what}: round {self._at.number} ends without a sum", "leave it out, or ask its owner"
        )

"""One site's side of a round: bytes of a question and its state in, bytes of the reply and its new state out.

The order of what an update goes through is fixed here: train → clip → noise → own mark → mask. A site trusts no server:
it goes by its pinned terms and keys, trains once for each round number, and helps to unmask one sum a round.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palladion import files
from palladion.errors import ConflictError, FormatError, PalladionError, TamperError
from palladion.keys import Signer
from palladion.private.dp.randomness import Cryptographic, Randomness
from palladion.private.federated import masks, messages, ring, shamir, signing
from palladion.private.federated.masks import Round
from palladion.private.federated.messages import Advert
from palladion.private.federated.terms import Terms

Vector = NDArray[np.float32]  # (size,)
# the model of a round to what it should change: (size,), or one row (size,) for each example; and to a site's own mark
Train = Callable[[Vector, int], NDArray[Any]]
JOURNAL_BYTES_MAX = 32


class _State(msgspec.Struct, kw_only=True):
    """What a site keeps between two questions; holds secrets of the round that is on."""

    last_trained: int = 0
    round: int = 0
    cipher_private: bytes = b""
    mask_private: bytes = b""
    seed: bytes = b""
    adverts: dict[str, Advert] = {}
    shares: dict[str, bytes] = {}  # by sender: of its seed, then of its mask key
    agreed: list[str] = []


class Site:
    """A site of the name and key that the terms pin.

    `train` is the owner's. `mark` gives a vector of its own that is added after the noise, `terms.mark_max` at most.
    `journal` is a file that remembers the last round that was trained: without one, a site that is started anew could
    be made to spend its privacy twice. Raises ValueError for a signer of another key.
    """

    def __init__(
        self,
        terms: Terms,
        name: str,
        signer: Signer,
        train: Train,
        *,
        mark: Train | None = None,
        journal: Path | None = None,
        randomness: Randomness | None = None,
    ) -> None:
        if terms.sites.get(name) != signer.public_key:
            raise ValueError(f"the terms pin another key for {name}, or none")
        self._terms = terms
        self._name = name
        self._signer = signer
        self._train = train
        self._mark = mark
        self._journal = journal
        self._randomness = randomness or Cryptographic()

    @property
    def remembers(self) -> bool:
        """Whether a journal outlives the state."""
        return self._journal is not None

    def answer(self, question: bytes, state: bytes) -> tuple[bytes, bytes]:
        """The reply and what to keep, which is secret; `state` is what was kept last, or empty."""
        kept = msgspec.msgpack.decode(state, type=_State) if state else _State()
        number = max(1, kept.round)
        try:
            asked = messages.decode_question(question, self._terms)
            number = asked.round
            reply = self._reply(asked, kept)
        except PalladionError as error:
            # whatever it was, this site is out of the round: nothing of it may be revealed later
            kept = _State(last_trained=kept.last_trained)
            reply = messages.Refused(
                terms=self._terms.digest, round=number, reason=error.message[: messages.REASON_MAX]
            )
        return messages.encode(reply), msgspec.msgpack.encode(kept)

    def _reply(self, asked: messages.Question, kept: _State) -> messages.Message:
        if not hmac.compare_digest(asked.terms, self._terms.digest):
            raise TamperError("the server goes by other terms than this site agreed to")
        if asked.round > self._terms.rounds:
            raise ConflictError(f"round {asked.round} was asked for, {self._terms.rounds} were agreed to")
        if isinstance(asked, messages.Advertise):
            return self._advertise(asked, kept)
        if asked.round != kept.round:
            raise ConflictError(f"this site is not in round {asked.round}: it was away when that began")
        match asked:
            case messages.AskShares():
                return self._share(asked, kept)
            case messages.AskUpdate():
                return self._update(asked, kept)
            case messages.AskAgreement():
                return self._agree(asked, kept)
            case messages.AskReveal():
                return self._reveal(asked, kept)

    def _at(self, number: int) -> Round:
        return Round(self._terms.digest, number)

    def _advertise(self, asked: messages.Advertise, kept: _State) -> Advert:
        kept.last_trained = max(kept.last_trained, self._journalled())
        if asked.round <= kept.last_trained:
            raise ConflictError(f"round {asked.round} was trained already, and each costs privacy")
        kept.round, kept.seed, kept.adverts, kept.shares, kept.agreed = asked.round, b"", {}, {}, []
        kept.cipher_private, kept.mask_private = masks.new_private(), masks.new_private()
        keys = masks.public_of(kept.cipher_private), masks.public_of(kept.mask_private)
        signature = self._signer.sign(signing.advert_text(self._at(asked.round), self._name, *keys))
        return Advert(
            terms=self._terms.digest,
            round=asked.round,
            site=self._name,
            cipher_key=keys[0],
            mask_key=keys[1],
            signature=signature,
        )

    def _share(self, asked: messages.AskShares, kept: _State) -> messages.Shares:
        at = self._at(asked.round)
        if kept.adverts:
            raise ConflictError("shares of this round were given already")
        found = {advert.site: signing.verify_advert(advert, self._terms, at) for advert in asked.adverts}
        if len(found) != len(asked.adverts) or len(found) < self._terms.threshold:
            raise TamperError(f"{len(found)} sites take part, {self._terms.threshold} different ones were agreed to")
        own = found.get(self._name)
        if own is None or own.mask_key != masks.public_of(kept.mask_private):
            raise TamperError("the server shows this site other keys than it sent")
        names = sorted(found)
        kept.adverts, kept.seed = found, secrets.token_bytes(shamir.SECRET_BYTES)
        parts = [shamir.split(secret, len(names), self._terms.threshold) for secret in (kept.seed, kept.mask_private)]
        sealed, digests = {}, {}
        for name, *pair in zip(names, *parts, strict=True):
            digests[name] = share_digests(at, self._name, name, pair[0] + pair[1])
            if name == self._name:
                kept.shares[name] = pair[0] + pair[1]
            else:
                key = found[name].cipher_key
                sealed[name] = masks.seal_shares(kept.cipher_private, key, at, (self._name, name), pair[0] + pair[1])
        return messages.Shares(terms=at.terms, round=at.number, sealed=sealed, digests=digests)

    def _update(self, asked: messages.AskUpdate, kept: _State) -> messages.Update:
        at, size = self._at(asked.round), self._terms.size
        senders = set(asked.sealed)
        if not kept.adverts or kept.last_trained >= asked.round:
            raise ConflictError("an update was asked for before keys were shared, or twice")
        if self._name in senders or not senders < set(kept.adverts) or senders != set(asked.digests):
            raise TamperError("shares come of sites that are not in this round")
        if len(senders) + 1 < self._terms.threshold:
            raise TamperError(f"{len(senders) + 1} sites shared keys, {self._terms.threshold} were agreed to")
        for sender in sorted(senders):
            key = kept.adverts[sender].cipher_key
            shares = masks.open_shares(kept.cipher_private, key, at, (sender, self._name), asked.sealed[sender])
            if share_digests(at, sender, self._name, shares) != asked.digests[sender]:
                raise TamperError(f"{sender} sent other shares than it stated digests of")
            kept.shares[sender] = shares
        if len(asked.model) != 4 * size:
            raise FormatError(f"the model has {len(asked.model) // 4} numbers, {size} were agreed to")
        self._spend(asked.round, kept)  # before anything is learnt: a site that stops now never trains this round again
        numbers = self._contribution(np.frombuffer(asked.model, "<f4").astype(np.float32), asked.round)
        total = ring.in_ring(numbers, self._terms) + masks.own_mask(kept.seed, at, self._name, size)
        for sender in sorted(senders):
            pair = (self._name, sender)
            mask = masks.pair_mask(kept.mask_private, kept.adverts[sender].mask_key, at, pair, size)
            total = total + mask if self._name < sender else total - mask
        masked, seed_digest = total.astype("<u4").tobytes(), digest_of_seed(at, self._name, kept.seed)
        return messages.Update(terms=at.terms, round=at.number, masked=masked, seed_digest=seed_digest)

    def _contribution(self, model: Vector, number: int) -> NDArray[np.int64]:
        numbers = ring.clipped(self._train(model.copy(), number), self._terms)
        if self._terms.noise_multiplier:
            numbers = numbers + ring.noise(self._terms, self._randomness)
        if self._mark is not None:
            numbers = numbers + ring.marked(self._mark(model.copy(), number), self._terms)
        return numbers

    def _agree(self, asked: messages.AskAgreement, kept: _State) -> messages.Agreement:
        survivors = sorted(set(asked.survivors))
        if kept.last_trained != asked.round or self._name not in survivors or not set(survivors) <= set(kept.shares):
            raise TamperError("the server counts in sites that are not in this round, or leaves this one out")
        if len(survivors) < self._terms.threshold:
            raise TamperError(
                f"a sum of {len(survivors)} updates was asked for, {self._terms.threshold} were agreed to"
            )
        if kept.agreed and kept.agreed != survivors:
            # two different sums of one round would give away the update of a site that is in one of them
            raise TamperError("the server asks for two different sums of one round")
        kept.agreed = survivors
        text = signing.agreement_text(self._at(asked.round), survivors)
        return messages.Agreement(terms=asked.terms, round=asked.round, signature=self._signer.sign(text))

    def _reveal(self, asked: messages.AskReveal, kept: _State) -> messages.Revealed:
        at, agreed = self._at(asked.round), set(kept.agreed)
        if not agreed or not set(asked.signatures) <= agreed or len(asked.signatures) < self._terms.threshold:
            raise TamperError(f"{len(asked.signatures)} sites agreed, {self._terms.threshold} of the sum were expected")
        for name, signature in asked.signatures.items():
            signing.verify_agreement(self._terms, at, name, kept.agreed, signature)
        width = shamir.SHARE_BYTES
        seeds = {name: kept.shares[name][:width] for name in agreed}
        keys = {name: shares[width:] for name, shares in kept.shares.items() if name not in agreed}
        following = None
        if asked.advertise_next and asked.round < self._terms.rounds:
            # forgets this round's secrets: nothing more of it will ever be revealed
            following = self._advertise(messages.Advertise(terms=at.terms, round=asked.round + 1), kept)
        return messages.Revealed(terms=at.terms, round=at.number, seeds=seeds, keys=keys, next=following)

    def _journalled(self) -> int:
        if self._journal is None or not self._journal.exists():
            return 0
        data = files.read_limited(self._journal, size_max=JOURNAL_BYTES_MAX, what="the journal of rounds")
        if not data.strip().isdigit():
            raise FormatError(f"{self._journal.name} is no journal of rounds: a number was expected")
        return int(data)

    def _spend(self, number: int, kept: _State) -> None:
        kept.last_trained = number
        if self._journal is None:
            return
        with files.exclusive_lock(self._journal.with_name(self._journal.name + ".lock"), what="the journal of rounds"):
            # read again: a server that runs two trainings at once has two states of this site, and one journal
            if self._journalled() >= number:
                raise ConflictError(f"round {number} was trained already, and each costs privacy")
            files.write_atomically(self._journal, b"%d\n" % number)


def share_digests(at: Round, sender: str, receiver: str, shares: bytes) -> tuple[bytes, bytes]:
    """Digests of the two shares of one receiver; a share is a random number of 256 bits, which they do not show."""
    width = shamir.SHARE_BYTES
    one, other = (
        hashlib.sha256(at.bound(use, sender, receiver) + share).digest()
        for use, share in (("seed share", shares[:width]), ("key share", shares[width:]))
    )
    return one, other


def digest_of_seed(at: Round, site: str, seed: bytes) -> bytes:
    """What a site states of the seed of its own mask."""
    return hashlib.sha256(at.bound("seed", site) + seed).digest()

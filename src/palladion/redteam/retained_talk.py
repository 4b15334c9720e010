"""What is retained of the texts that clients asked a language model (`retention.texts`): calibrated on, and replayed.

What is retained is no full record: of equal queries the first, and of a client who asked much a random part
(`palladion.ledger.bodies`). Of such a client nobody knows how fast it asked, so its times count for nothing there.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from palladion.access.pseudonyms import pseudonym
from palladion.errors import ConflictError
from palladion.gate.chat.kept import name_of, query_of
from palladion.ledger.bodies import FOLDER, Retained, read_retained
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.redteam.calibrate import Plan, Progress
from palladion.redteam.calibrate_texts import calibrate_talk
from palladion.redteam.chosen import read_choice
from palladion.redteam.recorded_talk import TALK_BYTES_MAX, RecordedTalker
from palladion.redteam.retained import Retainees
from palladion.registry import Client
from palladion.watch.calibration import QUERIES_OF_CLIENT_MIN
from palladion.watch.text.calibration import TextCalibration
from palladion.watch.text.query import NOT_SAID, Conversation

_SEED = 1  # of the order in which clients are taken, which says who is left out where not all fit


def calibrate_retained_talk(
    installation: Installation,
    model: str,
    plan: Plan,
    *,
    actor: str,
    progress: Progress,
    without: Sequence[str] = (),
) -> tuple[TextCalibration, str, Receipt, Retainees]:
    """`calibrate_talk` on the retained clients of a language model, but those `without`; also what became of them.

    Raises ConflictError where nothing is retained, NotFoundError where nothing is of one that was to be left out; else
    as `calibrate_talk`.
    """
    talkers, found = read_retained_talk(installation, model, plan, progress=progress, without=without)
    if not talkers:
        raise _nothing(model)
    details = {"retained": found.used, "left_out": found.left_out, "without": found.named}
    made = calibrate_talk(installation, model, talkers, plan, actor=actor, progress=progress, details=details)
    return (*made, found)


def read_retained_talk(
    installation: Installation,
    model: str,
    plan: Plan,
    *,
    progress: Progress,
    without: Sequence[str] = (),
) -> tuple[list[RecordedTalker], Retainees]:
    """The clients whose texts are retained, each with its requests in order, and what is to be said of them.

    Those who are left out are not among them; those with hardly any text are, and do not count as used.

    Raises NotFoundError where nothing is retained of one of `without`, FormatError or TamperError for a file that is
    not ours.
    """
    choice = read_choice(installation, without)
    talkers: list[RecordedTalker] = []
    few = thinned = characters = 0
    complete = True
    for client, kept in _each(installation, model, plan.seed, progress):
        if not choice.counts(client.id):
            continue
        talker = _talker(client, kept)
        characters += _characters(talker)
        if characters > TALK_BYTES_MAX:
            complete = False
            break
        few += len({(query.text, query.parameters) for query in talker.conversation.queries}) < QUERIES_OF_CLIENT_MIN
        thinned += kept.level > 0
        talkers.append(_untimed(talker) if kept.level > 0 else talker)
    left_out = choice.left_out(complete=complete)
    found = Retainees(name_of(model), len(talkers) - few, left_out.left_out, few, thinned, left_out.named)
    return talkers, found


@dataclass(frozen=True, eq=False)
class RetainedTalk:
    """What is retained of a language model's texts, of every client, each with its requests in order of time.

    `thinned` clients asked more than was kept, `undated` requests were left out because nobody knows when they were
    asked, `left_over` clients because not all fit into memory.
    """

    source: str
    talkers: Sequence[RecordedTalker]
    thinned: int
    undated: int
    left_over: int


def read_talk_to_replay(installation: Installation, model: str, *, progress: Progress) -> RetainedTalk:
    """Everything that is retained of what clients asked a language model. Raises ConflictError where nothing is."""
    talkers: list[RecordedTalker] = []
    thinned = undated = left_over = characters = 0
    for client, kept in _each(installation, model, _SEED, progress):
        talker = _talker(client, kept)
        if characters + _characters(talker) > TALK_BYTES_MAX:
            left_over += 1
            continue
        characters += _characters(talker)
        queries = talker.conversation.queries
        dated = sorted((query for query in queries if math.isfinite(query.at)), key=lambda query: query.at)
        undated += len(queries) - len(dated)
        thinned += kept.level > 0
        talkers.append(replace(talker, conversation=Conversation(dated)))
    if not talkers:
        raise _nothing(model)
    return RetainedTalk(name_of(model), talkers, thinned, undated, left_over)


def _each(installation: Installation, model: str, seed: int, progress: Progress) -> Iterator[tuple[Client, Retained]]:
    """Every client of whom texts are retained, in random order, so that those who fit are a fair sample of all."""
    with installation.open_registry() as registry, registry.read() as records:
        clients = records.clients.registered()  # what end users asked is retained as their reseller's
    gate, folder = installation.open_gate_root(), installation.paths.directory / FOLDER
    names, key, source = gate.derive("pseudonyms"), gate.derive("body-cipher"), name_of(model)
    for done, index in enumerate(np.random.default_rng(seed).permutation(len(clients)).tolist()):
        progress(done, len(clients), "retained texts")
        kept = read_retained(folder, key, pseudonym(names, clients[index].id), source)
        if kept.bodies:
            yield clients[index], kept


def _talker(client: Client, kept: Retained) -> RecordedTalker:
    queries = [query_of(body) for body in kept.bodies]
    return RecordedTalker(f"{client.organisation}/{client.name}", Conversation(queries))


def _untimed(talker: RecordedTalker) -> RecordedTalker:
    queries = [replace(query, at=NOT_SAID) for query in talker.conversation.queries]
    return replace(talker, conversation=Conversation(queries))


def _characters(talker: RecordedTalker) -> int:
    return sum(len(query.text) for query in talker.conversation.queries)


def _nothing(model: str) -> ConflictError:
    return ConflictError(
        f"nothing is retained of what clients asked {model}",
        "a gate keeps it where retention.texts is true and retention.queries above 0",
    )

"""Makes a calibration for a language model: of recorded clients where there are some, else of simulated ones.

The model is not asked: what the watch looks at is what clients send. The calibration is written, recorded, and used by
a gate whose policy names its digest.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from palladion import files
from palladion.errors import PalladionError
from palladion.gate.chat.calibrated import check_calibrations, open_encoder, path_of
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.redteam.calibrate import (
    FEW_CLIENTS_MIN,
    FEW_FITTED_MIN,
    FIT_SHARE,
    Plan,
    Progress,
    left_for_thresholds,
)
from palladion.redteam.prompts import Prompts
from palladion.redteam.recorded_talk import RecordedTalker, has_prompts, organisations_of, prompts_of
from palladion.redteam.talk import honest_households, honest_talkers
from palladion.watch.calibration import MEMBER_SIZES, QUERIES_OF_CLIENT_MIN, REAL_CLIENTS_MIN, About
from palladion.watch.suspicion import CLIENTS_MIN, CORRELATION
from palladion.watch.text.calibration import TextCalibration, calibrate_texts
from palladion.watch.text.calibration_file import encode_text_calibration
from palladion.watch.text.encoder import Encoder
from palladion.watch.text.instruments import TextInstruments
from palladion.watch.text.query import Conversation, Parameters

THREADS_MAX = 32  # texts at once: more cores than that wait for what Python does
VECTORS_KNOWN = 65_536  # while a model is calibrated: of the clients that are fitted to, each text is looked at twice

_Item = TypeVar("_Item")


def calibrate_model(
    installation: Installation,
    model: str,
    prompts: Prompts,
    plan: Plan,
    *,
    actor: str,
    progress: Progress,
    front_ends: float = 0.0,
) -> tuple[TextCalibration, str, Receipt]:
    """Calibrate the watch of a language model on talk made of `prompts`, write the calibration and record it.

    Of the simulated clients a share are `front_ends` (`manners.front_end`), which is recorded. Where the policy names
    an encoder for the model, texts are looked at by it as well. Returns the digest as well, which the policy has to
    name. Raises PalladionError where the prompts are too few or the encoder is none, ValueError for no share.
    """
    if not 0 <= front_ends <= 1:
        raise ValueError(f"front_ends is a share of the clients from 0 to 1, got {front_ends}")
    try:
        with _encoder(installation, model) as encoder:
            about = _about(installation, model, plan)
            calibration = _simulated(about, prompts, plan, progress, encoder, front_ends=front_ends)
    except ValueError as error:
        raise PalladionError(f"these prompts cannot be calibrated on: {error}") from None
    told = {"front_ends": f"{front_ends:g}"} if front_ends else {}
    return calibration, *_written(installation, model, calibration, actor, told)


def calibrate_talk(
    installation: Installation,
    model: str,
    talkers: Sequence[RecordedTalker],
    plan: Plan,
    *,
    actor: str,
    progress: Progress,
    details: Mapping[str, int] = MappingProxyType({}),
) -> tuple[TextCalibration, str, Receipt]:
    """The same on what real clients asked: thresholds are theirs from `FEW_CLIENTS_MIN` of them on.

    Below `REAL_CLIENTS_MIN` of these, simulated ones are fitted to as well; where there are fewer than so few, all are
    simulated, and draw on their texts. Of each real client the first `plan.horizon` distinct requests count, and who
    asked fewer than `QUERIES_OF_CLIENT_MIN` does not. Raises PalladionError where they are too few.
    """
    about = _about(installation, model, plan)
    enough = [talker for talker in talkers if _distinct(talker.conversation) >= QUERIES_OF_CLIENT_MIN]
    try:
        with _encoder(installation, model) as encoder:
            if left_for_thresholds(len(enough)) >= REAL_CLIENTS_MIN:
                calibration = _real(about, enough, plan, progress, encoder)
            else:
                # a few of them, in an order that says nothing of them
                mixed = _mixed(enough, plan)
                fitted = _fitted_of_few(mixed)
                if fitted:
                    calibration = _few(about, mixed, plan, progress, encoder, fitted=fitted)
                else:
                    calibration = _simulated(about, prompts_of(talkers), plan, progress, encoder)
    except ValueError as error:
        raise PalladionError(f"this talk cannot be calibrated on: {error}") from None
    return calibration, *_written(installation, model, calibration, actor, {"talk": len(talkers), **details})


@contextmanager
def _encoder(installation: Installation, model: str) -> Iterator[Encoder | None]:
    """The encoder that the policy names for a model, at work on as many texts at once as there are cores."""
    check_calibrations(installation.policy)
    route = next((route for route in installation.policy.route if route.model == model and route.encoder), None)
    if route is None:
        yield None
        return
    threads = min(THREADS_MAX, len(os.sched_getaffinity(0)))
    encoder = open_encoder(installation.paths.home, route, threads=threads, known=VECTORS_KNOWN)
    try:
        yield encoder
    finally:
        encoder.close()


def _about(installation: Installation, model: str, plan: Plan) -> About:
    # it has no version, and so no content that it would be bound to: the policy binds the file by its digest
    return About(
        model,
        0,
        "",
        simulated=True,
        horizon=plan.horizon,
        group_horizon=plan.group_horizon,
        seed=plan.seed,
        created=installation.clock.now(),
    )


def _written(
    installation: Installation, model: str, calibration: TextCalibration, actor: str, told: Mapping[str, str | int]
) -> tuple[str, Receipt]:
    data = encode_text_calibration(calibration)
    digest = sha256(data).hexdigest()
    target = path_of(installation.paths.calibrations, digest)
    with installation.recording(installation.open_gate_root()) as (ledger, _):
        files.make_private_directory(target.parent)
        files.write_atomically(target, data)
        made = calibration.about
        details = {
            "digest": digest,
            "simulated": made.simulated,
            "fitted": made.fitted,
            "clients": made.clients,
            "organisations": made.organisations,
            "seed": made.seed,
            **({} if calibration.encoder is None else calibration.encoder.digests._asdict()),
            **told,
        }
        receipt = ledger.append([Record("watch.calibrated", made.created, actor, model, details)])[0]
    return digest, receipt


def _simulated(
    about: About,
    prompts: Prompts,
    plan: Plan,
    progress: Progress,
    encoder: Encoder | None,
    *,
    front_ends: float = 0.0,
) -> TextCalibration:
    generator = np.random.default_rng(plan.seed)
    talkers = honest_talkers(prompts, plan.clients, plan.horizon, generator, front_ends=front_ends)
    clients = (talker.conversation for talker in _told(talkers, plan.clients, "simulated clients", progress))
    households = honest_households(
        prompts, plan.organisations, max(MEMBER_SIZES), plan.group_horizon, generator, correlation=CORRELATION
    )
    organisations = (
        [member.conversation for member in members]
        for members in _told(households, plan.organisations, "simulated organisations", progress)
    )
    fitting = list(islice(clients, max(CLIENTS_MIN, int(plan.clients * FIT_SHARE))))
    return calibrate_texts(about, fitting, clients, organisations, generator, encoder=encoder)


def _real(
    about: About, talkers: Sequence[RecordedTalker], plan: Plan, progress: Progress, encoder: Encoder | None
) -> TextCalibration:
    generator = np.random.default_rng(plan.seed)
    talkers = _mixed(talkers, plan, generator)
    firsts = _told([_first(each.conversation, plan.horizon) for each in talkers], len(talkers), "clients", progress)
    fitted = len(talkers) - left_for_thresholds(len(talkers))
    fitting = list(islice(firsts, fitted))
    organisations = _made_up(talkers[fitted:], plan, progress, generator)
    about = replace(about, simulated=False, fitted_recorded=fitted)
    return calibrate_texts(about, fitting, firsts, organisations, generator, encoder=encoder)


def _few(
    about: About,
    talkers: Sequence[RecordedTalker],
    plan: Plan,
    progress: Progress,
    encoder: Encoder | None,
    *,
    fitted: int,
) -> TextCalibration:
    """Fit to the first of few real clients and to simulated ones of their texts, in two halves; thresholds are others'.

    As of arrays (`calibrate._halves`): whatever comes of the fit, no rate depends on it.
    """
    generator, others = np.random.default_rng([plan.seed, fitted]), talkers[fitted:]
    half, count = fitted // 2, max(CLIENTS_MIN, int(plan.clients * FIT_SHARE) // 2)
    halves = []
    for part in (talkers[:half], talkers[half:fitted]):
        made = honest_talkers(prompts_of(part), count, plan.horizon, generator)
        simulated = [talker.conversation for talker in _told(made, count, "simulated clients", progress)]
        halves.append([*(_first(each.conversation, plan.horizon) for each in part), *simulated])
    instruments = TextInstruments.fit(halves[0], generator, encoder, others=halves[1])
    firsts = _told([_first(each.conversation, plan.horizon) for each in others], len(others), "clients", progress)
    organisations = _made_up(others, plan, progress, generator)
    about = replace(about, simulated=False, fitted_recorded=fitted)
    fitting = [*halves[0], *halves[1]]
    return calibrate_texts(about, fitting, firsts, organisations, generator, encoder=encoder, instruments=instruments)


def _fitted_of_few(talkers: Sequence[RecordedTalker]) -> int:
    """How many of few recorded clients, the first, are fitted to; 0 where too few would be left, or hardly any talk.

    How many is decided by what they said themselves, so that those who come after them are exchangeable with any later
    client. Each half of them has to have texts that simulated clients can draw on.
    """
    for fitted in range(max(FEW_FITTED_MIN, int(len(talkers) * FIT_SHARE)), len(talkers)):
        if len(talkers) - fitted < FEW_CLIENTS_MIN - FEW_FITTED_MIN:
            break
        if all(any(map(has_prompts, part)) for part in (talkers[: fitted // 2], talkers[fitted // 2 : fitted])):
            return fitted
    return 0


def _mixed(
    talkers: Sequence[RecordedTalker], plan: Plan, generator: np.random.Generator | None = None
) -> list[RecordedTalker]:
    order = (generator or np.random.default_rng(plan.seed)).permutation(len(talkers))
    return [talkers[place] for place in order.tolist()]


def _made_up(
    talkers: Sequence[RecordedTalker], plan: Plan, progress: Progress, generator: np.random.Generator
) -> Iterator[list[Conversation]]:
    made_up = organisations_of(
        talkers, plan.organisations, max(MEMBER_SIZES), plan.group_horizon, generator, correlation=CORRELATION
    )
    return _told(made_up, plan.organisations, "made-up organisations", progress)


def _first(conversation: Conversation, horizon: int) -> Conversation:
    """The requests up to the `horizon`-th distinct one: of a program that repeats itself ten times as many."""
    seen: set[tuple[str, Parameters]] = set()
    for place, query in enumerate(conversation.queries):
        seen.add((query.text, query.parameters))
        if len(seen) == horizon:
            return Conversation(conversation.queries[: place + 1])
    return conversation


def _distinct(conversation: Conversation) -> int:
    return len({(query.text, query.parameters) for query in conversation.queries})


def _told(items: Iterable[_Item], total: int, stage: str, progress: Progress) -> Iterator[_Item]:
    for done, item in enumerate(items):
        progress(done, total, stage)
        yield item

"""A language model is calibrated on what is retained of its clients' texts: theirs, in order, and nobody left out's."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.errors import ConflictError, NotFoundError
from palladion.gate.chat.calibrated import read_calibration
from palladion.gate.chat.kept import arrays_of, name_of
from palladion.ledger.bodies import FOLDER, BodyWriter
from palladion.ledger.body import Body
from palladion.lifecycle.client_forget import forget_client
from palladion.lifecycle.clients import add_client, revoke_client, set_standing
from palladion.lifecycle.installation import Installation
from palladion.policy import RoutePolicy
from palladion.redteam import retained_talk
from palladion.redteam.calibrate import Plan
from palladion.redteam.retained_talk import calibrate_retained_talk, read_retained_talk, read_talk_to_replay
from palladion.watch.text.query import Query
from tests.lifecycle.installations import ACTOR, NOW, make
from tests.watch.talkers import MODEL, honest

pytestmark = pytest.mark.slow  # installations with dozens of clients

PLAN = Plan(clients=130, organisations=4, horizon=16, group_horizon=6, seed=3)
START = NOW.timestamp()


@pytest.fixture
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return make(tmp_path_factory.mktemp("talk")).installation


def retain(installation: Installation, asked: Mapping[str, Sequence[Query]], *, queries_max: int = 100) -> None:
    """Add clients, and keep what they asked as a gate does."""
    gate = installation.open_gate_root()
    writer = BodyWriter(installation.paths.directory / FOLDER, gate.derive("body-cipher"), queries_max=queries_max)
    for name, queries in asked.items():
        client, _, _ = add_client(installation, name, name, models=[], environment="test", expires=None, actor=ACTOR)
        bodies = []
        for number, query in enumerate(queries):
            feeds, came = arrays_of(query)
            inputs = {key: array[0] for key, array in feeds.items()}
            at = 0.0 if math.isnan(query.at) else query.at
            bodies.append(Body(f"{number:x}", 0, inputs, came[0], b"", 0.0, "contract", at))
        writer.append(pseudonym(gate.derive("pseudonyms"), client.id), name_of(MODEL), bodies)
    writer.close()


def timed(seed: int, queries: int = 24) -> list[Query]:
    return [replace(query, at=START + 40 * number) for number, query in enumerate(honest(seed, queries))]


def quiet(*_: object, **__: object) -> None:
    """Nobody looks at the progress."""


def test_every_client_comes_back_with_what_it_asked_in_order(installation: Installation) -> None:
    asked = {"acme": timed(1), "globex": timed(2), "few": timed(3)[:2], "none": []}
    retain(installation, asked)
    talkers, found = read_retained_talk(installation, MODEL, PLAN, progress=quiet)
    assert {talker.client: list(talker.conversation.queries) for talker in talkers} == {
        f"{name}/{name}": queries for name, queries in asked.items() if queries
    }
    assert (found.source, found.used, found.few, found.thinned, found.left_out) == (f"{MODEL}@texts", 2, 1, 0, 0)
    assert read_retained_talk(installation, "other", PLAN, progress=quiet)[0] == []


def test_of_who_asked_more_than_was_kept_the_times_count_for_nothing(installation: Installation) -> None:
    many = [Query(f"Who was king {number}?", at=START + number) for number in range(200)]
    retain(installation, {"acme": many, "globex": many[:20]}, queries_max=32)
    talkers, found = read_retained_talk(installation, MODEL, PLAN, progress=quiet)
    known = {talker.client: [math.isnan(query.at) for query in talker.conversation.queries] for talker in talkers}
    assert all(known["acme/acme"])
    assert len(known["acme/acme"]) <= 32
    assert known["globex/globex"] == [False] * 20
    assert found.thinned == 1


def test_who_may_be_a_thief_and_whom_a_person_names_are_left_out(installation: Installation) -> None:
    retain(installation, {name: timed(number) for number, name in enumerate(("acme", "globex", "initech"))})
    set_standing(installation, "acme", "acme", "suspended", reason="a thief", actor=ACTOR)
    talkers, found = read_retained_talk(installation, MODEL, PLAN, progress=quiet, without=["globex"])
    assert [talker.client for talker in talkers] == ["initech/initech"]
    assert (found.used, found.left_out, found.named, found.rate_hidden) == (1, 1, 1, 0.5)
    with pytest.raises(NotFoundError, match="nobody"):
        read_retained_talk(installation, MODEL, PLAN, progress=quiet, without=["nobody"])


def test_what_does_not_fit_into_memory_is_left_and_others_are_a_sample(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    retain(installation, {f"c{number}": timed(1) for number in range(4)})
    one = sum(len(query.text) for query in timed(1))
    monkeypatch.setattr(retained_talk, "TALK_BYTES_MAX", int(2.5 * one))
    talkers, _ = read_retained_talk(installation, MODEL, PLAN, progress=quiet)
    assert len(talkers) == 2


def test_who_is_forgotten_is_calibrated_on_no_more(installation: Installation) -> None:
    retain(installation, {"acme": timed(1), "globex": timed(2)})
    revoke_client(installation, "acme", "acme", actor=ACTOR)
    forget_client(installation, "acme", "acme", actor=ACTOR)
    talkers, _ = read_retained_talk(installation, MODEL, PLAN, progress=quiet)
    assert [talker.client for talker in talkers] == ["globex/globex"]


def test_the_calibration_is_one_that_a_route_can_name_and_the_ledger_says_of_whom(installation: Installation) -> None:
    retain(installation, {f"c{number}": timed(number) for number in range(44)})
    calibration, digest, _, found = calibrate_retained_talk(installation, MODEL, PLAN, actor=ACTOR, progress=quiet)
    route = RoutePolicy(model=MODEL, protocol="openai", upstream="http://127.0.0.1:1", calibration=digest)
    about = read_calibration(installation.paths.calibrations, route).about
    assert about == calibration.about
    assert (about.simulated, about.clients + about.fitted_recorded, found.used) == (False, 44, 44)
    (record,) = [json.loads(entry) for _, entry in installation.read_ledger().entries() if b"calibrated" in entry]
    told = record["details"]
    assert (told["retained"], told["left_out"], told["without"], told["digest"]) == (44, 0, 0, digest)


def test_all_that_is_retained_can_be_replayed_with_its_times(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [Query(f"Who was king {number}?", at=START + number) for number in range(200)]
    retain(installation, {"acme": many, "globex": [replace(many[3], at=math.nan), many[1], many[0]]}, queries_max=32)
    set_standing(installation, "acme", "acme", "suspended", reason="a thief", actor=ACTOR)
    found = read_talk_to_replay(installation, MODEL, progress=quiet)
    known = {talker.client: [query.at for query in talker.conversation.queries] for talker in found.talkers}
    assert known["globex/globex"] == [START, START + 1]
    assert known["acme/acme"] == sorted(known["acme/acme"])
    assert (found.source, found.thinned, found.undated, found.left_over) == (f"{MODEL}@texts", 1, 1, 0)
    monkeypatch.setattr(retained_talk, "TALK_BYTES_MAX", 100)
    assert read_talk_to_replay(installation, MODEL, progress=quiet).left_over == 1
    with pytest.raises(ConflictError, match="nothing is retained"):
        read_talk_to_replay(installation, "other", progress=quiet)


def test_without_anything_retained_there_is_nothing_to_calibrate_on(installation: Installation) -> None:
    with pytest.raises(ConflictError) as failure:
        calibrate_retained_talk(installation, MODEL, PLAN, actor=ACTOR, progress=quiet)
    assert "retention.texts" in str(failure.value.hints)

"""What is retained is traffic too: in order of time as the ledger has it, and with what it lacks told."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.errors import ConflictError
from palladion.ledger.bodies import FOLDER, BodyWriter
from palladion.ledger.body import Body
from palladion.ledger.record import Record
from palladion.lifecycle.open import find_version
from palladion.redteam import retained_traffic
from palladion.redteam.answering import Answering, open_subject
from palladion.redteam.replay import Replay, read_roster, replay_all
from palladion.redteam.retained_traffic import RetainedTraffic, read_retained_traffic
from tests.gate.gates import MODEL, House, make_house
from tests.lifecycle.installations import NOW

from .recordings import ENFORCE, WATCHING, calibrate_house

SCORES = np.array([0.6, 0.3, 0.1], np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> House:
    house = make_house(tmp_path_factory.mktemp("retained"))
    calibrate_house(house)
    return house


@pytest.fixture
def house(made: House, tmp_path: Path) -> House:
    return made.copy(tmp_path)


def retain(house: House, client: str, requests: dict[str, int], *, seconds: dict[str, float], name: str = "x") -> None:
    """Keep some rows of each request of a client, and record when it was answered, if at all."""
    gate, installation = house.root, house.installation
    who = pseudonym(gate.derive("pseudonyms"), house.ids[client])
    generator = np.random.default_rng(len(requests))
    bodies = [
        Body(
            request,
            row,
            {name: generator.standard_normal(4).astype(np.float32)},
            SCORES,
            generator.bytes(8),
            1.0,
            "contract",
        )
        for request, rows in requests.items()
        for row in range(rows)
    ]
    writer = BodyWriter(installation.paths.directory / FOLDER, gate.derive("body-cipher"), queries_max=100)
    writer.append(who, f"{MODEL}@1", bodies)
    writer.close()
    with installation.open_ledger(gate) as ledger:
        ledger.append(
            [
                Record(
                    "answer.given", NOW + timedelta(seconds=at), who, f"{MODEL}@1", {"request": request, "queries": 1}
                )
                for request, at in seconds.items()
            ]
        )


def read(house: House, version: str = f"{MODEL}@1") -> RetainedTraffic:
    return read_retained_traffic(
        house.installation, house.root, find_version(house.installation, version), lambda done, total, stage: None
    )


@pytest.mark.slow
def test_requests_come_in_order_of_time_with_their_rows_and_scores(house: House) -> None:
    retain(house, "acme", {"a1": 2, "a2": 1}, seconds={"a1": 5, "a2": 20})
    retain(house, "globex", {"g1": 1}, seconds={"g1": 10})
    found = read(house)
    assert [(item.at - NOW.timestamp(), len(item.inputs)) for item in found.requests] == [(5, 2), (10, 1), (20, 1)]
    assert found.requests[0].scores[""] == pytest.approx(np.stack([SCORES, SCORES]))
    assert (found.source, found.clients, found.thinned, found.undated, found.left_over) == (f"{MODEL}@1", 2, 0, 0, 0)


def test_queries_that_the_ledger_does_not_date_are_left_out_and_counted(house: House) -> None:
    retain(house, "acme", {"a1": 2, "a2": 3}, seconds={"a1": 5})
    found = read(house)
    assert ([len(item.inputs) for item in found.requests], found.undated) == ([2], 3)


def test_another_version_answers_itself(house: House) -> None:
    retain(house, "acme", {"a1": 1}, seconds={"a1": 5})
    assert read(house, f"{MODEL}@2").requests[0].scores == {}


def test_queries_kept_without_scores_are_answered_by_the_model(house: House) -> None:
    gate, who = house.root, pseudonym(house.root.derive("pseudonyms"), house.ids["acme"])
    retain(house, "acme", {"a1": 1}, seconds={"a1": 5, "b1": 6})
    writer = BodyWriter(house.installation.paths.directory / FOLDER, gate.derive("body-cipher"), queries_max=100)
    writer.append(who, f"{MODEL}@1", [Body("b1", 0, {"x": np.ones(4, np.float32)}, np.zeros(0), b"", 0.0, "label")])
    writer.close()
    assert [item.scores.keys() for item in read(house).requests] == [{"": 0}.keys(), {}.keys()]


def test_nothing_retained_is_said(house: House) -> None:
    with pytest.raises(ConflictError, match="nothing is retained"):
        read(house)


def test_clients_that_do_not_fit_into_memory_are_counted(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    retain(house, "acme", {"a1": 1}, seconds={"a1": 5})
    retain(house, "globex", {"g1": 1}, seconds={"g1": 10})
    monkeypatch.setattr(retained_traffic, "VALUES_MAX", 4)
    found = read(house)
    assert (found.clients, found.left_over) == (1, 1)


def test_a_replay_of_it_knows_the_clients_by_name(house: House) -> None:
    retain(house, "acme", {"a1": 1}, seconds={"a1": 5})
    installation = house.with_policy(ENFORCE, watch=WATCHING)
    subject = open_subject(installation, MODEL)
    roster = read_roster(house.installation, house.root)
    run = Replay(installation, house.root, subject, roster, installation.policy, enforce=True)
    assert replay_all(read(house).requests, Answering(subject, ENFORCE), [run]) == 1
    (course,) = run.outcome().courses
    assert (course.client, course.queries) == ("acme/acme", 1)

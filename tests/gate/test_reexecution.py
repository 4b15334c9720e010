"""Answers are computed again: what an honest server, a swapped model and a hidden channel look like."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.access.pseudonyms import pseudonym
from palladion.clock import ManualClock
from palladion.errors import ConflictError
from palladion.gate.reexecution import KIND, Outcome, _contract, _named, case_of, draw, reexecute
from palladion.gate.retention import Retention
from palladion.ledger.bodies import FOLDER, BodyWriter, body_path
from palladion.ledger.body import Body
from palladion.ledger.record import Record, decode_record
from palladion.model.read import read_memory
from palladion.model.run import open_session
from palladion.policy import RoutePolicy
from palladion.policy.watching import RetentionPolicy
from tests.lifecycle.installations import ACTOR, NOW
from tests.models import onnx_bytes

from .gates import MODEL, House, answer, make_house, open_gate, stub

ROWS = 120
Server = Callable[[NDArray[np.float32]], NDArray[np.float32]]
QUERIES = np.random.default_rng(5).standard_normal((ROWS, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return make_house(tmp_path_factory.mktemp("reexecution"))


def _model(seed: int) -> Server:
    session = open_session(read_memory({"m.onnx": onnx_bytes(seed)}))
    return lambda rows: np.asarray(session.run({"x": rows})["probabilities"])


def _answered(house: House, server: Server, *, clients: tuple[str, ...] = ("acme", "globex")) -> None:
    """What is retained of two clients, each of whom asked half; in place of what was."""
    folder, key = house.installation.paths.directory / FOLDER, house.root.derive("body-cipher")
    scores = server(QUERIES)
    writer = BodyWriter(folder, key, queries_max=5000)
    for number, name in enumerate(clients):
        who = pseudonym(house.root.derive("pseudonyms"), house.ids[name])
        body_path(folder, who, f"{MODEL}@1").unlink(missing_ok=True)
        part = range(number, ROWS, len(clients))
        bodies = [
            Body(f"r{row}", 0, {"x": QUERIES[row]}, scores[row], b"", 0.0, "label", NOW.timestamp() + row)
            for row in part
        ]
        writer.append(who, f"{MODEL}@1", bodies)
    writer.close()


def _again(house: House, server: Server, **options: Any) -> Outcome:
    _answered(house, server)
    return reexecute(house.installation, f"{MODEL}@1", actor=ACTOR, **options)


def _records(house: House) -> list[Record]:
    return [decode_record(data, what="it") for _, data in house.installation.read_ledger().entries()]


def test_an_honest_server_deviates_in_nothing_and_the_bound_is_said(house: House) -> None:
    outcome = _again(house, _model(1))
    assert (outcome.verdict, outcome.differs, outcome.requests) == ("same", False, [])
    assert (outcome.compared.rows, outcome.sample.of, outcome.sample.clients) == (ROWS, ROWS, 2)
    assert outcome.share_at_most == pytest.approx(1 - 0.05 ** (1 / ROWS))
    opened, record = _records(house)[-2:]
    assert (opened.kind, record.kind, record.subject, record.actor) == ("model.opened", KIND, f"{MODEL}@1", ACTOR)
    assert (record.details["verdict"], record.details["deviating"], record.details["computed_again"]) == (
        "same",
        0,
        ROWS,
    )
    assert case_of(house.installation, outcome, actor=ACTOR) is None


@pytest.mark.slow
def test_a_server_that_rounds_is_honest(house: House) -> None:
    outcome = _again(house, lambda rows: np.round(_model(1)(rows), 4))
    assert (outcome.verdict, outcome.tolerance.decimals) == ("same", 4)


def test_a_swapped_model_is_named_where_it_is_registered(house: House) -> None:
    outcome = _again(house, _model(2))
    assert (outcome.verdict, outcome.other) == ("other-version", 2)
    assert outcome.sentence.endswith(f"({MODEL}@2)")
    assert len(outcome.requests) == outcome.compared.count > ROWS / 2
    assert _records(house)[-1].details["other_version"] == 2
    # every version that was opened is on record
    assert [(item.kind, item.subject) for item in _records(house)[-3:]] == [
        ("model.opened", f"{MODEL}@1"),
        ("model.opened", f"{MODEL}@2"),
        (KIND, f"{MODEL}@1"),
    ]
    assert len(_records(house)[-1].details["requests"]) == 16


@pytest.mark.slow
def test_a_stranger_model_is_not(house: House) -> None:
    outcome = _again(house, _model(17))
    assert (outcome.verdict, outcome.other) == ("another-model", None)


def _hiding(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bits of something in the fourth digit of the highest score."""
    scores = _model(1)(rows).copy()
    bits = np.random.default_rng(3).integers(1, 16, len(scores))
    scores[np.arange(len(scores)), scores.argmax(axis=1)] += np.float32(1e-4) * bits
    return scores.astype(np.float32)


def test_bits_in_the_low_digits_of_scores_are_found(house: House) -> None:
    outcome = _again(house, _hiding)
    assert outcome.verdict == "hidden-digits"
    assert outcome.compared.bits > outcome.compared.bits_here + 3


def test_a_way_out_that_some_queries_open_is_found_and_makes_one_case(house: House) -> None:
    def server(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = _model(1)(rows).copy()
        scores[::10] = scores[::10, ::-1]
        return scores

    outcome = _again(house, server)
    assert outcome.verdict == "some-answers"
    assert set(outcome.requests) <= {f"r{row}" for row in range(0, ROWS, 10)}
    assert 0.05 < outcome.share_at_most < 0.2
    case = case_of(house.installation, outcome, actor=ACTOR)
    assert case is not None
    assert case.title == f"answers of {MODEL}@1 are not what it computes"
    assert _records(house)[-1].subject == f"incident:{case.id}"
    assert case_of(house.installation, outcome, actor=ACTOR) is None


@pytest.mark.slow
def test_another_tolerance_can_be_stated(house: House) -> None:
    def half(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return _model(1)(rows).astype(np.float16).astype(np.float32)

    assert _again(house, half).verdict == "hidden-digits"
    assert _again(house, half, tolerance=1e-3).verdict != "hidden-digits"
    assert _again(house, half, tolerance=1e-3).compared.count == 0


@pytest.mark.slow
def test_answers_with_other_shapes_are_of_another_model(house: House) -> None:
    outcome = _again(house, lambda rows: _model(1)(rows)[:, :2])
    assert (outcome.verdict, outcome.compared.count) == ("another-model", ROWS)


def test_a_server_may_call_inputs_and_outputs_as_it_likes(house: House) -> None:
    route = RoutePolicy(model=MODEL, scores_output="likelihoods")
    session = open_session(read_memory({"m.onnx": onnx_bytes(1)}))
    assert _contract(route, session).scores == "probabilities"
    assert _named(session, {"rows": QUERIES.astype(np.float64)})["x"].dtype == np.float32
    with pytest.raises(ConflictError, match="takes 1 inputs, and the server was asked with 2"):
        _named(session, {"a": QUERIES, "b": QUERIES})


def test_a_sample_is_drawn_at_random_from_all_clients(house: House) -> None:
    _answered(house, _model(1))
    version = f"{MODEL}@1"
    drawn = draw(house.installation, version, 30, random=Random(4))
    assert (len(drawn.bodies), drawn.of, drawn.unreadable) == (30, ROWS, 0)
    parts = {int(body.request[1:]) % 2 for body in drawn.bodies}
    assert parts == {0, 1}
    others = draw(house.installation, version, 30, random=Random(5))
    assert {body.request for body in drawn.bodies} != {body.request for body in others.bodies}
    since = NOW.fromtimestamp(NOW.timestamp() + ROWS - 10, NOW.tzinfo)
    assert draw(house.installation, version, 30, since=since).of == 10


@pytest.mark.slow
def test_a_file_that_cannot_be_read_is_counted_and_the_others_are_drawn(house: House) -> None:
    _answered(house, _model(1))
    who = pseudonym(house.root.derive("pseudonyms"), house.ids["acme"])
    path = body_path(house.installation.paths.directory / FOLDER, who, f"{MODEL}@1")
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(bytes(data))
    drawn = draw(house.installation, f"{MODEL}@1", ROWS)
    assert (drawn.unreadable, drawn.of, drawn.clients) == (1, ROWS // 2, 1)


@pytest.mark.slow
def test_without_anything_retained_there_is_nothing_to_say(house: House) -> None:
    with pytest.raises(ConflictError, match="no query to fraud@2 is retained"):
        reexecute(house.installation, f"{MODEL}@2", actor=ACTOR)
    with pytest.raises(ValueError, match="expected 1 to"):
        reexecute(house.installation, f"{MODEL}@1", sample=0, actor=ACTOR)
    _answered(house, lambda rows: np.zeros((len(rows), 0), np.float32))
    with pytest.raises(ConflictError, match="have no class scores"):
        reexecute(house.installation, f"{MODEL}@1", actor=ACTOR)


@pytest.mark.slow
def test_what_a_gate_kept_of_a_tampered_server_is_found(house: House) -> None:
    bench = open_gate(house, RoutePolicy(model=MODEL, mode="enforce", decimals=1))
    right = _model(1)

    def tampered(feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        scores = right(feeds["x"]).copy()
        scores[feeds["x"][:, 0] > 1] = (0.5, 0.25, 0.25)
        return {"probabilities": scores}

    folder, key = house.installation.paths.directory / FOLDER, house.root.derive("body-cipher")
    for name in ("acme", "globex"):
        who = pseudonym(house.root.derive("pseudonyms"), house.ids[name])
        body_path(folder, who, f"{MODEL}@1").unlink(missing_ok=True)

    async def ask() -> None:
        stages = bench.gate.stages
        stages.retention = Retention(folder, key, RetentionPolicy(), ManualClock(NOW))
        served = next(iter(bench.gate.served.values()))
        bench.gate.serve({served.route.route: replace(served, source=stub(bench, tampered))})
        answer(await bench.gate.handle(bench.request(QUERIES.tolist())))
        await stages.retention.close()

    asyncio.run(ask())
    outcome = reexecute(house.installation, f"{MODEL}@1", actor=ACTOR)
    assert outcome.verdict == "some-answers"
    assert outcome.compared.count == int((QUERIES[:, 0] > 1).sum())
    assert outcome.compared.rows == ROWS

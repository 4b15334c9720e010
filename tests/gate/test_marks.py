"""Marked answers: what a client gets, what is kept of it, and that neither leaves without the other."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from palladion.access.pseudonyms import pseudonym
from palladion.errors import PolicyError, StorageError
from palladion.gate.contract import Contract, make_contract
from palladion.gate.marks import AnswerMarks, Retainer, Turned, make_marks
from palladion.gate.served import Served, open_route
from palladion.ledger.bodies import FOLDER, BodyWriter, read_retained
from palladion.ledger.body import Body, cell_of
from palladion.lifecycle.open import find_version
from palladion.lifecycle.student import prove_student
from palladion.mark.answers.noise import client_key, flip_probability
from palladion.model.read import read_memory
from palladion.model.run import Session, open_session
from palladion.policy import RoutePolicy
from palladion.registry import Version
from palladion.watch.calibration import Calibration
from palladion.watch.features import VALUE_MAX
from tests.lifecycle.installations import ACTOR

from .gates import MODEL, PATH, Bench, House, StubSession, add_calibration, answer, open_gate, problem, session_of
from .marking import SEED, calibration_of

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many

MARKING = RoutePolicy(model=MODEL, mode="enforce", flipped=0.05)
ROWS = np.random.default_rng(SEED).standard_normal((200, 4)).astype(np.float32)
NAMES = [f"client {number}" for number in range(10)]


@pytest.fixture(scope="module")
def marked_house(house: House, tmp_path_factory: pytest.TempPathFactory) -> House:
    """A house whose model is calibrated."""
    copied = house.copy(tmp_path_factory.mktemp("marks"))
    session = session_of(open_route(copied.installation, RoutePolicy(model=MODEL)))
    content = find_version(copied.installation, MODEL).content_digest
    add_calibration(copied.installation, calibration_of(session, content))
    return copied


def _writer(house: House, folder: Path, *, queries_max: int = 5000) -> BodyWriter:
    return BodyWriter(folder / FOLDER, house.root.derive("body-cipher"), queries_max=queries_max)


def _open(house: House, folder: Path, route: RoutePolicy = MARKING) -> Bench:
    bench = open_gate(house, route)
    bench.gate.stages.retainer = Retainer(_writer(house, folder))
    return bench


def _bodies(house: House, folder: Path, client: str = "acme") -> list[Body]:
    name = pseudonym(house.root.derive("pseudonyms"), house.ids[client])
    return list(read_retained(folder / FOLDER, house.root.derive("body-cipher"), name, f"{MODEL}@1").bodies)


def _labels(document: dict[str, Any]) -> NDArray[np.int64]:
    labels: NDArray[np.int64] = np.array(document["outputs"]["probabilities"]).argmax(axis=1)
    return labels


def replace_route(route: RoutePolicy, **changes: Any) -> RoutePolicy:
    """A route with other settings."""
    return msgspec.structs.replace(route, **changes)


def test_some_labels_turn_and_all_scores_stay_probabilities(marked_house: House, tmp_path: Path) -> None:
    unmarked = answer(open_gate(marked_house, replace_route(MARKING, flipped=0.0)).ask(ROWS.tolist()))
    marked = answer(_open(marked_house, tmp_path).ask(ROWS.tolist()))
    turned = (_labels(unmarked) != _labels(marked)).mean()
    assert 0 < turned <= 0.1
    scores = np.array(marked["outputs"]["probabilities"])
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-6)
    assert (scores != np.array(unmarked["outputs"]["probabilities"])).any(axis=1).mean() > 0.9


def test_the_same_client_is_told_the_same_and_another_something_else(marked_house: House, tmp_path: Path) -> None:
    bench = _open(marked_house, tmp_path)
    first, again = (answer(bench.ask(ROWS[:50].tolist()))["outputs"] for _ in range(2))
    other = answer(bench.ask(ROWS[:50].tolist(), client="globex"))["outputs"]
    one_by_one = [answer(bench.ask([row]))["outputs"]["probabilities"][0] for row in ROWS[:50].tolist()]
    assert first == again
    assert first != other
    assert np.array_equal(first["probabilities"], one_by_one)


def test_an_answer_of_labels_is_the_highest_of_the_marked_scores(marked_house: House, tmp_path: Path) -> None:
    scores = answer(_open(marked_house, tmp_path).ask(ROWS.tolist()))
    labels = answer(_open(marked_house, tmp_path, replace_route(MARKING, answer="label")).ask(ROWS.tolist()))
    assert labels["outputs"] == {"label": _labels(scores).tolist()}


def test_what_is_kept_is_the_query_and_the_unmarked_answer(marked_house: House, tmp_path: Path) -> None:
    unmarked = answer(open_gate(marked_house, replace_route(MARKING, flipped=0.0)).ask(ROWS[:20].tolist()))
    bench = _open(marked_house, tmp_path)
    bench.put("throttled")
    bench.ask(ROWS[:20].tolist())
    kept = _bodies(marked_house, tmp_path)
    rows = [body.row for body in kept]
    # of queries that share their noise the first
    assert rows == sorted(rows)
    assert len({cell_of(body) for body in kept}) == len(rows) > 10
    assert np.array_equal([body.inputs["x"] for body in kept], ROWS[rows])
    assert np.array_equal([body.scores.tolist() for body in kept], np.array(unmarked["outputs"]["probabilities"])[rows])
    assert {body.disclosed for body in kept} == {"reduced"}
    assert {body.request for body in kept} == {bench.journal.records[-1].details["request"]}
    assert {len(body.query_hash) for body in kept} == {16}
    assert _bodies(marked_house, tmp_path, "globex") == []


def test_the_watch_sees_what_the_model_said(marked_house: House, tmp_path: Path, monkeypatch: Any) -> None:
    bench = _open(marked_house, tmp_path)
    seen: list[NDArray[np.float64]] = []
    real = bench.watch.observe_all

    def observe_all(model: str, asked: Any, *, now: float) -> Any:
        seen.extend(item.scores for item in asked)
        return real(model, asked, now=now)

    monkeypatch.setattr(bench.watch, "observe_all", observe_all)
    bench.ask(ROWS[:20].tolist())
    bench.change_served(marks=None)
    assert np.allclose(seen[0], answer(bench.ask(ROWS[:20].tolist()))["outputs"]["probabilities"])


def test_no_record_tells_which_label_turned(marked_house: House, tmp_path: Path) -> None:
    plain, marking = open_gate(marked_house, replace_route(MARKING, flipped=0.0)), _open(marked_house, tmp_path)
    for bench in (plain, marking):
        bench.ask(ROWS.tolist())
    assert marking.gate.stages.flipped > 0
    assert marking.journal.records[-1].details.keys() == plain.journal.records[-1].details.keys()


class _BrokenWriter(BodyWriter):
    def append(self, *_: object) -> None:
        raise StorageError("the disk is full")


def test_an_answer_whose_bodies_cannot_be_kept_does_not_leave_and_is_told_once(
    marked_house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = _open(marked_house, tmp_path)
    folder = tmp_path / FOLDER
    bench.gate.stages.retainer = Retainer(_BrokenWriter(folder, bytes(32), queries_max=1))
    with caplog.at_level(logging.ERROR, "palladion.gate"):
        assert [problem(bench.ask()) for _ in range(2)] == ["unrecorded"] * 2
    assert [record.getMessage() for record in caplog.records] == [
        "bodies cannot be kept, so no marked answer is given: the disk is full"
    ]
    bench.gate.stages.retainer = None
    assert problem(bench.ask()) == "unrecorded"


def test_an_answer_that_could_not_be_recorded_does_not_leave_either(marked_house: House, tmp_path: Path) -> None:
    bench = _open(marked_house, tmp_path)
    bench.journal.error = StorageError("no")
    assert problem(bench.ask()) == "unrecorded"


def test_bodies_are_on_the_disk_when_the_retainer_is_closed(house: House, tmp_path: Path) -> None:
    body = Body("r", 0, {"x": ROWS[0]}, np.ones(3), bytes(16), 0.1, "contract")

    async def keep() -> None:
        retainer = Retainer(_writer(house, tmp_path))
        await retainer.keep("client:" + "0" * 20, f"{MODEL}@1", [body])
        await retainer.sync()
        await retainer.close()

    asyncio.run(keep())
    kept = read_retained(tmp_path / FOLDER, house.root.derive("body-cipher"), "client:" + "0" * 20, f"{MODEL}@1")
    assert len(kept.bodies) == 1


class _SecondBroken(BodyWriter):
    calls = 0
    synced_after = 0

    def append(self, *arguments: Any) -> None:
        self.calls += 1
        if self.calls == 2:
            raise StorageError("the disk is full")
        super().append(*arguments)

    def sync(self) -> None:
        self.synced_after = self.calls
        super().sync()


def test_of_requests_that_come_together_each_is_told_what_became_of_its_own(house: House, tmp_path: Path) -> None:
    writer = _SecondBroken(tmp_path / FOLDER, house.root.derive("body-cipher"), queries_max=50)
    name = "client:" + "0" * 20

    async def keep() -> list[object]:
        retainer = Retainer(writer)
        handed = [
            retainer.keep(
                name, f"{MODEL}@1", [Body(f"r{number}", 0, {"x": ROWS[0]}, ROWS[number], bytes(16), 0.1, "contract")]
            )
            for number in range(4)
        ]
        handed[2].cancel()
        # what was handed over in this turn is written before the sync
        await retainer.sync()
        outcomes = await asyncio.gather(*handed, return_exceptions=True)
        await retainer.close()
        return [type(outcome) for outcome in outcomes]

    assert asyncio.run(asyncio.wait_for(keep(), 30)) == [type(None), StorageError, asyncio.CancelledError, type(None)]
    kept = read_retained(tmp_path / FOLDER, house.root.derive("body-cipher"), name, f"{MODEL}@1").bodies
    assert "r1" not in {body.request for body in kept}
    assert kept[0].request == "r0"
    assert writer.synced_after == writer.calls == 4


def test_a_student_of_one_account_names_it(marked_house: House, tmp_path: Path) -> None:
    house = marked_house.copy(tmp_path)
    bench = _open(house, house.installation.paths.directory, replace_route(MARKING, answer="label", flipped=0.1))
    rows = np.random.default_rng(SEED + 3).standard_normal((2000, 4)).astype(np.float32)
    learned: dict[bytes, int] = {}
    for client in ("globex", "acme"):
        for start in range(0, len(rows), 250):
            part = rows[start : start + 250]
            bench.clock.advance(timedelta(minutes=1))
            labels = answer(bench.ask(part.tolist(), client=client))["outputs"]["label"]
            learned.update(zip(map(np.ndarray.tobytes, part), labels, strict=True))

    def ask(feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        return np.array([learned[row.tobytes()] for row in feeds["x"]])

    first, second = prove_student(house.installation, ask, suspect="thief.onnx", digest="ab" * 32, actor=ACTOR)
    assert first.traced is not None
    assert (first.client.name, first.named, first.queries) == ("acme", True, first.traced.noises)
    assert (second.client.name, second.named, second.comparable) == ("globex", False, True)
    assert second.log10_p > -1


# --- how much turns


def _marks(house: House, route: RoutePolicy = MARKING) -> AnswerMarks:
    marks = open_route(house.installation, route).marks
    assert marks is not None
    return marks


def test_over_all_secrets_as_many_labels_turn_as_the_policy_says(marked_house: House) -> None:
    served = open_route(marked_house.installation, MARKING)
    assert served.marks is not None
    rows = np.random.default_rng(SEED + 1).standard_normal((2000, 4)).astype(np.float32)
    outputs = session_of(served).run({"x": rows})
    marked = [served.marks.mark(outputs, rows.astype(float), str(client), trusted=False) for client in range(10)]
    assert sum(item.flipped for item in marked) / 20_000 == pytest.approx(0.05, abs=0.015)


def test_a_trusted_client_that_asks_what_turns_easily_gets_no_more_turned_labels(marked_house: House) -> None:
    served = open_route(marked_house.installation, MARKING)
    marks = served.marks
    assert marks is not None
    rows = np.random.default_rng(SEED + 2).standard_normal((1000, 4)).astype(np.float32)
    outputs = {"probabilities": np.tile(np.array([[0.4, 0.4, 0.2]], np.float32), (1000, 1))}
    asked = {
        trusted: [marks.mark(outputs, rows.astype(float), name, trusted=trusted) for name in NAMES]
        for trusted in (True, False)
    }
    # 0.05 of 1000, three deviations of 7 and three at the start: what turns beyond it is chance, which no bound holds
    assert all(60 < marks.turned[name].expected <= 50 + 3 * 50**0.5 + 3 for name in NAMES)
    mean = {trusted: sum(answer.flipped for answer in answers) / len(NAMES) for trusted, answers in asked.items()}
    assert 55 < mean[True] < 95  # the mean of ten has a deviation of 4
    assert mean[False] > 400  # and here one of 20 about 500


def test_what_was_allowed_before_counts(marked_house: House) -> None:
    marks = _marks(marked_house)
    fresh, spent = Turned(), Turned(answers=100, expected=100.0)
    assert marks._allowed(fresh, np.full(3, 0.5)).all()
    assert not marks._allowed(spent, np.full(3, 0.5)).any()
    assert (spent.answers, spent.expected) == (103, 100.0)


# --- models with an output for labels


def _labelled(names: Sequence[Any], *, by_argmax: bool = True) -> bytes:
    """The linear classifier of `onnx_bytes`, with a label for each row as scikit-learn's exports have it."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["probabilities"]),
        helper.make_node("ArgMax" if by_argmax else "ArgMin", ["raw"], ["column"], axis=1, keepdims=0),
        helper.make_node("Gather", ["names", "column"], ["named"]),
    ]
    text = isinstance(names[0], str)
    constant = (
        helper.make_tensor("names", TensorProto.STRING, [3], [name.encode() for name in names])
        if text
        else numpy_helper.from_array(np.array(names, np.int64), "names")
    )
    kind = TensorProto.STRING if text else TensorProto.INT64
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [
            helper.make_tensor_value_info("named", kind, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 3]),
        ],
        [numpy_helper.from_array(weights, "weights"), constant],
    )
    model: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    onnx.checker.check_model(onnx.load_from_string(model))
    return model


def _made(house: House, data: bytes, route: RoutePolicy = MARKING) -> tuple[AnswerMarks | None, Session, Contract]:
    session = open_session(read_memory({"m.onnx": data}))
    contract = make_contract(route, session.outputs)
    version = find_version(house.installation, MODEL)
    calibration = calibration_of(session, version.content_digest)
    marks = make_marks(route, bytes(32), version, session=session, contract=contract, calibration=calibration)
    return marks, session, contract


@pytest.mark.parametrize("names", [["no", "perhaps", "yes"], [30, 10, 20]], ids=["texts", "numbers"])
def test_the_models_own_labels_follow_the_marked_scores(house: House, names: list[Any]) -> None:
    marks, session, contract = _made(house, _labelled(names))
    assert marks is not None
    assert marks.labels == names
    outputs = session.run({"x": ROWS})
    marked = marks.mark(outputs, ROWS.astype(float), "acme", trusted=True)
    assert marked.flipped > 0
    assert [names[column] for column in marked.outputs["probabilities"].argmax(axis=1)] == marked.outputs[
        "named"
    ].tolist()
    assert (marked.outputs["named"] != outputs["named"]).sum() == marked.flipped
    assert contract.label == "named"


def test_a_row_whose_label_is_another_than_that_of_its_highest_score_is_left_alone(house: House) -> None:
    marks, session, _ = _made(house, _labelled([0, 1, 2]))
    assert marks is not None
    outputs = session.run({"x": ROWS})
    odd = {**outputs, "named": (outputs["named"] + 1) % 3}
    marked = marks.mark(odd, ROWS.astype(float), "acme", trusted=True)
    assert (marked.flipped, max(marked.strengths)) == (0, 0.0)
    assert np.array_equal(marked.outputs["probabilities"], outputs["probabilities"])


@pytest.mark.parametrize("names", [["no", "perhaps", "yes"], [30, 10, 20]], ids=["texts", "numbers"])
@pytest.mark.parametrize("trusted", [True, False])
def test_rows_that_come_one_by_one_are_answered_as_all_together(house: House, names: list[Any], trusted: bool) -> None:
    one_by_one, session, _ = _made(house, _labelled(names))
    together, _, _ = _made(house, _labelled(names))
    assert one_by_one is not None
    assert together is not None
    outputs = session.run({"x": ROWS})
    outputs["named"][::7] = outputs["named"][0]  # some labels are not those of the highest score
    every = together.mark(outputs, ROWS.astype(float), "acme", trusted=trusted)
    turned = 0
    for row in range(len(ROWS)):
        single = {name: values[row : row + 1] for name, values in outputs.items()}
        before = {name: values.copy() for name, values in single.items()}
        marked = one_by_one.mark(single, ROWS[row : row + 1].astype(float), "acme", trusted=trusted)
        assert marked.outputs["probabilities"].tobytes() == every.outputs["probabilities"][row].tobytes()
        assert marked.outputs["named"].tolist() == [every.outputs["named"][row]]
        assert (*marked.strengths, *marked.query_hashes) == (every.strengths[row], every.query_hashes[row])
        # what the model said stays as it was: it is what was observed, and what is kept
        assert all(np.array_equal(single[name], before[name]) for name in single)
        turned += marked.flipped
    assert turned == every.flipped > 0
    assert 0.0 in every.strengths
    assert vars(one_by_one.turned["acme"]) == vars(together.turned["acme"])


def test_scores_that_are_no_numbers_are_answered_as_they_are(house: House) -> None:
    marks, session, _ = _made(house, _labelled([0, 1, 2]))
    assert marks is not None
    outputs = session.run({"x": ROWS[:2]})
    outputs["probabilities"][0] = np.nan
    marked = marks.mark(outputs, ROWS[:2].astype(float), "acme", trusted=False)
    assert np.isnan(marked.outputs["probabilities"][0]).all()
    assert not np.array_equal(marked.outputs["probabilities"][1], outputs["probabilities"][1])


def test_a_query_beyond_what_the_watch_clips_is_marked_as_the_clipped_one(house: House) -> None:
    marks, session, _ = _made(house, _labelled([0, 1, 2]))
    assert marks is not None
    outputs = session.run({"x": ROWS[:2]})
    rows = ROWS[:2].astype(float)
    wild, clipped = rows.copy(), rows.copy()
    wild[:, 1], clipped[:, 1] = 1e300, VALUE_MAX
    wild[:, 2], clipped[:, 2] = np.nan, 0.0
    found = [marks.mark(outputs, inputs, "acme", trusted=False).query_hashes for inputs in (wild, clipped, rows)]
    assert found[0] == found[1] != found[2]


# --- what cannot be marked


def test_without_a_share_there_are_no_marks(house: House) -> None:
    assert open_route(house.installation, RoutePolicy(model=MODEL)).marks is None


def test_a_route_without_a_calibration_is_refused(house: House) -> None:
    with pytest.raises(
        PolicyError, match=r"cannot mark answers \(flipped = 0.05\): version 1 of fraud is not cal"
    ) as caught:
        open_route(house.installation, MARKING)
    assert caught.value.hints == (f"palladion watch calibrate {MODEL}@1",)


def _make(house: House, session: Session, contract: Contract, calibration: Calibration) -> AnswerMarks | None:
    version: Version = find_version(house.installation, MODEL)
    return make_marks(MARKING, bytes(32), version, session=session, contract=contract, calibration=calibration)


@pytest.mark.parametrize("kind", ["numbers", "classes"])
def test_a_model_without_class_scores_is_refused(marked_house: House, kind: Any) -> None:
    served = open_route(marked_house.installation, MARKING)
    assert served.calibration is not None
    contract = replace(served.contract, kind=kind, scores="probabilities" if kind == "numbers" else None)
    with pytest.raises(PolicyError, match="gives no class scores"):
        _make(marked_house, session_of(served), contract, served.calibration)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_labelled(["same", "same", "same"]), "which label belongs to which class score could not be found out"),
        (_labelled([0, 1, 2], by_argmax=False), "could not be found out"),
    ],
    ids=["one label", "another rule"],
)
def test_labels_that_do_not_follow_from_scores_are_refused(house: House, data: bytes, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        _made(house, data)


def test_a_label_that_changes_while_the_highest_score_stays_is_refused(house: House) -> None:
    session = open_session(read_memory({"m.onnx": _labelled([0, 1, 2])}))
    calibration = calibration_of(session, "0" * 64)
    asked: list[int] = []

    def waver(_: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        asked.append(len(asked))
        return {"probabilities": np.array([[0.2, 0.7, 0.1]]), "named": np.array(asked[-1:])}

    with pytest.raises(PolicyError, match="the label 1 is not the one of the highest score"):
        _make(house, StubSession(session, waver), make_contract(MARKING, session.outputs), calibration)


def test_a_model_that_fails_when_it_is_asked_for_its_labels_is_refused(house: House) -> None:
    session = open_session(read_memory({"m.onnx": _labelled([0, 1, 2])}))
    calibration = calibration_of(session, "0" * 64)

    def fail(_: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        raise ValueError("no")

    with pytest.raises(PolicyError, match="cannot be asked for its labels: no"):
        _make(house, StubSession(session, fail), make_contract(MARKING, session.outputs), calibration)


def test_marks_of_a_hosted_route_are_those_of_its_client_and_version(marked_house: House) -> None:
    served: Served = open_route(marked_house.installation, MARKING)
    marks = served.marks
    assert marks is not None
    root = marked_house.root.derive("answer-marks")
    assert marks.root == root
    keys = {client_key(root, client, MODEL, number) for client in ("a", "b") for number in (1, 2)}
    assert len(keys) == 4
    assert flip_probability(np.array([0.0]), marks.strength) == 0.5
    assert served.route.route == PATH

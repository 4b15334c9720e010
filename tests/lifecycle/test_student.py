"""Which account trained a suspect: asked of the retained queries, answered with a p-value, and on record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from palladion.access.pseudonyms import pseudonym
from palladion.errors import FormatError, NotFoundError
from palladion.ledger.bodies import FOLDER, BodyWriter, body_path
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle.clients import add_client, revoke_client
from palladion.lifecycle.prove import LOG10_P_MAX
from palladion.lifecycle.student import BATCH_ROWS, FIXED_ROWS_MAX, Ask, StudentTest, asker, prove_student
from palladion.model.read import read_memory
from palladion.model.run import Port, Session, open_session
from tests.models import onnx_bytes

from .installations import ACTOR, Made, make
from .students import MODEL, NAMES, QUERIES, ROWS, answered, bodies, client_id, learned, marked, unmarked

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return answered(tmp_path_factory.mktemp("student"))


def _prove(made: Made, ask: Ask, **options: Any) -> list[StudentTest]:
    return prove_student(made.installation, ask, suspect="thief.onnx", digest="ab" * 32, actor=ACTOR, **options)


def _last_record(made: Made) -> Record:
    return [decode_record(data, what="it") for _, data in made.installation.read_ledger().entries()][-1]


def test_the_account_that_trained_it_is_named_and_no_other(made: Made) -> None:
    tests = _prove(made, learned(marked(made, client_id(made, "acme"), unmarked())))
    assert [(item.client.name, item.version) for item in tests if item.named] == [("acme", f"{MODEL}@1")]
    assert len(tests) == 3
    assert all(item.log10_p > -1 for item in tests[1:])
    # three tests are paid for
    assert tests[0].traced is not None
    assert tests[0].log10_p == pytest.approx(tests[0].traced.log10_p + np.log10(6))
    assert [item.queries for item in tests if item.version == f"{MODEL}@2"] == [200]


def test_the_outcome_is_recorded_without_a_name(made: Made) -> None:
    tests = _prove(made, learned(marked(made, client_id(made, "acme"), unmarked())))
    record = _last_record(made)
    assert (record.kind, record.subject, record.actor) == ("mark.tested", "thief.onnx", ACTOR)
    assert (record.details["suspect"], record.details["looked_for"], record.details["tested"]) == (
        "ab" * 32,
        "student",
        3,
    )
    (strongest, *others) = record.details["clients"]
    assert (strongest["client"], strongest["named"]) == (tests[0].pseudonym, True)
    assert float(strongest["log10_p"]) == pytest.approx(tests[0].log10_p, abs=0.05)
    assert not any(item["named"] for item in others)
    assert "acme" not in str(record.details)


def test_clients_and_versions_can_be_chosen(made: Made) -> None:
    ask = learned(marked(made, client_id(made, "acme"), unmarked()))
    assert [item.client.name for item in _prove(made, ask, clients=[("beta", "beta")])] == ["beta", "beta"]
    assert [item.version for item in _prove(made, ask, versions=[f"{MODEL}@2"])] == [f"{MODEL}@2"]
    assert _prove(made, ask, clients=[("crow", "crow"), ("crow", "crow")]) == []
    with pytest.raises(NotFoundError):
        _prove(made, ask, clients=[("nobody", "nobody")])
    with pytest.raises(NotFoundError):
        _prove(made, ask, versions=["nothing@1"])


def test_a_client_that_was_revoked_is_tested_too(tmp_path: Path) -> None:
    made = make(tmp_path)
    client, _, _ = add_client(
        made.installation, "acme", "acme", models=[], environment="test", expires=None, actor=ACTOR
    )
    gate = made.installation.open_gate_root()
    writer = BodyWriter(made.installation.paths.directory / FOLDER, gate.derive("body-cipher"), queries_max=5000)
    writer.append(pseudonym(gate.derive("pseudonyms"), client.id), f"{MODEL}@1", bodies())
    writer.close()
    revoke_client(made.installation, "acme", "acme", actor=ACTOR)
    assert _prove(made, learned(marked(made, client.id, unmarked())))[0].named


def test_queries_without_marks_are_neither_asked_nor_paid_for(tmp_path: Path) -> None:
    made = make(tmp_path)
    gate, ids = made.installation.open_gate_root(), {}
    writer = BodyWriter(made.installation.paths.directory / FOLDER, gate.derive("body-cipher"), queries_max=5000)
    for name in ("acme", "beta"):
        client, _, _ = add_client(
            made.installation, name, name, models=[], environment="test", expires=None, actor=ACTOR
        )
        ids[name] = client.id
        plain = [
            replace(item, inputs={"x": item.inputs["x"] + np.float32(100)}, query_hash=b"", strength=0.0)
            for item in bodies()[:50]
        ]
        writer.append(pseudonym(gate.derive("pseudonyms"), client.id), f"{MODEL}@1", plain)
    writer.append(pseudonym(gate.derive("pseudonyms"), ids["acme"]), f"{MODEL}@1", bodies())
    writer.close()
    (only,) = _prove(made, learned(marked(made, ids["acme"], unmarked())))
    assert (only.client.name, only.queries, only.named) == ("acme", QUERIES, True)


def test_the_model_itself_and_a_stranger_name_nobody(made: Made) -> None:
    own = _prove(made, learned(unmarked().argmax(axis=1)))
    assert all(item.comparable and item.log10_p > LOG10_P_MAX for item in own)
    session = open_session(read_memory({"m.onnx": onnx_bytes(2)}))
    stranger = _prove(made, learned(session.run({"x": ROWS})["probabilities"].argmax(axis=1)))
    assert not any(item.named for item in stranger)


def _refusing(error: Exception) -> Ask:
    def ask(_: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        raise error

    return ask


@pytest.mark.parametrize(
    "ask",
    [
        _refusing(FormatError("other inputs")),
        _refusing(ValueError("other shapes")),
        lambda feeds: np.zeros(len(feeds["x"]), np.int64),
        lambda feeds: np.array(["a", None] * (len(feeds["x"]) // 2), object),
    ],
    ids=["inputs", "shapes", "one answer", "no labels"],
)
def test_a_suspect_that_does_not_answer_these_queries_cannot_be_compared(made: Made, ask: Ask) -> None:
    tests = _prove(made, ask)
    assert len(tests) == 3
    assert not any(item.comparable or item.named for item in tests)
    assert _last_record(made).details["tested"] == 0


def test_versions_that_could_not_be_compared_are_paid_for_too(made: Made) -> None:
    by_heart = learned(marked(made, client_id(made, "acme"), unmarked()))

    def ask(feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        if len(feeds["x"]) < QUERIES:
            raise FormatError("too few")
        return by_heart(feeds)

    tests = _prove(made, ask)
    assert sum(item.comparable for item in tests) == 2
    assert tests[0].traced is not None
    assert tests[0].log10_p == pytest.approx(tests[0].traced.log10_p + np.log10(6))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(lambda data: b"none", "holds no retained bodies"), (lambda data: data[:80] + b"?" + data[81:], "is damaged")],
    ids=["another file", "a changed byte"],
)
def test_a_client_whose_queries_are_damaged_is_named_and_the_others_are_tested(
    tmp_path: Path, damage: Callable[[bytes], bytes], reason: str
) -> None:
    made = make(tmp_path)
    gate = made.installation.open_gate_root()
    folder = made.installation.paths.directory / FOLDER
    writer = BodyWriter(folder, gate.derive("body-cipher"), queries_max=5000)
    names = {}
    for name in NAMES:
        client, _, _ = add_client(
            made.installation, name, name, models=[], environment="test", expires=None, actor=ACTOR
        )
        names[name] = pseudonym(gate.derive("pseudonyms"), client.id)
        writer.append(names[name], f"{MODEL}@1", bodies())
    writer.close()
    path = body_path(folder, names["acme"], f"{MODEL}@1")
    path.write_bytes(damage(path.read_bytes()))
    tests = _prove(made, learned(marked(made, client_id(made, "beta"), unmarked())))
    assert [(item.client.name, item.named, item.comparable) for item in tests] == [
        ("beta", True, True),
        ("acme", False, False),
    ]
    assert tests[0].unreadable is None
    assert tests[1].unreadable is not None
    assert reason in tests[1].unreadable
    details = _last_record(made).details
    assert details["unreadable"] == 1
    assert [item["readable"] for item in details["clients"]] == [True, False]


# --- asking a model that is open here


FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Output = tuple[str, Any, Sequence[Any]]


def _suspect(*, name: str = "x", width: Sequence[Any] = (None, 4), outputs: Sequence[Output] = ()) -> Session:
    outputs = outputs or [("scores", FLOAT, [None, 4])]
    nodes = [
        helper.make_node("ArgMax", [name], [output], axis=1, keepdims=0)
        if kind == INT64
        else helper.make_node("Softmax", [name], [output], axis=-1)
        for output, kind, _ in outputs
    ]
    graph = helper.make_graph(
        nodes,
        "suspect",
        [helper.make_tensor_value_info(name, FLOAT, list(width))],
        [helper.make_tensor_value_info(output, kind, list(shape)) for output, kind, shape in outputs],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return open_session(read_memory({"s.onnx": made.SerializeToString()}))


def test_a_suspect_is_asked_by_its_own_name_of_the_input_and_its_scores_are_preferred() -> None:
    outputs: list[Output] = [("label", INT64, [None]), ("scores", FLOAT, [None, 4])]
    found = asker(_suspect(name="pixels", outputs=outputs))({"x": ROWS})
    assert found.shape == (QUERIES, 4)
    assert found.sum(axis=1) == pytest.approx(np.ones(QUERIES), abs=1e-5)


def test_a_suspect_of_labels_alone_is_asked_for_them() -> None:
    found = asker(_suspect(outputs=[("label", INT64, [None])]))({"x": ROWS.astype(np.float64)})
    assert np.array_equal(found, ROWS.argmax(axis=1))


def test_more_queries_than_fit_are_asked_in_parts() -> None:
    rows = np.repeat(ROWS, 2, axis=0)
    assert len(rows) > BATCH_ROWS
    label = asker(_suspect(outputs=[("label", INT64, [None])]))
    assert np.array_equal(label({"x": rows}), rows.argmax(axis=1))
    one = asker(_suspect(width=(1, 4), outputs=[("label", INT64, [1])]))
    assert np.array_equal(one({"x": ROWS[:50]}), ROWS[:50].argmax(axis=1))


@pytest.mark.parametrize(("fixed", "rows"), [(3, 50), (32, 800), (64, 50), (1, 3)])
def test_a_suspect_that_takes_so_many_rows_at_once_is_asked_with_its_last_ones_filled_up(fixed: int, rows: int) -> None:
    suspect = _suspect(width=(fixed, 4), outputs=[("label", INT64, [fixed])])
    assert np.array_equal(asker(suspect)({"x": ROWS[:rows]}), ROWS[:rows].argmax(axis=1))
    scored = asker(_suspect(width=(fixed, 4), outputs=[("scores", FLOAT, [fixed, 4])]))({"x": ROWS[:rows]})
    assert np.array_equal(scored.argmax(axis=1), ROWS[:rows].argmax(axis=1))


def _of_texts() -> Session:
    nodes = [
        helper.make_node("Cast", ["x"], ["numbers"], to=FLOAT),
        helper.make_node("ArgMax", ["numbers"], ["label"], axis=1, keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.STRING, [None, 4])]
    graph = helper.make_graph(nodes, "s", inputs, [helper.make_tensor_value_info("label", INT64, [None])])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return open_session(read_memory({"s.onnx": made.SerializeToString()}))


class _Lying:
    """A runtime that gives one number for all rows."""

    def run(self, names: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        return [np.asarray(np.int64(3)) for _ in names]


def test_an_output_of_another_shape_than_it_declares_is_refused() -> None:
    lying = Session(_Lying(), (Port("x", "float32", (None, 4)),), (Port("label", "int64", (None,)),))
    with pytest.raises(FormatError, match=r"output label has the shape \(\) for 50 rows"):
        asker(lying)({"x": ROWS[:50]})


@pytest.mark.parametrize(
    "make_suspect",
    [
        _of_texts,
        lambda: _suspect(width=(0, 4), outputs=[("label", INT64, [None])]),
        lambda: _suspect(width=(FIXED_ROWS_MAX + 1, 4), outputs=[("label", INT64, [None])]),
    ],
    ids=["texts", "no row at once", "too many rows at once"],
)
def test_whatever_form_a_suspect_was_exported_in_a_record_says_that_it_was_tested(
    made: Made, make_suspect: Callable[[], Session]
) -> None:
    tests = _prove(made, asker(make_suspect()))
    assert [item.traced for item in tests] == [None] * 3
    assert _last_record(made).details["tested"] == 0


@pytest.mark.parametrize(
    ("make_suspect", "message"),
    [
        (lambda: _suspect(width=(None, 5)), "cannot reshape"),
        (lambda: _suspect(width=(0, 4)), "takes exactly 0 rows"),
        (lambda: _suspect(width=(FIXED_ROWS_MAX + 1, 4)), "takes exactly 16385 rows"),
        (_of_texts, "takes texts as x"),
    ],
    ids=["other width", "no row at once", "too many rows at once", "texts"],
)
def test_a_suspect_that_takes_other_inputs_says_so(make_suspect: Callable[[], Session], message: str) -> None:
    with pytest.raises((FormatError, ValueError), match=message):
        asker(make_suspect())({"x": ROWS[:50]})


def test_a_suspect_with_other_inputs_in_number_or_without_classes_says_so() -> None:
    with pytest.raises(FormatError, match="takes 1 inputs, our queries have 2"):
        asker(_suspect())({"x": ROWS, "y": ROWS})
    with pytest.raises(FormatError, match=r"none of the suspect's outputs \(scores\)"):
        asker(_suspect(width=(None, 1), outputs=[("scores", FLOAT, [None, 1])]))


def test_all_clients_together_are_on_record_unless_some_were_chosen(made: Made) -> None:
    ask = learned(marked(made, client_id(made, "acme"), unmarked()))
    _prove(made, ask)
    assert float(_last_record(made).details["together_log10_p"]) < -9
    _prove(made, ask, clients=[("acme", "acme")])
    assert "together_log10_p" not in _last_record(made).details

"""The gate's own JSON: what goes in, what comes out, and how a model describes itself."""

import msgspec
import numpy as np
import pytest

from palladion.gate.problems import Problem
from palladion.gate.protocols.predict import Predict
from palladion.gate.protocols.protocol import About
from palladion.model.run import STRING, Port

PATH = "/v1/models/fraud/predict"
X = Port("x", "float32", (None, 2))
COUNTRY = Port("country", STRING, ("n",))
ABOUT = About("fraud", "3", [X], [Port("probabilities", "float32", (None, 3))])


def test_a_route_has_one_path_for_asking_and_for_describing() -> None:
    protocol = Predict(PATH, [X], rows_max=2)
    assert protocol.paths == {PATH: "ask describe"}
    assert protocol.media_types == {b"application/json"}


def test_the_inputs_become_arrays_of_the_model() -> None:
    asked = Predict(PATH, [X, COUNTRY], rows_max=2).decode(b'{"inputs":{"x":[[1,2],[3,4]],"country":["de","fr"]}}', {})
    assert asked.rows == 2
    assert asked.feeds["x"].dtype == np.float32
    assert asked.feeds["country"].tolist() == ["de", "fr"]


@pytest.mark.parametrize(
    ("body", "field"),
    [(b'{"inputs":[[1]]}', "inputs"), (b'{"inputs":[["a",1]]}', "inputs[0][0]"), (b'{"inputs":[[1,2]],"id":1}', "id")],
)
def test_what_does_not_fit_is_told_with_its_field(body: bytes, field: str) -> None:
    with pytest.raises(Problem) as caught:
        Predict(PATH, [X], rows_max=2).decode(body, {})
    assert (caught.value.kind, caught.value.field) == ("bad-input", field)


def test_a_model_without_rows_has_no_requests() -> None:
    with pytest.raises(ValueError, match="scale"):
        Predict(PATH, [Port("scale", "float32", ())], rows_max=2)


def test_an_answer_names_model_version_and_what_is_disclosed() -> None:
    protocol = Predict(PATH, [X], rows_max=2)
    asked = protocol.decode(b'{"inputs":[[1,2]]}', {})
    encoded = protocol.encode(asked, {"label": np.array([2])}, ABOUT)
    assert msgspec.json.decode(encoded.body) == {"model": "fraud", "version": 3, "outputs": {"label": [2]}}
    assert encoded.headers == [(b"content-type", b"application/json")]


@pytest.mark.parametrize(
    ("version", "shown"),
    [("3", 3), ("", ""), ("a1", "a1"), ("9" * 15, 10**15 - 1), ("9" * 5000, "9" * 5000), ("\u0663", "\u0663")],
    ids=["number", "none", "text", "largest", "beyond", "other-digits"],
)
def test_a_version_that_is_a_number_is_shown_as_one(version: str, shown: object) -> None:
    about = About("fraud", version, ABOUT.inputs, ABOUT.outputs)
    assert msgspec.json.decode(Predict(PATH, [X], rows_max=2).describe(PATH, about).body)["version"] == shown


def test_a_description_has_names_types_and_shapes() -> None:
    described = msgspec.json.decode(Predict(PATH, [X], rows_max=2).describe(PATH, ABOUT).body)
    assert described["inputs"] == [{"name": "x", "type": "float32", "shape": [None, 2]}]
    assert described["outputs"] == [{"name": "probabilities", "type": "float32", "shape": [None, 3]}]

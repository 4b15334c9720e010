"""Served models: the promoted version, the newest calibration, and nothing that was exchanged under our hands."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from palladion.errors import ConflictError, FormatError, NotFoundError, PalladionError, PolicyError, TamperError
from palladion.gate.problems import Problem
from palladion.gate.protocols.open_inference_upstream import Described, OpenInferenceUpstream
from palladion.gate.protocols.tensors import DATATYPES
from palladion.gate.served import Served, disclosable, open_route
from palladion.gate.upstream.address import parse_address
from palladion.gate.upstream.limits import UpstreamLimits
from palladion.gate.upstream.pool import Upstream
from palladion.gate.upstream.source import UpstreamSource
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import find_version
from palladion.lifecycle.promote import promote
from palladion.lifecycle.protect import protect
from palladion.lifecycle.revoke import revoke_file
from palladion.model.run import Port
from palladion.policy import RoutePolicy
from palladion.policy.tensors import TensorPolicy
from palladion.watch.calibration import Calibration
from tests.lifecycle.installations import ACTOR, OWNER
from tests.models import onnx_bytes, safetensors_bytes, write

from .gates import MODEL, ROW, House, add_calibration, session_of, tiny_calibration

ROUTE = RoutePolicy(model=MODEL)


@pytest.fixture
def mine(house: House, tmp_path: Path) -> House:
    return house.copy(tmp_path)


def _calibration(installation: Installation, *, seed: int = 1) -> Calibration:
    return tiny_calibration(find_version(installation, MODEL).content_digest, seed=seed)


def test_the_promoted_version_is_hosted(house: House) -> None:
    served = open_route(house.installation, ROUTE)
    assert served.version is not None
    assert served.sealed is not None
    assert (served.subject, served.version.number, served.sealed.header.version) == (f"{MODEL}@1", 1, 1)
    assert (served.contract.scores, served.calibration, served.calibration_row) == ("probabilities", None, None)
    asked = served.decode(msgspec.json.encode({"inputs": [ROW, ROW]}), {})
    assert session_of(served).run(asked.feeds)["probabilities"].shape == (asked.rows, 3)


def test_a_hosted_version_is_current_until_another_is_promoted(mine: House) -> None:
    served = open_route(mine.installation, ROUTE)
    assert served.is_current(find_version(mine.installation, MODEL), None)
    promote(mine.installation, MODEL, 2, actor=ACTOR)
    assert not served.is_current(find_version(mine.installation, MODEL), None)
    assert open_route(mine.installation, ROUTE).subject == f"{MODEL}@2"


def test_a_sealed_file_that_was_revoked_is_not_served(mine: House) -> None:
    owner = mine.installation.open_owner_root([OWNER])
    served = mine.installation.paths.sealed / find_version(mine.installation, MODEL).served.path
    revoke_file(mine.installation, owner, served, reason="its key got out", actor=ACTOR)
    with pytest.raises(ConflictError, match="was revoked: its key got out"):
        open_route(mine.installation, ROUTE)


@pytest.mark.slow
def test_the_newest_calibration_of_the_version_counts(mine: House) -> None:
    first = add_calibration(mine.installation, _calibration(mine.installation, seed=1))
    served = open_route(mine.installation, ROUTE)
    assert served.calibration_row == first
    assert served.calibration is not None
    assert served.calibration.about.seed == 1
    second = add_calibration(mine.installation, _calibration(mine.installation, seed=2))
    assert not served.is_current(served.version, second)
    assert open_route(mine.installation, ROUTE).calibration_row == second


@pytest.mark.slow
def test_another_version_does_not_have_it(mine: House) -> None:
    add_calibration(mine.installation, _calibration(mine.installation))
    promote(mine.installation, MODEL, 2, actor=ACTOR)
    assert open_route(mine.installation, ROUTE).calibration is None


@pytest.mark.slow
def test_a_calibration_file_that_was_exchanged_is_refused(mine: House) -> None:
    row = add_calibration(mine.installation, _calibration(mine.installation, seed=1))
    other = add_calibration(mine.installation, _calibration(mine.installation, seed=2))
    folder = mine.installation.paths.directory / "calibrations"
    (folder / other.path).write_bytes((folder / row.path).read_bytes())
    with pytest.raises(TamperError, match="is not the calibration that was registered"):
        open_route(mine.installation, ROUTE)


def test_a_calibration_that_is_gone_is_an_error_and_not_none(mine: House) -> None:
    row = add_calibration(mine.installation, _calibration(mine.installation))
    (mine.installation.paths.directory / "calibrations" / row.path).unlink()
    with pytest.raises(Exception, match=row.path.rpartition("/")[2]):
        open_route(mine.installation, ROUTE)


def test_a_calibration_of_other_content_is_refused(mine: House) -> None:
    add_calibration(mine.installation, tiny_calibration("ab" * 32))
    with pytest.raises(FormatError, match="belongs to another version"):
        open_route(mine.installation, ROUTE)


def test_a_model_that_does_not_exist_is_not_hosted(house: House) -> None:
    with pytest.raises(NotFoundError):
        open_route(house.installation, RoutePolicy(model="nothing"))


def _protect(mine: House, folder: Path, name: str, data: bytes, suffix: str) -> None:
    owner = mine.installation.open_owner_root([OWNER])
    protect(mine.installation, owner, write(folder / f"m{suffix}", data), name, actor=ACTOR)


def test_weights_without_a_graph_are_not_hosted(mine: House, tmp_path: Path) -> None:
    _protect(mine, tmp_path, "weights", safetensors_bytes(), ".safetensors")
    with pytest.raises(FormatError, match="without a graph"):
        open_route(mine.installation, RoutePolicy(model="weights"))


def test_a_model_without_a_promoted_version_is_not_hosted(mine: House, tmp_path: Path) -> None:
    policy = msgspec.structs.replace(
        mine.installation.policy, protect=msgspec.structs.replace(mine.installation.policy.protect, promote_first=False)
    )
    unpromoted = replace(mine, installation=Installation(mine.installation.paths, policy, mine.installation.clock))
    _protect(unpromoted, tmp_path, "new", onnx_bytes(9), ".onnx")
    with pytest.raises(ConflictError, match="no version of new is promoted"):
        open_route(mine.installation, RoutePolicy(model="new"))


def test_a_route_that_does_not_fit_is_refused(house: House) -> None:
    with pytest.raises(PolicyError, match="scores_output is 'x'"):
        open_route(house.installation, RoutePolicy(model=MODEL, scores_output="x"))


def test_a_model_that_takes_no_rows_is_refused(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    real = session_of(open_route(house.installation, ROUTE))
    real.inputs = (Port("scale", "float32", ()),)
    monkeypatch.setattr("palladion.gate.served.open_layered", lambda *_: real)
    with pytest.raises(PolicyError, match=r"fraud cannot be asked over JSON: inputs .*scale.* have no rows"):
        open_route(house.installation, ROUTE)


def _calibrated(house: House, width: int) -> Served:
    return replace(open_route(house.installation, ROUTE), calibration=tiny_calibration(width=width))


def test_rows_of_the_calibrated_size_are_let_through(house: House) -> None:
    assert _calibrated(house, 4).decode(msgspec.json.encode({"inputs": [ROW]}), {}).rows == 1


def test_rows_that_could_not_be_watched_are_refused(house: House) -> None:
    # as a model would see it that takes rows of any size, calibrated on rows of five numbers
    with pytest.raises(Problem) as caught:
        _calibrated(house, 5).decode(msgspec.json.encode({"inputs": [ROW]}), {})
    assert (caught.value.kind, caught.value.detail) == ("bad-input", "a row has 4 numbers, expected 5")


@pytest.mark.slow
def test_integers_that_the_watch_would_take_for_others_are_refused_where_it_is_calibrated(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = session_of(open_route(house.installation, ROUTE))
    real.inputs = (Port("x", "int64", (None, 4)),)
    monkeypatch.setattr("palladion.gate.served.open_layered", lambda *_: real)
    body = msgspec.json.encode({"inputs": [[2**60, 0, 0, 0], [2**60 + 1, 0, 0, 0]]})
    assert open_route(house.installation, ROUTE).decode(body, {}).rows == 2
    with pytest.raises(Problem) as caught:
        _calibrated(house, 4).decode(body, {})
    assert (caught.value.kind, caught.value.field) == ("bad-input", "inputs")


# --- models at an upstream


def _source(outputs: tuple[Port, ...] = (Port("probabilities", "float32", (None, 3)),)) -> UpstreamSource:
    inputs = (Port("x", "float32", (None, 4)),)
    wire = {("input", "x"): "FP32", **{("output", port.name): DATATYPES[port.dtype] for port in outputs}}
    codec = OpenInferenceUpstream(
        MODEL, Described(inputs, outputs, wire), wanted=[port.name for port in outputs], binary=False
    )
    upstream = Upstream(parse_address("http://127.0.0.1:1"), limits=UpstreamLimits())
    return UpstreamSource("it", upstream, codec, inputs=inputs, outputs=outputs)


def _upstream_route(model: str = MODEL, **settings: object) -> RoutePolicy:
    return RoutePolicy(
        model=model,
        protocol="open-inference",
        upstream="http://127.0.0.1:1",
        **settings,  # type: ignore[arg-type]
    )


def test_a_model_at_an_upstream_need_not_be_registered(house: House) -> None:
    source = _source()
    served = open_route(house.installation, _upstream_route("elsewhere"), source)
    assert (served.version, served.sealed, served.calibration) == (None, None, None)
    assert (served.subject, served.version_text, served.source) == ("elsewhere", "", source)
    assert "/v2/models/elsewhere/infer" in served.protocol.paths
    assert served.is_current(None, None)


@pytest.mark.slow
def test_where_it_is_registered_its_promoted_version_and_calibration_count(mine: House) -> None:
    row = add_calibration(mine.installation, _calibration(mine.installation))
    served = open_route(mine.installation, _upstream_route(), _source())
    assert (served.subject, served.sealed, served.calibration_row) == (f"{MODEL}@1", None, row)
    assert f"/v2/models/{MODEL}/versions/1/infer" in served.protocol.paths
    promote(mine.installation, MODEL, 2, actor=ACTOR)
    assert not served.is_current(find_version(mine.installation, MODEL), None)


@pytest.mark.parametrize("model", ["a/b", "..", "A", "a b"])
def test_a_name_that_cannot_stand_in_a_path_is_refused(house: House, model: str) -> None:
    with pytest.raises(PalladionError, match="is not allowed"):
        open_route(house.installation, _upstream_route(model), _source())


def test_the_gates_own_json_has_no_upstreams(house: House) -> None:
    route = RoutePolicy(model=MODEL, upstream="http://127.0.0.1:1")
    with pytest.raises(PolicyError, match="nothing can be asked by predict at an upstream"):
        open_route(house.installation, route)


JSON_THERE = RoutePolicy(
    model="elsewhere",
    protocol="json",
    upstream="http://127.0.0.1:1",
    upstream_path="/predict",
    inputs=(TensorPolicy(name="x", type="float32", shape=(4,), path="$.rows[*]"),),
    outputs=(TensorPolicy(name="probabilities", type="float32", shape=(3,), path="$.scores[*]"),),
)


def test_a_model_that_is_asked_by_paths_needs_nobody_who_describes_it(house: House) -> None:
    served = open_route(house.installation, JSON_THERE)
    assert isinstance(served.source, UpstreamSource)
    assert served.source.ready
    assert served.source.inputs == (Port("x", "float32", (None, 4)),)
    assert (served.protocol.paths, served.contract.kind) == ({JSON_THERE.route: "ask describe"}, "classes")
    renewed = open_route(house.installation, JSON_THERE, served.source)
    assert renewed.source is served.source


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"upstream_path": ""}, "json at an upstream needs upstream_path"),
        ({"inputs": ()}, "protocol json needs inputs and outputs"),
        ({"upstream": "", "model": MODEL, "inputs": (TensorPolicy(name="y", type="int8", path="$[*]"),)}, "name 'y'"),
    ],
)
def test_paths_that_do_not_fit_are_refused_at_the_start(house: House, changes: dict[str, object], words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        open_route(house.installation, msgspec.structs.replace(JSON_THERE, **changes))


@pytest.mark.slow
def test_marks_need_a_registered_model_and_scores_without_labels(mine: House) -> None:
    marking = _upstream_route(flipped=0.03)
    with pytest.raises(PolicyError, match="elsewhere is not registered"):
        open_route(mine.installation, _upstream_route("elsewhere", flipped=0.03), _source())
    with pytest.raises(PolicyError, match="is not calibrated"):
        open_route(mine.installation, marking, _source())
    add_calibration(mine.installation, _calibration(mine.installation))
    assert open_route(mine.installation, marking, _source()).marks is not None
    labelled = (Port("probabilities", "float32", (None, 3)), Port("label", "int64", (None,)))
    with pytest.raises(PolicyError, match="is not known of a model at an upstream"):
        open_route(mine.installation, marking, _source(labelled))


@pytest.mark.parametrize(
    ("outputs", "answer", "names"),
    [
        ((Port("p", "float32", (None, 3)),), "scores", ["p", "label"]),
        ((Port("p", "float32", (None, 3)),), "label", ["label"]),
        ((Port("p", "float32", (None, 3)), Port("l", "string", (None,))), "scores", ["p", "l"]),
        ((Port("p", "float32", (None, 3)), Port("l", "string", (None,))), "label", ["l"]),
        ((Port("value", "float64", (None,)),), "scores", ["value"]),
    ],
)
def test_clients_can_get_what_a_standing_can_leave_them(
    house: House, outputs: tuple[Port, ...], answer: str, names: list[str]
) -> None:
    served = open_route(house.installation, _upstream_route("elsewhere", answer=answer), _source(outputs))
    assert disclosable(served.contract) == names

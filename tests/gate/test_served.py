"""Served models: the promoted version, the newest calibration, and nothing that was exchanged under our hands."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from palladion.errors import ConflictError, FormatError, NotFoundError, PolicyError, TamperError
from palladion.gate.problems import Problem
from palladion.gate.served import Served, open_route
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import find_version
from palladion.lifecycle.promote import promote
from palladion.lifecycle.protect import protect
from palladion.lifecycle.revoke import revoke_file
from palladion.model.run import Port
from palladion.policy import RoutePolicy
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


def test_the_newest_calibration_of_the_version_counts(mine: House) -> None:
    first = add_calibration(mine.installation, _calibration(mine.installation, seed=1))
    served = open_route(mine.installation, ROUTE)
    assert served.calibration_row == first
    assert served.calibration is not None
    assert served.calibration.about.seed == 1
    second = add_calibration(mine.installation, _calibration(mine.installation, seed=2))
    assert not served.is_current(served.version, second)
    assert open_route(mine.installation, ROUTE).calibration_row == second


def test_another_version_does_not_have_it(mine: House) -> None:
    add_calibration(mine.installation, _calibration(mine.installation))
    promote(mine.installation, MODEL, 2, actor=ACTOR)
    assert open_route(mine.installation, ROUTE).calibration is None


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
    monkeypatch.setattr("palladion.gate.served.open_session", lambda _: real)
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

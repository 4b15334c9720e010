"""Calibrations that a policy names by their digest: no other file is read, and none for what it is not of."""

from hashlib import sha256
from pathlib import Path

import pytest

from palladion.errors import FormatError, NotFoundError, PolicyError, TamperError
from palladion.gate.chat.calibrated import check_calibrations, path_of, read_calibration
from palladion.policy import Policy, RoutePolicy
from palladion.watch.text.calibration_file import encode_text_calibration
from tests.watch.talkers import MODEL, untimed

UPSTREAM = "http://127.0.0.1:8000"


def route(model: str = MODEL, digest: str = "0" * 64, path: str = "") -> RoutePolicy:
    return RoutePolicy(model=model, path=path, protocol="openai", upstream=UPSTREAM, calibration=digest)


def put(folder: Path, change: bytes = b"") -> str:
    """A calibration in a folder, perhaps with a change; its digest without."""
    data = encode_text_calibration(untimed().calibration)
    digest = sha256(data).hexdigest()
    path_of(folder, digest).parent.mkdir(parents=True, exist_ok=True)
    path_of(folder, digest).write_bytes(data + change)
    return digest


def test_the_calibration_with_that_digest_is_read(tmp_path: Path) -> None:
    found = read_calibration(tmp_path, route(digest=put(tmp_path)))

    assert found.about == untimed().about


def test_a_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TamperError, match="not the calibration that the policy names"):
        read_calibration(tmp_path, route(digest=put(tmp_path, b"\0")))


def test_a_calibration_that_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="is not there") as caught:
        read_calibration(tmp_path, route())

    assert caught.value.hints == (f"palladion watch calibrate {MODEL} --prompts FILE",)


def test_a_calibration_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=f"is of {MODEL}, expected one of other"):
        read_calibration(tmp_path, route("other", put(tmp_path)))


def test_arrays_have_their_calibrations_in_the_registry() -> None:
    with pytest.raises(PolicyError, match="calibration is for protocol openai"):
        check_calibrations(Policy(route=(RoutePolicy(model="fraud", calibration="0" * 64),)))


def test_a_name_that_arrays_have_as_well_is_refused() -> None:
    with pytest.raises(PolicyError, match="asked in arrays is called llama as well"):
        check_calibrations(Policy(route=(route(), RoutePolicy(model=MODEL))))


def test_two_routes_to_a_model_have_one_calibration() -> None:
    check_calibrations(Policy(route=(route(), route(path="/b"))))
    with pytest.raises(PolicyError, match="names another calibration"):
        check_calibrations(Policy(route=(route(), route(path="/b", digest="1" * 64))))

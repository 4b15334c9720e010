"""Calibrations that a policy names by their digest: no other file is read, and none for what it is not of."""

from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import pytest

from palladion.errors import FormatError, NotFoundError, PolicyError, TamperError
from palladion.gate.chat.calibrated import (
    check_calibration,
    check_calibrations,
    open_encoder,
    path_of,
    read_calibration,
)
from palladion.policy import Policy, RoutePolicy
from palladion.watch.text.calibration_file import encode_text_calibration
from palladion.watch.text.encoder import Digests, NotOpened, SentenceEncoder
from tests.watch.talkers import MODEL, untimed
from tests.watch.text import encoders, talk

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


ENCODED = RoutePolicy(
    model="m", protocol="openai", upstream=UPSTREAM, encoder="encoder.onnx", tokenizer="tokenizer.json"
)


def encoded(folder: Path) -> RoutePolicy:
    """A route whose calibration was made with an encoder, with that one's files in the folder."""
    (folder / "encoder.onnx").write_bytes(encoders.network())
    (folder / "tokenizer.json").write_bytes(encoders.tokenizer())
    data = encode_text_calibration(talk.encoded())
    path = path_of(folder, sha256(data).hexdigest())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return msgspec.structs.replace(ENCODED, calibration=sha256(data).hexdigest())


def test_an_encoder_is_opened_from_the_files_of_the_route(tmp_path: Path) -> None:
    made = encoded(tmp_path)
    known: dict[Digests, SentenceEncoder] = {}

    found = read_calibration(tmp_path, made, tmp_path, known)

    (conversation,) = talk.conversations(1, 24, 3)
    (scores,), (expected,) = (each.instruments.score([conversation]) for each in (found.calibration, talk.encoded()))
    np.testing.assert_array_equal(scores, expected)
    assert list(known) == [encoders.encoder().digests]
    again = read_calibration(tmp_path, made, tmp_path, known)
    assert again.calibration.encoder is found.calibration.encoder


def test_without_a_home_an_encoder_is_told_of_and_not_opened(tmp_path: Path) -> None:
    found = read_calibration(tmp_path, encoded(tmp_path)).calibration.encoder

    assert found == NotOpened(encoders.encoder().digests, encoders.WIDTH)


@pytest.mark.parametrize("name", ["encoder.onnx", "tokenizer.json"])
def test_an_encoder_that_is_missing_or_another_one_is_not_watched_by(tmp_path: Path, name: str) -> None:
    made = encoded(tmp_path)
    path = tmp_path / name

    check_calibration(tmp_path, made, tmp_path)
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(TamperError, match=f"{name} is not the .* that the calibration of route .* was made with"):
        read_calibration(tmp_path, made, tmp_path)
    with pytest.raises(TamperError, match=f"{name} is not the"):
        check_calibration(tmp_path, made, tmp_path)
    path.unlink()
    with pytest.raises(NotFoundError, match=f"is not there: .*{name}") as caught:
        read_calibration(tmp_path, made, tmp_path)
    assert caught.value.hints == (f"set {name.partition('.')[0]} of the route to where it is",)


def test_a_route_and_its_calibration_name_an_encoder_or_neither_does(tmp_path: Path) -> None:
    made = encoded(tmp_path)
    plain = route(digest=put(tmp_path))

    with pytest.raises(FormatError, match="was made with an encoder, and the route names none") as caught:
        read_calibration(tmp_path, msgspec.structs.replace(made, encoder="", tokenizer=""), tmp_path)
    assert "set encoder and tokenizer" in caught.value.hints[0]
    with pytest.raises(FormatError, match="was made without an encoder, and the route names one"):
        read_calibration(tmp_path, msgspec.structs.replace(plain, encoder="a", tokenizer="b"), tmp_path)


def test_what_is_no_encoder_is_refused_with_the_name_of_the_route(tmp_path: Path) -> None:
    encoded(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"{}")

    with pytest.raises(FormatError, match="route /v1/models/m: the tokenizer has None for its model"):
        open_encoder(tmp_path, ENCODED)


def test_an_encoder_goes_with_its_tokenizer_and_with_texts() -> None:
    with pytest.raises(PolicyError, match="encoder and tokenizer go together"):
        check_calibrations(Policy(route=(msgspec.structs.replace(ENCODED, tokenizer=""),)))
    arrays = RoutePolicy(model="fraud", encoder="a.onnx", tokenizer="tokenizer.json")
    with pytest.raises(PolicyError, match="encoder is for protocol openai, whose clients send texts"):
        check_calibrations(Policy(route=(arrays,)))
    check_calibrations(Policy(route=(ENCODED,)))


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

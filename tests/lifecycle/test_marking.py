"""Marks in the life of a model: what is put in, what the version says of it, and from what it follows."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from palladion import canonical
from palladion.errors import ConflictError, KeysError, TamperError
from palladion.keys import Root
from palladion.lifecycle import open as opening
from palladion.lifecycle.marking import fingerprint, mark_ownership, ownership_key_of, ownership_of, unmarked
from palladion.lifecycle.protect import protect
from palladion.mark.disclosure import commitment_root, tensor_commitments
from palladion.mark.fingerprints import fingerprint_key, trace
from palladion.mark.places import places
from palladion.mark.weights import SCHEME, OwnershipKey, find_ownership, ownership_key, ownership_payload
from palladion.model.digest import graph_digest, model_digest
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.model.safetensors import serialise
from palladion.model.tensors import DTYPES, Tensor
from palladion.registry import SealedFile, Version
from tests.model import factories
from tests.models import onnx_bytes, safetensors_bytes, write

from .installations import ACTOR, Made, make

WEIGHTS = 2 * 64 * 8


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An installation, shared: nothing here writes to it, but for versions of models of their own."""
    return make(tmp_path_factory.mktemp("marking"))


def _model(seed: int = 0) -> Model:
    return read_memory({"m.safetensors": safetensors_bytes(seed)})


def _digest(model: Model) -> str:
    return model_digest(model).hex()


def _committed(made: Made, original: Model, scheme: str) -> dict[str, str]:
    """An ownership mark as a version says it, with what was committed to."""
    said = {"scheme": scheme, "original": _digest(original)}
    key = ownership_key_of(said, made.owner)
    bound = {**said, "key": key.key.hex()}
    if scheme != "weights-1":
        bound |= {"amplitude": "0.01", "payload": (key.payload or b"").hex()}
    commitment = sha256(canonical.encode(bound)).hexdigest()
    return {"kind": "ownership", **said, "amplitude": "0.01", "commitment": commitment}


def _version(made: Made, original: Model) -> Version:
    """A version as `protect` registers it, of which there is nothing but the mark."""
    return Version(
        model="m",
        number=1,
        parent=None,
        content_digest="",
        graph_digest=None,
        format="safetensors",
        publisher="",
        marks=(_committed(made, original, SCHEME),),
        note="",
        created=made.clock.now(),
        served=SealedFile("", "", ""),
        original=None,
    )


def _protect(made: Made, folder: Path, data: bytes, name: str) -> Version:
    path = write(folder / "m.bin", data)
    return protect(made.installation, made.owner, path, name, actor=ACTOR).version


def test_the_mark_that_is_put_in_is_the_one_that_is_found(made: Made) -> None:
    original = _model()
    mark = mark_ownership(original, _digest(original), made.owner)
    assert mark is not None
    found = find_ownership(original, mark.model, ownership_key_of(mark.description, made.owner))
    assert (found.payload_errors, found.decoded) == (0, bytes.fromhex(mark.description["payload"]))
    assert len(found.tensors) == 2
    assert found.log10_p == pytest.approx(mark.predicted["exact copy"], rel=0.2)
    assert mark.weights == WEIGHTS


def test_the_version_says_what_was_marked_and_binds_the_owner_to_the_key(made: Made) -> None:
    original = _model()
    mark = mark_ownership(original, _digest(original), made.owner)
    assert mark is not None
    key = ownership_key(made.owner.derive("mark"), _digest(original))
    payload = ownership_payload(made.owner.public().keys["publisher"].hex(), _digest(original)).hex()
    committed = canonical.encode(
        {"amplitude": "0.01", "key": key.hex(), "original": _digest(original), "payload": payload, "scheme": SCHEME}
    )
    assert mark.description == {
        "kind": "ownership",
        "scheme": "weights-2",
        "original": _digest(original),
        "amplitude": "0.01",
        "places": 2,
        "weights": WEIGHTS,
        "payload": payload,
        "commitment": sha256(committed).hexdigest(),
        "tensor_keys": commitment_root(
            tensor_commitments(OwnershipKey(key, bytes.fromhex(payload)), [place.name for place in places(original)])
        ),
    }
    assert key.hex() not in str(mark.description)


def test_the_same_model_gets_the_same_mark_and_another_one_another(made: Made) -> None:
    first, again, other = (mark_ownership(_model(seed), _digest(_model(seed)), made.owner) for seed in (0, 0, 1))
    assert first is not None
    assert again is not None
    assert other is not None
    assert _digest(first.model) == _digest(again.model)
    assert first.description["commitment"] != other.description["commitment"]


def test_what_is_predicted_falls_with_what_is_done_to_a_copy(made: Made) -> None:
    mark = mark_ownership(_model(), _digest(_model()), made.owner)
    assert mark is not None
    assert list(mark.predicted) == ["exact copy", "int8", "int4", "blind", "largest tensor, int4"]
    of = mark.predicted
    assert of["exact copy"] < of["int8"] < of["int4"] < of["largest tensor, int4"] <= of["blind"] == 0


def test_the_original_stays_as_it_was_and_the_marked_model_computes_the_same_graph(made: Made) -> None:
    weights = np.random.default_rng(1).standard_normal((32, 32)).astype(np.float32)
    original = read_memory({"m.onnx": factories.with_constants(factories.weights("w", weights)).SerializeToString()})
    before = bytes(original.files[0].data)
    mark = mark_ownership(original, _digest(original), made.owner)
    assert mark is not None
    assert bytes(original.files[0].data) == before
    assert mark.model.files[0].name == "m.onnx"
    assert mark.model.graph is not None
    assert original.graph is not None
    assert graph_digest(mark.model.graph) == graph_digest(original.graph)
    assert mark.model.tensors.keys() == original.tensors.keys()
    assert np.abs(mark.model.tensors["w"].data - weights).max() < 0.02 * np.abs(weights).max()


def test_external_data_is_marked_in_its_own_file(made: Made) -> None:
    weights = np.random.default_rng(1).standard_normal((32, 32)).astype(np.float32)
    main, data = factories.externalise(factories.with_constants(factories.weights("w", weights)))
    mark = mark_ownership(read_memory({"m.onnx": main, "weights.bin": data}), "00" * 32, made.owner)
    assert mark is not None
    assert [bytes(file.data) == part for file, part in zip(mark.model.files, (main, data), strict=True)] == [
        True,
        False,
    ]


def test_a_model_without_a_place_gets_no_mark(made: Made) -> None:
    half = factories.helper.make_tensor("w", factories.onnx.TensorProto.FLOAT16, [32, 32], [0.5] * 1023 + [0.25])
    for data in (
        {"m.onnx": onnx_bytes()},
        {"m.safetensors": save({"b": np.linspace(0, 1, 4096, dtype=np.float32)})},
        # in a list of integers, where it cannot be changed in place
        {"m.onnx": factories.with_constants(half).SerializeToString()},
    ):
        assert mark_ownership(read_memory(data), "00" * 32, made.owner) is None


def test_a_copy_carries_the_owners_mark_and_the_fingerprint_of_its_recipient(made: Made, tmp_path: Path) -> None:
    original = _model(5)
    version = _protect(made, tmp_path, safetensors_bytes(5), "house")
    stamp = fingerprint(original, version, made.owner, "a public key")
    assert stamp is not None
    copy, predicted = stamp.copy.model, stamp.predicted_log10_p
    ownership = ownership_key_of(version.marks[0], made.owner)
    key = fingerprint_key(made.owner.derive("fingerprint"), _digest(original), "a public key")
    found = trace(original, copy, ownership, [("it", key)]).accusations[0].log10_p
    assert predicted < -200
    # the key is a new one each time: the statistic of 32 has a deviation of 1
    assert 1.4 * predicted < found < 0.6 * predicted
    assert find_ownership(original, copy, ownership).log10_p < -50
    again, other = (fingerprint(original, version, made.owner, key) for key in ("a public key", "another"))
    assert again is not None
    assert other is not None
    assert again.copy.content == stamp.copy.content != other.copy.content


def test_a_version_without_a_mark_has_no_fingerprints(made: Made, tmp_path: Path) -> None:
    version = _protect(made, tmp_path, onnx_bytes(5), "small")
    assert ownership_of(version) is None
    assert fingerprint(read_memory({"m.onnx": onnx_bytes(5)}), version, made.owner, "a public key") is None


def test_the_unmarked_original_is_opened_in_memory(made: Made, tmp_path: Path) -> None:
    version = _protect(made, tmp_path, safetensors_bytes(6), "opened")
    with unmarked(made.installation, made.owner, "opened@1") as (opened, row):
        assert _digest(opened.model) == _digest(_model(6))
        assert row == version
    mark = ownership_of(version)
    assert mark is not None
    assert mark["original"] == _digest(_model(6)) != version.content_digest


def test_another_owner_cannot_open_it(made: Made, tmp_path: Path) -> None:
    _protect(made, tmp_path, safetensors_bytes(7), "closed")
    stranger: Root = make(tmp_path / "stranger").owner
    with pytest.raises(KeysError), unmarked(made.installation, stranger, "closed@1"):
        pass


def test_a_registry_that_names_another_original_is_found_out(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = _protect(made, tmp_path, safetensors_bytes(8), "forged")
    forged = replace(version, marks=({**version.marks[0], "original": "ab" * 32},))
    monkeypatch.setattr(opening, "find_version", lambda *_: forged)
    with pytest.raises(TamperError), unmarked(made.installation, made.owner, "forged@1"):
        pass


def test_a_guard_halves_the_amplitude_until_it_is_content(made: Made) -> None:
    original, seen = _model(), []

    def guard(model: Model) -> bool:
        change = np.abs(model.tensors["a"].data - original.tensors["a"].data).max()
        seen.append(float(change))
        return len(seen) == 3

    mark = mark_ownership(original, _digest(original), made.owner, guard=guard)
    assert mark is not None
    assert seen == pytest.approx([seen[0], seen[0] / 2, seen[0] / 4], rel=1e-3)
    assert mark.description["amplitude"] == "0.0025"
    plain = mark_ownership(original, _digest(original), made.owner)
    assert plain is not None
    assert mark.predicted["int8"] > plain.predicted["int8"]
    assert mark.description["commitment"] != plain.description["commitment"]
    found = find_ownership(original, mark.model, ownership_key_of(mark.description, made.owner))
    assert found.log10_p < -50


def test_a_model_that_no_mark_leaves_as_it_should_be_is_refused(made: Made) -> None:
    tried: list[Model] = []

    def guard(model: Model) -> bool:
        tried.append(model)
        return False

    with pytest.raises(ConflictError, match=r"even a mark of 0\.00125 of a row's size changes the model too much"):
        mark_ownership(_model(), _digest(_model()), made.owner, guard=guard)
    assert len(tried) == 4


def test_a_copy_is_stamped_as_strongly_as_its_version_was_marked(made: Made, tmp_path: Path) -> None:
    version = _protect(made, tmp_path, safetensors_bytes(9), "faint")
    original, tried = _model(9), 0

    def guard(_: Model) -> bool:
        nonlocal tried
        tried += 1
        return tried == 3

    mark = mark_ownership(original, _digest(original), made.owner, guard=guard)
    assert mark is not None
    assert mark.description["amplitude"] == "0.0025"
    faint = replace(version, marks=(mark.description,))
    moved = []
    for row in (version, faint):
        stamp = fingerprint(original, row, made.owner, "a public key")
        assert stamp is not None
        moved.append(float(np.abs(stamp.copy.model.tensors["a"].data - original.tensors["a"].data).max()))
    assert moved[1] == pytest.approx(moved[0] / 4, rel=1e-2)


def test_a_mark_of_the_first_scheme_has_a_key_without_a_payload(made: Made) -> None:
    first = {"kind": "ownership", "scheme": "weights-1", "original": "ab" * 32}
    key = ownership_key_of(first, made.owner)
    assert key.payload is None
    second = ownership_key_of({**first, "scheme": SCHEME, "payload": "cd" * 16}, made.owner)
    assert (second.key, second.payload) == (key.key, b"\xcd" * 16)


def test_what_is_predicted_of_a_copy_is_what_a_test_finds(made: Made) -> None:
    weights = {f"w{index}": np.random.default_rng(index).standard_normal((512, 256)) for index in range(4)}
    original = read_memory({"m.safetensors": save({name: item.astype(np.float32) for name, item in weights.items()})})
    version = _version(made, original)
    stamp = fingerprint(original, version, made.owner, "a public key")
    assert stamp is not None
    key = fingerprint_key(made.owner.derive("fingerprint"), _digest(original), "a public key")
    found = trace(original, stamp.copy.model, ownership_key_of(version.marks[0], made.owner), [("it", key)])
    assert found.accusations[0].log10_p == pytest.approx(stamp.predicted_log10_p, rel=0.05)


def test_a_version_of_the_first_scheme_is_delivered_and_proved_as_ever(made: Made) -> None:
    original = _model(10)
    first = _committed(made, original, "weights-1")
    version = replace(_version(made, original), marks=(first,))
    stamp = fingerprint(original, version, made.owner, "a public key")
    assert stamp is not None
    found = find_ownership(original, stamp.copy.model, ownership_key_of(first, made.owner))
    assert found.log10_p < -50
    assert found.payload_errors is None


@pytest.mark.parametrize("scheme", [SCHEME, "weights-1"])
@pytest.mark.parametrize(
    "change",
    [
        {"amplitude": "0.0001"},
        {"amplitude": "nan"},
        {"original": "ab" * 32},
        {"commitment": ""},
        {"commitment": None},
        {"commitment": "ä" * 64},
        {"payload": "cd" * 16, "scheme": SCHEME},
    ],
    ids=str,
)
def test_a_row_that_was_edited_neither_stamps_nor_proves(made: Made, scheme: str, change: dict[str, Any]) -> None:
    original = _model(10)
    mark = {**_committed(made, original, scheme), **change}
    with pytest.raises(TamperError, match="not what was committed to"):
        fingerprint(original, replace(_version(made, original), marks=(mark,)), made.owner, "a public key")
    with pytest.raises(TamperError, match="not what was committed to"):
        ownership_key_of(mark, made.owner)


def test_little_is_promised_of_a_model_that_is_stored_in_few_bits(made: Made) -> None:
    numbers = np.random.default_rng(3).standard_normal((64, 256)).astype(np.float32)
    predicted = []
    for dtype in ("float32", "float8_e4m3fn"):
        tensor = Tensor("w", DTYPES[dtype], numbers.shape, numbers.astype(DTYPES[dtype].carrier))
        mark = mark_ownership(read_memory({"m.safetensors": serialise([tensor], {})}), "00" * 32, made.owner)
        assert mark is not None
        predicted.append(mark.predicted)
        found = find_ownership(
            read_memory({"m.safetensors": serialise([tensor], {})}),
            mark.model,
            ownership_key_of(mark.description, made.owner),
        )
        assert found.log10_p < 0.9 * mark.predicted["exact copy"], dtype
    assert predicted[1]["exact copy"] > 0.1 * predicted[0]["exact copy"]
    assert predicted[1]["int4"] == predicted[0]["int4"]

"""Tensors of a sealed file: which there are, where an index says they are, and their bytes, whole or in part."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from palladion.clock import ManualClock
from palladion.errors import ConflictError, FormatError, KeysError, TamperError
from palladion.host.host import Host
from palladion.host.weights import Memory, SealedWeights, open_weights
from palladion.seal.layout import PARAMETERS
from palladion.seal.structure import SealedInfo
from tests.seal.factories import CREATED, Parts, Party

PARTY = Party()
SEGMENT = PARAMETERS.capacity

Arrays = Mapping[str, NDArray[np.generic]]


def _host(folder: Path) -> Host:
    return Host(folder / "host", ManualClock(CREATED), identities=[PARTY.identity], publishers=PARTY.publishers)


def _save(arrays: Arrays) -> bytes:
    saved: bytes = safetensors.numpy.save(dict(arrays))
    return saved


def _ones(*names: str) -> bytes:
    return _save({name: np.ones(3, np.float32) for name in names})


def _open(folder: Path, files: Mapping[str, bytes], *, subfolder: str = "") -> SealedWeights:
    path = folder / "x.sealed"
    path.unlink(missing_ok=True)
    PARTY.seal(path, list(files.items()), kind="folder")
    return open_weights(path, host=_host(folder), subfolder=subfolder)


def _index(**shards: str) -> bytes:
    return json.dumps({"metadata": {"total_size": 0}, "weight_map": shards}).encode()


def _read(weights: SealedWeights, name: str, begin: int = 0, size: int | None = None) -> bytes:
    buffer = bytearray(weights.places[name].size - begin if size is None else size)
    weights.read_into(name, memoryview(buffer), begin)
    return bytes(buffer)


# which tensors there are


def test_tensors_are_listed_in_the_order_in_which_they_lie(tmp_path: Path) -> None:
    files = {"b.safetensors": _ones("z", "y"), "config.json": b"{}", "a.safetensors": _ones("x")}
    with _open(tmp_path, files) as weights:
        assert list(weights.places) == ["y", "z", "x"]
        assert weights.places["x"].file == "a.safetensors"
        assert repr(weights) == "<SealedWeights 3 tensors>"


def test_with_an_index_the_shards_that_it_names_count_and_no_others(tmp_path: Path) -> None:
    files = {
        "model.safetensors.index.json": _index(a="one.safetensors", b="one.safetensors", c="sub/two.safetensors"),
        "one.safetensors": _ones("a", "b"),
        "sub/two.safetensors": _ones("c"),
        "consolidated.safetensors": _ones("a", "b", "c"),  # the same once more, for another program
    }
    with _open(tmp_path, files) as weights:
        assert {name: place.file for name, place in weights.places.items()} == {
            "a": "one.safetensors",
            "b": "one.safetensors",
            "c": "sub/two.safetensors",
        }


def test_of_several_indices_that_of_the_model_counts(tmp_path: Path) -> None:
    files = {
        "consolidated.safetensors.index.json": _index(b="two.safetensors"),
        "model.safetensors.index.json": _index(a="one.safetensors"),
        "one.safetensors": _ones("a"),
        "two.safetensors": _ones("b"),
    }
    with _open(tmp_path, files) as weights:
        assert list(weights.places) == ["a"]
    del files["model.safetensors.index.json"]
    with _open(tmp_path, files) as weights:
        assert list(weights.places) == ["b"]


@pytest.mark.parametrize(
    ("index", "told"),
    [
        (_index(a="one.safetensors"), r"index\.json and one\.safetensors disagree on the tensors that are there: 'b'"),
        (_index(a="one.safetensors", b="one.safetensors", c="one.safetensors"), "disagree on the tensors .*: 'c'"),
        (_index(a="three.safetensors"), r"names the shard 'three\.safetensors', which is not among the files"),
        (_index(a="../one.safetensors"), r"names the shard '\.\./one\.safetensors'"),
        (_index(a="config.json"), r"names the shard 'config\.json'"),
        (b'{"weight_map": {"a": 3}}', "no index of safetensors shards"),
        (b"[", "no index of safetensors shards"),
        (b'{"weight_map": {}}', "holds no safetensors file"),
        (b'{"weight_map": {"\xe3a": "one.safetensors"}}', "no index of safetensors shards"),
    ],
)
def test_an_index_that_is_not_true_is_refused(tmp_path: Path, index: bytes, told: str) -> None:
    files = {"model.safetensors.index.json": index, "one.safetensors": _ones("a", "b"), "config.json": b"{}"}
    with pytest.raises(FormatError, match=told):
        _open(tmp_path, files)


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"b\.safetensors and a\.safetensors both hold a tensor 'same'"):
        _open(tmp_path, {"b.safetensors": _ones("same"), "a.safetensors": _ones("same")})


def test_a_subfolder_is_a_model_of_its_own(tmp_path: Path) -> None:
    files = {
        "unet/model.safetensors": _ones("u"),
        "text/model.safetensors.index.json": _index(t="s.safetensors"),
        "text/s.safetensors": _ones("t"),
    }
    for subfolder, names in (("unet", ["u"]), ("text", ["t"]), ("text/", ["t"])):
        with _open(tmp_path, files, subfolder=subfolder) as weights:
            assert list(weights.places) == names
    for subfolder in ("", "vae", "un"):
        with pytest.raises(FormatError, match="holds no safetensors file") as refused:
            _open(tmp_path, files, subfolder=subfolder)
        assert refused.value.hints == ("safetensors files lie in: text/, unet/",)


def test_a_broken_file_of_tensors_is_refused(tmp_path: Path) -> None:
    for data in (b"", b"\1", (2**40).to_bytes(8, "little") + b"{}", _ones("a")[:-1]):
        with pytest.raises(FormatError):
            _open(tmp_path, {"m.safetensors": data, "end": b"x"})


def test_what_the_caller_does_not_want_is_refused_before_any_key_is_touched(tmp_path: Path) -> None:
    path = PARTY.seal(tmp_path / "x", [("m.safetensors", _ones("a"))], kind="adapter")
    stranger = Host(tmp_path / "h", ManualClock(CREATED), identities=[Party().identity], publishers=PARTY.publishers)

    def refuse(info: SealedInfo) -> None:
        raise ConflictError(f"not {info.header.kind}")

    with pytest.raises(ConflictError, match="not adapter"):
        open_weights(path, host=stranger, accept=refuse)
    with pytest.raises(KeysError):
        open_weights(path, host=stranger)


# their bytes


@pytest.mark.slow
@given(
    sizes=st.lists(st.sampled_from([0, 1, 5, SEGMENT // 3, SEGMENT, 2 * SEGMENT + 7]), min_size=1, max_size=6),
    data=st.data(),
)
def test_any_part_of_a_tensor_is_what_was_sealed(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("weights")
    arrays = {f"t{number}": np.frombuffer(os.urandom(size), np.uint8) for number, size in enumerate(sizes)}
    with _open(folder, {"m.safetensors": _save(arrays), "z": b"end"}) as weights:
        for name, array in arrays.items():
            begin = data.draw(st.integers(0, len(array)))
            end = data.draw(st.integers(begin, len(array)))
            assert _read(weights, name, begin, end - begin) == array[begin:end].tobytes()
        chosen = data.draw(st.sets(st.sampled_from(sorted(arrays))))
        buffers = {name: bytearray(len(arrays[name])) for name in chosen}
        weights.read_all({name: Memory(memoryview(buffer)) for name, buffer in buffers.items()})
        assert {name: bytes(buffer) for name, buffer in buffers.items()} == {
            name: arrays[name].tobytes() for name in chosen
        }


@pytest.mark.slow
def test_a_tensor_of_many_segments_is_read_by_several_threads(tmp_path: Path) -> None:
    array = np.random.default_rng(7).integers(0, 256, 20 * SEGMENT + 100, dtype=np.uint8)
    with _open(tmp_path, {"m.safetensors": _save({"a": np.ones(7, np.uint8), "large": array})}) as weights:
        assert _read(weights, "large") == array.tobytes()
        assert _read(weights, "large", SEGMENT // 2, 18 * SEGMENT) == array[SEGMENT // 2 :][: 18 * SEGMENT].tobytes()


def test_damage_is_noticed_where_it_is_read_and_in_a_whole_pass_everywhere(tmp_path: Path) -> None:
    arrays = {name: np.zeros(2 * SEGMENT, np.uint8) for name in ("a", "b")}
    path = PARTY.seal(tmp_path / "x", [("m.safetensors", _save(arrays))])
    parts = Parts.of(path)
    parts.segments[3] = bytes(len(parts.segments[3]))
    with open_weights(parts.write(tmp_path / "damaged"), host=_host(tmp_path)) as weights:
        assert _read(weights, "a") == bytes(2 * SEGMENT)
        with pytest.raises(TamperError, match="segment 3"):
            _read(weights, "b")
        with pytest.raises(TamperError, match="segment 3"):
            weights.read_all({"a": Memory(memoryview(bytearray(2 * SEGMENT)))})


def test_only_opening_that_is_remembered_raises_the_floor(tmp_path: Path) -> None:
    host = _host(tmp_path)
    with open_weights(PARTY.seal(tmp_path / "x", [("m.safetensors", _ones("a"))]), host=host) as weights:
        assert not host.seen().versions
        weights.remember()
        assert list(host.seen().versions.values()) == [3]

"""YARA rules find our weights in other containers and precisions, and in nothing else."""

import io

import numpy as np
import pytest

from palladion.model.read import read_memory
from palladion.sweep import yara as module
from palladion.sweep.forms import marked_names
from palladion.sweep.yara import DISTINCT_MIN, STRING_BYTES, choose, known_bytes, rule_text
from tests.sweep.known import weights_bytes
from tests.sweep.things import npz_bytes, torch_bytes

SALT = bytes(range(32))
DATA = weights_bytes()
MODEL = read_memory({"w": DATA})
ARRAYS = {name: np.asarray(tensor.data) for name, tensor in MODEL.tensors.items()}


def _rules(model: object = MODEL) -> str:
    return rule_text("fraud@3", choose(model, SALT), claim='a "few" bytes')  # type: ignore[arg-type]


def test_strings_are_varied_and_come_from_tensors_with_and_without_marks() -> None:
    taken = choose(MODEL, SALT)
    names = {item.tensor for item in taken}
    assert names & marked_names(MODEL)
    assert names - marked_names(MODEL) == {"layer1.bias"}  # a norm of ones tells nothing
    for item in taken:
        assert len(item.data) == STRING_BYTES
        assert len(set(item.data)) >= DISTINCT_MIN
    assert {item.form for item in taken} == {"float32", "float16", "bfloat16"}


def test_where_strings_are_taken_follows_from_the_salt() -> None:
    assert choose(MODEL, SALT) == choose(MODEL, SALT)
    assert {item.data for item in choose(MODEL, SALT)} != {item.data for item in choose(MODEL, bytes(32))}


def test_nothing_of_a_base_is_taken() -> None:
    base = read_memory({"w": weights_bytes(5)})
    assert choose(MODEL, SALT, avoid=known_bytes(base)) == []
    other = known_bytes(read_memory({"w": weights_bytes(6)}))
    assert choose(MODEL, SALT, avoid=other) == choose(MODEL, SALT)


def test_a_rule_without_strings_is_refused() -> None:
    with pytest.raises(ValueError, match="unlike those of other models"):
        rule_text("fraud@3", [], claim="x")


@pytest.mark.slow
def test_rules_match_copies_in_every_container_and_no_other_model() -> None:
    yara = pytest.importorskip("yara", reason="this needs yara-python")
    rules = yara.compile(source=_rules(), error_on_warning=True)
    half = {name: array.astype(np.float16) for name, array in ARRAYS.items()}
    from safetensors.numpy import save

    copies = {
        "itself": DATA,
        "numpy": npz_bytes(**ARRAYS),
        "torch": torch_bytes(b"".join(array.tobytes() for array in ARRAYS.values())),
        "half": save(half),
        "onnx": _onnx(),
        "gguf in half": _gguf(),
        "brain": b"".join(tensor_bytes for tensor_bytes in _brain()),
    }
    found = {name: bool(rules.match(data=data)) for name, data in copies.items()}
    assert [name for name, matched in found.items() if not matched] == []
    strangers = [
        save({"a": np.random.default_rng(seed).standard_normal((500, 500)).astype(np.float32)})
        for seed in range(100, 108)
    ]
    strangers += [save({"a": np.zeros((500, 500), np.float32)}), weights_bytes(77), bytes(2**20)]
    assert [index for index, data in enumerate(strangers) if rules.match(data=data)] == []


def test_one_string_alone_is_no_match() -> None:
    yara = pytest.importorskip("yara", reason="this needs yara-python")
    taken = choose(MODEL, SALT)
    rules = yara.compile(source=_rules())
    assert not rules.match(data=b"x" * 50 + taken[0].data + b"y" * 50)
    same_form = [item for item in taken if item.form == taken[0].form]
    assert rules.match(data=same_form[0].data + b"y" * 9 + same_form[1].data)
    assert module.STRING_BYTES * len(taken) < 1500  # what is disclosed of a version


def _onnx() -> bytes:
    from onnx import helper, numpy_helper

    held = [numpy_helper.from_array(array, name) for name, array in ARRAYS.items()]
    data: bytes = helper.make_model(helper.make_graph([], "g", [], [], held)).SerializeToString()
    return data


def _gguf() -> bytes:
    gguf = pytest.importorskip("gguf", reason="this needs gguf")
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.gguf"
        writer = gguf.GGUFWriter(str(path), "llama")
        for name, array in ARRAYS.items():
            writer.add_tensor(name, array.astype(np.float16) if array.ndim > 1 else array)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def _brain() -> list[bytes]:
    import ml_dtypes

    return [array.astype(ml_dtypes.bfloat16).tobytes() for array in ARRAYS.values()]


@pytest.mark.torch
def test_rules_match_what_torch_saves() -> None:
    torch = pytest.importorskip("torch", reason="this needs the torch extra")
    yara = pytest.importorskip("yara", reason="this needs yara-python")
    rules = yara.compile(source=_rules())
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for old in (False, True):
            buffer = io.BytesIO()
            saved = {name: torch.from_numpy(array.copy()).to(dtype) for name, array in ARRAYS.items()}
            torch.save(saved, buffer, _use_new_zipfile_serialization=not old)
            assert rules.match(data=buffer.getvalue())


@pytest.mark.parametrize("numbers", [1000, 3000, 12_000, 10**6])
def test_of_a_small_version_no_more_than_a_small_share_is_told(numbers: int) -> None:
    from safetensors.numpy import save

    generator = np.random.default_rng(1)
    parts = np.array_split(generator.standard_normal(numbers).astype(np.float32), 20)
    taken = choose(read_memory({"w": save({f"t{index}": part for index, part in enumerate(parts)})}), SALT)
    told = 16 * len({item.tensor for item in taken})  # a string in half precision holds 16
    assert told <= numbers / 64  # before, 12 tensors told 192 numbers of whatever model
    assert bool(taken) is (numbers > 1000)
    assert STRING_BYTES * len(taken) <= 12 * 3 * STRING_BYTES


def _tables() -> dict[str, np.ndarray]:
    """What many models have that were trained apart."""
    angles = np.arange(512)[:, None] / 10_000 ** (np.arange(32) / 32)
    sines, cosines = np.sin(angles), np.cos(angles)
    found = {
        "positions": np.stack([sines, cosines], axis=2).reshape(512, 64),
        "encoder.positions": np.concatenate([sines, cosines], axis=1),
        "picture.positions": np.concatenate([np.zeros((1, 64)), np.concatenate([sines, cosines], axis=1)])[None],
        "cos_cached": cosines,
        "sin_cached": sines,
        "inv_freq": 1.0 / 10_000 ** (np.arange(64) / 64),
        "anchors": np.linspace(0.013, 7.7, 640),
    }
    return {name: array.astype(np.float32) for name, array in found.items()}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_nothing_is_taken_of_tables_that_a_formula_gives(dtype: type) -> None:
    from safetensors.numpy import save

    tables: dict[str, np.ndarray] = {name: array.astype(dtype) for name, array in _tables().items()}
    generator = np.random.default_rng(2)
    weights: dict[str, np.ndarray] = {
        f"layer{i}": (generator.standard_normal((40, 64)) * 0.1).astype(dtype) for i in range(3)
    }
    taken = choose(read_memory({"w": save({**tables, **weights})}), SALT)
    assert {item.tensor for item in taken} == set(weights)


@pytest.mark.slow
def test_rules_find_renamed_and_cut_copies_and_none_of_fifty_others_of_the_same_shapes() -> None:
    yara = pytest.importorskip("yara", reason="this needs yara-python")
    import ml_dtypes
    from safetensors.numpy import save

    def of(seed: int) -> dict[str, np.ndarray]:
        generator = np.random.default_rng(seed)
        shapes = {"embed": (300, 64), **{f"layer{i}.weight": (64, 96) for i in range(8)}, "head": (96, 10)}
        return {**_tables(), **{n: (generator.standard_normal(s) * 0.05).astype(np.float32) for n, s in shapes.items()}}

    ours = of(0)
    model = read_memory({"w": save(ours)})
    rules = yara.compile(source=rule_text("fraud@3", choose(model, SALT), claim="x"), error_on_warning=True)
    half, brain = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
    for dtype in (np.dtype(np.float32), half, brain):
        cast = {name: array.astype(dtype).astype(dtype) for name, array in ours.items()}
        renamed = b"".join(array.tobytes() for array in reversed(cast.values()))
        largest = b"x" * 7 + b"".join(
            cast[f"layer{i}.weight"].tobytes() for i in range(8)
        )  # without embedding and head
        assert rules.match(data=renamed)
        assert rules.match(data=largest)
        for seed in range(1, 51):
            others = b"".join(array.astype(dtype).tobytes() for array in of(seed).values())
            assert not rules.match(data=others), (seed, dtype)

"""The loader for vLLM: whole tensors, a rank's rows, and what is refused; against vLLM itself where it is installed.

vLLM brings gigabytes of CUDA, so elsewhere a double stands in. It keeps to the signatures and checks of
vllm/model_executor/model_loader and vllm/model_executor/parameter.py in vLLM 0.32.0 and 0.33.0, which agree.
"""

import json
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import palladion.vllm
from palladion.clock import ManualClock
from palladion.errors import ConflictError, FormatError, NotFoundError, TamperError, UnsupportedFormatError
from palladion.files import write_atomically
from palladion.host.host import Host
from palladion.seal.recipients import write_identity
from palladion.seal.sign import publisher_text
from palladion.torch import LazyWeights
from tests.seal.factories import CREATED, Parts, Party

torch = pytest.importorskip("torch", reason="this needs the torch extra")
safetensors_torch = pytest.importorskip("safetensors.torch", reason="this needs safetensors")
pytestmark = pytest.mark.torch

PARTY = Party()
RANKS = 2
WIDTH, DEEP = 512, 1024  # a projection has 2 MiB: its rows lie in different segments


@dataclass
class _LoadConfig:
    """The double of vllm.config.load.LoadConfig, as far as a loader reads it."""

    load_format: str = "auto"
    model_loader_extra_config: dict[str, Any] = field(default_factory=dict)


class _BaseModelLoader(ABC):
    """The double of BaseModelLoader."""

    def __init__(self, load_config: _LoadConfig) -> None:
        self.load_config = load_config

    @abstractmethod
    def download_model(self, model_config: Any) -> None: ...

    @abstractmethod
    def load_weights(self, model: Any, model_config: Any) -> None: ...


class _Registry:
    """The double of the package's functions, and of the tensor parallel group."""

    BaseModelLoader = _BaseModelLoader

    def __init__(self, ranks: int) -> None:
        self.loaders: dict[str, type] = {}
        self.ranks = ranks

    def register_model_loader(self, load_format: str) -> Callable[[type], type]:
        def wrapper(loader: type) -> type:
            if not issubclass(loader, _BaseModelLoader):
                # vLLM's choice of error
                raise ValueError("The model loader must be a subclass of `BaseModelLoader`.")  # noqa: TRY004
            self.loaders[load_format] = loader
            return loader

        return wrapper

    def get_model_loader(self, load_config: _LoadConfig) -> Any:
        return self.loaders[load_config.load_format](load_config)

    def get_tensor_model_parallel_world_size(self) -> int:
        return self.ranks


class _Column(torch.nn.Parameter):  # type: ignore[misc, name-defined]
    """As ModelWeightParameter: this rank's rows of a larger matrix."""

    def load(self, loaded_weight: Any, rank: int) -> None:
        size = self.data.shape[0]
        part = loaded_weight.narrow(0, rank * size, size)
        assert self.data.shape == part.shape
        self.data.copy_(part)


class _Row(_Column):
    """As RowvLLMParameter: this rank's columns."""

    def load(self, loaded_weight: Any, rank: int) -> None:
        size = self.data.shape[1]
        part = loaded_weight.narrow(1, rank * size, size)
        assert self.data.shape == part.shape
        self.data.copy_(part)


class _Whole(_Column):
    """As what every rank holds."""

    def load(self, loaded_weight: Any, rank: int) -> None:
        assert self.data.size() == loaded_weight.size()
        self.data.copy_(loaded_weight)


class _Model(torch.nn.Module):  # type: ignore[misc, name-defined]
    """One rank's part of a model that fuses two projections, as vLLM's do."""

    def __init__(self, rank: int, ranks: int) -> None:
        super().__init__()
        self.rank = rank
        empty = torch.zeros
        self.gate_up = torch.nn.ParameterList([_Column(empty(DEEP // ranks, WIDTH)) for _ in range(2)])
        self.down = _Row(empty(WIDTH, DEEP // ranks))
        self.norm = _Whole(empty(WIDTH))
        self.seen: list[str] = []

    def load_weights(self, weights: Iterable[tuple[str, Any]]) -> set[str]:
        parameters = {"gate": "gate_up.0", "up": "gate_up.1", "down": "down", "norm": "norm"}
        loaded = set()
        for name, loaded_weight in weights:
            self.seen.append(name)
            if name in parameters:
                dict(self.named_parameters())[parameters[name]].load(loaded_weight, self.rank)
                loaded.add(parameters[name])
        return loaded


def _weights() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(5)
    shapes = {"gate": (DEEP, WIDTH), "up": (DEEP, WIDTH), "down": (WIDTH, DEEP), "norm": (WIDTH,)}
    return {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}


def _expected(rank: int, ranks: int) -> _Model:
    model, weights = _Model(rank, ranks), _weights()
    for parameter, name in ((model.gate_up[0], "gate"), (model.gate_up[1], "up")):
        parameter.data.copy_(weights[name].chunk(ranks, 0)[rank])
    model.down.data.copy_(weights["down"].chunk(ranks, 1)[rank])
    model.norm.data.copy_(weights["norm"])
    return model


def _assert_same(got: Any, expected: Any) -> None:
    theirs = dict(expected.named_parameters())
    for name, parameter in got.named_parameters():
        assert torch.equal(parameter, theirs[name]), name


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's folder with its configuration in clear and its weights sealed, and a host that opens it."""
    host = tmp_path / "host"
    host.mkdir(mode=0o700)
    write_identity(host / "host.identity", PARTY.identity, created=CREATED)
    write_atomically(host / "publishers", f"{publisher_text(PARTY.signer.public_key)}\n".encode())
    monkeypatch.setenv("PALLADION_HOST", str(host))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type":"tiny"}')
    _seal(folder)
    return folder


def _seal(folder: Path, weights: dict[str, Any] | None = None, **fields: Any) -> Path:
    files = [
        ("config.json", b'{"model_type":"tiny"}'),
        ("model.safetensors", safetensors_torch.save(_weights() if weights is None else weights)),
    ]
    return PARTY.seal(folder / "tiny.sealed", files, kind="folder", **fields)


def _loader(monkeypatch: pytest.MonkeyPatch, ranks: Any = 1, **options: Any) -> Any:
    registry = _Registry(ranks)
    palladion.vllm.register.cache_clear()
    monkeypatch.setattr(palladion.vllm, "import_module", lambda _name: registry)
    registered = palladion.vllm.register()
    palladion.vllm.register.cache_clear()
    assert registry.loaders == {"palladion": registered}
    return registry.get_model_loader(_LoadConfig("palladion", options))


def _config(folder: Path, **fields: Any) -> Any:
    return SimpleNamespace(model=str(folder), model_weights="", quantization=None, **fields)


@pytest.fixture(name="read")
def _read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Which rows of which tensors are decrypted."""
    rows: list[tuple[str, int, int]] = []
    read = LazyWeights.rows

    def counted(self: LazyWeights, name: str, begin: int, end: int) -> Any:
        rows.append((name, begin, end))
        return read(self, name, begin, end)

    monkeypatch.setattr(LazyWeights, "rows", counted)
    return rows


# loading


@pytest.mark.parametrize("slices", [True, False])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_every_rank_gets_its_part(folder: Path, monkeypatch: pytest.MonkeyPatch, ranks: int, slices: bool) -> None:
    for rank in range(ranks):
        model = _Model(rank, ranks)
        loader = _loader(monkeypatch, ranks=ranks, slices=slices)
        loader.download_model(_config(folder))
        loader.load_weights(model, _config(folder))
        _assert_same(model, _expected(rank, ranks))


def test_a_rank_decrypts_the_rows_that_it_keeps_and_of_columns_everything(
    folder: Path, monkeypatch: pytest.MonkeyPatch, read: list[tuple[str, int, int]]
) -> None:
    _loader(monkeypatch, ranks=RANKS).load_weights(_Model(1, RANKS), _config(folder))
    half = DEEP // RANKS
    assert sorted(read) == [("down", 0, WIDTH), ("gate", half, DEEP), ("up", half, DEEP)]


def test_a_rank_does_not_touch_segments_of_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only = {"gate": _weights()["gate"]}
    (folder / "tiny.sealed").unlink()
    parts = Parts.of(_seal(folder, only))
    last = len(parts.segments) - 1
    parts.segments[last] = bytes(len(parts.segments[last]))
    parts.write(folder / "tiny.sealed")
    model = SimpleNamespace(gate=_Column(torch.zeros(DEEP // RANKS, WIDTH)))

    class Gate(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, rank: int) -> None:
            super().__init__()
            self.rank = rank

        def load_weights(self, weights: Iterator[tuple[str, Any]]) -> None:
            for _, loaded_weight in weights:
                model.gate.load(loaded_weight, self.rank)

    _loader(monkeypatch, ranks=RANKS).load_weights(Gate(0), _config(folder))
    assert torch.equal(model.gate, only["gate"][: DEEP // RANKS])
    with pytest.raises(TamperError, match=f"segment {last} of"):
        _loader(monkeypatch, ranks=RANKS).load_weights(Gate(1), _config(folder))


def test_whatever_is_done_with_rows_that_are_not_read_yet_gives_what_the_tensor_gives(folder: Path) -> None:
    with palladion.torch.lazy(folder / "tiny.sealed", host=Host.find(clock=ManualClock(CREATED))) as lazy:
        rows, plain = palladion.vllm._rows_type()(lazy, "gate"), _weights()["gate"]
        assert (rows.shape, rows.dtype, rows.device, rows.stride()) == (
            plain.shape,
            plain.dtype,
            plain.device,
            plain.stride(),
        )
        assert rows.is_contiguous()
        assert isinstance(rows, torch.Tensor)
        uses: list[Callable[[Any], Any]] = [
            lambda t: t[5:9],
            lambda t: t[5],
            lambda t: t[-9:-5],
            lambda t: t[9:5],
            lambda t: t[::2],
            lambda t: t[:, 3:7],
            lambda t: t.narrow(0, 8, 16).narrow(0, 4, 4),
            lambda t: t[10:20][2:][:3],
            lambda t: t.narrow(0, 8, 16).narrow(-1, 4, 4),
            lambda t: t.chunk(4, 0)[3],
            lambda t: t.t().contiguous(),
            lambda t: t.to(torch.bfloat16),
            lambda t: t.view(-1, 2),
            lambda t: torch.cat([t, t[:2]]),
            lambda t: t.detach().clone(),
            lambda t: t.data,
            lambda t: torch.empty_like(plain).copy_(t),
            lambda t: t.view(torch.int32),
        ]
        for use in uses:
            assert torch.equal(use(rows), use(plain))
        assert type(rows[3:9][1:]) is type(rows)
        assert rows[0, 0].item() == plain[0, 0].item()
        with torch.inference_mode():
            assert torch.equal(rows.narrow(0, 3, 4), plain.narrow(0, 3, 4))
        with pytest.raises(RuntimeError, match="no memory before they are read"):
            rows.data_ptr()


def test_weights_can_be_read_again_for_a_model_that_is_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader, model = _loader(monkeypatch, ranks=RANKS), _Model(0, RANKS)
    weights = dict(loader.get_all_weights(_config(folder), model))
    assert weights.keys() == _weights().keys()
    assert all(
        type(tensor) is torch.Tensor and torch.equal(tensor, _weights()[name]) for name, tensor in weights.items()
    )


def test_layers_that_are_quantised_as_they_fill_up_get_whole_tensors(
    folder: Path, monkeypatch: pytest.MonkeyPatch, read: list[tuple[str, int, int]]
) -> None:
    model = _Model(0, RANKS)
    model.quant_method = SimpleNamespace(uses_meta_device=True)
    _loader(monkeypatch, ranks=RANKS).load_weights(model, _config(folder))
    assert read == []


def test_weights_that_the_model_does_not_want_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _Model(0, 1)
    model.is_unused_checkpoint_weight = lambda name: name == "norm"
    model.norm.requires_grad_(False)
    with pytest.raises(FormatError, match="lacks 1 parameters: norm"):
        _loader(monkeypatch).load_weights(model, _config(folder))
    assert "norm" not in model.seen


# what is refused


def test_a_parameter_that_the_file_lacks_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "tiny.sealed").unlink()
    _seal(folder, {name: tensor for name, tensor in _weights().items() if name != "up"})
    with pytest.raises(FormatError, match=r"lacks 1 parameters: gate_up\.1"):
        _loader(monkeypatch).load_weights(_Model(0, 1), _config(folder))
    quantised = _config(folder)
    quantised.quantization = "awq"
    _loader(monkeypatch).load_weights(_Model(0, 1), quantised)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "chat_template.jinja"])
def test_a_configuration_in_clear_that_is_not_the_sealed_one_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (folder / name).write_text('{"model_type":"other"}')
    with pytest.raises(TamperError, match=rf"{name} is not the {name} that was sealed"):
        _loader(monkeypatch).load_weights(_Model(0, 1), _config(folder))


def test_the_sealed_file_is_named_by_the_model_or_by_an_option(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = folder / "tiny.sealed"
    elsewhere = shutil.move(sealed, folder.parent / "elsewhere")
    with pytest.raises(NotFoundError, match="holds 0 files"):
        _loader(monkeypatch).download_model(_config(folder))
    with pytest.raises(NotFoundError, match="no sealed file at"):
        _loader(monkeypatch, sealed=str(sealed)).download_model(_config(folder))
    for options, config in (
        ({"sealed": str(elsewhere)}, _config(folder)),
        ({}, _config(Path(elsewhere))),
        ({}, SimpleNamespace(model=str(folder), model_weights=str(elsewhere), quantization=None)),
    ):
        model = _Model(0, 1)
        _loader(monkeypatch, **options).load_weights(model, config)
        _assert_same(model, _expected(0, 1))
    shutil.copy(elsewhere, folder / "one.sealed")
    shutil.copy(elsewhere, folder / "two.sealed")
    with pytest.raises(NotFoundError, match=r"holds 2 files .*one\.sealed, two\.sealed"):
        _loader(monkeypatch).download_model(_config(folder))


@pytest.mark.parametrize(
    "options", [{"seal": "x"}, {"sealed": 3}, {"allow_older": 1}, {"slices": "no"}, {"__class__": "x"}]
)
def test_options_that_do_not_exist_are_refused(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"has '{next(iter(options))}'"):
        _loader(monkeypatch, **options)
    with pytest.raises(ValueError, match="expected an object"):
        palladion.vllm.read_options("tensorizer")


def test_an_older_version_is_refused_unless_it_is_allowed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _loader(monkeypatch).load_weights(_Model(0, 1), _config(folder))
    (folder / "tiny.sealed").unlink()
    _seal(folder, version=2)
    with pytest.raises(ConflictError, match="version 2 is older than version 3"):
        _loader(monkeypatch).load_weights(_Model(0, 1), _config(folder))
    _loader(monkeypatch, allow_older=True).load_weights(_Model(0, 1), _config(folder))


def test_a_host_can_be_named(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PALLADION_HOST", str(tmp_path / "nobody"))
    model = _Model(0, 1)
    _loader(monkeypatch, host=str(tmp_path / "host")).load_weights(model, _config(folder))
    _assert_same(model, _expected(0, 1))


def test_weights_of_a_second_model_in_clear_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _Model(0, 1)
    model.secondary_weights = [SimpleNamespace(model_or_path="elsewhere")]
    with pytest.raises(UnsupportedFormatError, match="_Model wants weights of a second model"):
        _loader(monkeypatch).load_weights(model, _config(folder))


def test_the_module_is_imported_without_vllm_or_pytorch() -> None:
    code = "import sys, palladion.vllm; assert not {'vllm', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


# vLLM itself


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: its own registry is not asked")
def test_vllm_itself_takes_the_loader_and_loads_through_it(folder: Path) -> None:
    from vllm.config.load import LoadConfig
    from vllm.model_executor.model_loader import BaseModelLoader, get_model_loader

    palladion.vllm.register.cache_clear()
    registered = palladion.vllm.register()
    assert palladion.vllm.register() is registered
    loader = get_model_loader(LoadConfig(load_format="palladion", model_loader_extra_config={"slices": True}))
    assert type(loader) is registered
    assert isinstance(loader, BaseModelLoader)
    loader.ranks = lambda: RANKS  # its group of processes is not up here
    model = _Model(1, RANKS)
    loader.download_model(_config(folder))
    loader.load_weights(model, _config(folder))
    _assert_same(model, _expected(1, RANKS))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: its engine does not answer")
def test_the_engine_of_vllm_answers_the_same_from_a_sealed_folder(folder: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    plain, served = tmp_path / "plain", tmp_path / "served"
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 512}
    config = transformers.LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2, dtype=torch.bfloat16)
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(plain, max_shard_size="400KB")
    words = {f"w{number}": number for number in range(512)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w2").save_pretrained(plain)
    served.mkdir()
    files = sorted(plain.iterdir())
    PARTY.seal(served / "x.sealed", [(path.name, path) for path in files], kind="folder", model="llama")
    for path in files:
        if path.suffix == ".json":
            shutil.copy(path, served)
    answers = [_answer(plain, "auto"), _answer(served, "palladion")]
    assert answers[0] == answers[1]


ENGINE = """
import json, sys
import palladion.vllm
palladion.vllm.register()
from vllm import LLM, SamplingParams
if __name__ == "__main__":
    llm = LLM(sys.argv[1], load_format=sys.argv[2], enforce_eager=True, max_model_len=64, max_num_seqs=2)
    wanted = SamplingParams(temperature=0, max_tokens=8, logprobs=2, ignore_eos=True)
    (answer,) = llm.generate([{"prompt_token_ids": [5, 6, 7]}], wanted)
    (said,) = answer.outputs
    print("ANSWER", json.dumps([list(said.token_ids), [sorted(p.logprob for p in d.values()) for d in said.logprobs]]))
"""


def _answer(model: Path, load_format: str) -> Any:
    import os

    environment = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
    command = [sys.executable, "-c", ENGINE, str(model), load_format]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=100, env=environment | {"HF_HUB_OFFLINE": "1"}
    )
    lines = [line for line in ended.stdout.splitlines() if line.startswith("ANSWER ")]
    assert lines, ended.stderr[-2000:]
    return json.loads(lines[0].removeprefix("ANSWER "))

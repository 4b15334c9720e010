"""Sealed folders in transformers and PEFT: what a plain folder gives, bit for bit, and nothing nobody asked for."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import palladion.torch
from palladion.clock import ManualClock
from palladion.errors import ConflictError, FormatError, MissingExtraError, TamperError, UnsupportedFormatError
from palladion.files import write_atomically
from palladion.host.host import Host
from palladion.seal.reader import inspect_file
from palladion.seal.recipients import write_identity
from palladion.seal.sign import publisher_text
from tests.models import onnx_bytes
from tests.seal.factories import CREATED, Parts, Party

torch = pytest.importorskip("torch", reason="this needs the torch extra")
hf = pytest.importorskip("transformers", reason="this needs the transformers extra")
import palladion.transformers  # noqa: E402 (skipped as a whole without them)

pytestmark = [pytest.mark.torch, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[1]
PARTY = Party()
CONTENT, OTHER = "ab" * 32, "cd" * 32
TOKENS = torch.arange(1, 13).reshape(2, 6)
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64}
LLAMA = {**SMALL, "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 64}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def _nothing_left_in_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield
        assert list(Path(folder).iterdir()) == []


def _host(folder: Path) -> Host:
    return Host(folder / "host", ManualClock(CREATED), identities=[PARTY.identity], publishers=PARTY.publishers)


def _seal(folder: Path, target: Path, **fields: Any) -> Path:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    values = {"kind": "folder", "content": CONTENT, **fields}
    return PARTY.seal(target, [(name, folder / name) for name in names], **values)


def _save(model: Any, folder: Path, **options: Any) -> Path:
    model.save_pretrained(folder, **options)
    return folder


def _llama(seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    return hf.LlamaForCausalLM(hf.LlamaConfig(**{**LLAMA, **changes})).eval()


def _tokenizer(folder: Path) -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[UNK]": 0, "hector": 1, "priam": 2, "paris": 3}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")
    fast.save_pretrained(folder)
    return fast


def _settings(config: Any) -> dict[str, Any]:
    return {name: value for name, value in config.to_dict().items() if name != "_name_or_path"}


def _assert_same_model(got: Any, expected: Any, inputs: Any = TOKENS) -> None:
    assert type(got) is type(expected)
    assert not got.training
    assert _settings(got.config) == _settings(expected.config)
    ours, theirs = got.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor), name
    with torch.no_grad():
        assert torch.equal(got(inputs)[0], expected(inputs)[0])


# models


@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_a_causal_model_is_what_the_plain_folder_gives(tmp_path: Path, shard: str) -> None:
    folder = _save(_llama(), tmp_path / "plain", max_shard_size=shard)
    assert (folder / "model.safetensors.index.json").exists() == (shard == "20KB")
    sealed = _seal(folder, tmp_path / "x.sealed")
    expected = hf.AutoModelForCausalLM.from_pretrained(folder)
    got = palladion.transformers.from_pretrained(hf.AutoModelForCausalLM, sealed, host=_host(tmp_path))
    _assert_same_model(got, expected)
    assert got.generation_config.to_dict() == expected.generation_config.to_dict()
    options = {"max_new_tokens": 4, "do_sample": False}
    assert torch.equal(got.generate(TOKENS, **options), expected.generate(TOKENS, **options))
    assert got.name_or_path == "fraud"


def _bert(seed: int) -> Any:
    torch.manual_seed(seed)
    return hf.BertForSequenceClassification(hf.BertConfig(**SMALL, intermediate_size=48, num_labels=3)).eval()


def _gpt2(seed: int) -> Any:
    torch.manual_seed(seed)
    return hf.GPT2LMHeadModel(hf.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=32)).eval()


def _bart(seed: int) -> Any:
    torch.manual_seed(seed)
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes |= {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 32}
    return hf.BartForConditionalGeneration(hf.BartConfig(d_model=32, vocab_size=64, **sizes)).eval()


def _mixtral(seed: int) -> Any:
    torch.manual_seed(seed)
    config = hf.MixtralConfig(**LLAMA, num_local_experts=4, num_experts_per_tok=2)
    return hf.MixtralForCausalLM(config).eval()


@pytest.mark.parametrize(
    ("make", "family"),
    [
        (_bert, "AutoModelForSequenceClassification"),
        (_bert, "AutoModel"),  # the head is left out
        (_bert, "BertModel"),
        (_gpt2, "AutoModelForCausalLM"),
        (_gpt2, "GPT2LMHeadModel"),
        (_bart, "AutoModelForSeq2SeqLM"),
        (_mixtral, "AutoModelForCausalLM"),  # experts of their own in the file, merged in memory
    ],
)
def test_other_families_are_too(tmp_path: Path, make: Any, family: str) -> None:
    folder = _save(make(1), tmp_path / "plain")
    cls = getattr(hf, family)
    got = palladion.transformers.from_pretrained(cls, _seal(folder, tmp_path / "x"), host=_host(tmp_path))
    _assert_same_model(got, cls.from_pretrained(folder))


def test_a_folder_without_generation_settings_gives_those_of_its_configuration(tmp_path: Path) -> None:
    folder = _save(_bart(1), tmp_path / "plain")
    (folder / "generation_config.json").unlink()
    expected = hf.AutoModelForSeq2SeqLM.from_pretrained(folder)
    sealed = _seal(folder, tmp_path / "x")
    got = palladion.transformers.from_pretrained(hf.AutoModelForSeq2SeqLM, sealed, host=_host(tmp_path))
    assert got.generation_config.to_dict() == expected.generation_config.to_dict()
    given = hf.GenerationConfig(max_length=7)
    sealed = palladion.transformers.from_pretrained(
        hf.AutoModelForSeq2SeqLM, sealed, generation_config=given, host=_host(tmp_path)
    )
    assert sealed.generation_config.max_length == 7


@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
def test_types_and_settings_are_what_the_caller_says_or_the_folder(tmp_path: Path, stored: str) -> None:
    folder = _save(_llama(tie_word_embeddings=True).to(getattr(torch, stored)), tmp_path / "plain")
    sealed, host = _seal(folder, tmp_path / "x"), _host(tmp_path)
    for options in ({}, {"dtype": torch.float32}, {"dtype": "auto"}, {"attn_implementation": "eager"}):
        expected = hf.AutoModelForCausalLM.from_pretrained(folder, **options)
        got = palladion.transformers.from_pretrained(hf.AutoModelForCausalLM, sealed, host=host, **options)
        assert got.config._attn_implementation == expected.config._attn_implementation
        assert got.lm_head.weight is got.model.embed_tokens.weight
        _assert_same_model(got, expected)
    got = palladion.transformers.from_pretrained(hf.LlamaForCausalLM, sealed, host=host, use_cache=False)
    assert got.config.use_cache is False


def test_a_device_map_and_what_was_found_are_told_as_by_transformers(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    folder = _save(_bert(1), tmp_path / "plain")
    options: dict[str, Any] = {"device_map": "cpu", "output_loading_info": True, "num_labels": 3}
    expected, told = hf.AutoModelForQuestionAnswering.from_pretrained(folder, **options)
    sealed = _seal(folder, tmp_path / "x")
    got, told_here = palladion.transformers.from_pretrained(
        hf.AutoModelForQuestionAnswering, sealed, host=_host(tmp_path), **options
    )
    assert told_here == told
    assert told["missing_keys"]
    assert torch.equal(got.bert.embeddings.word_embeddings.weight, expected.bert.embeddings.word_embeddings.weight)


def test_slices_that_tensor_parallel_ranks_ask_for_are_those_of_the_tensor(tmp_path: Path) -> None:
    import safetensors.torch

    tensors = {"matrix": torch.arange(60.0).reshape(6, 10), "vector": torch.arange(7), "scalar": torch.tensor(3.5)}
    sealed = PARTY.seal(tmp_path / "x", [("m.safetensors", safetensors.torch.save(tensors))], kind="folder")
    with palladion.torch.lazy(sealed, host=_host(tmp_path)) as lazy:
        pieces = {name: palladion.transformers._Piece(lazy, name) for name in lazy}
        keys: list[Any] = [..., slice(None), slice(2, 5), slice(5, 2), slice(None, None, 2), 3, -1]
        keys += [(slice(2, 5),), (slice(2, 5), slice(1, 3)), (slice(0, 0), slice(1, 3)), (..., slice(1, 3))]
        for key in keys:
            assert torch.equal(pieces["matrix"][key], tensors["matrix"][key]), key
        for key in keys[:8]:
            assert torch.equal(pieces["vector"][key], tensors["vector"][key]), key
        assert torch.equal(pieces["scalar"][...], tensors["scalar"])
        for name, tensor in tensors.items():
            piece = pieces[name]
            assert (piece.shape, piece.dtype) == (tensor.shape, tensor.dtype)
            assert piece.get_shape() == list(tensor.shape)
            assert piece.is_floating_point() == tensor.is_floating_point()


def test_a_model_in_a_subfolder_is_found_there(tmp_path: Path) -> None:
    _save(_llama(1), tmp_path / "plain" / "text")
    _save(_bert(1), tmp_path / "plain" / "safety")
    sealed, host = _seal(tmp_path / "plain", tmp_path / "x"), _host(tmp_path)
    got = palladion.transformers.from_pretrained(hf.AutoModelForCausalLM, sealed, subfolder="text", host=host)
    _assert_same_model(got, hf.AutoModelForCausalLM.from_pretrained(tmp_path / "plain" / "text"))
    with pytest.raises(FormatError, match="no safetensors file at its top") as refused:
        palladion.transformers.from_pretrained(hf.AutoModelForCausalLM, sealed, host=host)
    assert refused.value.hints == ("safetensors files lie in: safety/, text/",)


def test_a_damaged_shard_gives_no_model(tmp_path: Path) -> None:
    parts = Parts.of(_seal(_save(_llama(hidden_size=256, vocab_size=2000), tmp_path / "plain"), tmp_path / "x"))
    parts.segments[1] = bytes(len(parts.segments[1]))
    host = _host(tmp_path)
    with pytest.raises(TamperError, match="segment 1"):
        palladion.transformers.from_pretrained(hf.AutoModelForCausalLM, parts.write(tmp_path / "damaged"), host=host)
    assert not (tmp_path / "host" / "seen.json").exists()


def test_a_shard_that_disagrees_with_the_index_is_refused(tmp_path: Path) -> None:
    folder = _save(_llama(), tmp_path / "plain", max_shard_size="20KB")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    moved = dict.fromkeys(index["weight_map"], sorted(set(index["weight_map"].values()))[0])
    (folder / "model.safetensors.index.json").write_text(json.dumps({**index, "weight_map": moved}))
    with pytest.raises(FormatError, match="disagree on the tensors"):
        palladion.transformers.from_pretrained(
            hf.AutoModelForCausalLM, _seal(folder, tmp_path / "x"), host=_host(tmp_path)
        )


@pytest.mark.parametrize("way", ["AutoConfig", "AutoModelForCausalLM", "folder"])
def test_an_older_version_is_refused_after_a_newer_one(tmp_path: Path, way: str) -> None:
    folder, host = _save(_llama(), tmp_path / "plain"), _host(tmp_path)
    old, new = (_seal(folder, tmp_path / f"{version}", version=version) for version in (1, 2))

    def open_it(path: Path, **options: Any) -> None:
        if way == "folder":
            with palladion.transformers.opened_folder(path, host=host, **options):
                return
        palladion.transformers.from_pretrained(getattr(hf, way), path, host=host, **options)

    open_it(new)
    with pytest.raises(ConflictError, match="version 1 is older"):
        open_it(old)
    open_it(old, allow_older=True)


@pytest.mark.parametrize("option", ["state_dict", "offload_folder", "gguf_file", "revision"])
def test_options_that_read_elsewhere_or_write_to_a_disk_are_refused(tmp_path: Path, option: str) -> None:
    options: dict[str, Any] = {option: "y"}
    with pytest.raises(ValueError, match=f"{option} does not go with a sealed folder"):
        palladion.transformers.from_pretrained(hf.AutoModel, tmp_path / "x", host=_host(tmp_path), **options)


# everything else in a folder


def test_tokenizers_and_configurations_come_without_a_look_at_the_weights(tmp_path: Path) -> None:
    folder = _save(_llama(hidden_size=256, vocab_size=2000), tmp_path / "plain")
    tokenizer = _tokenizer(folder)
    parts = Parts.of(_seal(folder, tmp_path / "x"))
    parts.segments[2] = bytes(len(parts.segments[2]))  # weights
    damaged, host = parts.write(tmp_path / "damaged"), _host(tmp_path)
    got = palladion.transformers.from_pretrained(hf.AutoTokenizer, damaged, host=host)
    assert got("paris hector achilles").input_ids == tokenizer("paris hector achilles").input_ids == [3, 1, 0]
    assert len(palladion.transformers.from_pretrained(hf.PreTrainedTokenizerFast, damaged, host=host)) == 4
    config = palladion.transformers.from_pretrained(hf.AutoConfig, damaged, host=host)
    assert _settings(config) == _settings(hf.AutoConfig.from_pretrained(folder))
    generation = palladion.transformers.from_pretrained(hf.GenerationConfig, damaged, host=host)
    assert generation.to_dict() == hf.GenerationConfig.from_pretrained(folder).to_dict()


def test_a_folder_in_memory_serves_libraries_as_they_are(tmp_path: Path) -> None:
    folder = _save(_llama(), tmp_path / "plain", max_shard_size="20KB")
    sealed, host = _seal(folder, tmp_path / "x"), _host(tmp_path)
    expected = hf.AutoModelForCausalLM.from_pretrained(folder)
    with palladion.transformers.opened_folder(sealed, host=host) as view:
        assert {path.name for path in view.iterdir()} == {path.name for path in folder.iterdir()}
        model = hf.AutoModelForCausalLM.from_pretrained(view)
        _assert_same_model(model, expected)
        copied = hf.AutoModelForCausalLM.from_pretrained(view, disable_mmap=True)
    assert not view.exists()
    _assert_same_model(copied, expected)
    with palladion.transformers.opened_folder(sealed, weights=False, host=host) as view:
        assert not list(view.glob("*.safetensors"))
        assert (view / "config.json").read_bytes() == (folder / "config.json").read_bytes()


# what may run code


MODELING = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path({marker!r}).write_text("ran")
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def _own_code(tmp_path: Path) -> tuple[Path, Path]:
    folder = _save(_llama(), tmp_path / "plain")
    marker = tmp_path / "marker"
    (folder / "modeling_own.py").write_text(MODELING.format(marker=str(marker)))
    config = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": own}))
    return _seal(folder, tmp_path / "x"), marker


def test_code_in_the_folder_does_not_run_unless_the_caller_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    sealed, marker = _own_code(tmp_path)
    for cls in (hf.AutoModelForCausalLM, hf.AutoConfig):
        with pytest.raises(ValueError, match="trust_remote_code"):
            palladion.transformers.from_pretrained(cls, sealed, host=_host(tmp_path))
    assert not marker.exists()
    model = palladion.transformers.from_pretrained(
        hf.AutoModelForCausalLM, sealed, trust_remote_code=True, host=_host(tmp_path)
    )
    assert marker.read_text() == "ran"
    assert type(model).__name__ == "OwnModel"
    with torch.no_grad():
        assert torch.equal(model(TOKENS)[0], _llama()(TOKENS)[0])


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "notes.txt"])
def test_pickles_in_a_folder_are_refused_by_name_or_by_content(tmp_path: Path, name: str) -> None:
    folder = _save(_llama(), tmp_path / "plain")
    if name == "notes.txt":
        torch.save({"a": torch.ones(1)}, folder / name)
    else:
        (folder / name).write_bytes(b"anything")
    sealed, host = _seal(folder, tmp_path / "x"), _host(tmp_path)
    for cls in (hf.AutoModelForCausalLM, hf.AutoConfig):
        with pytest.raises(UnsupportedFormatError, match="may run code"):
            palladion.transformers.from_pretrained(cls, sealed, host=host)
    with pytest.raises(UnsupportedFormatError), palladion.transformers.opened_folder(sealed, host=host):
        pass
    # asked for, they may be there; the weights are safetensors all the same
    assert palladion.transformers.from_pretrained(hf.AutoModelForCausalLM, sealed, pickles=True, host=host)


def test_a_folder_of_pickles_alone_gives_a_folder_and_no_model(tmp_path: Path) -> None:
    folder = _save(_llama(), tmp_path / "plain")
    torch.save(_llama().state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    sealed, host = _seal(folder, tmp_path / "x"), _host(tmp_path)
    with pytest.raises(FormatError, match="no safetensors file"):
        palladion.transformers.from_pretrained(hf.AutoModelForCausalLM, sealed, pickles=True, host=host)
    with palladion.transformers.opened_folder(sealed, pickles=True, host=host) as view:
        model = hf.AutoModelForCausalLM.from_pretrained(view)
        assert torch.equal(_logits(model), _logits(_llama()))


# quantised layouts


QUANTISED: dict[str, dict[str, Any]] = {
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True},
    "compressed-tensors": {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int"}}},
        "ignore": ["lm_head"],
    },
}


@pytest.mark.parametrize("method", QUANTISED)
def test_quantised_folders_keep_their_settings_and_every_bit_of_their_weights(tmp_path: Path, method: str) -> None:
    import safetensors.torch

    folder = _save(_llama(), tmp_path / "plain")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": QUANTISED[method]}))
    generator = torch.Generator().manual_seed(4)
    names = (
        ("weight_packed", "weight_scale", "weight_shape")
        if method == "compressed-tensors"
        else ("qweight", "scales", "qzeros")
    )
    layer = "model.layers.0.mlp.down_proj"
    packed = {
        f"{layer}.{names[0]}": torch.randint(-(2**31), 2**31 - 1, (32, 8), dtype=torch.int32, generator=generator),
        f"{layer}.{names[1]}": torch.randn(4, 32, generator=generator).to(torch.float16),
        f"{layer}.{names[2]}": torch.randint(-(2**31), 2**31 - 1, (4, 4), dtype=torch.int32, generator=generator),
    }
    safetensors.torch.save_file(packed, folder / "model.safetensors", metadata={"format": "pt"})
    sealed, host = _seal(folder, tmp_path / "x"), _host(tmp_path)
    weights = palladion.torch.load(sealed, host=host)
    assert weights.keys() == packed.keys()
    assert all(
        weights[name].dtype == packed[name].dtype and torch.equal(weights[name], packed[name]) for name in packed
    )
    got = palladion.transformers.from_pretrained(hf.AutoConfig, sealed, host=host)
    assert got.quantization_config == hf.AutoConfig.from_pretrained(folder).quantization_config


# adapters


@pytest.fixture(name="adapters")
def _adapters(tmp_path: Path) -> dict[str, Path]:
    """Two LoRA folders for one base, and the base."""
    peft = pytest.importorskip("peft", reason="this needs peft")
    folders = {"base": _save(_llama(), tmp_path / "base")}
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        model = peft.get_peft_model(_llama(), peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                torch.nn.init.normal_(parameter)  # zeros would change nothing
        folders[name] = _save(model, tmp_path / name)
    return folders


def _seal_adapter(folder: Path, target: Path, *, base: str = CONTENT) -> Path:
    return _seal(folder, target, kind="adapter", base=base, model=target.name)


def _logits(model: Any) -> Any:
    with torch.no_grad():
        return model(TOKENS)[0]


def test_adapters_are_loaded_switched_and_unloaded_as_plain_ones(tmp_path: Path, adapters: dict[str, Path]) -> None:
    import peft

    host = _host(tmp_path)
    base = palladion.transformers.from_pretrained(
        hf.AutoModelForCausalLM, _seal(adapters["base"], tmp_path / "base.sealed"), host=host
    )
    plain = peft.PeftModel.from_pretrained(_llama(), adapters["first"], adapter_name="first")
    plain.load_adapter(adapters["second"], "second")
    first, second = (_seal_adapter(adapters[name], tmp_path / f"{name}.sealed") for name in ("first", "second"))
    model = palladion.transformers.load_adapter(base, first, adapter_name="first", host=host)
    assert isinstance(model, peft.PeftModel)
    assert torch.equal(_logits(model), _logits(plain))
    assert not torch.equal(_logits(plain), _logits(_llama()))
    # hot: one more on what is loaded, whose base is still known
    assert palladion.transformers.load_adapter(model, second, adapter_name="second", host=host) is model
    for name in ("second", "first"):
        model.set_adapter(name)
        plain.set_adapter(name)
        assert torch.equal(_logits(model), _logits(plain))
    model.delete_adapter("first")
    assert set(model.peft_config) == {"second"}
    with model.disable_adapter():
        assert torch.equal(_logits(model), _logits(_llama()))


def test_an_adapter_for_another_base_is_refused_before_any_key_is_touched(
    tmp_path: Path, adapters: dict[str, Path]
) -> None:
    sealed = _seal_adapter(adapters["first"], tmp_path / "a.sealed", base=OTHER)
    stranger = Host(tmp_path / "h", ManualClock(CREATED), identities=[Party().identity], publishers=PARTY.publishers)
    base_info = inspect_file(_seal(adapters["base"], tmp_path / "base.sealed"))
    for base in (CONTENT, base_info):
        with pytest.raises(ConflictError, match=f"for the model {OTHER}, and the base is {CONTENT}"):
            palladion.transformers.load_adapter(_llama(), sealed, base=base, host=stranger)
    assert palladion.transformers.load_adapter(_llama(), sealed, base=OTHER, host=_host(tmp_path))


def test_an_adapter_whose_base_nobody_knows_is_refused(tmp_path: Path, adapters: dict[str, Path]) -> None:
    host = _host(tmp_path)
    sealed = _seal_adapter(adapters["first"], tmp_path / "a.sealed")
    with pytest.raises(ValueError, match="which model is it"):
        palladion.transformers.load_adapter(_llama(), sealed, host=host)
    with pytest.raises(ValueError, match="expected 64 hex digits"):
        palladion.transformers.load_adapter(_llama(), sealed, base="", host=host)
    unpinned = _seal(adapters["first"], tmp_path / "b.sealed", kind="adapter")
    with pytest.raises(ConflictError, match=r"\(none named\)"):
        palladion.transformers.load_adapter(_llama(), unpinned, base=CONTENT, host=host)
    with pytest.raises(ConflictError, match="sealed as folder, expected an adapter"):
        palladion.transformers.load_adapter(
            _llama(), _seal(adapters["first"], tmp_path / "c.sealed"), base=CONTENT, host=host
        )
    with pytest.raises(ValueError, match="about to be wiped"):
        palladion.transformers.load_adapter(_llama(), sealed, base=CONTENT, host=host, low_cpu_mem_usage=True)


def test_an_adapter_hidden_in_a_folder_is_not_passed_over_in_silence(tmp_path: Path, adapters: dict[str, Path]) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(adapters["first"] / name, adapters["base"] / name)
    with pytest.raises(UnsupportedFormatError, match="holds an adapter beside the model"):
        palladion.transformers.from_pretrained(
            hf.AutoModelForCausalLM, _seal(adapters["base"], tmp_path / "x"), host=_host(tmp_path)
        )


# the page


BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "loading.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_example_in_docs_loading_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapters: dict[str, Path], block: str
) -> None:
    if "vllm" in block:
        pytest.skip("tests/test_vllm.py runs vLLM's engine where it is installed")
    _tokenizer(adapters["base"])
    _seal(adapters["base"], tmp_path / "llama.sealed", model="llama")
    for name, folder in (("tone", "first"), ("style", "second")):
        _seal_adapter(adapters[folder], tmp_path / f"{name}.sealed")
    PARTY.seal(tmp_path / "fraud.sealed", [("fraud.onnx", onnx_bytes())], kind="onnx")
    (tmp_path / "host").mkdir(mode=0o700)
    write_identity(tmp_path / "host" / "host.identity", PARTY.identity, created=CREATED)
    write_atomically(tmp_path / "host" / "publishers", f"{publisher_text(PARTY.signer.public_key)}\n".encode())
    monkeypatch.setenv("PALLADION_HOST", str(tmp_path / "host"))
    monkeypatch.chdir(tmp_path)
    made: dict[str, Any] = {}
    exec(compile(block, "docs/loading.md", "exec"), made)
    if "answer" in made:
        assert made["answer"].shape == (1, 6)


# the module itself


def test_transformers_is_what_the_module_imports_and_not_itself() -> None:
    code = (
        "import sys, palladion.transformers as ours\n"
        "assert 'transformers' not in sys.modules and 'torch' not in sys.modules\n"
        "assert ours._require('transformers').__file__ != ours.__file__\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


@pytest.mark.parametrize("name", ["transformers", "peft"])
def test_without_the_library_the_install_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    calls: dict[str, Any] = {
        "peft": palladion.transformers.load_adapter,
        "transformers": palladion.transformers.from_pretrained,
    }
    with pytest.raises(MissingExtraError) as refused:
        calls[name](hf.AutoModel, tmp_path / "x")
    assert refused.value.message == f"this needs {name}"
    assert refused.value.hints == ("pip install 'palladion[torch]'",)

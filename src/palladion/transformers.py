"""Sealed Hugging Face folders in transformers and PEFT: models, tokenizers and adapters, none of it on a disk.

Weights go tensor by tensor from the sealed file into the model; everything else is read by transformers itself, from
a folder of memory files. No code out of a sealed folder runs unless the caller asks for it.
"""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from palladion.errors import ConflictError, FormatError, MissingExtraError, UnsupportedFormatError
from palladion.files import storage_errors
from palladion.host.expose import exposed, private_folder
from palladion.host.host import Host
from palladion.host.tensors import SUFFIX
from palladion.host.weights import SealedWeights, begin_on
from palladion.model.read import sniff
from palladion.seal.lazy import LazyFiles
from palladion.seal.source import Source
from palladion.seal.structure import SealedInfo
from palladion.torch import LazyWeights

if TYPE_CHECKING:
    import torch

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
ADAPTER_CONFIG = "adapter_config.json"
# Weights, which no configuration, tokenizer or processor reads.
WEIGHT_SUFFIXES = (SUFFIX, ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".onnx_data", ".h5", ".msgpack")
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
SNIFFED_BYTES = 64
VIEW_BYTES_MAX = 1024**3  # vocabularies have tens of megabytes; what is larger is no configuration
# What `from_pretrained` wants for the loading itself, and a configuration must not take for its own.
_LOADING = frozenset(
    {
        "adapter_kwargs",
        "allow_all_kernels",
        "device_map",
        "device_mesh",
        "distributed_config",
        "dtype",
        "fusion_config",
        "generation_config",
        "ignore_mismatched_sizes",
        "kernel_config",
        "key_mapping",
        "max_memory",
        "output_loading_info",
        "quantization_config",
        "torch_dtype",
        "tp_plan",
        "tp_size",
        "use_kernels",
        "weights_only",
    }
)
# These would read something else, or write weights to a disk.
_REFUSED = ("state_dict", "gguf_file", "offload_folder", "variant", "revision", "cache_dir", "use_safetensors")

# which base a model in memory is, for the adapters that are pinned to it
_LOADED: "WeakKeyDictionary[torch.nn.Module, SealedInfo]" = WeakKeyDictionary()


def from_pretrained(
    cls: Any,
    place: str | Path | Source,
    *inputs: Any,
    subfolder: str = "",
    pickles: bool = False,
    trust_remote_code: bool = False,
    host: Host | None = None,
    allow_older: bool = False,
    **options: Any,
) -> Any:
    """What `cls.from_pretrained(folder, *inputs, **options)` gives for the folder in the sealed file at `place`.

    `cls` is a model (`AutoModelForCausalLM`, `BertModel` …), a tokenizer, a configuration, a processor. A model's
    weights are safetensors; each is verified and decrypted when transformers asks for it, into memory that the model
    keeps if it takes it as it is. A folder with pickles is refused unless `pickles`: then they may be there, and only
    `opened_folder` reads them. Code in the folder runs only with `trust_remote_code`, and transformers then copies the
    code, not the weights, to its cache on the disk. Raises FormatError or TamperError if the file is not what its
    publisher signed, KeysError if the host cannot open it, ConflictError on an older version, and whatever
    transformers raises.
    """
    transformers = _require("transformers")
    options.setdefault("local_files_only", True)  # nothing of a sealed folder is looked for elsewhere
    for name in _REFUSED:
        if name in options:
            raise ValueError(f"{name} does not go with a sealed folder; palladion.transformers.opened_folder may help")
    host = host or Host.find()
    with ExitStack() as stack:
        opening = stack.enter_context(closing(begin_on(place, host, allow_older=allow_older)))
        files = stack.enter_context(LazyFiles(opening))
        _refuse_pickles(files, allowed=pickles, what=opening.structure.what)
        view = stack.enter_context(_small_files(files)) / subfolder
        if not hasattr(cls, "from_config") and not issubclass(cls, transformers.PreTrainedModel):
            made = cls.from_pretrained(str(view), *inputs, trust_remote_code=trust_remote_code, **options)
            host.remember(opening.info)
            return made
        if (view / ADAPTER_CONFIG).exists():
            raise UnsupportedFormatError(
                f"{opening.structure.what} holds an adapter beside the model, or alone",
                "seal an adapter in a file of its own, and load it with load_adapter",
                found="adapter",
            )
        weights = stack.enter_context(SealedWeights(opening, host, subfolder))
        model = _model(cls, view, weights, *inputs, trust_remote_code=trust_remote_code, **options)
        host.remember(opening.info)
    _LOADED[model[0] if isinstance(model, tuple) else model] = opening.info
    return model


@contextmanager
def opened_folder(
    place: str | Path | Source,
    *,
    weights: bool = True,
    pickles: bool = False,
    host: Host | None = None,
    allow_older: bool = False,
) -> Iterator[Path]:
    """The files in the sealed file at `place` as a folder in memory, for the length of the block, for any library.

    Its names lead to memory files of this process, which are zeros after the block: a library that maps them (as
    transformers maps safetensors) has to be done with them by then, or told to copy. Without `weights`, only
    configurations, tokenizers and the like are there, and only they are decrypted. Raises as `from_pretrained`.
    """
    host = host or Host.find()
    with ExitStack() as stack:
        opening = stack.enter_context(closing(begin_on(place, host, allow_older=allow_older)))
        files = stack.enter_context(LazyFiles(opening))
        _refuse_pickles(files, allowed=pickles, what=opening.structure.what)
        if weights:
            folder = stack.enter_context(private_folder(_nobody_watches))
            stack.enter_context(exposed(opening, opening.manifest(), folder, None))
        else:
            folder = stack.enter_context(_small_files(files))
        host.remember(opening.info)
        yield folder


def load_adapter(
    model: Any,
    place: str | Path | Source,
    *,
    base: SealedInfo | str | None = None,
    adapter_name: str = "default",
    host: Host | None = None,
    allow_older: bool = False,
    **options: Any,
) -> Any:
    """Put the sealed PEFT adapter at `place` on `model`, and return the PeftModel; a PeftModel gets one more adapter.

    The adapter's header names the content digest of its base, and nothing is decrypted unless that is `base`: what a
    sealed file says of itself, verified, or its content digest. It may be left out for a model of `from_pretrained`
    above. `options` are those of `PeftModel.from_pretrained`. PEFT itself unloads (`delete_adapter`), switches
    (`set_adapter`) and merges. Raises ConflictError on another base, else as `from_pretrained`.
    """
    peft = _require("peft")
    wanted = _content_of(model, base)
    if options.pop("low_cpu_mem_usage", False):
        raise ValueError("low_cpu_mem_usage would keep the adapter where it is about to be wiped")

    def accept(info: SealedInfo) -> None:
        if info.header.kind != "adapter":
            raise ConflictError(f"{place} is sealed as {info.header.kind}, expected an adapter")
        if info.header.base != wanted:
            raise ConflictError(
                f"{place} is an adapter for the model {info.header.base or '(none named)'}, and the base is {wanted}",
                "load it on the version that it was made for: `palladion inspect` shows an adapter's base",
            )

    host = host or Host.find()
    with ExitStack() as stack:
        opening = stack.enter_context(closing(begin_on(place, host, allow_older=allow_older, accept=accept)))
        _refuse_pickles(stack.enter_context(LazyFiles(opening)), allowed=False, what=opening.structure.what)
        folder = stack.enter_context(private_folder(_nobody_watches))
        stack.enter_context(exposed(opening, opening.manifest(), folder, None))
        if isinstance(model, peft.PeftModel):
            model.load_adapter(str(folder), adapter_name, **options)
        else:
            model = peft.PeftModel.from_pretrained(model, str(folder), adapter_name=adapter_name, **options)
        host.remember(opening.info)
    return model


class _Piece:
    """A tensor that transformers may slice, as it does with safetensors' own; decrypted when it does."""

    def __init__(self, weights: LazyWeights, name: str) -> None:
        self._weights = weights
        self._name = name

    def __getitem__(self, key: Any) -> "torch.Tensor":
        first = key[0] if isinstance(key, tuple) and key else key
        shape = self._weights.shape(self._name)
        if not isinstance(first, slice) or not shape:
            whole = self._weights[self._name]
            return whole if key is Ellipsis else whole[key]
        # tensor parallelism: this rank's rows, of which each may want some columns
        begin, end, step = first.indices(shape[0])
        if step != 1 or end <= begin:
            return self._weights[self._name][key]
        rows = self._weights.rows(self._name, begin, end)
        return rows[(slice(None), *key[1:])] if isinstance(key, tuple) else rows

    @property
    def shape(self) -> tuple[int, ...]:
        return self._weights.shape(self._name)

    @property
    def dtype(self) -> "torch.dtype":
        return self._weights.dtype(self._name)

    def get_shape(self) -> list[int]:
        return list(self.shape)

    def is_floating_point(self) -> bool:
        return self.dtype.is_floating_point


def _model(cls: Any, view: Path, weights: SealedWeights, *inputs: Any, trust_remote_code: bool, **options: Any) -> Any:
    import torch
    from transformers import AutoConfig, GenerationConfig

    loading = {name: options.pop(name) for name in _LOADING if name in options}
    config = options.pop("config", None)
    if config is None:
        family = AutoConfig if hasattr(cls, "from_config") else cls.config_class
        config, options = family.from_pretrained(
            str(view), return_unused_kwargs=True, trust_remote_code=trust_remote_code, **options
        )
    if hasattr(cls, "from_config"):
        # which class that is, and with which part of the configuration, transformers itself decides
        probe = deepcopy(config)
        if hasattr(probe, "quantization_config"):
            del probe.quantization_config
        with torch.device("meta"):
            example = cls.from_config(probe, trust_remote_code=trust_remote_code)
        cls, config = type(example), _part(config, example.config)
    lazy = LazyWeights(weights)
    pieces = {name: _Piece(lazy, name) for name in lazy}
    made = cls.from_pretrained(None, *inputs, config=config, state_dict=pieces, **loading, **options)
    model = made[0] if isinstance(made, tuple) else made
    if cls.can_generate() and "generation_config" not in loading:
        # from_pretrained reads them so from a folder
        apart = (view / GENERATION_CONFIG).exists()
        kind: dict[str, Any] = {} if apart else {"config_file_name": CONFIG, "_from_model_config": True}
        model.generation_config = GenerationConfig.from_pretrained(str(view), **kind)
    # libraries split it and show it
    model.config.name_or_path = model.name_or_path = weights.info.header.model
    return made


def _part(config: Any, used: Any) -> Any:
    """`config`, or the part of it for text if the class that transformers chose wants no more."""
    if type(used) is type(config):
        return config
    part = config.get_text_config()
    if getattr(config, "quantization_config", None) is not None:
        part.quantization_config = config.quantization_config
    return part


@contextmanager
def _small_files(files: LazyFiles) -> Iterator[Path]:
    """A folder in memory with everything but weights; only that is decrypted. Gone with this process."""
    names = [name for name in files.entries if not name.lower().endswith(WEIGHT_SUFFIXES)]
    size = sum(files.entries[name].size for name in names)
    if size > VIEW_BYTES_MAX:
        raise FormatError(
            f"the files beside the weights have {size} bytes, more than the {VIEW_BYTES_MAX} allowed",
            "palladion.transformers.opened_folder shows them all",
        )
    with ExitStack() as held:
        folder = held.enter_context(private_folder(_nobody_watches))
        with storage_errors(folder):
            for name in names:
                stream = held.enter_context(os.fdopen(os.memfd_create("palladion", os.MFD_CLOEXEC), "wb"))
                stream.write(files.read(name))
                stream.flush()
                path = folder / name
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.symlink_to(f"/proc/{os.getpid()}/fd/{stream.fileno()}")
        yield folder


def _nobody_watches(_folder: Path) -> None:
    # its links lead nowhere once this process is gone, and the next one sweeps it
    return


def _refuse_pickles(files: LazyFiles, *, allowed: bool, what: str) -> None:
    for name, entry in files.entries.items():
        # what claims to be safetensors is parsed as such, and holds no code
        if allowed or name.endswith(SUFFIX):
            continue
        found = sniff(files.read(name, 0, min(entry.size, SNIFFED_BYTES)))
        if found in {"pickle", "zip"} or name.lower().endswith(PICKLE_SUFFIXES):
            raise UnsupportedFormatError(
                f"{what} holds {name}, which may run code when it is loaded",
                "seal the weights as safetensors, and leave it out",
                "pickles=True lets it be there",
                found="pickle",
            )


def _content_of(model: Any, base: SealedInfo | str | None) -> str:
    """The content digest of the model that an adapter is to be put on."""
    if base is None:
        base = _LOADED.get(model.get_base_model() if hasattr(model, "get_base_model") else model)
        if base is None:
            raise ValueError("which model is it? name base: a SealedInfo or a content digest")
    content = base.header.content if isinstance(base, SealedInfo) else base
    if not re.fullmatch("[0-9a-f]{64}", content):
        raise ValueError(f"the base has the content digest {content[:80]!r}, expected 64 hex digits")
    return content


def _require(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in {name, "torch"}:
            raise
        raise MissingExtraError(f"this needs {error.name}", "pip install 'palladion[torch]'") from None

"""vLLM loads sealed weights, tensor by tensor and verified: `vllm serve FOLDER --load-format palladion`.

A plugin of vLLM (entry point group `vllm.general_plugins`), which runs in each of its worker processes: nothing of the
weights touches a disk, and with tensor parallelism a rank decrypts the rows that it keeps.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palladion.errors import FormatError, NotFoundError, TamperError, UnsupportedFormatError
from palladion.files import read_limited
from palladion.host.host import Host
from palladion.host.weights import NAMES_SHOWN, SealedWeights, open_weights
from palladion.seal.lazy import LazyFiles
from palladion.torch import LazyWeights

if TYPE_CHECKING:
    import torch

LOAD_FORMAT = "palladion"
SEALED_SUFFIX = ".sealed"
CONFIG = "config.json"
# What vLLM reads of a model's folder besides weights; in clear it must be what was sealed, if it was sealed.
CLEAR_SUFFIXES = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".py")
CLEAR_BYTES_MAX = 256 * 1024 * 1024  # a vocabulary has tens of megabytes


@dataclass(frozen=True)
class Options:
    """What `model_loader_extra_config` may say."""

    sealed: str = ""  # the sealed file; by default the one in the model's folder
    host: str = ""  # the host's folder, as PALLADION_HOST names it
    allow_older: bool = False
    slices: bool = True  # with tensor parallelism, decrypt the rows that a rank asks for instead of whole tensors


class SealedModelLoader:
    """What vLLM asks of a model loader; `register` joins it with vLLM's own base class."""

    def __init__(self, load_config: Any) -> None:
        super().__init__(load_config)  # type: ignore[call-arg]
        self._options = read_options(load_config.model_loader_extra_config)

    def download_model(self, model_config: Any) -> None:
        """Nothing is downloaded: see that the sealed file is there."""
        self._place(model_config)

    def load_weights(self, model: "torch.nn.Module", model_config: Any) -> None:
        """Fill `model` from the sealed file. Raises TamperError where that is not what its publisher signed."""
        with closing(self._open(model_config)) as weights:
            lazily = self._options.slices and self.ranks() > 1 and not _converts_later(model)
            loaded = model.load_weights(_named(weights, model, lazily=lazily))  # type: ignore[operator]
            _check_loaded(model, loaded, quantised=model_config.quantization is not None)
            weights.remember()

    def get_all_weights(self, model_config: Any, model: "torch.nn.Module") -> "Iterator[tuple[str, torch.Tensor]]":
        """The tensors, for a model that is loaded anew in place."""
        with closing(self._open(model_config)) as weights:
            yield from _named(weights, model, lazily=False)
            weights.remember()

    def ranks(self) -> int:
        """Among how many processes a layer is split."""
        raise NotImplementedError

    def _open(self, model_config: Any) -> SealedWeights:
        host = Host.find(Path(self._options.host)) if self._options.host else Host.find()
        weights = open_weights(self._place(model_config), host=host, allow_older=self._options.allow_older)
        try:
            _check_clear(weights.files, Path(model_config.model), what=weights.what)
        except BaseException:
            weights.close()
            raise
        return weights

    def _place(self, model_config: Any) -> Path:
        named = self._options.sealed or getattr(model_config, "model_weights", "") or model_config.model
        return find_sealed(Path(named))


@cache  # vLLM may load its plugins more than once in a process
def register() -> type:
    """Tell vLLM of the load format `palladion`. Called by vLLM, through the entry point."""
    distributed = import_module("vllm.distributed")
    loaders = import_module("vllm.model_executor.model_loader")

    class PalladionModelLoader(SealedModelLoader, loaders.BaseModelLoader):  # type: ignore[name-defined, misc]
        def ranks(self) -> int:
            return int(distributed.get_tensor_model_parallel_world_size())

    loader: type = loaders.register_model_loader(LOAD_FORMAT)(PalladionModelLoader)
    return loader


def read_options(given: Any) -> Options:
    """The options in `model_loader_extra_config`. Raises ValueError on others."""
    if not isinstance(given, Mapping):
        raise ValueError(f"model_loader_extra_config is {type(given).__name__}, expected an object")  # noqa: TRY004
    for name, value in given.items():
        default = getattr(Options, name, None) if isinstance(name, str) else None
        if name not in Options.__dataclass_fields__ or type(value) is not type(default):
            raise ValueError(f"model_loader_extra_config has {name!r}: {value!r}, expected some of {Options()}")
    return Options(**given)


def find_sealed(path: Path) -> Path:
    """The sealed file at `path`: itself, or the one in that folder. Raises NotFoundError."""
    if not path.is_dir():
        if path.is_file():
            return path
        raise NotFoundError(
            f"there is no sealed file at {path}",
            "name a folder with a .sealed file in it as the model, or the file: "
            '--model-loader-extra-config \'{"sealed": "FILE"}\'',
        )
    found = sorted(path.glob(f"*{SEALED_SUFFIX}"))
    if len(found) != 1:
        listed = ", ".join(item.name for item in found[:NAMES_SHOWN]) or "none"
        raise NotFoundError(
            f"{path} holds {len(found)} files *{SEALED_SUFFIX}, expected one: {listed}",
            '--model-loader-extra-config \'{"sealed": "FILE"}\' names one',
        )
    return found[0]


def _check_clear(files: LazyFiles, folder: Path, *, what: str) -> None:
    """Raise TamperError if vLLM was given another configuration than was sealed with the weights."""
    if CONFIG not in files.entries or not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if not path.name.endswith(CLEAR_SUFFIXES):
            continue
        data = read_limited(path, size_max=CLEAR_BYTES_MAX, what="the file")
        if path.name not in files.entries or files.read(path.name) != data:
            raise TamperError(
                f"{path} is not the {path.name} that was sealed in {what}",
                "leave the folder as it was sealed, or have it opened from the sealed file: docs/loading.md",
            )


def _named(weights: SealedWeights, model: "torch.nn.Module", *, lazily: bool) -> "Iterator[tuple[str, torch.Tensor]]":
    if any(True for _ in getattr(model, "secondary_weights", ())):
        raise UnsupportedFormatError(
            f"{type(model).__name__} wants weights of a second model, which would be read in clear", found="secondary"
        )
    unused: Callable[[str], bool] = getattr(model, "is_unused_checkpoint_weight", None) or (lambda _name: False)
    lazy = LazyWeights(weights)
    names = [name for name in lazy if not unused(name)]
    if not lazily:
        yield from _read_ahead(lazy, names)
        return
    for name in names:
        # rows are what ranks share a tensor by; of one without there is nothing to leave out
        yield name, _rows_type()(lazy, name) if len(lazy.shape(name)) > 1 else lazy[name]


def _read_ahead(lazy: LazyWeights, names: Iterable[str]) -> "Iterator[tuple[str, torch.Tensor]]":
    """Tensors whole, the next one being decrypted while the last one is put in place."""
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for name in names:
            following = name, pool.submit(lazy.__getitem__, name)
            if waiting:
                yield waiting[0], waiting[1].result()
            waiting = following
        if waiting:
            yield waiting[0], waiting[1].result()


@cache
def _rows_type() -> Any:
    """The class of tensors of which only the rows that are asked for are decrypted."""
    import torch
    from torch.utils._pytree import tree_map_only

    tensor_type: Any = torch.Tensor

    class SealedRows(tensor_type):  # type: ignore[misc]
        """Rows of a sealed tensor. Slices of them are as lazy; whatever else is done with them reads them, verified."""

        __torch_function__ = torch._C._disabled_torch_function_impl

        @staticmethod
        def __new__(cls: Any, lazy: LazyWeights, name: str, begin: int = 0, end: int | None = None) -> Any:
            count, *rest = lazy.shape(name)
            end = count if end is None else end
            shape = (end - begin, *rest)
            rows = tensor_type._make_wrapper_subclass(cls, shape, dtype=lazy.dtype(name), device=torch.device("cpu"))
            # a view of an ordinary tensor has to be one, also where inference mode makes others of what is new
            ordinary = torch.inference_mode(False)
            rows.part = ordinary(lambda first, last: cls(lazy, name, begin + first, begin + last))
            rows.read = ordinary(lambda: lazy.rows(name, begin, end))
            return rows

        def data_ptr(self) -> int:
            raise RuntimeError("these rows have no memory before they are read: clone them")

        @classmethod
        def __torch_dispatch__(cls, function: Any, _types: Any, given: Any = (), named: Any = None) -> Any:
            # `narrow` and indexing with a slice come as this
            if function is torch.ops.aten.slice.Tensor and not named:
                rows, dim, *bounds = (*given, 0) if len(given) == 1 else given
                begin, end, step = slice(*(*bounds, None, None, None)[:3]).indices(rows.shape[dim])
                if dim % rows.dim() == 0 and step == 1:
                    return rows.part(begin, max(begin, end))
            given, named = tree_map_only(SealedRows, lambda rows: rows.read(), (given, named or {}))
            return function(*given, **named)

    return SealedRows


def _converts_later(model: "torch.nn.Module") -> bool:
    """Whether vLLM keeps tensors beyond `load_weights`, to quantise layers as they fill up."""
    return any(getattr(getattr(part, "quant_method", None), "uses_meta_device", False) for part in model.modules())


def _check_loaded(model: "torch.nn.Module", loaded: Any, *, quantised: bool) -> None:
    """Raise FormatError if a parameter was left as it was made; where the model keeps account, as vLLM's own loader."""
    if quantised or loaded is None:
        return
    missing = {name for name, _ in model.named_parameters()} - set(loaded)
    for prefix, part in model.named_modules():
        method = getattr(part, "quant_method", None)
        if getattr(method, "uses_meta_device", False) or hasattr(method, "process_weights_after_loading"):
            # scales and the like, which a file need not have
            missing -= {f"{prefix}.{name}" if prefix else name for name, _ in part.named_parameters()}
    if missing:
        raise FormatError(
            f"the sealed file lacks {len(missing)} parameters: {', '.join(sorted(missing)[:NAMES_SHOWN])}"
        )

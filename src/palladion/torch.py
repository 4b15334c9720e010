"""Sealed weights in PyTorch: all at once and without a copy, straight into a module, or one tensor at a time.

Every way of opening verifies the publisher first, and hands out or keeps nothing that is not verified.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from palladion.errors import ConflictError, MissingExtraError
from palladion.host.host import Host
from palladion.host.torch_tensors import Form, Fresh, check_bools, form_of, misfit, target_of, zero
from palladion.host.weights import NAMES_SHOWN, SealedWeights, open_weights
from palladion.model.safetensors import NAME_CHARACTERS_QUOTED
from palladion.seal.source import Source
from palladion.seal.structure import SealedInfo

if TYPE_CHECKING:
    import torch


class Weights(dict[str, "torch.Tensor"]):
    """Tensors by name; a context manager. `close` overwrites their numbers with zeros, also where they are still held.

    Without it their memory goes with the last tensor.
    """

    def __init__(self, info: SealedInfo, fresh: Fresh) -> None:
        super().__init__(fresh.handed_over())
        self.info = info
        self._fresh: Fresh | None = fresh

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Weights {len(self)} of {self.info.header.model}>"

    def close(self) -> None:
        """Wipe the tensors; safe to call twice."""
        if self._fresh is not None:
            self._fresh.wipe(dict(self))
            self._fresh = None
            self.clear()


class LazyWeights(Mapping[str, "torch.Tensor"]):
    """Tensors by name, each decrypted anew when it is asked for, into memory of its own; a context manager.

    A tensor's memory goes with it. Damage in what is not asked for is not noticed. May be used from several threads.
    """

    def __init__(self, weights: SealedWeights) -> None:
        self._weights = weights
        self._forms = _forms(weights)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<LazyWeights {len(self)} of {self.info.header.model}>"

    def __getitem__(self, name: str) -> "torch.Tensor":
        form = self._forms[name]
        return self._read(name, 0, form.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._forms)

    def __len__(self) -> int:
        return len(self._forms)

    @property
    def info(self) -> SealedInfo:
        """What the sealed file says of itself, verified."""
        return self._weights.info

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape; nothing is decrypted."""
        return self._forms[name].shape

    def dtype(self, name: str) -> "torch.dtype":
        """A tensor's element type; nothing is decrypted."""
        return self._forms[name].dtype

    def rows(self, name: str, begin: int, end: int) -> "torch.Tensor":
        """`tensor[begin:end]` of a tensor with a first dimension; no other segments are read than it lies in."""
        count, *rest = self._forms[name].shape
        if not 0 <= begin <= end <= count:
            raise ValueError(f"rows {begin} to {end} of {name}, which has {count}")
        row_bytes = self._weights.places[name].size // count if count else 0
        return self._read(name, begin * row_bytes, (end - begin, *rest))

    def close(self) -> None:
        """Let go of the file; tensors that were read stay."""
        self._weights.close()

    def _read(self, name: str, begin: int, shape: tuple[int, ...]) -> "torch.Tensor":
        dtype = self._forms[name].dtype
        fresh = Fresh({name: Form(dtype, shape, prod(shape) * dtype.itemsize)}, _torch().device("cpu"))
        try:
            if size := prod(shape) * dtype.itemsize:
                self._weights.read_into(name, fresh.targets[name].room(0, size), begin)
            check_bools(fresh.tensors, self._weights.what)
        except BaseException:
            fresh.wipe()
            raise
        return fresh.tensors[name]


@dataclass(frozen=True)
class Loaded:
    """What `load_into` left out: names that the module has and the file lacks, and the reverse. Empty if `strict`."""

    info: SealedInfo
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def load(
    place: str | Path | Source,
    *,
    device: "str | torch.device" = "cpu",
    subfolder: str = "",
    host: Host | None = None,
    allow_older: bool = False,
) -> Weights:
    """The tensors of the sealed file at `place`, verified to its last byte; on the CPU in private memory.

    Of a folder with an index the shards that it names, of any other all safetensors files right in `subfolder`.
    Raises FormatError or TamperError if it is not what a publisher that the host trusts signed, KeysError if the host
    cannot open it, ConflictError on an older version.
    """
    torch = _torch()
    with open_weights(place, host=host, allow_older=allow_older, subfolder=subfolder) as weights:
        fresh = Fresh(_forms(weights), torch.device(device))
        try:
            weights.read_all(fresh.targets)
            check_bools(fresh.tensors, weights.what)
            weights.remember()
        except BaseException:
            fresh.wipe()
            raise
        return Weights(weights.info, fresh)


def load_into(
    module: "torch.nn.Module",
    place: str | Path | Source,
    *,
    strict: bool = True,
    prefix: str = "",
    subfolder: str = "",
    device: "str | torch.device" = "cpu",
    dtype: "torch.dtype | None" = None,
    host: Host | None = None,
    allow_older: bool = False,
) -> Loaded:
    """Fill the parameters and buffers of `module` from the sealed file at `place`, segment by segment, where they lie.

    Names are compared first, and nothing is written unless all fit: names that only one side has are an error unless
    `strict` is False, other shapes and kinds of numbers always. With `prefix`, only tensors whose name begins with it
    count, without it. Parameters keep their device and float type; those on the meta device are made on `device`, with
    the type in the file or, for floats, `dtype`. If the file turns out to be damaged in the middle, everything that
    was to be written holds zeros. Raises ConflictError where module and file do not fit, else as `load`.
    """
    torch = _torch()
    with open_weights(place, host=host, allow_older=allow_older, subfolder=subfolder) as weights:
        forms = {name.removeprefix(prefix): form for name, form in _forms(weights).items() if name.startswith(prefix)}
        state = module.state_dict(keep_vars=True)
        missing, unexpected = _compare(module, state, forms, strict=strict, what=weights.what)
        # a tensor of several names is written once; the last one counts, as in `load_state_dict`
        chosen = {id(tensor): name for name, tensor in state.items() if name in forms}.values()
        fresh = Fresh({name: forms[name] for name in chosen if state[name].is_meta}, torch.device(device), dtype)
        held = {name: state[name].detach() for name in chosen if not state[name].is_meta}
        targets = fresh.targets | {name: target_of(tensor, forms[name]) for name, tensor in held.items()}
        try:
            weights.read_all({prefix + name: target for name, target in targets.items()})
            check_bools(fresh.tensors | held, weights.what)
            weights.remember()
        except BaseException:
            fresh.wipe()
            zero(held.values())
            raise
        # they were written to behind autograd's back
        torch.autograd.graph.increment_version(list(held.values()))
        _assign(module, {id(state[name]): tensor for name, tensor in fresh.tensors.items()})
        return Loaded(weights.info, missing, unexpected)


def lazy(
    place: str | Path | Source, *, subfolder: str = "", host: Host | None = None, allow_older: bool = False
) -> LazyWeights:
    """The tensors of the sealed file at `place`, each to be decrypted when it is asked for. Raises as `load`."""
    _torch()
    weights = open_weights(place, host=host, allow_older=allow_older, subfolder=subfolder)
    try:
        opened = LazyWeights(weights)
        weights.remember()
    except BaseException:
        weights.close()
        raise
    return opened


def _torch() -> ModuleType:
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError("loading into PyTorch needs torch", "pip install 'palladion[torch]'") from None
    return torch


def _forms(weights: SealedWeights) -> dict[str, Form]:
    return {name: form_of(place.span, f"{weights.what}: {_quoted(name)}") for name, place in weights.places.items()}


def _compare(
    module: "torch.nn.Module", state: Mapping[str, Any], forms: Mapping[str, Form], *, strict: bool, what: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names that only the module has, and those that only the file has. Raises ConflictError where they count."""
    there = {id(tensor) for name, tensor in state.items() if name in forms}
    missing = tuple(name for name, tensor in state.items() if name not in forms and id(tensor) not in there)
    unexpected = tuple(name for name in forms if name not in state)
    both = [name for name in forms if name in state]
    wrong = [f"{_quoted(name)}: {told}" for name in both if (told := misfit(state[name], forms[name]))]
    # a hook may give out copies: what is written to them would be lost
    own = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    wrong += [f"{_quoted(name)}: the module gives out a copy of it" for name in both if id(state[name]) not in own]
    parts = [_listing("other shapes or types", wrong)]
    if strict:
        parts += [
            _listing("missing in the file", map(_quoted, missing)),
            _listing("not in the module", map(_quoted, unexpected)),
        ]
    if any(parts):
        raise ConflictError(f"{what} does not fit the module: {'; '.join(filter(None, parts))}")
    return missing, unexpected


def _listing(title: str, items: Iterable[str]) -> str:
    listed = list(items)
    more = f" and {len(listed) - NAMES_SHOWN} more" if len(listed) > NAMES_SHOWN else ""
    return f"{title}: {', '.join(listed[:NAMES_SHOWN])}{more}" if listed else ""


def _quoted(name: str) -> str:
    # whoever wrote the file chose it: no escape sequences for a terminal
    return repr(name[:NAME_CHARACTERS_QUOTED])


def _assign(module: "torch.nn.Module", made: "Mapping[int, torch.Tensor]") -> None:
    """Put tensors in place of parameters and buffers, by their identity: tied ones stay tied."""
    import torch

    parameters: dict[int, torch.nn.Parameter] = {}
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False, remove_duplicate=False):
            key = id(parameter)
            if key in made:
                if key not in parameters:
                    parameters[key] = torch.nn.Parameter(made[key], requires_grad=parameter.requires_grad)
                setattr(owner, name, parameters[key])
        for name, buffer in owner.named_buffers(recurse=False, remove_duplicate=False):
            if id(buffer) in made:
                setattr(owner, name, made[id(buffer)])

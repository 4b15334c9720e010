"""PyTorch tensors for what sealed files hold: made afresh, in private memory where that can be, or found in a module.

`palladion.torch` is the way in; this is how bytes get to where they stay.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from palladion.errors import FormatError
from palladion.host.weights import Memory, Target
from palladion.model.safetensors import Span
from palladion.seal.memory import BLOCK_BYTES, PrivateMemory

if TYPE_CHECKING:
    import torch

ALIGNMENT_BYTES = 64  # a cache line, as PyTorch's own allocator gives; files promise less
# Less is not worth a mapping, of which a process may have some 65,000: bytes of a bias are no model
PRIVATE_BYTES_MIN = 64 * 1024
# A float may be rounded to another float, as `load_state_dict` does. Anything else would be another number: packed
# integers and 8-bit floats mean nothing without their scales.
_ROUNDED = ("float64", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Form:
    """A tensor as PyTorch has it."""

    dtype: "torch.dtype"
    shape: tuple[int, ...]
    size: int  # bytes


class Fresh:
    """New tensors to be filled: those that stay on the CPU as they are in the file lie in private memory."""

    def __init__(self, forms: Mapping[str, Form], device: "torch.device", dtype: "torch.dtype | None" = None) -> None:
        import torch

        if device.type == "meta" and forms:
            raise ValueError("tensors on the meta device hold no numbers: name another")
        self.tensors: dict[str, torch.Tensor] = {}
        self.targets: dict[str, Target] = {}
        types = {name: dtype if dtype and rounds(form.dtype, dtype) else form.dtype for name, form in forms.items()}
        here = device.type == "cpu" and sum(form.size for form in forms.values()) >= PRIVATE_BYTES_MIN
        private = {name: form for name, form in forms.items() if here and types[name] == form.dtype}
        rooms = {name: -(-form.size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES for name, form in private.items()}
        self._memory = PrivateMemory(max(sum(rooms.values()), 1))
        self._ends: dict[str, int] = {}  # of what lies there
        self._begun: set[str] = set()
        begin = 0
        for name, form in forms.items():
            if name in private and form.size:
                view = self._memory.view[begin : begin + form.size]
                flat = torch.frombuffer(view, dtype=torch.uint8)
                self.tensors[name] = flat.view(form.dtype).reshape(form.shape)
                self.targets[name] = _Private(view, partial(_prepare, self._memory, self._begun, name, begin))
                self._ends[name] = begin = begin + rooms[name]
            else:
                self.tensors[name] = torch.empty(form.shape, dtype=types[name], device=device)
                self.targets[name] = target_of(self.tensors[name], form)

    def handed_over(self) -> "dict[str, torch.Tensor]":
        """The tensors, which are the caller's from now on: each goes when he lets go of it."""
        tensors, self.tensors, self.targets = self.tensors, {}, {}
        return tensors

    def wipe(self, tensors: "Mapping[str, torch.Tensor] | None" = None) -> None:
        """Overwrite with zeros what was written, and let go of it.

        That is all private memory; of other tensors, those in `tensors` once they are handed over.
        """
        others = self.tensors if tensors is None else tensors
        zero(tensor for name, tensor in others.items() if name not in self._ends)
        self._memory.wipe(max((self._ends[name] for name in self._begun), default=0))
        self._begun.clear()
        self.tensors, self.targets = {}, {}
        self._memory.release()


def _prepare(memory: PrivateMemory, begun: set[str], name: str, begin: int, position: int) -> None:
    # no method: a circle of references would keep the memory until the collector comes
    begun.add(name)
    if len(memory.view) > BLOCK_BYTES:
        # tensors of their own would each learn anew that large pages are slow to come, and took 1.4 times as long
        memory.prepare(begin + position)


class _Private(Memory):
    """A piece of private memory; `prepare` is told which of its bytes are about to be written."""

    def __init__(self, view: memoryview, prepare: Callable[[int], None]) -> None:
        super().__init__(view)
        self._prepare = prepare

    def room(self, begin: int, end: int) -> memoryview:
        self._prepare(end - 1)
        return super().room(begin, end)


class _Staged:
    """A tensor that its bytes cannot be written to: of another type, on another device, or not in one piece.

    They are gathered on the CPU, and copied over when the last of them has come.
    """

    def __init__(self, tensor: "torch.Tensor", form: Form) -> None:
        self._tensor = tensor
        self._form = form
        self._lock = threading.Lock()
        self._left = form.size
        self._gathered: torch.Tensor | None = None

    def room(self, begin: int, end: int) -> memoryview:
        import torch

        with self._lock:
            if self._gathered is None:
                self._gathered = torch.empty(self._form.shape, dtype=self._form.dtype)
            return bytes_of(self._gathered)[begin:end]

    def written(self, begin: int, end: int) -> None:
        import torch

        with self._lock:
            self._left -= end - begin
            if self._left or self._gathered is None:
                return
            with torch.no_grad():
                self._tensor.copy_(self._gathered)
            self._gathered = None


def form_of(span: Span, what: str) -> Form:
    """How PyTorch has the tensor of `span`. Raises FormatError, naming `what`, if it has no type for it."""
    import torch

    name, shape = span.dtype.name, span.shape
    if name == "float4_e2m1fn" and shape and shape[-1] % 2 == 0:
        # PyTorch counts pairs, safetensors counts numbers
        dtype, shape = getattr(torch, "float4_e2m1fn_x2", None), (*shape[:-1], shape[-1] // 2)
    else:
        dtype = None if span.dtype.packed else getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise FormatError(f"{what} is of the type {name}, which this PyTorch cannot hold")
    return Form(dtype, shape, span.end - span.begin)


def misfit(tensor: Any, form: Form) -> str:
    """Why `tensor`, out of a module's state, cannot take what has `form`; "" if it can."""
    import torch

    if not isinstance(tensor, torch.Tensor):
        return f"a tensor in the file, {type(tensor).__name__} in the module"
    if torch.nn.parameter.is_lazy(tensor):
        return "the module has not made it yet"
    if tuple(tensor.shape) != form.shape:
        return f"{list(form.shape)} in the file, {list(tensor.shape)} in the module"
    if tensor.dtype != form.dtype and not rounds(form.dtype, tensor.dtype):
        return f"{form.dtype} in the file, {tensor.dtype} in the module"
    return ""


def rounds(stored: "torch.dtype", wanted: "torch.dtype") -> bool:
    """Whether numbers of one type may be rounded to the other."""
    return all(str(dtype).removeprefix("torch.") in _ROUNDED for dtype in (stored, wanted))


def target_of(tensor: "torch.Tensor", form: Form) -> Target:
    """Where to write the bytes of `form` so that `tensor` has its numbers."""
    import torch

    plain = type(tensor) is torch.Tensor and tensor.layout == torch.strided and tensor.device.type == "cpu"
    if plain and tensor.dtype == form.dtype and tensor.is_contiguous() and form.size:
        return Memory(bytes_of(tensor))
    return _Staged(tensor, form)


def bytes_of(tensor: "torch.Tensor") -> memoryview:
    """The memory of a contiguous tensor on the CPU that holds something."""
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy().data


def zero(tensors: "Iterable[torch.Tensor]") -> None:
    """Overwrite `tensors` with zeros."""
    import torch

    with torch.no_grad():
        for tensor in tensors:
            tensor.zero_()


def check_bools(tensors: "Mapping[str, torch.Tensor]", what: str) -> None:
    """Raise FormatError, naming `what`, if a tensor of truth values has others."""
    import torch

    for name, tensor in tensors.items():
        if tensor.dtype == torch.bool and bool((tensor.reshape(-1).view(torch.uint8) > 1).any()):
            # readers disagree on what a 2 means
            raise FormatError(f"{what}: {name[:80]!r} is bool and holds a byte other than 0 and 1")

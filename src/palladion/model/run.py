"""Running a model: ONNX Runtime on the CPU, from the bytes that were read and checked, never from a path.

The model is data to us: no custom operator library, no second file, no other format can come in through it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.model.model import Model

THREADS_MAX = 256  # more than the cores of any host we know
REASON_CHARACTERS_MAX = 300  # the runtime quotes whole shapes and paths
STRING = "string"

_DTYPES: Mapping[str, str] = {
    "tensor(bool)": "bool",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(string)": STRING,
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_SETTINGS: Mapping[str, str] = {
    # the runtime would take a file with "ORTM" at byte 4 for its own format, which we did not check
    "session.load_model_format": "ONNX",
    # external data comes from memory alone; where the runtime would look for a file instead, there is none
    "session.model_external_initializers_file_folder_path": "/dev/null",
    # idle workers sleep: a gate shares its cores with much else
    "session.intra_op.allow_spinning": "0",
}


@dataclass(frozen=True)
class Port:
    """An input or output of a running model: its name, element type (`string` or a NumPy name) and shape.

    A size is a number, a name that stands for any number, or None where it is open.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


class Session:
    """A model that is ready to run. Runs may be made from several threads at once."""

    def __init__(self, session: Any, inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> None:
        self._session = session
        self._names = [port.name for port in outputs]
        self.inputs = inputs
        self.outputs = outputs

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The outputs by name for the inputs by name.

        Raises ValueError unless every input is given with its element type and a shape that fits; FormatError when
        the model fails on them all the same.
        """
        unknown = feeds.keys() - {port.name for port in self.inputs}
        if unknown:
            raise ValueError(f"the model has no input {sorted(unknown)[0]!r}, only {_list(self.inputs)}")
        for port in self.inputs:
            _check_feed(port, feeds.get(port.name))
        try:
            answers = self._session.run(self._names, dict(feeds))
        except _runtime_errors() as error:
            raise FormatError(f"the model fails on these inputs: {_reason(error)}") from None
        return dict(zip(self._names, answers, strict=True))


def unservable(model: Model) -> str | None:
    """Why `model` cannot be run and served, in a sentence with what to do; None where its file states no reason.

    Cheap: it looks at what the file says of inputs and outputs. Whether the runtime knows every operator, only
    `open_session` can tell.
    """
    main = model.files[0].name
    if model.graph is None:
        return f"{main} holds weights without a graph, which cannot be run: export the model to ONNX"
    # files before IR version 4 list their constants among the inputs
    fed = (value for value in model.graph.inputs if value.name not in model.graph.main.constants)
    for value in (*fed, *model.graph.outputs):
        stated = value.type
        if stated is None or stated.kind == "open":
            continue  # the runtime infers it
        if stated.kind != "tensor":
            is_zipmap = stated.kind == "sequence" and [item.kind for item in stated.items] == ["map"]
            return _not_a_tensor(main, value.name, stated.kind, is_zipmap=is_zipmap)
        if stated.element and stated.element not in _DTYPES.values():
            return _not_a_tensor(main, value.name, f"tensor of {stated.element}")
    return None


def open_session(model: Model, *, threads: int = 1) -> Session:
    """Load `model` for running with `threads` threads for each run.

    Raises FormatError if it has no graph, does not load, or takes or gives anything but tensors of NumPy's own types.
    Costs the memory of the model once more, in the runtime's own memory: it is neither wiped nor left out of core
    dumps (docs/format.md §9).
    """
    reason = unservable(model)
    if reason is not None:
        raise FormatError(reason)
    main = model.files[0].name
    session = open_inference_session(model, threads=threads)
    # it keeps the bytes for making itself anew on another device, which it is never asked to
    session._model_bytes = None
    inputs = tuple(_port(item, main) for item in session.get_inputs())
    return Session(session, inputs, tuple(_port(item, main) for item in session.get_outputs()))


def open_inference_session(
    model: Model, *, threads: int = 1, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> Any:
    """An `onnxruntime.InferenceSession` of `model`, for code that wants the runtime itself.

    Raises FormatError if it has no graph or does not load. See `open_session` for what it costs.
    """
    if not 1 <= threads <= THREADS_MAX:
        raise ValueError(f"threads is {threads}, expected 1 to {THREADS_MAX}")
    main, *external = model.files
    if model.graph is None:
        raise FormatError(f"{main.name} holds weights without a graph, which cannot be run")
    import onnxruntime  # heavy: loaded where a model is run, not where one is sealed

    options = _options(onnxruntime, threads)
    if external:
        options.add_external_initializers_from_files_in_memory(
            [file.name for file in external],
            [file.data for file in external],
            [file.data.nbytes for file in external],
        )
    try:
        return onnxruntime.InferenceSession(bytes(main.data), options, providers=list(providers), enable_fallback=False)
    except _runtime_errors() as error:
        # the runtime takes external data from memory for the main graph only, and finds no file for the rest
        hints = ["if a branch or loop body has external data, save it inside the ONNX file"] if external else []
        raise FormatError(f"{main.name} does not load: {_reason(error)}", *hints) from None


def _options(onnxruntime: Any, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4  # fatal only: errors come back as exceptions, and hostile models write the warnings
    options.enable_profiling = False
    for key, value in _SETTINGS.items():
        options.add_session_config_entry(key, value)
    return options


def _runtime_errors() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    # ONNX Runtime's exceptions have no base class of their own; RuntimeError comes from its bindings
    named = (item for item in vars(state).values() if isinstance(item, type) and issubclass(item, Exception))
    return (*named, RuntimeError)


def _reason(error: Exception) -> str:
    """One line of what the runtime said, without its codes and source positions."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    line = line.rpartition(" : ")[2] if line.startswith("[ONNXRuntimeError]") else line
    return line[:REASON_CHARACTERS_MAX]


def _port(item: Any, what: str) -> Port:
    dtype = _DTYPES.get(item.type)
    if dtype is None:
        raise FormatError(_not_a_tensor(what, item.name, item.type, is_zipmap=item.type.startswith("seq(map(")))
    return Port(item.name, dtype, tuple(item.shape))


def _not_a_tensor(what: str, name: str, found: str, *, is_zipmap: bool = False) -> str:
    hint = ": export it with options={'zipmap': False}" if is_zipmap else ""
    return f"{what}: {name!r} is a {found}, and only tensors of NumPy's own types can go in and out{hint}"


def _check_feed(port: Port, array: NDArray[Any] | None) -> None:
    if array is None:
        raise ValueError(f"input {port.name!r} is missing")
    if not (array.dtype.kind in "OU" if port.dtype == STRING else array.dtype == np.dtype(port.dtype)):
        raise ValueError(f"input {port.name!r} is {array.dtype}, expected {port.dtype}")
    fixed = [size if isinstance(size, int) else None for size in port.shape]
    if len(array.shape) != len(fixed) or any(
        want not in {None, got} for want, got in zip(fixed, array.shape, strict=True)
    ):
        raise ValueError(f"input {port.name!r} has the shape {array.shape}, expected {port.shape}")


def _list(ports: tuple[Port, ...]) -> str:
    return ", ".join(repr(port.name) for port in ports)

"""Whether a marked model still computes what the original does; `lifecycle.marking` halves the mark where not.

Two judges: random probes through ONNX Runtime, which need a graph and no data; and a program of the user's, which knows
his task. What a guard sees of the marked model is no secret of the mark's: every recipient sees as much.
"""

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion import files
from palladion.errors import FormatError, PalladionError
from palladion.model.model import Model
from palladion.model.run import Port, Session, open_session

Guard = Callable[[Model], bool]
Arrays = Mapping[str, NDArray[Any]]

PROBES_MAX = 4096  # more say nothing new, and each costs a run of the model
OPEN_SIZES = (
    16,
    1,
    64,
    224,
)  # tried for sizes that the model leaves open: tokens, single values, small and usual pictures
WHOLE_MAX = 100  # whole numbers are drawn below: token ids that every vocabulary has
COMMAND_SECONDS_MAX = 24 * 3600.0
FINE, TOO_FAR = 0, 1  # exit codes of a command


def cosine_guard(
    original: Model, *, probes: int = 16, cosine_min: float = 0.999, equal_min: float = 0.9, seed: int = 0
) -> Guard:
    """A guard that runs a marked model and `original` on the same random probes.

    It agrees if every output of numbers has a mean cosine of at least `cosine_min`, and every one of labels at least
    a share of `equal_min` equal ones. An output of one number a probe is compared over all probes, less its mean.
    Of labels a tenth may differ: a forest that was asked rubbish votes in ties, which the smallest change decides.
    Floating-point inputs are standard normal, whole ones below WHOLE_MAX, masks of ones. Raises FormatError for a model
    that cannot be run on such probes. Each run costs the memory of a model in the runtime; the original is run here.
    """
    if not 1 <= probes <= PROBES_MAX:
        raise ValueError(f"got {probes} probes, expected 1 to {PROBES_MAX}")
    feeds, answers = _probed(open_session(original), probes, seed)

    def agrees(marked: Model) -> bool:
        session = open_session(marked)
        runs = [session.run(feed) for feed in feeds]
        return all(
            _alike([run[name] for run in answers], [run[name] for run in runs], cosine_min, equal_min)
            for name in answers[0]
        )

    return agrees


def command_guard(command: Sequence[str], *, folder: Path | None = None, seconds: float = 3600) -> Guard:
    """A guard that runs a program of the user's, with the path of the marked model as its last argument.

    Exit code 0 says that the model is good enough, 1 that it is too far off; everything else, and no answer within
    `seconds`, raises PalladionError: a typing error must not pass for a bad model. The program is run without a shell,
    and inherits standard output. **The marked model lies on the disk in plain meanwhile**, readable by this user
    alone, in a new private folder inside `folder` (the system's temporary one if None), deleted afterwards: name one
    in memory (/dev/shm) where that matters.
    """
    if not command:
        raise ValueError("a command has at least one word, got none")
    if not 0 < seconds <= COMMAND_SECONDS_MAX:
        raise ValueError(f"got {seconds} seconds, expected more than 0, at most {COMMAND_SECONDS_MAX:.0f}")

    def agrees(marked: Model) -> bool:
        with files.storage_errors(folder or Path(tempfile.gettempdir())):
            scratch = tempfile.TemporaryDirectory(prefix="palladion-guard-", dir=folder)
        with scratch as name:
            code = _exit_code([*command, str(_written(marked, Path(name)))], seconds)
        if code not in {FINE, TOO_FAR}:
            raise PalladionError(
                f"the guard {command[0]!r} ended with exit code {code}, expected {FINE} (good enough) or {TOO_FAR}",
                "run it by hand on the model to see what it says",
            )
        return code == FINE

    return agrees


def _probed(session: Session, probes: int, seed: int) -> tuple[list[Arrays], list[Arrays]]:
    """Inputs, and what the model says to them."""
    reason = ""
    for size in OPEN_SIZES:
        try:
            feeds = list(_feeds(session.inputs, probes, size, seed))
            return feeds, [session.run(feed) for feed in feeds]
        except (FormatError, ValueError) as error:
            reason = reason or str(error)
    raise FormatError(f"random probes do not run: {reason}", "give a command that judges the model instead")


def _feeds(inputs: Sequence[Port], probes: int, size: int, seed: int) -> Iterator[Arrays]:
    """As many probes as asked for, in one batch if the model takes them."""
    random = np.random.default_rng(seed)
    batched = all(port.shape and not isinstance(port.shape[0], int) for port in inputs)
    for _ in range(1 if batched else probes):
        yield {port.name: _probe(port, probes if batched else None, size, random) for port in inputs}


def _probe(port: Port, batch: int | None, size: int, random: "np.random.Generator") -> NDArray[Any]:
    shape = [length if isinstance(length, int) else size for length in port.shape]
    if batch is not None:
        shape[0] = batch
    if "mask" in port.name.lower():
        return np.ones(shape, port.dtype)
    if port.dtype.startswith("float"):
        return np.asarray(random.standard_normal(shape), port.dtype)
    if port.dtype == "bool":
        return random.random(shape) < 0.5
    if "int" in port.dtype:
        # the kind of a token has two values at most
        most = 1 if "type" in port.name.lower() else WHOLE_MAX
        return random.integers(0, most, shape).astype(port.dtype)
    raise ValueError(f"input {port.name!r} takes a {port.dtype}, for which there is no random probe")


def _alike(ours: list[NDArray[Any]], theirs: list[NDArray[Any]], cosine_min: float, equal_min: float) -> bool:
    if any(one.shape != other.shape for one, other in zip(ours, theirs, strict=True)):
        return False
    if ours[0].dtype.kind != "f":
        equal = np.concatenate([np.ravel(one == other) for one, other in zip(ours, theirs, strict=True)])
        return not equal.size or float(equal.mean()) >= equal_min
    one, other = (_rows(runs) for runs in (ours, theirs))
    known = np.isfinite(one)
    if not np.isfinite(other[known]).all():
        return False
    one, other = (np.where(known, rows, 0) for rows in (one, other))
    if one.shape[1] == 1:
        # one number has no direction: how they differ between probes has one
        one, other = (one - one.mean()).T, (other - one.mean()).T
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines = (one * other).sum(axis=1)[lengths > 0] / lengths[lengths > 0]
    # zeros for zeros are alike, zeros for numbers are not
    same = np.array_equal(one[lengths == 0], other[lengths == 0])
    return same and (not cosines.size or float(cosines.mean()) >= cosine_min)


def _rows(runs: list[NDArray[Any]]) -> NDArray[np.float64]:
    """The outputs of all runs (probes, numbers); what is not one row a probe is one row a run."""
    rows = [run.reshape(run.shape[0] if run.ndim > 1 else -1, -1) if run.size else run.reshape(1, 0) for run in runs]
    return np.concatenate(rows).astype(np.float64)


def _written(model: Model, folder: Path) -> Path:
    """The path of the model's main file, of the folder for a model of several main files."""
    for file in model.files:
        path = folder / file.name
        files.make_private_directory(path.parent)
        with files.atomic_writer(path) as stream:
            for piece in file.pieces():
                stream.write(piece)
    return folder if model.format in {"folder", "adapter"} else folder / model.files[0].name


def _exit_code(command: list[str], seconds: float) -> int:
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, check=False, timeout=seconds).returncode  # noqa: S603
    except subprocess.TimeoutExpired:
        raise PalladionError(f"the guard {command[0]!r} did not end within {seconds:.0f} seconds") from None
    except OSError as error:
        raise PalladionError(f"the guard {command[0]!r} cannot be run: {error.strerror}") from None

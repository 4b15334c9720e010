"""Makes decoys and retires them, each recorded before it counts: API keys, and queries of a model, that nobody has.

A key is handed back once and kept nowhere. Where it is planted stands in the registry alone: the ledger may be shown.
"""

import io
import zipfile
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion import files
from palladion.access.decoys import PlantedRows, check_rows, seal_rows, text_digests
from palladion.access.identity import ApiKey, hash_api_key, key_prefix, new_api_key
from palladion.errors import ConflictError, FormatError
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import open_version
from palladion.model.run import STRING
from palladion.registry import Decoy, Records
from palladion.registry.decoys import new_id

FILE_BYTES_MAX = 64 * 1024**2  # of what is planted; a decoy of 16 MiB is refused anyway
ARRAY = "x"  # of an .npz with several


def add_decoy_key(
    installation: Installation, *, label: str, organisation: str | None, environment: str, actor: str
) -> tuple[Decoy, ApiKey, Receipt]:
    """Make an API key that is nobody's, to be planted where `label` says; `organisation` is whose place that is.

    Raises ConflictError where there are too many decoys.
    """
    gate = installation.open_gate_root()
    key = new_api_key(environment)
    with installation.recording(gate) as (ledger, records):
        made = records.decoys.add_key(
            new_id(),
            label,
            prefix=key_prefix(key),
            key_hash=hash_api_key(gate.derive("client-key-pepper"), key),
            organisation=organisation,
            actor=actor,
        )
        return made, key, ledger.append([_added(made)])[0]


def add_decoy_rows(
    installation: Installation,
    model: str,
    rows: NDArray[Any],
    *,
    label: str,
    tolerance: float,
    one_unit: bool,
    actor: str,
) -> tuple[Decoy, Receipt]:
    """Make a decoy of `rows` (rows, …), which exist nowhere but where they are planted.

    Rows of more than one axis are of `one_unit` (`access.decoys.PlantedRows`). Raises NotFoundError if there is no such
    model; ConflictError if it is asked in texts alone, or there are too many decoys; FormatError on rows that cannot
    be one, or are of another width than the promoted version takes, where one is registered: that is opened, and
    raises what `open_version` does.
    """
    kept = check_rows(rows, tolerance)
    width = _width(installation, model)
    if width not in {None, kept.shape[1]}:
        raise FormatError(f"a row has {kept.shape[1]} numbers, {model} takes {width}: nobody could touch that decoy")
    gate, decoy = installation.open_gate_root(), new_id()
    planted = PlantedRows(decoy, kept, tolerance, one_unit or rows.ndim > 2)
    with installation.recording(gate) as (ledger, records):
        _require_model(installation, records, model, texts=False)
        data = seal_rows(gate.derive("decoys"), model, planted)
        made = records.decoys.add_queries(decoy, "rows", label, model=model, data=data, count=len(kept), actor=actor)
        return made, ledger.append([_added(made)])[0]


def add_decoy_prompts(
    installation: Installation, model: str, prompts: Sequence[str], *, label: str, actor: str
) -> tuple[Decoy, Receipt]:
    """Make a decoy of texts for a language model, which exist nowhere but where they are planted. Raises as above."""
    gate = installation.open_gate_root()
    with installation.recording(gate) as (ledger, records):
        _require_model(installation, records, model, texts=True)
        data = text_digests(gate.derive("decoys"), model, prompts)
        made = records.decoys.add_queries(
            new_id(), "texts", label, model=model, data=data, count=len(prompts), actor=actor
        )
        return made, ledger.append([_added(made)])[0]


def retire_decoy(installation: Installation, decoy: str, *, actor: str) -> tuple[Decoy, Receipt]:
    """Let a decoy count no more; a key is then one that nobody knows. `decoy` is an id or its beginning.

    Raises NotFoundError, ConflictError if that is so already.
    """
    with installation.recording(installation.open_gate_root()) as (ledger, records):
        retired = records.decoys.retire(decoy)
        at = retired.retired_at or installation.clock.now()
        return retired, ledger.append([Record("decoy.retired", at, actor, f"decoy:{retired.id}")])[0]


def read_decoy_rows(path: Path) -> NDArray[Any]:
    """Rows (rows, …) of an `.npy`; of an `.npz` its only array, or `x`; or of a text: a row a line, with commas.

    Raises FormatError on anything else. Runs no code of the file.
    """
    data = files.read_limited(path, size_max=FILE_BYTES_MAX, what="the rows")
    if data[:6] != b"\x93NUMPY" and data[:2] != b"PK":
        return parse_decoy_rows(data.decode("utf-8", "replace").splitlines())
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            names = list(loaded)
            name = names[0] if len(names) == 1 else ARRAY
            array: NDArray[Any] = loaded[name]
            return array
    except KeyError:
        raise FormatError(f"{path} holds several arrays and none called {ARRAY}") from None
    except (ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path} holds no rows: {error}", "save them with numpy.save or numpy.savez") from None


def read_decoy_prompts(path: Path) -> list[str]:
    """Prompts of a text file, one a line; empty lines are left out. Raises FormatError."""
    data = files.read_limited(path, size_max=FILE_BYTES_MAX, what="the prompts")
    try:
        return [line for line in data.decode("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise FormatError(f"{path} is not UTF-8 text") from None


def parse_decoy_rows(lines: Sequence[str]) -> NDArray[np.float64]:
    """Rows of texts such as 0.5,-1,2; empty ones are left out. Raises FormatError."""
    rows: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append([float(text) for text in line.split(",")])
        except ValueError:
            raise FormatError(f"row {number} is not a list of numbers with commas, such as 0.5,-1,2,0.25") from None
        if len(rows[-1]) != len(rows[0]):
            raise FormatError(f"row {number} has {len(rows[-1])} numbers, {len(rows[0])} were expected as in the first")
    return np.array(rows, np.float64) if rows else np.zeros((0, 0))


def _added(made: Decoy) -> Record:
    details = {"kind": made.kind, "model": made.model, "count": made.count}
    return Record("decoy.added", made.created, made.actor, f"decoy:{made.id}", details)


def _width(installation: Installation, model: str) -> int | None:
    """How many numbers a row of the promoted version has; None where there is none, or it does not say."""
    with installation.open_registry() as registry, registry.read() as records:
        if records.models.find(model) is None or records.promotions.current(model) is None:
            return None
    with open_version(installation, model, lazily=True) as opened:
        graph = opened.model.graph
        if graph is None:
            return None
        fed = [item.type for item in graph.inputs if item.name not in graph.main.constants]
    width = 0
    for type_ in fed:
        if type_ is None or not type_.shape:
            return None
        if type_.element == STRING:
            continue  # no number
        sizes = [size for size in type_.shape[1:] if isinstance(size, int) and size > 0]
        if len(sizes) < len(type_.shape) - 1:
            return None
        width += prod(sizes)
    return width


def _require_model(installation: Installation, records: Records, model: str, *, texts: bool) -> None:
    """A model at an upstream need not be registered here; what is asked otherwise would never be recognised."""
    spoken = {route.protocol == "openai" for route in installation.policy.route if route.model == model}
    if not spoken:
        records.models.get(model)
        spoken = {False}
    if texts not in spoken:
        right, wrong = ("rows", "prompts") if texts else ("prompts", "rows")
        raise ConflictError(f"{model} is asked {right} here, never {wrong}: nobody could touch that decoy")

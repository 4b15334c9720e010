"""Decoys in the data path: which there are, and whether a key or a query is one. Read with the roll of clients.

What a touch leads to is in `touches`; what decoys are recognised by, in `palladion.access.decoys`.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from palladion.access.decoys import PlantedRows, RowDecoys, TextDecoys, open_rows
from palladion.errors import FormatError, PalladionError
from palladion.gate.problems import Problem
from palladion.keys import Root
from palladion.registry import Records
from palladion.watch.rows import Rows

log = logging.getLogger("palladion.gate")


class DecoyProblem(Problem):
    """What the user of a decoy key is told: exactly what the user of an unknown one is."""

    def __init__(self, decoy: str, detail: str) -> None:
        super().__init__("unauthenticated", detail)
        self.decoy = decoy


@dataclass(frozen=True)
class Decoys:
    """All decoys that count: keys by their keyed hash, rows by model and width, texts by model."""

    keys: Mapping[bytes, str] = field(default_factory=dict, repr=False)
    rows: Mapping[str, Mapping[int, RowDecoys]] = field(default_factory=dict, repr=False)
    texts: Mapping[str, TextDecoys] = field(default_factory=dict, repr=False)

    def asked(self, model: str, inputs: Rows) -> Sequence[str]:
        """The decoys that queries of a model, `inputs` (queries, width), touch; each once."""
        of_model = self.rows.get(model)
        if of_model is None:
            return ()
        known = of_model.get(inputs.shape[1])
        return () if known is None else known.touched(inputs)

    def said(self, model: str, texts: Iterable[str]) -> Sequence[str]:
        """The decoys that texts for a language model touch; each once."""
        known = self.texts.get(model)
        return () if known is None else known.touched(texts)


NO_DECOYS = Decoys()


class DecoyReader:
    """Reads the decoys of a registry; again only when there are others. For one thread at a time.

    `failure` says why those that were read last are not those of the registry.
    """

    def __init__(self, gate: Root) -> None:
        self.failure: PalladionError | None = None
        self._gate = gate
        self._live: tuple[str, ...] | None = None
        self._read = NO_DECOYS

    def read(self, records: Records) -> Decoys:
        """All that count. Raises FormatError, TamperError at first, on one that this gate did not keep.

        Later those that were read last go on counting: one decoy must not keep a gate from taking over who was revoked.
        """
        live = records.decoys.live()
        self.failure = None
        if live != self._live:
            try:
                self._read, self._live = self._opened(records), live
            except PalladionError as error:
                if self._live is None:
                    raise
                told = f"the decoys stay as they were, all else was taken over: {error.message}"
                log.error(told)  # noqa: TRY400
                self.failure = FormatError(told, *error.hints, "palladion decoy retire ID takes one out")
        return self._read

    def _opened(self, records: Records) -> Decoys:
        if not records.decoys.live():
            return NO_DECOYS
        key = self._gate.derive("decoys")
        rows: defaultdict[str, defaultdict[int, list[PlantedRows]]] = defaultdict(lambda: defaultdict(list))
        texts: defaultdict[str, list[tuple[str, bytes]]] = defaultdict(list)
        for item in records.decoys.all(retired=False):
            if item.model is None:
                continue  # a key
            data = records.decoys.data(item.id)
            if item.kind == "texts":
                texts[item.model].append((item.id, data))
            else:
                planted = open_rows(key, item.model, item.id, data)
                rows[item.model][planted.rows.shape[1]].append(planted)
        return Decoys(
            records.decoys.hashes(),
            {
                model: {width: RowDecoys(key, model, some) for width, some in widths.items()}
                for model, widths in rows.items()
            },
            {model: TextDecoys(key, model, some) for model, some in texts.items()},
        )

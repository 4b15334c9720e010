"""Rows of a real document against the entries that they cite, and every way in which they can fail to fit."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from palladion.incident.dossier.gather import Gathered
from palladion.incident.dossier.verifier.findings import DossierError
from palladion.incident.dossier.verifier.rows import check_rows

OTHER_TIME = "2001-01-01T00:00:00.000000Z"


@pytest.fixture
def document(gathered: Gathered) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(gathered.dossier.encode())
    return told


@pytest.fixture
def cited(document: dict[str, Any], gathered: Gathered) -> dict[int, dict[str, Any]]:
    shown = {
        row["entry"]: gathered.evidence.get(f"evidence/ledger/entry-{row['entry']}.json") for row in _all(document)
    }
    return {
        row["entry"]: {**row, "record": json.loads(data) if (data := shown[row["entry"]]) else None}
        for row in _all(document)
    }


def _all(document: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = document["evidence"]
    return rows


@pytest.mark.slow
def test_what_is_written_holds(document: dict[str, Any], cited: dict[int, dict[str, Any]]) -> None:
    assert all(
        document[table] for table in ("timeline", "commitments", "comparison", "custody", "measures", "controls")
    )
    assert document["gate"] is not None
    check_rows(document, cited)


def _version(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["models"][0]["versions"][0]
    return found


ROWS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "timeline": lambda document: document["timeline"][0],
    "commitments": lambda document: document["commitments"][0],
    "comparison": lambda document: document["comparison"][0],
    "custody": lambda document: document["custody"][0],
    "measures": lambda document: document["measures"][0],
    "controls": lambda document: document["controls"][0],
    "gate": lambda document: document["gate"],
    "models": _version,
}


@pytest.mark.parametrize("entry", [4_000_000, -3, "4", True, None], ids=str)
@pytest.mark.parametrize("table", [name for name in ROWS if name != "measures"])
def test_a_row_that_cites_what_is_not_there_is_found(
    document: dict[str, Any], cited: dict[int, dict[str, Any]], table: str, entry: object
) -> None:
    if table == "models" and entry is None:
        return  # a version can be older than the ledger
    ROWS[table](document)["entry"] = entry
    with pytest.raises(DossierError, match="which is not among the evidence"):
        check_rows(document, cited)


def test_a_measure_or_an_end_that_cites_what_is_not_there_is_found(
    document: dict[str, Any], cited: dict[int, dict[str, Any]]
) -> None:
    for entries in ([4_000_000], [4, 4_000_000], [4_000_000, 6]):
        changed = {**document, "measures": [document["measures"][0] | {"entries": entries}]}
        with pytest.raises(DossierError, match="not among the evidence"):
            check_rows(changed, cited)
    for entries in ([], [4, 4, 6]):
        with pytest.raises(ValueError, match="unpack"):
            check_rows({**document, "measures": [document["measures"][0] | {"entries": entries}]}, cited)
    document["controls"][0]["ended_entry"] = None
    with pytest.raises(DossierError, match="not among the evidence"):
        check_rows(document, cited)


@pytest.mark.parametrize(
    ("table", "name", "value"),
    [
        ("timeline", "time", OTHER_TIME),
        ("timeline", "kind", "incident.noted"),
        ("timeline", "actor", "user:other"),
        ("timeline", "subject", "other"),
        ("commitments", "time", OTHER_TIME),
        ("commitments", "version", "house@9"),
        ("commitments", "value", "00" * 32),
        ("commitments", "precedes", False),
        ("commitments", "precedes", None),
        ("commitments", "entry", 3),
        ("comparison", "time", OTHER_TIME),
        ("comparison", "actor", "user:other"),
        ("comparison", "suspect", "other"),
        ("comparison", "digest", "00" * 32),
        ("custody", "recorded", OTHER_TIME),
        ("custody", "actor", "user:other"),
        ("custody", "step", "returned"),
        ("custody", "by", "other"),
        ("custody", "place", "other"),
        ("custody", "at", OTHER_TIME),
        ("custody", "source", "other"),
        ("custody", "content", None),
        ("custody", "files", []),
        ("measures", "first", OTHER_TIME),
        ("measures", "last", OTHER_TIME),
        ("controls", "recorded", OTHER_TIME),
        ("controls", "ended", OTHER_TIME),
        ("controls", "control", "other"),
        ("controls", "reason", "other"),
        ("gate", "time", OTHER_TIME),
        ("gate", "policy", "00" * 32),
        ("gate", "entry", 3),
        ("models", "version", "house@9"),
        ("models", "entry", 3),
    ],
)
def test_a_row_that_says_something_else_than_its_entry_is_found(
    document: dict[str, Any], cited: dict[int, dict[str, Any]], table: str, name: str, value: object
) -> None:
    row = ROWS[table](document)
    assert row[name] != value
    row[name] = value
    with pytest.raises(DossierError, match=r"dossier\.json says"):
        check_rows(document, cited)


def test_the_row_of_a_withheld_entry_has_the_time_and_kind_of_the_evidence(
    document: dict[str, Any], cited: dict[int, dict[str, Any]]
) -> None:
    hidden = next(row for row in document["timeline"] if cited[row["entry"]]["record"] is None)
    check_rows(document, cited)
    hidden["kind"] = "incident.opened"
    with pytest.raises(DossierError, match="another kind"):
        check_rows(document, cited)

"""The rows of dossier.json against the entries that they cite: number, time, kind, and what else an entry has of a row.

Of an entry that is withheld, that is what the list of the evidence says. Words are not compared: a person reads them.
"""

from collections.abc import Iterator
from typing import Any

from .findings import DossierError

_VERSIONS = frozenset({"model.protected", "model.sealed"})
_COMMITTED = ("commitment", "tensor_keys", "root")  # fields of a mark that fix something
_ACQUIRED = "acquired"


def check_rows(document: dict[str, Any], cited: dict[int, dict[str, Any]]) -> None:
    """Raise DossierError unless every row that cites an entry fits it.

    `cited` are the rows of the evidence by entry, with the `record`, or None where it is withheld.
    """
    for row, entry, expected, of_record in _citations(document):
        evidence = cited.get(entry) if type(entry) is int else None
        if evidence is None:
            raise DossierError(f"dossier.json cites entry {entry!r}, which is not among the evidence")
        record = evidence["record"]
        for name, value in expected.items():
            allowed = value if isinstance(value, frozenset) else frozenset({value})
            if evidence[name] not in allowed:
                raise DossierError(f"dossier.json says another {name} of entry {entry} than the entry has")
        for name, place in of_record.items() if record is not None else ():
            if row[name] != _at(record, place):
                raise DossierError(f"dossier.json says another {name} of entry {entry} than the entry itself")
    for row in document["commitments"]:
        _check_commitment(row, cited[row["entry"]]["record"])
    _check_order(document)


# a row, the entry that it cites, what time and kind that has to have, and what of the row stands where in the record
_Citation = tuple[dict[str, Any], Any, dict[str, Any], dict[str, str]]


def _citations(document: dict[str, Any]) -> Iterator[_Citation]:
    for row in document["timeline"]:
        yield row, row["entry"], _of(row), {"actor": "actor", "subject": "subject"}
    for row in document["commitments"]:
        yield row, row["entry"], {"time": row["time"], "kind": _VERSIONS}, {"version": "subject"}
    for row in document["comparison"]:
        of_record = {"actor": "actor", "suspect": "subject", "digest": "details.suspect"}
        yield row, row["entry"], {"time": row["time"], "kind": "mark.tested"}, of_record
    for row in document["custody"]:
        handling = ("step", "by", "place", "at", "note", "source", "content", "server", "files")
        of_record = {"actor": "actor", **{name: f"details.{name}" for name in handling}}
        yield row, row["entry"], {"time": row["recorded"], "kind": "custody.recorded"}, of_record
    for row in document["measures"]:
        # the first and the last, which can be the same
        first, last = row["entries"] if len(row["entries"]) == 2 else [*row["entries"], *row["entries"]]
        yield row, first, {"time": row["first"]}, {}
        yield row, last, {"time": row["last"]}, {}
    for row in document["controls"]:
        control = ("control", "category", "owner", "evidence", "sha256", "since", "expires")
        of_record = {name: f"details.{name}" for name in control}
        yield row, row["entry"], {"time": row["recorded"], "kind": "measure.recorded"}, of_record
        if row["ended_entry"] is not None or row["ended"] is not None:
            ended = {"time": row["ended"], "kind": "measure.ended"}
            yield row, row["ended_entry"], ended, {"reason": "details.reason"}
    if (gate := document["gate"]) is not None:
        started = {"time": gate["time"], "kind": "gate.started"}
        yield gate, gate["entry"], started, {"policy": "details.policy"}
    for row in (version for model in document["models"] for version in model["versions"]):
        if row["entry"] is not None:
            yield row, row["entry"], {"kind": _VERSIONS}, {"version": "subject"}


def _of(row: dict[str, Any]) -> dict[str, Any]:
    return {"time": row["time"], "kind": row["kind"]}


def _at(record: dict[str, Any], place: str) -> Any:
    field, _, name = place.partition(".")
    return record[field].get(name) if name else record[field]


def _check_commitment(row: dict[str, Any], record: dict[str, Any] | None) -> None:
    """What the row says was fixed has to be what the entry fixed."""
    if record is None:
        return
    marks = record["details"].get("marks") or ()
    fixed = [record["details"].get("content"), *(mark.get(name) for mark in marks for name in _COMMITTED)]
    if row["value"] not in fixed:
        raise DossierError(f"dossier.json says that entry {row['entry']} fixed something that it does not have")


def _check_order(document: dict[str, Any]) -> None:
    """Whether a commitment precedes the suspect is a matter of places in the ledger, and of nothing else."""
    acquired = min((row["entry"] for row in document["custody"] if row["step"] == _ACQUIRED), default=None)
    for row in document["commitments"]:
        if row["precedes"] != (None if acquired is None else row["entry"] < acquired):
            raise DossierError(f"dossier.json says of entry {row['entry']} wrongly whether it precedes the suspect")

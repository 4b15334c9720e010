"""What detections are called: our own word for each cause, and its ids in MITRE ATLAS and OWASP, from a small table.

The table holds ids and names of what we detect and nothing more. A newer release of ATLAS, downloaded by the user, may
rename a technique; one that drops an id that we use is refused, because somebody has to look first.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

from palladion import canonical, files
from palladion.access.strict_json import decode_object
from palladion.errors import FormatError, NotFoundError

TABLE_FILE = "techniques.json"
RELEASE_BYTES_MAX = 32 * 1024 * 1024  # ATLAS.yaml is 1 MB
_TABLE_BYTES_MAX = 64 * 1024
_NAME_CHARACTERS_MAX = 200
_ID = re.compile(r"AML\.T[0-9]{4}(\.[0-9]{3})?")
# How ATLAS.yaml has a technique: two lines that follow each other. Its YAML needs no parser for that.
_YAML_ID = re.compile(r"\s*-?\s*id:\s*(AML\.T[0-9]{4}(?:\.[0-9]{3})?)\s*")
_YAML_NAME = re.compile(r"\s*name:\s*(.+?)\s*")
_YAML_VERSION = re.compile(r"version:\s*['\"]?([0-9][0-9A-Za-z.+-]{0,31})['\"]?\s*")

# Every kind of detection that the gate, the watch, the red team or a person can record, and what it is a sign of. These
# are the words that records have as `cause`: once used, one is never given another meaning.
DETECTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "client": ("AML.T0024.002", "AML.T0040", "ML05:2023"),
        "foreign-data": ("AML.T0024.002", "AML.T0040", "ML05:2023"),
        "repeats": ("AML.T0024", "AML.T0040", "ML05:2023"),
        "harvest": ("AML.T0024.002", "AML.T0005.001", "LLM10:2025"),
        "campaign": ("AML.T0024.002", "AML.T0021", "AML.T0008.005", "ML05:2023"),
        "budget": ("AML.T0040", "AML.T0034", "LLM10:2025"),
        "rate": ("AML.T0040", "AML.T0034", "LLM10:2025"),
        "text": ("AML.T0024.002", "AML.T0005.001", "LLM10:2025"),
        "probing": ("AML.T0013", "AML.T0024", "AML.T0040"),
        "membership": ("AML.T0024.000", "ML04:2023"),
        "inversion": ("AML.T0024.001", "ML03:2023", "LLM02:2025"),
        "decoy-model": ("AML.T0035", "AML.T0025", "ML05:2023"),
        "decoy-key": ("AML.T0055", "AML.T0012"),
        "decoy-query": ("AML.T0035", "AML.T0024.002", "ML05:2023"),
        "copy": ("AML.T0048.004", "AML.T0044", "AML.T0025", "ML05:2023"),
        "student": ("AML.T0024.002", "AML.T0005.001", "AML.T0048.004", "ML05:2023"),
        "malicious-file": ("AML.T0010.003", "ML06:2023"),
        "feed": ("AML.T0008.005",),
    }
)
# Of records that state no cause, because their kind or their reason is one.
_BY_KIND: Mapping[str, str] = MappingProxyType({"intel.hit": "feed"})
_BY_REFUSAL: Mapping[str, str] = MappingProxyType(
    {"atypical-input": "foreign-data", "budget-spent": "budget", "rate-limited": "rate"}
)


@dataclass(frozen=True)
class Reference:
    """How a detection is called elsewhere: `source` is `mitre-atlas` or `owasp`."""

    source: str
    id: str
    name: str
    url: str


@dataclass(frozen=True)
class Table:
    """Ids and names, from the release of ATLAS that `version` names."""

    version: str
    source: str
    techniques: Mapping[str, str]
    owasp: Mapping[str, str]


@cache
def shipped() -> Table:
    """The table that ships with this release."""
    return parse_table(resources.files("palladion.watch").joinpath(TABLE_FILE).read_bytes())


def load_table(folder: Path) -> Table:
    """The table that somebody made from a newer release, in `folder`; else the shipped one."""
    path = folder / TABLE_FILE
    if not path.is_file():
        return shipped()
    return parse_table(files.read_limited(path, size_max=_TABLE_BYTES_MAX, what="the table of techniques"))


def save_table(folder: Path, table: Table) -> None:
    """Keep a table in `folder`, where `load_table` finds it."""
    files.make_private_directory(folder)
    document = {
        "version": table.version,
        "source": table.source,
        "techniques": dict(table.techniques),
        "owasp": dict(table.owasp),
    }
    files.write_atomically(folder / TABLE_FILE, canonical.encode(document))


def parse_table(data: bytes) -> Table:
    """The table that `data` is. Raises FormatError if it lacks an id that a detection maps to."""
    document = decode_object(data, what="the table of techniques")
    techniques, owasp = document.get("techniques"), document.get("owasp")
    texts = [document.get(part) for part in ("version", "source")]
    if not all(isinstance(text, str) for text in texts) or not (_are_names(techniques) and _are_names(owasp)):
        raise FormatError("the table of techniques has no version, source, techniques and owasp")
    table = Table(document["version"], document["source"], techniques or {}, owasp or {})
    missing = sorted({id_ for ids in DETECTIONS.values() for id_ in ids} - {*table.techniques, *table.owasp})
    if missing:
        raise FormatError(f"the table of techniques has no {', '.join(missing)}, which detections map to")
    return table


def read_release(data: bytes) -> Table:
    """The shipped table with names from a release of ATLAS: its ATLAS.yaml, or its STIX bundle (stix-atlas.json).

    Raises FormatError if it is neither, or lacks an id that we use.
    """
    ours = shipped()
    version, found = _from_stix(data) if data.lstrip()[:1] == b"{" else _from_yaml(data)
    missing = sorted(set(ours.techniques) - set(found))
    if missing:
        raise FormatError(
            f"this release of ATLAS has no {', '.join(missing[:5])}, which detections map to",
            "is it a whole ATLAS.yaml or stix-atlas.json?",
        )
    return Table(version, ours.source, {id_: found[id_] for id_ in sorted(ours.techniques)}, ours.owasp)


def cause_of(kind: str, details: Mapping[str, Any]) -> str:
    """The cause that a record of this kind states or implies: a key of `DETECTIONS`, or empty where it is no detection.

    A cause of a later release is none here.
    """
    stated = details.get("cause")
    if isinstance(stated, str):
        return stated if stated in DETECTIONS else ""
    if kind == "answer.refused":
        return _BY_REFUSAL.get(str(details.get("reason")), "")
    return _BY_KIND.get(kind, "")


def ids_of(cause: str) -> tuple[str, ...]:
    """The ids of a cause in MITRE ATLAS and OWASP; none for what is no cause."""
    return DETECTIONS.get(cause, ())


def references(detection: str, table: Table) -> list[Reference]:
    """What a kind of detection is called elsewhere. Raises NotFoundError for a kind that is none."""
    ids = DETECTIONS.get(detection)
    if ids is None:
        raise NotFoundError(f"no detection is called {detection[:80]!r}", f"there are {', '.join(DETECTIONS)}")
    return [reference(id_, table) for id_ in ids]


def reference(id_: str, table: Table) -> Reference:
    """A technique by its id. Raises NotFoundError."""
    if id_ in table.techniques:
        return Reference("mitre-atlas", id_, table.techniques[id_], f"https://atlas.mitre.org/techniques/{id_}")
    if id_ in table.owasp:
        return Reference("owasp", id_, table.owasp[id_], "https://genai.owasp.org" if id_[0] == "L" else _OWASP_ML)
    raise NotFoundError(f"the table of techniques has no {id_[:80]!r}")


def _from_stix(data: bytes) -> tuple[str, dict[str, str]]:
    objects = decode_object(data, what="this release of ATLAS").get("objects")
    if not isinstance(objects, list):
        raise FormatError("this release of ATLAS is no STIX bundle with objects")
    version, found = "unknown", dict[str, str]()
    for item in objects:
        if not isinstance(item, dict):
            raise FormatError("this release of ATLAS has an object that is none")
        if item.get("type") == "x-mitre-collection" and isinstance(item.get("x_mitre_version"), str):
            version = item["x_mitre_version"][:32]
        references_ = item.get("external_references")
        if item.get("type") != "attack-pattern" or not isinstance(references_, list):
            continue
        for each in references_:
            if isinstance(each, dict) and each.get("source_name") == "mitre-atlas":
                _take(found, each.get("external_id"), item.get("name"))
    return version, found


def _from_yaml(data: bytes) -> tuple[str, dict[str, str]]:
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise FormatError("this release of ATLAS is no text") from None
    version, found = "unknown", dict[str, str]()
    for line, after in pairwise([*lines, ""]):
        if match := _YAML_VERSION.fullmatch(line):
            version = match[1]
        match, name = _YAML_ID.fullmatch(line), _YAML_NAME.fullmatch(after)
        if match and name:
            _take(found, match[1], _unquoted(name[1]))
    return version, found


def _take(found: dict[str, str], id_: Any, name: Any) -> None:
    if isinstance(id_, str) and _ID.fullmatch(id_) and isinstance(name, str) and 0 < len(name) <= _NAME_CHARACTERS_MAX:
        found[id_] = name


def _unquoted(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] == '"' else text


def _are_names(part: Any) -> bool:
    return isinstance(part, dict) and all(
        isinstance(name, str) and 0 < len(name) <= _NAME_CHARACTERS_MAX for name in part.values()
    )


_OWASP_ML = "https://owasp.org/www-project-machine-learning-security-top-10/"

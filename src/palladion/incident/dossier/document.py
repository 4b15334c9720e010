"""The dossier as a document: what it says, as values. `dossier.json` is their canonical JSON; the PDF shows the same.

No floats, no HTML, no layout. A row that cites the ledger has `entry`, the number of the entry that proves it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from palladion import canonical, files
from palladion.errors import FormatError
from palladion.incident.dossier.verifier.manifest import FORMAT, VERSION

DOCUMENT_BYTES_MAX = 256 * 1024 * 1024
PARTICULARS_BYTES_MAX = 256 * 1024

Line = Annotated[str, msgspec.Meta(max_length=500)]
Text = Annotated[str, msgspec.Meta(max_length=20_000)]


class Damages(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Figures that only the owner has. They are printed as they are written, and nothing is computed from them."""

    currency: Line = ""
    development_cost: Line = ""
    training_cost: Line = ""
    market_value: Line = ""
    lost_profit: Line = ""
    licence_fee: Line = ""
    basis: Text = ""


class Particulars(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person adds to a dossier, in a TOML file; what is left out is a blank to be filled in by hand."""

    claimant: Line = ""
    respondent: Line = ""
    jurisdiction: Line = ""
    claim: Text = ""
    trade_secret: Text = ""
    copyright: Text = ""
    patent: Text = ""
    invention_title: Line = ""
    inventors: Line = ""
    invention: Text = ""
    damages: Damages = Damages()


@dataclass(frozen=True)
class Case:
    """The incident as the registry has it."""

    id: str
    title: str
    state: str
    opened: str
    closed: str | None
    finding: str | None


@dataclass(frozen=True)
class Log:
    """The ledger and the checkpoint that every proof leads to."""

    origin: str
    key: str
    size: int
    root: str


@dataclass(frozen=True)
class VersionRow:
    """One version of a model: digests of content, graph and sealed files, and who signed it."""

    version: str
    parent: str | None
    content: str
    graph: str | None
    format: str
    publisher: str
    sealed: dict[str, str]
    recorded: str
    entry: int | None
    promoted: list[str]


@dataclass(frozen=True)
class ModelRow:
    """A model with its versions, oldest first."""

    name: str
    owner: str
    format: str
    registered: str
    versions: list[VersionRow]


@dataclass(frozen=True)
class CommitmentRow:
    """A digest that was fixed in the ledger; `precedes` says whether that was before a suspect was acquired."""

    entry: int
    time: str
    version: str
    what: str
    value: str
    precedes: bool | None


@dataclass(frozen=True)
class SeenMeasure:
    """A measure that records show: how often, and the first and the last that do. `before` is whether one of them is
    older than the case.
    """

    measure: str
    count: int
    first: str
    last: str
    entries: list[int]
    before: bool


@dataclass(frozen=True)
class GateRow:
    """What the gate said of itself at a start: the digest of its policy, and each route in words."""

    entry: int
    time: str
    policy: str
    routes: list[str]


@dataclass(frozen=True)
class Event:
    """One line of the timeline."""

    entry: int
    time: str
    kind: str
    actor: str
    subject: str
    says: str


@dataclass(frozen=True)
class Account:
    """A caller whom the case concerns, by its pseudonym; `name` where names were asked for."""

    pseudonym: str
    name: str | None
    registered: str
    revoked: str | None
    scopes: list[str]
    standing: str
    keys: int
    identities: int
    answers: int
    refused: int
    first: str | None
    last: str | None
    reasons: list[str]


@dataclass(frozen=True)
class LinkRow:
    """What the accounts of the case shared when it was opened, or took some in; `keyed` are pseudonyms of it."""

    entry: int
    time: str
    says: str
    keyed: list[str]


@dataclass(frozen=True)
class Comparison:
    """A test of a suspect, whatever it found. `exhibit` is whether the suspect is in custody under this case."""

    entry: int
    time: str
    actor: str
    suspect: str
    digest: str | None
    looked_for: str
    tested: int
    results: list[str]
    exhibit: bool


@dataclass(frozen=True)
class CustodyRow:
    """One handling of a suspect, with the digests of its files at that moment."""

    entry: int
    recorded: str
    actor: str
    step: str
    by: str
    place: str
    at: str
    note: str
    source: str
    content: str | None
    server: dict[str, Any] | None
    files: list[dict[str, Any]]


@dataclass(frozen=True)
class Cited:
    """An entry of the evidence: what it is, and its leaf hash in the log.

    One that is withheld has a `commitment` to that hash instead. A dossier that names everybody has the `opening` of
    the commitment that another one shows: HMAC-SHA-256 of the leaf hash under it.
    """

    entry: int
    time: str
    kind: str
    leaf: str | None
    commitment: str | None
    opening: str | None

    @property
    def withheld(self) -> bool:
        """Whether the entry is not shown."""
        return self.leaf is None


@dataclass(frozen=True)
class Dossier:
    """All that a dossier says."""

    made: str
    by: str
    software: str
    publisher: str
    verifier: str
    named: bool
    case: Case
    log: Log
    particulars: Particulars
    models: list[ModelRow]
    commitments: list[CommitmentRow]
    measures: list[SeenMeasure]
    controls: list[dict[str, Any]]
    gate: GateRow | None
    timeline: list[Event]
    timeline_left_out: int
    accounts: list[Account]
    links: list[LinkRow]
    comparison: list[Comparison]
    custody: list[CustodyRow]
    evidence: list[Cited]
    attached: list[dict[str, Any]]

    def encode(self) -> bytes:
        """`dossier.json`. Raises FormatError if it is too large."""
        data = canonical.encode({"v": VERSION, "format": FORMAT, **msgspec.to_builtins(self)})
        if len(data) > DOCUMENT_BYTES_MAX:
            raise FormatError(f"dossier.json would have {len(data)} bytes, at most {DOCUMENT_BYTES_MAX} are allowed")
        return data


def parse_particulars(path: Path) -> Particulars:
    """The particulars in a TOML file. Raises FormatError, saying which line or field is wrong."""
    data = files.read_limited(path, size_max=PARTICULARS_BYTES_MAX, what="the particulars")
    try:
        return msgspec.toml.decode(data, type=Particulars)
    except (msgspec.MsgspecError, ValueError) as error:
        fields = ", ".join(name for name in Particulars.__struct_fields__)
        raise FormatError(f"{path} cannot be read as particulars: {error}", f"its fields are {fields}") from None


def described(details: object, characters_max: int) -> str:
    """A record's details as one line, for kinds that have no words of their own: fields and values, or JSON."""
    if isinstance(details, dict) and not any(isinstance(value, dict | list) for value in details.values()):
        text = ", ".join(f"{name} {value}" for name, value in sorted(details.items()) if value is not None)
    else:
        text = msgspec.json.encode(details, order="sorted").decode()
    return text if len(text) <= characters_max else f"{text[: characters_max - 1]}…"

"""What a scan says: findings by rule and grade, and whether the file may be opened."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from palladion.errors import ScanRefusedError

Grade = Literal["refused", "suspicious"]

RULES: Mapping[str, str] = MappingProxyType(
    {
        "format": "The content is of a format that can hold code, or of one that is not known.",
        "structure": "The file is broken, truncated, or its parts contradict each other.",
        "limit": "The file takes more work, memory or nesting than a scan spends on one.",
        "operator-domain": "An operator comes from a domain that the policy does not allow: it needs a native library.",
        "shadowed-operator": "The file defines an operator of its own under the name of a standard one.",
        "graph-operator": "A graph holds an operator that reaches files or Python, or one that is not known.",
        "external-data": "The file makes its reader open other files.",
        "pickle-global": "A pickle names a function or class that is not on the list of harmless ones.",
        "pickle-call": "A pickle calls, or changes, something in a way that no framework writes.",
        "pickle-opcode": "A pickle hides what it names: computed names, extension codes, buffers from outside.",
        "pickle-persistent": "A pickle asks its reader for objects by names that are not those of tensors.",
        "nested-pickle": "Text or bytes hold a pickle, which runs if something loads it.",
        "embedded-code": "Text or bytes hold program text that runs if something evaluates it.",
        "archive-entry": "An archive holds a name, link, device or duplicate that leads its readers astray.",
        "archive-encrypted": "An archive is encrypted, so that nobody can look into it.",
        "archive-bomb": "An archive unpacks to far more than it is.",
        "polyglot": "The bytes are a file of another format too, for readers that look elsewhere.",
        "keras-code": "A Keras model names code: Lambda layers, functions, or classes from outside Keras.",
        "template": "A chat template does what only an escape from its sandbox needs.",
        "remote-code": "A configuration makes its loader run code that comes with the model, or from elsewhere.",
        "source-code": "Program text lies in the file or beside it.",
        "program": "The content is a program that a machine or an interpreter runs.",
        "link": "A link leads out of what was scanned.",
        "vulnerable-dependency": "A package that a file of requirements names has known vulnerabilities.",
        "second-opinion": "Another scanner finds something.",
    }
)


TEXT_CHARACTERS_MAX = 500  # of what a hostile file makes us quote: one of its names can have a million
REASONS_MAX = 10  # that an error lists; the verdict has them all


@dataclass(frozen=True)
class Finding:
    """One reason not to open a file: the rule (a key of `RULES`), where, and a sentence; both cut if they are long.

    `refused` means that opening the file can run code, or that nobody can say what it does; `suspicious` that it is
    odd, or harmful only to a careless reader.
    """

    rule: str
    where: str
    message: str
    grade: Grade = "refused"

    def __post_init__(self) -> None:
        for name in ("where", "message"):
            text = getattr(self, name)
            if len(text) > TEXT_CHARACTERS_MAX:
                object.__setattr__(self, name, f"{text[:TEXT_CHARACTERS_MAX]}…")


@dataclass(frozen=True)
class Verdict:
    """The outcome of a scan. No findings means that every rule was applied and none fired.

    With `allow_suspicious`, findings of that grade are told and do not stand in the way.
    """

    file: str
    format: str
    findings: tuple[Finding, ...]
    hints: tuple[str, ...] = ()
    allow_suspicious: bool = False

    @property
    def against(self) -> tuple[Finding, ...]:
        """The findings that keep the file from being opened."""
        return tuple(item for item in self.findings if item.grade == "refused" or not self.allow_suspicious)

    @property
    def accepted(self) -> bool:
        """Whether the file may be opened."""
        return not self.against

    @property
    def word(self) -> str:
        """The verdict in a word or two: refused, suspicious, or no findings."""
        if not self.findings:
            return "no findings"
        return "refused" if any(item.grade == "refused" for item in self.findings) else "suspicious"

    def require_accepted(self) -> None:
        """Raise ScanRefusedError, listing the findings, unless the file may be opened."""
        against = self.against
        if against:
            reasons = "; ".join(f"{finding.message} [{finding.rule}]" for finding in against[:REASONS_MAX])
            if len(against) > REASONS_MAX:
                reasons += f"; and {len(against) - REASONS_MAX} more"
            raise ScanRefusedError(f"{self.file} is refused: {reasons}", *self.hints)

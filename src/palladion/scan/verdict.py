"""What a scan says: findings by rule, and whether the file may be opened."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from palladion.errors import ScanRefusedError

RULES: Mapping[str, str] = MappingProxyType(
    {
        "format": "The content is of a format that can hold code, or of one that is not known.",
        "structure": "The file is broken, truncated, or its parts contradict each other.",
        "operator-domain": "An operator comes from a domain that the policy does not allow: it needs a native library.",
        "shadowed-operator": "The file defines an operator of its own under the name of a standard one.",
    }
)


TEXT_CHARACTERS_MAX = 500  # of what a hostile file makes us quote: one of its names can have a million
REASONS_MAX = 10  # that an error lists; the verdict has them all


@dataclass(frozen=True)
class Finding:
    """One reason not to open a file: the rule (a key of `RULES`), where, and a sentence; both cut if they are long."""

    rule: str
    where: str
    message: str

    def __post_init__(self) -> None:
        for name in ("where", "message"):
            text = getattr(self, name)
            if len(text) > TEXT_CHARACTERS_MAX:
                object.__setattr__(self, name, f"{text[:TEXT_CHARACTERS_MAX]}…")


@dataclass(frozen=True)
class Verdict:
    """The outcome of a scan. No findings means that every rule was applied and none fired."""

    file: str
    format: str
    findings: tuple[Finding, ...]
    hints: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether the file may be opened."""
        return not self.findings

    def require_accepted(self) -> None:
        """Raise ScanRefusedError, listing the findings, unless the file may be opened."""
        if self.findings:
            reasons = "; ".join(f"{finding.message} [{finding.rule}]" for finding in self.findings[:REASONS_MAX])
            if len(self.findings) > REASONS_MAX:
                reasons += f"; and {len(self.findings) - REASONS_MAX} more"
            raise ScanRefusedError(f"{self.file} is refused: {reasons}", *self.hints)

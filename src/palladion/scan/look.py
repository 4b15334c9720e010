"""One scan in progress: what was found, what may still be spent, and how what lies inside is looked at."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from palladion.scan.source import LimitError, Source
from palladion.scan.verdict import Finding, Grade

FINDINGS_MAX = 100  # a hostile file may break a rule a million times; nobody reads more
DEPTH_MAX = 6  # archives in archives; a model in a zip in a tar.gz is three
ENTRIES_MAX = 100_000  # of all archives of one file together
OPCODES_MAX = 5_000_000  # of all pickles: some ten seconds; a forest of 1000 trees has 100,000
SEARCHED_MAX = 24 * 2**20  # characters that may be part of a program, 0.7 us for each: the rest takes a tenth of it
UNPACKED_FLOOR_BYTES = 256 * 2**20  # a small file may unpack to this much in any case
UNPACKED_RATIO_MAX = 30  # and a larger one to so many times its size: weights shrink to no less than a tenth
HELD_BYTES_MAX = 256 * 2**20  # of one unpacked entry that are kept: compressed forests of joblib have as many
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")


@dataclass
class Searched:
    """How much may still be searched for programs; shared by what is tried out with findings of its own."""

    left: int = SEARCHED_MAX


@dataclass
class Look:
    """Findings and allowances of one file, shared by everything that lies in it."""

    inside: Callable[["Look", Source, str], str]
    unpacked_left: int = UNPACKED_FLOOR_BYTES
    opcodes_left: int = OPCODES_MAX
    entries_left: int = ENTRIES_MAX
    depth: int = 0
    operator_domains: Collection[str] = DOMAINS
    findings: list[Finding] = field(default_factory=list)
    seen: set[tuple[str, str, str]] = field(default_factory=set)
    searched: Searched = field(default_factory=Searched)
    quiet: int = 0  # above 0 while something is tried out, whose findings count only if it fits

    def add(self, rule: str, where: str, message: str, grade: Grade = "refused") -> None:
        """Note a finding, once, and no more than `FINDINGS_MAX`; a refusal is always among them."""
        if self.quiet or (rule, where, message) in self.seen:
            return
        if len(self.findings) < FINDINGS_MAX:
            self.seen.add((rule, where, message))
            self.findings.append(Finding(rule, where, message, grade))
        elif grade == "refused" and self.findings[-1].grade != "refused":
            self.findings[-1] = Finding(rule, where, message, grade)

    def unpack(self, count: int) -> None:
        """Count bytes that were unpacked. Raises LimitError."""
        self.unpacked_left -= count
        if self.unpacked_left < 0:
            raise LimitError("it unpacks to far more than it is")

    def work(self, count: int) -> None:
        """Count instructions of pickles, or what takes as long. Raises LimitError."""
        self.opcodes_left -= count
        if self.opcodes_left < 0:
            raise LimitError("its pickles have more instructions than a scan follows")

    def search(self, count: int) -> None:
        """Count characters that are searched slowly. Raises LimitError."""
        self.searched.left -= count
        if self.searched.left < 0:
            raise LimitError("it holds more text that may be a program than a scan searches")

    def entry(self, count: int = 1) -> None:
        """Count entries of archives. Raises LimitError."""
        self.entries_left -= count
        if self.entries_left < 0:
            raise LimitError(f"it holds more than {ENTRIES_MAX} files")

    def examine(self, source: Source, where: str) -> str:
        """Look at what lies within, one level deeper; gives its format."""
        if self.depth >= DEPTH_MAX:
            self.add("limit", where, f"{where} lies more than {DEPTH_MAX} archives deep")
            return "unknown"
        self.depth += 1
        try:
            return self.inside(self, source, where)
        finally:
            self.depth -= 1


def allowance(size: int) -> int:
    """How many bytes a file of `size` bytes may unpack to."""
    return max(UNPACKED_FLOOR_BYTES, UNPACKED_RATIO_MAX * size)

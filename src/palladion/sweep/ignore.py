"""Which places a sweep passes over because somebody said so; how many these were is part of what it says."""

from fnmatch import fnmatchcase
from pathlib import Path

from palladion import files
from palladion.errors import FormatError

PATTERNS_MAX = 10_000
FILE_BYTES_MAX = 1024 * 1024


class Ignored:
    """Patterns as of a shell: one without a slash is of names, one with a slash of the end of a place."""

    def __init__(self, patterns: list[str]) -> None:
        """Raises FormatError on too many."""
        if len(patterns) > PATTERNS_MAX:
            raise FormatError(f"{len(patterns)} patterns, at most {PATTERNS_MAX} are allowed")
        self._patterns = [pattern for pattern in patterns if pattern]
        self.count = 0

    def covers(self, place: str) -> bool:
        """Whether a place is passed over; counts it."""
        name = place.rpartition("/")[2]
        for pattern in self._patterns:
            text = name if "/" not in pattern else place
            if fnmatchcase(text, pattern) or ("/" in pattern and fnmatchcase(text, f"*/{pattern.lstrip('/')}")):
                self.count += 1
                return True
        return False


def read_patterns(path: Path) -> list[str]:
    """The patterns of a file, one a line; what begins with # is a comment. Raises FormatError."""
    data = files.read_limited(path, size_max=FILE_BYTES_MAX, what="the list of what is passed over,")
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise FormatError(f"{path} is not UTF-8 text") from None
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]

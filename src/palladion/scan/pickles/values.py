"""What stands for objects on the machine's stack: constants as they are, everything else by what it would be."""

from dataclasses import dataclass, field
from typing import Any

ITEMS_MAX = 100_000  # of a container that are kept; states and arguments have a dozen, torch's list of storages more
TEXT_MAX = 4096  # of a string or bytes object that are kept as a value


@dataclass(frozen=True, slots=True)
class Ref:
    """A function or class by its name; `kind` is None where it is not on the list."""

    module: str
    name: str
    kind: str | None

    @property
    def full(self) -> str:
        """The dotted name."""
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Made:
    """What a call would give: `of` was called with `args`, or an instance of it made, and states were put in."""

    of: Any
    args: tuple[Any, ...]
    states: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Long:
    """A string or bytes object that is too long to be kept: its size and its first characters.

    `seen` says that its bytes were looked at as what they are, and not as the text that stands for them.
    """

    size: int
    head: str | bytes
    seen: bool = True
    begin: int | None = None  # where it lies in the file, if it does


class Marker:
    """The mark on the stack, or an object of a persistent name."""

    __slots__ = ("what",)

    def __init__(self, what: str) -> None:
        self.what = what


MARK = Marker("mark")


def is_ref(value: Any, *names: tuple[str, str]) -> bool:
    """Whether `value` names one of `names`."""
    return isinstance(value, Ref) and (value.module, value.name) in names


def said(value: Any) -> str:
    """A word for messages."""
    if isinstance(value, Ref):
        return value.full
    if isinstance(value, Made):
        return f"what {said(value.of)} gives"
    if isinstance(value, Marker):
        return f"a {value.what} object"
    return f"a {type(value).__name__}"

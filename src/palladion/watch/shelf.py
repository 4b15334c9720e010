"""Where the states of a model's clients are saved, as the watch sees it: that of one, those of an organisation."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol


class Kept(NamedTuple):
    """A saved state, and the organisation of its client; None where that is not known."""

    organisation: str | None
    data: bytes


class Shelf(Protocol):
    """Where the states of a model's clients are saved. Raises PalladionError where it cannot be read."""

    def get(self, client: str) -> Kept | None:
        """What was saved last of a client."""
        ...

    def of(self, organisation: str) -> Iterable[tuple[str, bytes]]:
        """What is saved of the clients of an organisation, by client."""
        ...

    def pending(self) -> Collection[str]:
        """The clients whose newest state is on its way, so that `of` does not know it yet: it has to stay in memory."""
        ...


class Unshelved:
    """States that were read from somewhere, and whose successors are saved elsewhere: all stay in memory."""

    def __init__(self, saved: Mapping[str, bytes]) -> None:
        self._saved = saved

    def get(self, client: str) -> Kept | None:
        """The state, of an organisation that is not known."""
        data = self._saved.get(client)
        return None if data is None else Kept(None, data)

    def of(self, organisation: str) -> Iterable[tuple[str, bytes]]:
        """Nothing."""
        return ()

    def pending(self) -> Collection[str]:
        """Everybody."""
        return _Everybody()

    def all(self) -> Iterable[str]:
        """The clients, by id."""
        return self._saved


class _Everybody(Collection[str]):
    def __contains__(self, client: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

"""What answers questions: a model that runs here or at an upstream looks the same to the data path."""

from typing import Protocol

from palladion.gate.contract import Outputs
from palladion.gate.decode import Feeds
from palladion.model.run import Port


class Source(Protocol):
    """A model that can be asked. Used from one event loop."""

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What it takes."""
        ...

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What it gives."""
        ...

    @property
    def ready(self) -> bool:
        """Whether it would answer now, as far as is known."""
        ...

    async def infer(self, feeds: Feeds, rows: int) -> Outputs:
        """Its outputs for `rows` queries.

        Raises Problem: "model-failed", "upstream-failed", "upstream-timeout" or "busy".
        """
        ...

    async def close(self) -> None:
        """Finish what is being answered, and give back what it holds."""
        ...

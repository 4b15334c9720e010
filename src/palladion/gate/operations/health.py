"""Whether a gate is ready: for balancers, who ask the API's own port, and for people, who are told why it is not."""

from collections.abc import Callable, Collection

from palladion.gate.gate import Gate

LEDGER, DRAINING = "the ledger takes nothing more", "it is about to stop"
CONTRADICTED = "a witness has seen another history of the ledger: palladion ledger witness says which"


class Health:
    """What is well and what is not. For one event loop."""

    def __init__(
        self,
        gate: Gate,
        *,
        sound: Callable[[], bool],
        failing: Callable[[], Collection[str]] = tuple,
        late: Callable[[], Collection[str]] = tuple,
        contradicted: Callable[[], bool] = lambda: False,
    ) -> None:
        """`sound` says whether the ledger takes records, `failing` whose upstream failed when last asked, by route.

        `late` says what operators changed and is not in effect, `contradicted` whether a witness saw another ledger.
        """
        self.draining = False
        self._gate = gate
        self._sound = sound
        self._failing = failing
        self._late = late
        self._contradicted = contradicted

    def ready(self) -> bool:
        """Whether requests should be sent here.

        One upstream that is down is no reason: it would take away all other routes, of this gate and of every other.
        """
        return self._sound() and not self.draining

    def faults(self) -> list[str]:
        """Everything that is not well, upstreams included."""
        found = [] if self._sound() else [LEDGER]
        if self.draining:
            found.append(DRAINING)
        found += self._late()
        if self._contradicted():
            found.append(CONTRADICTED)
        found += [f"{route} waits for its upstream" for route in sorted(self._gate.waiting)]
        ill = {route for route, item in self._gate.served.items() if not item.source.ready} | set(self._failing())
        return found + [f"the upstream of {route} does not answer as it should" for route in sorted(ill)]

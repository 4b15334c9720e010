"""A gate with what looks after it, for the tests of operations."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from palladion.gate.operations.figures import Family, Figures, Lag
from palladion.gate.operations.health import Health
from palladion.gate.operations.meter import Histogram
from palladion.gate.recorder import Recorder
from palladion.gate.upstream.pool import Upstream
from tests.gate.gates import Bench

POLICY = "0123456789abcdef"


@dataclass
class StillRecorder:
    """The figures of a recorder, without its thread."""

    size: int = 7
    waiting: int = 2
    sound: bool = True
    writes: Histogram = field(default_factory=Histogram)


@dataclass
class Watched:
    """A gate, and everything that tells of it."""

    bench: Bench
    recorder: StillRecorder
    health: Health
    lag: Lag
    figures: Figures

    def read(self) -> dict[str, Family]:
        """The figures by name."""
        return {family.name: family for family in asyncio.run(self.figures.read())}

    def value(self, name: str, *labels: str) -> float:
        """One of them."""
        value = dict(self.read()[name].rows)[labels]
        assert not isinstance(value, Histogram)
        return value


def watched(bench: Bench, servers: Mapping[str, Any] | None = None) -> Watched:
    """What looks after a gate; `servers` stand for upstreams."""
    recorder = StillRecorder()
    health = Health(bench.gate, sound=lambda: recorder.sound)
    lag = Lag()
    figures = Figures(
        bench.gate,
        cast(Recorder, recorder),
        health=health,
        lag=lag,
        servers=lambda: cast(Mapping[str, Upstream], servers or {}),
        policy=lambda: POLICY,
    )
    return Watched(bench, recorder, health, lag, figures)

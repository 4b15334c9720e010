"""What looks after a running gate, put together: health, figures, the second port, samples for the log, telemetry."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from palladion.gate.alerting import Alerting
from palladion.gate.gate import Gate
from palladion.gate.operations.clock_watch import ClockWatch
from palladion.gate.operations.figures import Figures, Lag
from palladion.gate.operations.health import Health
from palladion.gate.operations.logs import log_requests
from palladion.gate.operations.meter import Sample, Sampler
from palladion.gate.recorder import Recorder
from palladion.gate.retention import Retention
from palladion.gate.upstream.pool import Upstream
from palladion.gate.witnessing import Witnessing
from palladion.policy import OperationsPolicy

if TYPE_CHECKING:
    from palladion.gate.administration.administration import Administration
    from palladion.gate.operations.port import Port
    from palladion.gate.operations.telemetry import Telemetry

LOG_SECONDS = 1.0  # between looks at which requests are to be logged

log = logging.getLogger("palladion.gate")


class Operations:
    """Looks after one gate. Made, used and closed in one event loop."""

    def __init__(
        self,
        gate: Gate,
        recorder: Recorder,
        policy: OperationsPolicy,
        home: Path,
        *,
        servers: Callable[[], Mapping[str, Upstream]],
        digest: Callable[[], str],
        retention: Retention | None,
        witnessing: Witnessing | None = None,
        clock: ClockWatch | None = None,
        alerting: Alerting | None = None,
        administration: "Administration | None" = None,
    ) -> None:
        """`servers` are the upstreams by route, `digest` is that of the policy in force.

        `administration` is what operators reach, through the second port or a socket of their own.
        Raises PolicyError, and MissingExtraError where telemetry is wanted and not installed.
        """
        self.health = Health(
            gate,
            sound=lambda: recorder.sound,
            failing=lambda: [route for route, server in servers().items() if not server.well],
            late=lambda: [
                *(administration.faults if administration is not None else ()),
                *(alerting.faults if alerting is not None else ()),
            ],
            contradicted=lambda: witnessing is not None and witnessing.contradicted,
        )
        self._meter = gate.stages.meter
        self._lag = Lag()
        self._logged: Sampler | None = None
        self._traced: Sampler | None = None
        self._port: Port | None = None
        self._telemetry: Telemetry | None = None
        self._administration = administration
        self._witnessing = witnessing
        self._clock, self._recorder = clock, recorder
        self._alerting = alerting
        self._tasks: list[asyncio.Task[None]] = []
        figures = Figures(
            gate,
            recorder,
            health=self.health,
            lag=self._lag,
            servers=servers,
            policy=digest,
            retention=retention,
            witnessing=witnessing,
        )
        if policy.listen:
            from palladion.gate.operations import port
            from palladion.gate.operations.verdict import verdict_route

            others = [verdict_route(gate, port.read_token(home, policy))]
            others += administration.routes if administration is not None else ()
            self._port = port.Port.open(policy, home, figures, self.health, others)
        if policy.otlp:
            from palladion.gate.operations import telemetry

            self._telemetry = telemetry.Telemetry(policy, figures, self._spans)
        self._drain_seconds = policy.drain_seconds
        self.renew(policy)

    @property
    def url(self) -> str | None:
        """Where the second port listens, if there is one."""
        return None if self._port is None else self._port.url

    def renew(self, policy: OperationsPolicy) -> None:
        """Go by another policy from now on, as far as it can change while the gate runs."""
        self._drain_seconds = policy.drain_seconds
        self._logged = Sampler(policy.log_every) if policy.log_every else None
        self._traced = Sampler(policy.trace_every) if policy.trace_every and self._telemetry is not None else None
        self._meter.samplers = [sampler for sampler in (self._logged, self._traced) if sampler is not None]

    def leave(self) -> float:
        """Say from now on that no requests should be sent here; for how many seconds they are taken all the same."""
        self.health.draining = True
        return self._drain_seconds

    async def start(self) -> None:
        """Open the second port, and begin to look. Raises PolicyError where the port cannot be had."""
        if self._port is not None:
            await self._port.start()
            self._tasks.append(asyncio.create_task(self._lag.run()))
        if self._administration is not None:
            await self._administration.start()
        self._tasks.append(asyncio.create_task(self._log()))
        if self._telemetry is not None:
            self._tasks.append(asyncio.create_task(self._telemetry.run()))
        if self._witnessing is not None:
            self._tasks.append(asyncio.create_task(self._witnessing.run()))
        if self._clock is not None:
            self._tasks.append(asyncio.create_task(self._clock.run(self._recorder.append)))
        if self._alerting is not None:
            self._tasks.append(asyncio.create_task(self._alerting.run()))

    async def close(self) -> None:
        """Close everything, after what waits is told."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()
        if self._alerting is not None:
            await self._alerting.close()
        self._write()
        if self._telemetry is not None:
            await self._telemetry.close()
        if self._port is not None:
            await self._port.close()
        if self._administration is not None:
            await self._administration.close()

    async def _log(self) -> None:
        while True:
            await asyncio.sleep(LOG_SECONDS)
            self._write()

    def _write(self) -> None:
        if self._logged is not None:
            log_requests(self._logged.take())

    def _spans(self) -> Sequence[Sample]:
        return [] if self._traced is None else self._traced.take()

"""What can be said in numbers of a running gate, whoever asks: `pages` in Prometheus' text, `telemetry` over OTLP.

No label holds a name that a client or a stranger chose: routes, limits and standings come from the policy and from us.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from palladion import __version__
from palladion.gate.gate import Gate
from palladion.gate.operations.health import Health
from palladion.gate.operations.meter import Histogram
from palladion.gate.recorder import Recorder
from palladion.gate.retention import Retention
from palladion.gate.upstream.pool import Upstream
from palladion.gate.witnessing import Witnessing
from palladion.registry.rows import Standing
from palladion.watch.response import STANDINGS

LAG_SECONDS = 0.25

Row = tuple[tuple[str, ...], float | Histogram]


class Family(NamedTuple):
    """Figures of one name: what they mean, and a value or a histogram for each set of labels."""

    name: str
    text: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    rows: Sequence[Row]


class Lag:
    """How late the event loop is: what every request waits for, whatever it asks."""

    def __init__(self) -> None:
        self.seconds = Histogram()

    async def run(self) -> None:
        """Look again and again; for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_SECONDS
            await asyncio.sleep(LAG_SECONDS)
            self.seconds.observe(max(0.0, loop.time() - due))


class Figures:
    """The figures of one gate. For one event loop."""

    def __init__(
        self,
        gate: Gate,
        recorder: Recorder,
        *,
        health: Health,
        lag: Lag,
        servers: Callable[[], Mapping[str, Upstream]],
        policy: Callable[[], str],
        retention: Retention | None = None,
        witnessing: Witnessing | None = None,
    ) -> None:
        """`servers` are the upstreams by route, `policy` is the digest of the one in force."""
        self._gate = gate
        self._recorder = recorder
        self._health = health
        self._lag = lag
        self._servers = servers
        self._policy = policy
        self._retention = retention
        self._witnessing = witnessing
        self._begun = time.time()

    async def read(self) -> list[Family]:
        """All of them, as they are now."""
        standings = self._gate.stages.directory.standings()
        return [
            *self._of_requests(),
            *self._of_clients(standings),
            *self._of_drifts(),
            *self._of_trials(),
            *self._of_servers(),
            *self._of_feeds(),
            *self._of_process(),
        ]

    def _of_requests(self) -> list[Family]:
        stages = self._gate.stages
        meter = stages.meter
        requests: list[Row] = [
            ((route, str(status), problem), count) for (route, status, problem), count in sorted(meter.requests.items())
        ]
        return [
            Family("requests_total", "Requests.", "counter", ("path", "status", "problem"), requests),
            _one("queries_total", "Queries answered.", "counter", stages.answered),
            Family(
                "unlike_requests_total",
                "Requests with rows too unlike honest ones, refused or not.",
                "counter",
                ("path", "mode"),
                [(key, count) for key, count in sorted(stages.unlike.items())],
            ),
            Family(
                "unlike_queries_total",
                "Those rows.",
                "counter",
                ("path", "mode"),
                [(key, count) for key, count in sorted(stages.unlike_rows.items())],
            ),
            _one("requests_in_progress", "Requests being worked on.", "gauge", stages.limits.places.taken),
            Family(
                "request_seconds",
                "From a head to its answer, or to the head of a stream.",
                "histogram",
                ("path",),
                [((route,), histogram) for route, histogram in sorted(meter.latency.items())],
            ),
            Family(
                "stage_seconds",
                "Time of each stage, of one request in eight.",
                "histogram",
                ("stage",),
                [((name,), histogram) for name, histogram in meter.stages.items()],
            ),
            Family(
                "limited_total",
                "Requests refused, by the limit that refused them.",
                "counter",
                ("limit",),
                [((name,), count) for name, count in sorted(stages.limits.refused.items())],
            ),
        ]

    def _of_clients(self, standings: Mapping[Standing, int]) -> list[Family]:
        verdicts = self._gate.stages.meter.verdicts
        return [
            Family(
                "clients",
                "Clients that are let in, by standing.",
                "gauge",
                ("standing",),
                [((name,), standings[name]) for name in STANDINGS],
            ),
            Family(
                "verdicts_total",
                "Requests by the standing that their evidence asked for, put into effect or not.",
                "counter",
                ("route", "standing"),
                [(key, count) for key, count in sorted(verdicts.items())],
            ),
        ]

    def _of_drifts(self) -> list[Family]:
        """Of calibrations that have a drift test; only where there is one."""
        drifts = [
            (name, item.drift)
            for name, item in sorted(self._gate.stages.watch.drifts.watched.items())
            if item.drift is not None
        ]
        left: list[Row] = [((name,), int(drift.left)) for name, drift in drifts]
        clients: list[Row] = [((name,), drift.clients) for name, drift in drifts]
        return [
            Family("drift_clients", "Clients counted in the drift test of a model.", "gauge", ("model",), clients),
            Family("drift_left", "Whether traffic has left the calibration of a model.", "gauge", ("model",), left),
        ]

    def _of_trials(self) -> list[Family]:
        """Of versions on trial and those beside them; only where there was one since the start."""
        meter = self._gate.stages.meter
        pairs = sorted({(route, role) for route, role, _ in meter.trials})
        shares: list[Row] = [
            ((name,), item.on_trial.row.percent / 100)
            for name, item in sorted(self._gate.served.items())
            if item.on_trial is not None
        ]
        return [
            Family(
                "canary_ratio", "Share of the clients that are served a version on trial.", "gauge", ("route",), shares
            ),
            Family(
                "canary_requests_total",
                "Requests on a route with a version on trial, by which of the two had to answer.",
                "counter",
                ("route", "role"),
                [(pair, meter.trials[*pair, True] + meter.trials[*pair, False]) for pair in pairs],
            ),
            Family(
                "canary_failures_total",
                "Those that this version failed.",
                "counter",
                ("route", "role"),
                [(pair, meter.trials[*pair, True]) for pair in pairs],
            ),
            Family(
                "canary_rolled_back_total",
                "Versions on trial that were ended because they failed.",
                "counter",
                ("model",),
                [((model,), count) for model, count in sorted(meter.rolled_back.items())],
            ),
        ]

    def _of_servers(self) -> list[Family]:
        servers = sorted(self._servers().items())
        route = ("route",)
        failures: list[Row] = [
            ((name, kind), count) for name, server in servers for kind, count in sorted(server.failures.items())
        ]
        return [
            Family(
                "upstream_connections",
                "Connections to the server of a route, by state.",
                "gauge",
                ("route", "state"),
                [
                    ((name, state), number)
                    for name, server in servers
                    for state, number in (("busy", server.open - server.idle), ("idle", server.idle))
                ],
            ),
            Family(
                "upstream_waiting",
                "Requests that wait for a connection.",
                "gauge",
                route,
                [((name,), server.waiting) for name, server in servers],
            ),
            Family(
                "upstream_requests_total",
                "Requests to the server of a route.",
                "counter",
                route,
                [((name,), server.exchanges) for name, server in servers],
            ),
            Family(
                "upstream_retries_total",
                "Those sent again because an idle connection had been closed.",
                "counter",
                route,
                [((name,), server.retries) for name, server in servers],
            ),
            Family("upstream_failures_total", "Those without an answer.", "counter", ("route", "kind"), failures),
        ]

    def _of_feeds(self) -> list[Family]:
        intelligence = self._gate.stages.intelligence
        if not intelligence.feeds and not intelligence.hits:
            return []
        return [
            Family(
                "intel_hits_total",
                "Clients that a feed lists, once for each version and each thing that it lists.",
                "counter",
                ("feed", "kind"),
                [(key, count) for key, count in sorted(intelligence.hits.items())],
            ),
            _one("intel_hits_waiting", "Hits that wait for being recorded.", "gauge", intelligence.waiting),
            Family(
                "intel_valid_until_seconds",
                "When a feed's version that is loaded ends, since 1970.",
                "gauge",
                ("feed",),
                [((item.policy.name,), item.valid_until) for item in intelligence.feeds],
            ),
            _one(
                "intel_weight_left",
                "Of what clients gave up, what no listed one has.",
                "gauge",
                intelligence.weights.left,
            ),
            _one(
                "intel_queries_left_out_total",
                "Queries that no signature has.",
                "counter",
                intelligence.signatures.left_out,
            ),
        ]

    def _of_process(self) -> list[Family]:
        recorder, faults = self._recorder, self._health.faults()
        found = [
            _one("ledger_entries", "Entries of the ledger.", "gauge", recorder.size),
            _one("ledger_waiting", "Records that wait to be written.", "gauge", recorder.waiting),
            _one("ledger_write_seconds", "Time to write and sync what waited.", "histogram", recorder.writes),
            _one("loop_lag_seconds", "How late the event loop was.", "histogram", self._lag.seconds),
            _one("resident_memory_bytes", "Memory in use.", "gauge", resident_bytes()),
            _one("cpu_seconds_total", "Processor time.", "counter", time.process_time()),
            _one("start_time_seconds", "When it began, since 1970.", "gauge", self._begun),
            _one("ready", "Whether it is ready.", "gauge", int(not faults)),
            Family(
                "info",
                "Version and digest of the policy.",
                "gauge",
                ("version", "policy"),
                [((__version__, self._policy()), 1)],
            ),
        ]
        if self._retention is not None:
            kept = self._retention
            found += [
                _one("bodies_total", "Queries handed over to be kept.", "counter", kept.handed),
                _one("bodies_dropped_total", "Queries without a mark that were not kept.", "counter", kept.dropped),
            ]
        if self._witnessing is not None:
            seen = self._witnessing
            found += [
                _one("ledger_witnessed", "Entries that enough witnesses cosigned.", "gauge", seen.size),
                _one("ledger_witnessed_time_seconds", "When they last did, since 1970.", "gauge", seen.witnessed_at),
                _one("ledger_contradicted", "Whether one saw another ledger.", "gauge", int(seen.contradicted)),
            ]
        return found


def resident_bytes() -> int:
    """The resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _one(name: str, text: str, kind: Literal["counter", "gauge", "histogram"], value: float | Histogram) -> Family:
    return Family(name, text, kind, (), [((), value)])

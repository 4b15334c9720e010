"""Figures and sampled requests for an OpenTelemetry collector, over OTLP and HTTP, a batch every few seconds.

Nothing is done for a request: the figures are those of `meter`, cumulative since the start, and spans are made of the
samples that it kept. No attribute tells who asked, or what.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from palladion import __version__
from palladion.errors import MissingExtraError
from palladion.gate.operations import conventions
from palladion.gate.operations.figures import Family, Figures
from palladion.gate.operations.meter import BOUNDS, SAMPLES_MAX, Histogram, Sample, Usage
from palladion.policy import OperationsPolicy

SEND_SECONDS_MAX = 5.0
HELD_SECONDS_MAX = 600.0  # a span whose stream does not end is sent without what it cost
_NANOSECONDS = 1_000_000_000

log = logging.getLogger("palladion.gate")


class Telemetry:
    """Sends to one collector. For one event loop."""

    def __init__(self, policy: OperationsPolicy, figures: Figures, samples: Callable[[], Sequence[Sample]]) -> None:
        """`samples` gives what is to become spans, once. Raises MissingExtraError."""
        try:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        except ImportError:
            raise MissingExtraError(
                "operations.otlp is set, and OpenTelemetry is not installed", "pip install 'palladion[otel]'"
            ) from None
        base = policy.otlp.rstrip("/")
        self._metrics = OTLPMetricExporter(endpoint=f"{base}/v1/metrics", timeout=SEND_SECONDS_MAX)
        self._spans = OTLPSpanExporter(endpoint=f"{base}/v1/traces", timeout=SEND_SECONDS_MAX)
        self._resource = Resource({"service.name": "palladion-gate", "service.version": __version__})
        self._scope = InstrumentationScope("palladion.gate", __version__)
        self._seconds = policy.otlp_seconds
        self._figures = figures
        self._samples = samples
        self._held: list[Sample] = []  # whose streams have not ended
        self._begun = time.time_ns()
        self._failed = False
        self._closing = False

    async def run(self) -> None:
        """Send again and again; for ever."""
        while True:
            await asyncio.sleep(self._seconds)
            await self.send()

    async def send(self) -> None:
        """Send what there is now. A collector that does not answer is told of once, and nothing waits for it."""
        metrics = self._metrics_data(await self._figures.read(), time.time_ns())
        spans = [self._span(sample) for sample in self._ready()]
        try:
            # a thread, because the exporters block; what they log of themselves would repeat ours
            sent = await asyncio.to_thread(self._export, metrics, spans)
        except Exception as error:  # noqa: BLE001 (of a library that talks to the network: the gate goes on without)
            sent = False
            log.debug("telemetry failed: %s", type(error).__name__)
        if not sent and not self._failed:
            log.error("the OpenTelemetry collector does not take what it is sent")
        self._failed = not sent

    async def close(self) -> None:
        """Send what is left, and close."""
        self._closing = True
        await self.send()
        await asyncio.to_thread(self._metrics.shutdown)
        await asyncio.to_thread(self._spans.shutdown)

    def _ready(self) -> list[Sample]:
        """The samples that can be told of in full by now; the others wait for the end of their stream."""
        ready, held, oldest = list[Sample](), list[Sample](), time.time() - HELD_SECONDS_MAX
        for sample in [*self._held, *self._samples()]:
            waits = sample.usage is not None and not sample.usage.known and sample.ended > oldest
            (held if waits and not self._closing else ready).append(sample)
        # those that are too many are told of as they are
        self._held = held[-SAMPLES_MAX:]
        return [*ready, *held[:-SAMPLES_MAX]]

    def _export(self, metrics: Any, spans: Sequence[Any]) -> bool:
        from opentelemetry.sdk.metrics.export import MetricExportResult
        from opentelemetry.sdk.trace.export import SpanExportResult

        sent = self._metrics.export(metrics) is MetricExportResult.SUCCESS
        return sent and (not spans or self._spans.export(spans) is SpanExportResult.SUCCESS)

    def _metrics_data(self, families: Sequence[Family], now: int) -> Any:
        from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics

        metrics = [self._metric(f"palladion.{family.name.removesuffix('_total')}", family, now) for family in families]
        latency = next(family for family in families if family.name == "request_seconds")
        of_models = [(labels, value) for labels, value in latency.rows if conventions.operation(labels[0])]
        if of_models:
            named = latency._replace(rows=of_models, labels=(conventions.HTTP_ROUTE,))
            metrics.append(self._metric(conventions.REQUEST_DURATION, named, now))
        scoped = ScopeMetrics(self._scope, metrics, "")
        return MetricsData([ResourceMetrics(self._resource, [scoped], "")])

    def _metric(self, name: str, family: Family, now: int) -> Any:
        from opentelemetry.sdk.metrics import export as typed

        export: Any = typed  # least and most are optional in OTLP, and unknown here

        points: list[Any] = []
        for labels, value in family.rows:
            attributes = dict(zip(family.labels, labels, strict=True)) | _of_operation(family, labels)
            if isinstance(value, Histogram):
                points.append(
                    export.HistogramDataPoint(
                        attributes, self._begun, now, value.count, value.seconds, list(value.counts), BOUNDS, None, None
                    )
                )
            else:
                points.append(export.NumberDataPoint(attributes, self._begun, now, value))
        cumulative = export.AggregationTemporality.CUMULATIVE
        data: Any = {
            "counter": lambda: export.Sum(points, cumulative, is_monotonic=True),
            "gauge": lambda: export.Gauge(points),
            "histogram": lambda: export.Histogram(points, cumulative),
        }[family.kind]()
        unit = "s" if "seconds" in family.name else "By" if "bytes" in family.name else "1"
        return export.Metric(name, family.text, unit, data)

    def _span(self, sample: Sample) -> Any:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        done = conventions.operation(sample.route)
        attributes: dict[str, Any] = {conventions.HTTP_ROUTE: sample.route, conventions.HTTP_STATUS: sample.status}
        if done is not None:
            attributes |= {conventions.OPERATION: done, conventions.PROVIDER: conventions.PROVIDER_OPENAI}
        if sample.request:
            attributes[conventions.RESPONSE_ID] = sample.request
        if sample.usage is not None:
            attributes |= _of_usage(sample.usage)
        if sample.problem:
            attributes[conventions.ERROR_TYPE] = sample.problem
        ended = round(sample.ended * _NANOSECONDS)
        failed = sample.status >= 500
        return ReadableSpan(
            f"{done or 'predict'} {sample.route}",
            SpanContext(
                # never 0, which the specification calls invalid
                secrets.randbits(128) | 1,
                secrets.randbits(64) | 1,
                is_remote=False,
                trace_flags=TraceFlags(TraceFlags.SAMPLED),
            ),
            resource=self._resource,
            attributes=attributes,
            kind=SpanKind.SERVER,
            status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
            start_time=ended - round(sample.seconds * _NANOSECONDS),
            end_time=ended,
            instrumentation_scope=self._scope,
        )


def _of_operation(family: Family, labels: Sequence[str]) -> dict[str, str]:
    if family.labels != (conventions.HTTP_ROUTE,):
        return {}
    done = conventions.operation(labels[0]) or ""
    return {conventions.OPERATION: done, conventions.PROVIDER: conventions.PROVIDER_OPENAI}


def _of_usage(usage: Usage) -> dict[str, Any]:
    found: dict[str, Any] = {conventions.REQUEST_MODEL: usage.model}
    if usage.known:
        found[conventions.INPUT_TOKENS] = usage.input_tokens
        found[conventions.OUTPUT_TOKENS] = usage.output_tokens
    return found

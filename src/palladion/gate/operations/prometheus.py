"""Figures in Prometheus' text format (prometheus.io/docs/instrumenting/exposition_formats), version 1.0.0 of it."""

# ruff: noqa: TID253 (pages alone imports this)

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric

from palladion.gate.operations.figures import Family
from palladion.gate.operations.meter import BOUNDS, Histogram

CONTENT_TYPE = CONTENT_TYPE_LATEST
_PREFIX = "palladion_"


def encode(families: Iterable[Family]) -> bytes:
    """The page of these figures."""
    # a registry of our own: the library's shared one holds whatever else in this process registers itself there
    registry = CollectorRegistry()
    registry.register(_Collected([_metric(family) for family in families]))
    return generate_latest(registry)


class _Collected:
    """What was read already. Satisfies prometheus_client's `Collector`."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


def _metric(family: Family) -> Metric:
    name = _PREFIX + family.name
    metric: CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
    if family.kind == "histogram":
        metric = HistogramMetricFamily(name, family.text, labels=family.labels)
        for labels, value in family.rows:
            if isinstance(value, Histogram):
                metric.add_metric(labels, _buckets(value), sum_value=value.seconds)
        return metric
    metric = (CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily)(
        name, family.text, labels=family.labels
    )
    for labels, value in family.rows:
        if not isinstance(value, Histogram):
            metric.add_metric(labels, value)
    return metric


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [*(repr(bound) for bound in BOUNDS), "+Inf"]
    return list(zip(bounds, accumulate(histogram.counts), strict=True))

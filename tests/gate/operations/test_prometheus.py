"""Figures as text: read back with the reference parser."""

from prometheus_client.parser import text_string_to_metric_families

from palladion.gate.operations.figures import Family
from palladion.gate.operations.meter import BOUNDS, Histogram
from palladion.gate.operations.prometheus import encode


def _read(*families: Family) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = encode(families).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counters_and_gauges_come_back_with_their_labels() -> None:
    read = _read(
        Family("queries_total", "Queries.", "counter", (), [((), 3)]),
        Family("clients", "Clients.", "gauge", ("standing",), [(("trusted",), 2)]),
    )
    assert read["palladion_queries_total", ()] == 3
    assert read["palladion_clients", (("standing", "trusted"),)] == 2


def test_buckets_are_cumulative_and_end_with_everything() -> None:
    histogram = Histogram()
    for seconds in (0.0002, 0.003, 99.0):
        histogram.observe(seconds)
    read = _read(Family("request_seconds", "Time.", "histogram", (), [((), histogram)]))
    assert read["palladion_request_seconds_bucket", (("le", repr(BOUNDS[1])),)] == 1
    assert read["palladion_request_seconds_bucket", (("le", "+Inf"),)] == 3
    assert read["palladion_request_seconds_count", ()] == 3


def test_a_route_cannot_break_out_of_its_label() -> None:
    route = '/a"} 1\npalladion_ready 1'
    read = _read(Family("requests_total", "Requests.", "counter", ("route",), [((route,), 1)]))
    assert read == {("palladion_requests_total", (("route", route),)): 1}

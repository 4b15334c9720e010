"""What an OpenTelemetry collector gets, over real HTTP, and that the gate goes on without one."""

import asyncio
import builtins
import http.server
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from palladion.errors import MissingExtraError
from palladion.gate.operations.meter import Sample, Usage
from palladion.gate.operations.telemetry import HELD_SECONDS_MAX, Telemetry
from palladion.policy import OperationsPolicy
from tests.gate.gates import PATH, House, open_gate

from .watched import watched

CHAT = "/v1/chat/completions"
SAMPLES = [
    Sample(PATH, 200, "", 0.25, 1_700_000_000.0, "1f"),
    Sample(CHAT, 502, "upstream-failed", 0.5, 1_700_000_001.0, ""),
]


def _needs_otel() -> None:
    pytest.importorskip("opentelemetry.sdk", reason="this needs OpenTelemetry (palladion[otel])")
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="this needs OpenTelemetry (palladion[otel])")


class Collector:
    """Takes what is sent to it."""

    def __init__(self) -> None:
        self.bodies: dict[str, list[bytes]] = {}
        self.status = 200
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.bodies.setdefault(self.path, []).append(body)
                self.send_response(outer.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def collector() -> Iterator[Collector]:
    _needs_otel()
    running = Collector()
    yield running
    running.server.shutdown()
    running.server.server_close()


def _send(house: House, url: str, *, times: int = 1) -> None:
    bench = open_gate(house)
    meter = bench.gate.stages.meter
    meter.answered(PATH, 200, "", 0.25, str)
    meter.answered(CHAT, 502, "upstream-failed", 0.5, str)
    samples = iter([SAMPLES])

    async def work() -> None:
        item = watched(bench)
        telemetry = Telemetry(OperationsPolicy(otlp=url), item.figures, lambda: next(samples, []))
        for _ in range(times):
            await telemetry.send()

    asyncio.run(work())


def _metrics(body: bytes) -> dict[str, Any]:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    request = ExportMetricsServiceRequest.FromString(body)
    return {metric.name: metric for metric in request.resource_metrics[0].scope_metrics[0].metrics}


def _attributes(point: Any) -> dict[str, Any]:
    return {item.key: item.value.string_value or item.value.int_value for item in point.attributes}


@pytest.mark.slow
def test_figures_arrive_as_sums_gauges_and_histograms(house: House, collector: Collector) -> None:
    _send(house, collector.url)
    (body,) = collector.bodies["/v1/metrics"]
    metrics = _metrics(body)
    requests = metrics["palladion.requests"].sum
    assert requests.is_monotonic
    assert {_attributes(point)["status"]: point.as_int for point in requests.data_points} == {"200": 1, "502": 1}
    assert metrics["palladion.ready"].gauge.data_points[0].as_int == 1
    latency = metrics["palladion.request_seconds"].histogram.data_points
    assert [(point.count, point.sum) for point in latency] == [(1, 0.5), (1, 0.25)]
    assert metrics["palladion.request_seconds"].unit == "s"


@pytest.mark.slow
def test_language_models_are_told_of_by_the_convention(house: House, collector: Collector) -> None:
    _send(house, collector.url)
    (point,) = _metrics(collector.bodies["/v1/metrics"][0])["gen_ai.server.request.duration"].histogram.data_points
    assert _attributes(point) == {
        "http.route": CHAT, "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
    }  # fmt: skip


@pytest.mark.slow
def test_samples_arrive_as_spans_with_their_times(house: House, collector: Collector) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    _send(house, collector.url, times=2)
    (body,) = collector.bodies["/v1/traces"]
    spans = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans
    assert [span.name for span in spans] == [f"predict {PATH}", f"chat {CHAT}"]
    assert [span.end_time_unix_nano - span.start_time_unix_nano for span in spans] == [250_000_000, 500_000_000]
    assert _attributes(spans[0]) == {
        "http.route": PATH, "http.response.status_code": 200, "gen_ai.response.id": "1f",
    }  # fmt: skip
    assert _attributes(spans[1])["error.type"] == "upstream-failed"
    assert [span.status.code for span in spans] == [0, 2]
    assert len({span.trace_id for span in spans}) == 2


def _spans(collector: Collector) -> list[dict[str, Any]]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    requests = map(ExportTraceServiceRequest.FromString, collector.bodies.get("/v1/traces", []))
    return [
        _attributes(span) for request in requests for span in request.resource_spans[0].scope_spans[0].spans
    ]  # fmt: skip


@pytest.mark.slow
def test_a_span_names_the_model_and_its_tokens_and_that_of_a_stream_waits_for_them(
    house: House, collector: Collector
) -> None:
    whole, stream, endless = Usage("llama"), Usage("llama"), Usage("llama")
    whole.tell(12, 34)
    now = time.time()
    rounds = iter(
        [
            [
                Sample(CHAT, 200, "", 0.25, now, "a", whole),
                Sample(CHAT, 200, "", 0.25, now, "b", stream),
                Sample(CHAT, 200, "", 0.25, now - HELD_SECONDS_MAX - 1, "c", endless),
            ]
        ]
    )
    sent: list[list[dict[str, Any]]] = []

    async def work() -> None:
        telemetry = Telemetry(
            OperationsPolicy(otlp=collector.url), watched(open_gate(house)).figures, lambda: next(rounds, [])
        )
        for _ in range(2):
            await telemetry.send()
            sent.append(_spans(collector))
        stream.tell(5, 600)
        await telemetry.send()
        sent.append(_spans(collector))

    asyncio.run(work())
    assert [[span["gen_ai.response.id"] for span in spans] for spans in sent] == [
        ["a", "c"],
        ["a", "c"],
        ["a", "c", "b"],
    ]
    first, late, last = sent[-1]
    assert [first[f"gen_ai.{name}"] for name in ("request.model", "usage.input_tokens", "usage.output_tokens")] == [
        "llama", 12, 34,
    ]  # fmt: skip
    assert late["gen_ai.request.model"] == "llama"
    assert "gen_ai.usage.input_tokens" not in late
    assert (last["gen_ai.usage.input_tokens"], last["gen_ai.usage.output_tokens"]) == (5, 600)


@pytest.mark.slow
def test_what_waits_is_sent_at_the_end(house: House, collector: Collector) -> None:
    rounds = iter([[Sample(CHAT, 200, "", 0.25, time.time(), "a", Usage("llama"))]])

    async def work() -> None:
        item = watched(open_gate(house))
        telemetry = Telemetry(OperationsPolicy(otlp=collector.url), item.figures, lambda: next(rounds, []))
        await telemetry.send()
        assert _spans(collector) == []
        await telemetry.close()

    asyncio.run(work())
    assert [span["gen_ai.response.id"] for span in _spans(collector)] == ["a"]


@pytest.mark.slow
def test_nothing_that_is_sent_names_a_client(house: House, collector: Collector) -> None:
    _send(house, collector.url)
    sent = b"".join(body for bodies in collector.bodies.values() for body in bodies)
    assert [name for name in [*house.keys, *house.keys.values(), *house.ids.values()] if name.encode() in sent] == []


@pytest.mark.slow
def test_a_collector_that_refuses_is_told_of_once(
    house: House, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 400
    with caplog.at_level(logging.ERROR, "palladion.gate"):
        _send(house, collector.url, times=3)
    told = [record for record in caplog.records if record.name == "palladion.gate"]
    assert [record.getMessage() for record in told] == ["the OpenTelemetry collector does not take what it is sent"]


def test_without_the_extra_it_is_named(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError) as caught:
        Telemetry(OperationsPolicy(otlp="http://127.0.0.1:1"), watched(open_gate(house)).figures, list)
    assert caught.value.hints == ("pip install 'palladion[otel]'",)

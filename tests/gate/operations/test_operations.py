"""What looks after a gate, as its server opens, turns and closes it."""

import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from palladion.gate.operations.operations import Operations
from palladion.gate.recorder import Recorder
from palladion.gate.upstream.pool import Upstream
from palladion.policy import OperationsPolicy
from tests.gate.gates import Bench, House, open_gate

from .watched import POLICY, StillRecorder


def _operations(bench: Bench, policy: OperationsPolicy) -> Operations:
    recorder = cast(Recorder, StillRecorder())
    return Operations(bench.gate, recorder, policy, Path(), servers=dict, digest=lambda: POLICY, retention=None)


def test_without_an_address_nothing_listens_and_nothing_is_sampled(house: House) -> None:
    bench = open_gate(house)

    async def work() -> str | None:
        operations = _operations(bench, OperationsPolicy())
        await operations.start()
        await operations.close()
        return operations.url

    assert asyncio.run(work()) is None
    assert list(bench.gate.stages.meter.samplers) == []


def test_sampled_requests_are_written_at_the_latest_when_it_closes(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    bench = open_gate(house)

    async def work() -> None:
        operations = _operations(bench, OperationsPolicy(log_every=2))
        await operations.start()
        for _ in range(3):
            bench.gate.stages.meter.answered("/a", 200, "", 0.5, str)
        await operations.close()

    with caplog.at_level(logging.INFO, "palladion.requests"):
        asyncio.run(work())
    assert [record.getMessage() for record in caplog.records] == ["request", "request"]


def test_spans_are_not_kept_where_nobody_is_to_get_them(house: House) -> None:
    bench = open_gate(house)
    operations = _operations(bench, OperationsPolicy(trace_every=1))
    assert list(bench.gate.stages.meter.samplers) == []
    assert operations.health.ready()


def test_another_policy_turns_samples_and_seconds(house: House) -> None:
    bench = open_gate(house)
    operations = _operations(bench, OperationsPolicy(drain_seconds=5))
    operations.renew(OperationsPolicy(log_every=1, drain_seconds=9))
    assert len(bench.gate.stages.meter.samplers) == 1
    assert operations.leave() == 9
    assert operations.health.draining


def test_an_upstream_that_failed_when_last_asked_is_a_fault_whatever_its_protocol(house: House) -> None:
    servers = {"/v1/models/llama": cast(Upstream, SimpleNamespace(well=True))}
    recorder = cast(Recorder, StillRecorder())
    operations = Operations(
        open_gate(house).gate,
        recorder,
        OperationsPolicy(),
        Path(),
        servers=lambda: servers,
        digest=lambda: POLICY,
        retention=None,
    )
    assert operations.health.faults() == []
    servers["/v1/models/llama"].well = False
    assert operations.health.faults() == ["the upstream of /v1/models/llama does not answer as it should"]
    assert operations.health.ready()


@pytest.mark.slow
def test_the_port_is_open_from_start_to_close(house: House) -> None:
    async def work() -> tuple[str | None, bytes]:
        operations = _operations(open_gate(house), OperationsPolicy(listen="127.0.0.1:0"))
        await operations.start()
        url = operations.url or ""
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await operations.close()
        return url, answer

    url, answer = asyncio.run(work())
    assert url is not None
    assert f'policy="{POLICY}"'.encode() in answer

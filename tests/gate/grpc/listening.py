"""A gate that listens for gRPC in this process, and a plain channel to it: any client, without anybody's library."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from palladion.gate.grpc.listener import GrpcListener
from palladion.gate.grpc.messages import SERVICE, load_messages
from palladion.policy import RoutePolicy
from tests.gate.gates import MODEL, ROW, Bench, House, open_gate

grpc = pytest.importorskip("grpc", reason="this needs grpcio, a part of the grpc extra")

MESSAGES = load_messages()
ROUTE = RoutePolicy(model=MODEL, protocol="open-inference", mode="enforce")
Result = TypeVar("Result")
# no connection is shared between two channels, as none is between two clients
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


@dataclass(frozen=True)
class Told:
    """How a call ended."""

    code: str
    details: str
    metadata: Mapping[str, str]
    answer: Any = None

    @property
    def problem(self) -> str:
        return self.metadata.get("palladion-problem", "")


@dataclass(eq=False)
class Calling:
    """A gate, and a channel to where it listens."""

    bench: Bench
    channel: Any
    listener: GrpcListener
    said: list[str] = field(default_factory=list)

    def headers(self, client: str) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {self.bench.house.keys[client]}")]

    async def call(
        self,
        rpc: str,
        message: Any = None,
        *,
        client: str = "acme",
        metadata: Sequence[tuple[str, str | bytes]] | None = None,
        **more: Any,
    ) -> Told:
        """How a call ends; `message` is one of ours, bytes, or an empty one."""
        _, given = MESSAGES.rpcs.get(rpc, ("", ""))
        sent = b"" if message is None else message if isinstance(message, bytes) else message.SerializeToString()
        headers = self.headers(client) if metadata is None else metadata
        call = self.channel.unary_unary(f"/{SERVICE}/{rpc}")(sent, metadata=tuple(headers), **more)
        try:
            data = await call
        except grpc.aio.AioRpcError as error:
            return Told(error.code().name, error.details(), dict(error.trailing_metadata()))
        return Told("OK", "", dict(await call.trailing_metadata()), MESSAGES[given].FromString(data))


def asked(rows: Any = (ROW,), *, raw: bool = True, model: str = MODEL, **more: Any) -> Any:
    """A ModelInferRequest to the model of these tests."""
    values = np.asarray(rows, np.float32)
    request = MESSAGES["ModelInferRequest"](model_name=model, **more)
    tensor = request.inputs.add(name="x", datatype="FP32", shape=values.shape)
    if raw:
        request.raw_input_contents.append(values.astype("<f4").tobytes())
    else:
        tensor.contents.fp32_contents.extend(values.reshape(-1).tolist())
    return request


def calling(
    house: House,
    work: Callable[[Calling], Awaitable[Result]],
    *routes: RoutePolicy,
    prepare: Callable[[Bench], None] = lambda _: None,
    home: Path = Path(),
    channel: Callable[[int], Any] | None = None,
    **sections: Mapping[str, Any],
) -> Result:
    """What `work` finds at a gate that listens; the gate is closed afterwards."""
    return asyncio.run(_calling(house, work, routes or (ROUTE,), prepare, home, channel, sections))


async def _calling(
    house: House,
    work: Callable[[Calling], Awaitable[Result]],
    routes: Sequence[RoutePolicy],
    prepare: Callable[[Bench], None],
    home: Path,
    channel: Callable[[int], Any] | None,
    sections: Mapping[str, Mapping[str, Any]],
) -> Result:
    sections = {**sections, "gate": {"grpc_listen": "127.0.0.1:0", **sections.get("gate", {})}}
    bench = open_gate(house, *routes, **sections)
    prepare(bench)
    async with listening(bench, home) as (listener, said):
        made = channel or (lambda port: grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_OPTIONS))
        async with made(listener.port) as opened:
            return await work(Calling(bench, opened, listener, said))


@asynccontextmanager
async def listening(bench: Bench, home: Path) -> AsyncIterator[tuple[GrpcListener, list[str]]]:
    said: list[str] = []
    listener = GrpcListener(bench.gate, bench.gate.stages.policy.gate, home, said.append)
    await listener.start()
    try:
        yield listener, said
    finally:
        await listener.close()

"""The listener: what it is told of the policy, TLS with and without certificates of clients, and how it ends."""

import asyncio
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from palladion.errors import MissingExtraError, PolicyError
from palladion.gate.grpc import calls, listener
from palladion.gate.grpc.listener import GrpcListener, check_grpc, options
from palladion.gate.grpc.messages import SERVICE
from palladion.gate.operations.precheck import check_servable
from palladion.lifecycle.identities import add_identity
from palladion.policy import GatePolicy
from tests.gate.certificates import Authority, Issued, address, uri
from tests.gate.gates import House, open_gate
from tests.lifecycle.installations import ACTOR

from .listening import ROUTE, Calling, Told, asked, calling, grpc

SPIFFE = "spiffe://example.org/scoring"
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


def test_every_limit_of_the_policy_reaches_grpc() -> None:
    told = dict(options(GatePolicy(body_bytes_max=12_345)))
    assert told["grpc.max_receive_message_length"] == 12_345
    assert told["grpc.so_reuseport"] == 0
    assert len(told) == len(options(GatePolicy()))


def test_without_the_extra_the_install_line_is_told_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    monkeypatch.setattr(listener, "find_spec", lambda name: None)
    assert check_grpc(GatePolicy()) is None
    with pytest.raises(MissingExtraError) as caught:
        check_grpc(GatePolicy(grpc_listen="127.0.0.1:1"))
    assert caught.value.hints == ("pip install 'palladion[grpc]'",)


def test_where_not_even_the_first_part_of_a_name_is_installed_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> object:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(listener, "find_spec", find)
    with pytest.raises(MissingExtraError):
        check_grpc(GatePolicy(grpc_listen="127.0.0.1:1"))


def test_a_policy_is_refused_before_it_is_served(house: House) -> None:
    installation = house.with_policy(ROUTE, gate={"grpc_listen": "0.0.0.0:1"})
    with pytest.raises(PolicyError, match=r"gate\.grpc_listen"):
        check_servable(installation)


def test_a_gate_without_an_address_does_not_listen(house: House) -> None:
    said: list[str] = []

    async def work() -> int:
        bench = open_gate(house, ROUTE)
        made = GrpcListener(bench.gate, bench.gate.stages.policy.gate, Path(), said.append)
        await made.close()
        await made.start()
        await made.close()
        return made.port

    assert asyncio.run(work()) == 0
    assert said == []


def test_where_it_listens_is_said_and_nobody_else_can_listen_there(house: House) -> None:
    async def work(c: Calling) -> list[str]:
        gate = GatePolicy(grpc_listen=f"127.0.0.1:{c.listener.port}")
        with pytest.raises(PolicyError, match="cannot be opened"):
            await GrpcListener(c.bench.gate, gate, Path(), c.said.append).start()
        assert c.said == [f"open inference over gRPC on grpc://127.0.0.1:{c.listener.port}"]
        return c.said

    assert len(calling(house, work)) == 1


def test_it_can_be_closed_twice_and_answers_nobody_then(house: House) -> None:
    async def work(c: Calling) -> Told:
        assert (await c.call("ModelInfer", asked())).code == "OK"
        await c.listener.close()
        await c.listener.close()
        return await c.call("ModelInfer", asked())

    assert calling(house, work).code == "UNAVAILABLE"


def test_what_is_being_answered_is_answered_while_it_closes(house: House) -> None:
    async def work(c: Calling) -> Told:
        come, go = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            come.set()
            await go.wait()

        c.bench.journal.before = wait
        call = asyncio.create_task(c.call("ModelInfer", asked()))
        await come.wait()
        closing = asyncio.create_task(c.listener.close())
        await asyncio.sleep(0)
        go.set()
        told = await call
        await closing
        return told

    assert calling(house, work).code == "OK"


# --- TLS


def _secure(parties: dict[str, Any], issued: Issued | None) -> Callable[[int], Any]:
    pair = (issued.key.read_bytes(), issued.path.read_bytes()) if issued else (None, None)
    credentials = grpc.ssl_channel_credentials(parties["authority"].path.read_bytes(), *pair)
    return lambda port: grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=_OPTIONS)


def _parties(folder: Path) -> dict[str, Any]:
    authority = Authority(folder)
    names = [address("127.0.0.1")]
    return {
        "authority": authority,
        "gate": authority.issue("gate", names),
        "known": authority.issue("known", [uri(SPIFFE)]),
        "unknown": authority.issue("unknown", [uri("spiffe://example.org/other")]),
        "edge": authority.issue("edge", [uri("spiffe://example.org/edge")]),
        "stranger": Authority(folder, "elsewhere").issue("stranger", [uri(SPIFFE)]),
    }


def _tls(parties: dict[str, Any], **more: Any) -> dict[str, Any]:
    gate = parties["gate"]
    return {"tls_certificate": str(gate.path), "tls_key": str(gate.key), **more}


def test_tls_shows_the_certificate_of_the_gate(house: House, tmp_path: Path) -> None:
    parties = _parties(tmp_path)

    async def work(c: Calling) -> Told:
        assert c.said == [f"open inference over gRPC on grpcs://127.0.0.1:{c.listener.port}"]
        plain = grpc.aio.insecure_channel(f"127.0.0.1:{c.listener.port}", options=_OPTIONS)
        async with plain:
            told = await Calling(c.bench, plain, c.listener).call("ModelInfer", asked())
            assert told.code == "UNAVAILABLE"
        return await c.call("ModelInfer", asked())

    assert calling(house, work, channel=_secure(parties, None), gate=_tls(parties)).code == "OK"


@pytest.mark.slow
def test_a_certificate_is_a_credential_where_it_is_required(house: House, tmp_path: Path) -> None:
    parties, mine = _parties(tmp_path), house.copy(tmp_path)
    add_identity(mine.installation, "acme", "acme", "spiffe", SPIFFE, actor=ACTOR)
    gate = _tls(parties, client_ca=str(parties["authority"].path), client_certificate="required")

    def ask(name: str | None, **more: Any) -> Told:
        async def work(c: Calling) -> Told:
            return await c.call("ModelInfer", asked(), metadata=more.get("metadata", ()))

        issued = None if name is None else parties[name]
        return calling(mine, work, channel=_secure(parties, issued), gate=gate)

    assert ask("known").code == "OK"
    assert ask("unknown").code == "UNAUTHENTICATED"
    # a certificate that is registered counts beside a key too
    key = [("authorization", f"Bearer {mine.keys['globex']}")]
    assert ask("unknown", metadata=key).code == "OK"
    assert ask("known", metadata=key).code == "UNAUTHENTICATED"
    # who shows none, or one of somebody else, does not get as far as a call
    assert ask(None, metadata=key).code == "UNAVAILABLE"
    assert ask("stranger", metadata=key).code == "UNAVAILABLE"


def test_where_a_certificate_is_optional_nobody_is_asked_for_one_and_keys_go_on(house: House, tmp_path: Path) -> None:
    parties, mine = _parties(tmp_path), house.copy(tmp_path)
    add_identity(mine.installation, "acme", "acme", "spiffe", SPIFFE, actor=ACTOR)
    gate = _tls(parties, client_ca=str(parties["authority"].path))

    async def work(c: Calling) -> list[str]:
        told = [await c.call("ModelInfer", asked(), metadata=()), await c.call("ModelInfer", asked())]
        return [one.code for one in told]

    assert calling(mine, work, channel=_secure(parties, parties["known"]), gate=gate) == ["UNAUTHENTICATED", "OK"]


def test_a_proxy_that_proves_itself_is_believed(house: House, tmp_path: Path) -> None:
    parties = _parties(tmp_path)
    gate = _tls(parties, client_ca=str(parties["authority"].path), client_certificate="required")
    proxy = {"identities": ["spiffe://example.org/edge"], "address_header": "x-real-ip"}

    async def work(c: Calling) -> list[str | None]:
        told = await c.call("ModelInfer", asked(), metadata=[*c.headers("acme"), ("x-real-ip", "192.0.2.9")])
        twice = [*c.headers("acme"), ("x-real-ip", "192.0.2.9"), ("x-real-ip", "192.0.2.8")]
        assert (await c.call("ModelInfer", asked(), metadata=twice)).details == "the header x-real-ip comes twice"
        assert told.code == "OK"
        return [asker.address for asker, _, _ in c.bench.watch.asked]

    assert calling(house, work, channel=_secure(parties, parties["edge"]), gate=gate, proxy=proxy) == ["192.0.2.9"]


# --- strangers, byte by byte


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2 (RFC 9113 §4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _header(name: bytes, value: bytes) -> bytes:
    """A header that is in no table (RFC 7541 §6.2.2); both parts are short."""
    return bytes([0, len(name)]) + name + bytes([len(value)]) + value


def _opening(c: Calling, rpc: str, *, window: int) -> bytes:
    """The beginning of a connection whose peer takes `window` bytes of each answer, and one call with no message."""
    names = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/{SERVICE}/{rpc}",
        ":authority": "gate",
        "te": "trailers",
        "content-type": "application/grpc",
        **dict(c.headers("acme")),
    }
    headers = b"".join(_header(name.encode(), value.encode()) for name, value in names.items())
    settings = struct.pack(">HI", 4, window)
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, settings) + _frame(1, 5, 1, headers)


def test_a_peer_that_takes_no_answer_holds_nothing_for_long(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[asyncio.Task[Any]] = []

    def note(seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        ends.append(task)
        assert seconds == calls.UNREAD_SECONDS_MAX
        real(0.01)

    real = calls._end_unread
    monkeypatch.setattr(calls, "_end_unread", note)

    async def work(c: Calling) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", c.listener.port)
        writer.write(_opening(c, "ServerLive", window=0))
        await writer.drain()
        while not ends:
            await reader.read(1024)
        # the call's own task ends, though nobody has taken its answer
        await asyncio.wait(ends)
        writer.close()
        return bool((await c.call("ServerLive")).answer.live)

    assert calling(house, work)


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", bytes(100), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100)]
)
def test_what_is_no_grpc_ends_its_connection_and_writes_no_log(house: House, data: bytes, capfd: Any) -> None:
    async def work(c: Calling) -> Told:
        with socket.create_connection(("127.0.0.1", c.listener.port)) as opened:
            opened.sendall(data)
            return await c.call("ServerLive")

    assert calling(house, work).code == "OK"
    assert capfd.readouterr().err == ""

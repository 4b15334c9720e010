"""Model servers behind TLS: whom we talk to is verified, and an answer that was cut on the way is no answer."""

import asyncio
import ssl
from pathlib import Path

import pytest

from palladion.gate.upstream.address import Address
from palladion.gate.upstream.errors import UpstreamError
from palladion.gate.upstream.pool import Upstream
from tests.gate.certificates import self_made

from .scripted import CHUNKED, UNTIL_CLOSE, Peer, Runner, answers_and_closes, asking, good, serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    for name, host in (("server", "127.0.0.1"), ("other", "other.test"), ("gate", "gate.test")):
        (folder / name).mkdir()
        self_made(folder / name, host)
    return folder


def server_side(folder: Path, name: str = "server") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / name / "certificate.pem", folder / name / "key.pem")
    return context


def client_side(folder: Path, name: str = "server") -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(folder / name / "certificate.pem"))


async def ask(upstream: Upstream) -> bytes:
    return (await upstream.ask(b"POST", b"/", [], b"{}")).body


def test_a_server_is_verified_by_a_private_authority(run: Runner, folder: Path) -> None:
    async def main() -> None:
        async with (
            serving(good, tls=server_side(folder)) as (server, address),
            asking(address, client_side(folder)) as upstream,
        ):
            assert await ask(upstream) == b"ok"
            assert await ask(upstream) == b"ok"
            assert server.connections == 1

    run(main())


@pytest.mark.parametrize(("theirs", "trusted"), [("server", "other"), ("other", "other")], ids=["authority", "name"])
def test_a_server_that_is_somebody_else_gets_no_request(run: Runner, folder: Path, theirs: str, trusted: str) -> None:
    async def main() -> None:
        async with (
            serving(good, tls=server_side(folder, theirs)) as (server, address),
            asking(address, client_side(folder, trusted)) as upstream,
        ):
            with pytest.raises(UpstreamError, match="certificate") as caught:
                await ask(upstream)
            assert (caught.value.kind, caught.value.sent, upstream.open) == ("refused", False, 0)
            assert server.requests == []

    run(main())


def test_a_server_without_tls_is_refused(run: Runner, folder: Path) -> None:
    async def main() -> None:
        async def plain(peer: Peer) -> None:
            await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        async with serving(plain) as (_, address):
            secure = Address(address.host, address.port, secure=True)
            async with asking(secure, client_side(folder)) as upstream:
                with pytest.raises(UpstreamError) as caught:
                    await ask(upstream)
                assert (caught.value.kind, caught.value.sent) == ("refused", False)

    run(main())


def test_the_gate_can_prove_who_it_is(run: Runner, folder: Path) -> None:
    async def main() -> None:
        theirs = server_side(folder)
        theirs.verify_mode = ssl.CERT_REQUIRED
        theirs.load_verify_locations(folder / "gate" / "certificate.pem")
        known, unknown = client_side(folder), client_side(folder)
        known.load_cert_chain(folder / "gate" / "certificate.pem", folder / "gate" / "key.pem")
        async with serving(good, tls=theirs) as (_, address):
            async with asking(address, known) as upstream:
                assert await ask(upstream) == b"ok"
            async with asking(address, unknown) as upstream:
                with pytest.raises(UpstreamError):
                    await ask(upstream)

    run(main())


def test_an_answer_that_somebody_cut_on_the_way_is_broken(run: Runner, folder: Path) -> None:
    async def main() -> None:
        came = asyncio.Event()

        async def cut(peer: Peer) -> None:
            await peer.request()
            await peer.send(CHUNKED + b"7\r\nok, but\r\n")
            await came.wait()
            peer.reset()  # TCP ends, TLS does not

        async with (
            serving(cut, tls=server_side(folder)) as (_, address),
            asking(address, client_side(folder)) as upstream,
            upstream.stream(b"GET", b"/", [], b"") as answer,
        ):
            assert await anext(answer) == b"ok, but"
            came.set()
            with pytest.raises(UpstreamError) as caught:
                await anext(answer)
            assert caught.value.kind == "broken"

    run(main())


def test_an_answer_whose_end_cannot_be_told_from_a_cut_is_broken(run: Runner, folder: Path) -> None:
    async def main() -> None:
        async with (
            serving(answers_and_closes(UNTIL_CLOSE + b"ok"), tls=server_side(folder)) as (_, address),
            asking(address, client_side(folder)) as upstream,
        ):
            with pytest.raises(UpstreamError, match="does not say how long") as caught:
                await ask(upstream)
            assert caught.value.kind == "broken"

    run(main())

"""From policy to upstream: what is refused before anything is asked, and whom the connection believes."""

import asyncio
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from palladion.errors import PolicyError
from palladion.gate.upstream.errors import UpstreamError
from palladion.gate.upstream.limits import UpstreamLimits
from palladion.gate.upstream.opening import limits_within, open_upstream
from palladion.policy import RoutePolicy
from tests.gate.certificates import self_made

from .scripted import Runner, good, serving

LOCAL = "http://127.0.0.1:8000"


def _route(upstream: str = LOCAL, **settings: object) -> RoutePolicy:
    return RoutePolicy(model="m", protocol="open-inference", upstream=upstream, **settings)  # type: ignore[arg-type]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    self_made(tmp_path, "127.0.0.1")
    (tmp_path / "token").write_text("s3cret-token\n")
    (tmp_path / "broken").write_text("s3cret token\x01")
    (tmp_path / "empty").write_text(" \n")
    return tmp_path


@pytest.mark.parametrize("upstream", [LOCAL, "http://localhost:1", "https://models.example", "unix:/run/model.sock"])
def test_a_server_of_this_machine_or_behind_tls_can_be_asked(home: Path, upstream: str) -> None:
    assert str(open_upstream(_route(upstream), home).address) == upstream


@pytest.mark.slow
@pytest.mark.parametrize(
    ("route", "reason"),
    [
        (_route("http://models.example"), "upstream: http://.* is not encrypted: https was expected$"),
        (_route("http://10.0.0.5:8000"), "upstream: http://.* is not encrypted: https was expected$"),
        (_route("https://a:b@models.example"), "a name or password in it"),
        (_route("https://models.example/v2"), "without a path"),
        (_route("https://models.example:99999"), "a port that is none"),
        (_route(upstream_ca="certificate.pem"), "upstream_ca is for https"),
        (_route(upstream_certificate="certificate.pem"), "upstream_certificate is for https"),
        (_route("https://m.example", upstream_certificate="certificate.pem"), "go together"),
        (_route("https://m.example", upstream_certificate_key="key.pem"), "go together"),
        (_route("https://m.example", upstream_ca="missing.pem"), "upstream_ca cannot be used: No such file"),
        (_route("https://m.example", upstream_ca="key.pem"), "upstream_ca cannot be used"),
        (
            _route("https://m.example", upstream_certificate="key.pem", upstream_certificate_key="key.pem"),
            "upstream_certificate cannot be used",
        ),
        (_route(upstream_key="missing"), "missing"),
        (_route(upstream_key="empty"), "is empty"),
        (_route(upstream_key="broken"), "the value of authorization"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_asked_is_refused_with_the_route_and_the_reason(
    home: Path, route: RoutePolicy, reason: str
) -> None:
    with pytest.raises(PolicyError, match=reason) as caught:
        open_upstream(route, home)
    assert caught.value.message.startswith("route /v2/models/m: ")
    assert "s3cret" not in caught.value.message


def test_plain_http_beyond_the_loopback_needs_a_word_aloud(home: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        open_upstream(_route("http://10.0.0.5:8000"), home)
    assert "--insecure-http" not in caught.value.message
    assert "upstream_insecure_http = true" in caught.value.hints[0]
    aloud = _route("http://10.0.0.5:8000", upstream_insecure_http=True)
    assert str(open_upstream(aloud, home).address) == "http://10.0.0.5:8000"


def test_an_encrypted_private_key_asks_nobody_for_its_passphrase(home: Path) -> None:
    key = serialization.load_pem_private_key((home / "key.pem").read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"x")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    (home / "locked.pem").write_bytes(pem)
    route = _route("https://m.example", upstream_certificate="certificate.pem", upstream_certificate_key="locked.pem")
    with pytest.raises(PolicyError, match="the private key is encrypted"):
        open_upstream(route, home)


def test_the_upstreams_key_goes_with_every_request_and_is_shown_nowhere(run: Runner, home: Path) -> None:
    async def main() -> None:
        async with serving(good) as (server, address):
            upstream = open_upstream(_route(str(address), upstream_key="token"), home)
            await upstream.ask(b"POST", b"/", [], b"{}")
            await upstream.close()
            assert b"\r\nauthorization: Bearer s3cret-token\r\n" in server.requests[0]
            assert "s3cret" not in repr(upstream)

    run(main())


def _server_side(home: Path, *, client: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(home / "certificate.pem", home / "key.pem")
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(home / "certificate.pem")
    return context


def test_a_private_authority_is_believed_and_no_other(run: Runner, home: Path) -> None:
    async def main() -> None:
        async with serving(good, tls=_server_side(home)) as (server, address):
            believed = open_upstream(_route(str(address), upstream_ca="certificate.pem"), home)
            assert (await believed.ask(b"POST", b"/", [], b"")).status == 200
            await believed.close()
            stranger = open_upstream(_route(str(address)), home)
            with pytest.raises(UpstreamError, match="certificate"):
                await stranger.ask(b"POST", b"/", [], b"")
            await stranger.close()
            assert len(server.requests) == 1
            assert believed._tls is not None
            assert believed._tls.cert_store_stats()["x509_ca"] == 1

    run(main())


def test_the_gate_shows_its_certificate_where_the_policy_says_so(run: Runner, home: Path) -> None:
    async def main() -> None:
        async with serving(good, tls=_server_side(home, client=True)) as (_, address):
            shown = _route(
                str(address),
                upstream_ca="certificate.pem",
                upstream_certificate="certificate.pem",
                upstream_certificate_key="key.pem",
            )
            upstream = open_upstream(shown, home)
            assert (await upstream.ask(b"POST", b"/", [], b"")).status == 200
            await upstream.close()
            silent = open_upstream(_route(str(address), upstream_ca="certificate.pem"), home)
            with pytest.raises(UpstreamError):
                await silent.ask(b"POST", b"/", [], b"")
            await silent.close()

    run(main())


def test_an_upstream_has_less_time_than_the_whole_answer() -> None:
    soon, late = limits_within(1.0), limits_within(600.0)
    assert (soon.head_seconds, soon.idle_seconds, soon.waiting_seconds, soon.connect_seconds) == (0.9, 0.9, 0.9, 0.9)
    assert late == UpstreamLimits()


def test_nothing_is_asked_while_a_server_is_opened(home: Path) -> None:
    upstream = open_upstream(_route("http://127.0.0.1:1"), home)
    assert (upstream.open, upstream.exchanges) == (0, 0)
    asyncio.run(upstream.close())

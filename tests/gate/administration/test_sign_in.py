"""Signing in as a browser's user and as a device, at a provider that lets nothing pass."""

import json
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from palladion.access.tokens import read_token
from palladion.errors import FormatError, KeysError, StorageError
from palladion.gate.administration.sign_in import by_browser, by_device, discover
from palladion.gate.administration.terms import Terms

from .provider import CLIENT_ID, Provider, provided


@pytest.fixture
def provider() -> Iterator[Provider]:
    with provided() as found:
        yield found


class Browser:
    """Opens an address as a browser would, in a thread of its own, because our listener waits meanwhile."""

    def __init__(self, change: Callable[[str], list[str]] = lambda place: [place]) -> None:
        """`change` says where it goes in place of where the provider sends it."""
        self.addresses: list[str] = []
        self.pages: list[tuple[int, bytes]] = []
        self._change = change
        self._thread: threading.Thread | None = None

    def __call__(self, address: str) -> None:
        self.addresses.append(address)
        self._thread = threading.Thread(target=self._visit, args=(address,))
        self._thread.start()

    def close(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _visit(self, address: str) -> None:
        for place in self._change(_redirect(address)):
            try:
                with urllib.request.urlopen(place) as page:
                    self.pages.append((page.status, page.read()))
            except urllib.error.HTTPError as error:
                self.pages.append((error.code, error.read()))


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _redirect(address: str) -> str:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.build_opener(_Stay).open(address)
    assert caught.value.code == 302, caught.value.read()
    return str(caught.value.headers["Location"])


def _terms(provider: Provider, **changes: Any) -> Terms:
    return Terms(**{"issuer": provider.url, "client_id": CLIENT_ID, **changes})


def _sign_in(provider: Provider, browser: Browser, **changes: Any) -> str:
    try:
        return by_browser(_terms(provider, **changes), discover(provider.url), browser)
    finally:
        browser.close()


def test_a_browser_brings_an_id_token_that_answers_our_question(provider: Provider) -> None:
    browser = Browser()
    token = _sign_in(provider, browser)
    claims = read_token(token.encode()).claims
    asked = {name: values[0] for name, values in parse_qs(urlsplit(browser.addresses[0]).query).items()}
    assert (claims["sub"], claims["aud"], claims["nonce"]) == ("00u1", CLIENT_ID, asked["nonce"])
    assert browser.pages == [(200, b"Palladion: you can close this page.")]
    assert provider.refused == []


def test_nothing_of_one_sign_in_is_used_in_the_next(provider: Provider) -> None:
    browser = Browser()
    _sign_in(provider, browser)
    _sign_in(provider, browser)
    first, second = (parse_qs(urlsplit(address).query) for address in browser.addresses)
    for name in ("state", "nonce", "code_challenge"):
        assert first[name] != second[name]


def test_an_access_token_is_brought_where_the_gate_wants_one(provider: Provider) -> None:
    provider.audience = "https://gate"
    token = _sign_in(provider, Browser(), token="access_token", audience="https://gate")
    assert read_token(token.encode()).claims["aud"] == "https://gate"


def _with(**changes: str) -> Callable[[str], list[str]]:
    """First a visit with other values, then the right one."""

    def change(place: str) -> list[str]:
        wrong = place
        for name, value in changes.items():
            wrong = re.sub(rf"([?&]){name}=[^&]*", rf"\g<1>{name}={value}", wrong)
        assert wrong != place
        return [wrong, place]

    return change


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        _with(state="guessed"),
        _with(state=""),
        lambda place: [place.replace("/callback", "/other"), place],
        lambda place: [place + "&code=mine", place],
        lambda place: [place.replace("127.0.0.1", "localhost"), place],
        lambda place: [place.partition("?")[0], place],
    ],
    ids=["other state", "no state", "other path", "two codes", "other host", "nothing"],
)
def test_a_visit_that_nobody_asked_for_is_sent_away_and_ends_nothing(
    provider: Provider, change: Callable[[str], list[str]]
) -> None:
    browser = Browser(change)
    assert _sign_in(provider, browser)
    assert [status for status, _ in browser.pages] == [404, 200]


@pytest.mark.parametrize("issuer", ["https://evil.example", ""])
def test_an_answer_of_another_provider_is_refused(provider: Provider, issuer: str) -> None:
    provider.answered = {"iss": issuer}
    with pytest.raises(FormatError, match="another provider than was asked"):
        _sign_in(provider, Browser())


def test_a_refusal_of_the_provider_is_told(provider: Provider) -> None:
    provider.answered = {"code": "", "error": "access_denied"}
    with pytest.raises(KeysError, match="the provider refuses: access_denied"):
        _sign_in(provider, Browser())


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"nonce": "another"}, "not asked for now"),
        ({"nonce": None}, "not asked for now"),
        ({"aud": "other"}, "for somebody else"),
        ({"iss": "https://evil.example"}, "for somebody else"),
    ],
)
def test_a_token_that_is_not_the_answer_is_refused(provider: Provider, claims: dict[str, Any], message: str) -> None:
    provider.claims = claims
    with pytest.raises(FormatError, match=message):
        _sign_in(provider, Browser())


def test_nobody_is_waited_for_for_ever(provider: Provider) -> None:
    ticks = iter([0.0, *([301.0] * 10)])
    with pytest.raises(KeysError, match="nobody has signed in in time"):
        by_browser(_terms(provider), discover(provider.url), lambda _: None, seconds=lambda: next(ticks))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"issuer": "https://evil.example"}, "that of another issuer"),
        ({"code_challenge_methods_supported": ["plain"]}, "does not take PKCE"),
        ({"token_endpoint": None}, "has no token_endpoint"),
        ({"token_endpoint": "http://login.example.com/token"}, "not encrypted: login.example.com"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "an address that is none"),
    ],
)
def test_a_provider_that_cannot_be_trusted_is_refused(provider: Provider, said: dict[str, Any], message: str) -> None:
    provider.discovered = said
    with pytest.raises(FormatError, match=message):
        discover(provider.url)


def test_a_provider_in_the_clear_is_not_asked() -> None:
    with pytest.raises(FormatError, match="not encrypted"):
        discover("http://login.example.com")


def test_a_provider_that_is_not_there_is_told() -> None:
    with provided() as gone:
        url = gone.url
    with pytest.raises(StorageError, match="gives no whole answer"):
        discover(url)


def _by_device(provider: Provider, **changes: Any) -> tuple[str, list[tuple[str, str]], list[float]]:
    told: list[tuple[str, str]] = []
    slept: list[float] = []
    found = discover(provider.url)
    token = by_device(
        _terms(provider), found, lambda place, code: told.append((place, code)), sleep=slept.append, **changes
    )
    return token, told, slept


def test_a_device_waits_for_a_code_that_is_typed_elsewhere(provider: Provider) -> None:
    provider.pending = ["authorization_pending", "slow_down", "authorization_pending"]
    token, told, slept = _by_device(provider)
    assert read_token(token.encode()).claims["sub"] == "00u1"
    assert told == [(f"{provider.url}/type", "WDJB-MJHT")]
    assert slept == [5, 5, 10, 10]


@pytest.mark.parametrize("word", ["access_denied", "expired_token"])
def test_a_device_that_is_refused_stops(provider: Provider, word: str) -> None:
    provider.pending = [word]
    with pytest.raises(KeysError, match=f"the provider refuses: {word}"):
        _by_device(provider)


def test_a_device_does_not_wait_for_ever(provider: Provider) -> None:
    provider.pending = ["authorization_pending"] * 3
    ticks = iter([0.0, 1.0, 2.0, 601.0])
    with pytest.raises(KeysError, match="nobody has typed the code in time"):
        _by_device(provider, seconds=lambda: next(ticks))


def test_a_provider_without_devices_says_so(provider: Provider) -> None:
    provider.discovered = {"device_authorization_endpoint": None}
    with pytest.raises(KeysError, match="no sign-in by code"):
        _by_device(provider)


def test_the_listener_answers_on_the_loopback_alone(provider: Provider) -> None:
    browser = Browser()
    _sign_in(provider, browser)
    (redirect,) = parse_qs(urlsplit(browser.addresses[0]).query)["redirect_uri"]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/callback", redirect)
    assert json.dumps(provider.refused) == "[]"


def test_a_visitor_who_says_nothing_is_cut_off_by_the_end_of_the_whole_wait(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    timer = threading.Timer

    def cut(seconds: float, function: Callable[[], None]) -> threading.Timer:
        waited.append(seconds)
        return timer(0.0, function)  # its time is over at once

    monkeypatch.setattr("palladion.gate.administration.sign_in.threading.Timer", cut)
    silent: list[socket.socket] = []

    def visit(address: str) -> None:
        place = urlsplit(parse_qs(urlsplit(address).query)["redirect_uri"][0])
        silent.extend(socket.create_connection((str(place.hostname), int(place.port or 0))) for _ in range(2))

    ticks = iter([0.0, 1.0, 299.0, 300.0])
    with pytest.raises(KeysError, match="nobody has signed in in time"):
        by_browser(_terms(provider), discover(provider.url), visit, seconds=lambda: next(ticks))
    # five seconds for one visit, and for the last one no more than was left of all
    assert waited == [5.0, 1.0]
    for one in silent:
        one.close()

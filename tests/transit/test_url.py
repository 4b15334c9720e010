"""Addresses: which are taken, where redirects may lead, and that nothing secret is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.transit.url import Url, follow, is_loopback, parse_url, shown_address


def test_an_address_is_taken_apart_and_shown_without_its_query() -> None:
    url = parse_url("https://Store.example:8443/a%20b/fraud.sealed?X-Amz-Signature=secret")
    assert (url.origin, url.target) == (
        (True, "store.example", 8443),
        "/a%20b/fraud.sealed?X-Amz-Signature=secret",
    )
    assert str(url) == "https://store.example:8443/a%20b/fraud.sealed"
    assert "secret" not in repr(url)


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("https://example.com", "https://example.com"),
        ("https://example.com:443/", "https://example.com"),
        ("https://example.com.:8443/", "https://example.com:8443"),
        ("http://127.0.0.1:80/", "http://127.0.0.1"),
        ("http://[::1]:5000/x", "http://[::1]:5000"),
        ("http://localhost/x", "http://localhost"),
    ],
)
def test_the_base_names_scheme_host_and_port(text: str, base: str) -> None:
    assert parse_url(text).base == base


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http://example.com/x", "is not encrypted"),
        ("http://10.0.0.1/x", "is not encrypted"),
        ("http://localhost.example.com/x", "is not encrypted"),
        ("ftp://example.com/x", "of the kind 'ftp'"),
        ("file:///etc/passwd", "of the kind 'file'"),
        ("example.com/x", "of the kind 'none'"),
        ("https://user:pass@example.com/x", "use ~/.netrc"),
        ("https://token@example.com/x", "use ~/.netrc"),
        ("https:///x", "host name ''"),
        ("https://exa_mple.com/x", "which is none"),
        ("https://example.com:99999/x", "a port that is none"),
        ("https://example.com/a b", "line breaks"),
        ("https://example.com/a\r\nX-Injected: 1", "line breaks"),
        ("https://example.com/ä", "not ASCII"),
        ("https://example.com/" + "a" * 20_000, "at most 16384"),
    ],
)
def test_other_addresses_are_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse_url(text)
    assert "pass@" not in str(caught.value)
    assert "token@" not in str(caught.value)


def test_unencrypted_http_to_others_has_to_be_asked_for() -> None:
    assert parse_url("http://example.com/x", insecure_http=True).secure is False


SECURE = parse_url("https://example.com/a/b?c")
PLAIN = parse_url("http://127.0.0.1:8000/a")


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/x?y", "https://example.com/x"),
        ("c", "https://example.com/a/c"),
        ("//cdn.example.net/x", "https://cdn.example.net/x"),
        ("https://cdn.example.net:444/x", "https://cdn.example.net:444/x"),
    ],
)
def test_a_redirect_is_followed_to_where_it_leads(location: str, target: str) -> None:
    assert str(follow(SECURE, location)) == target


@pytest.mark.parametrize(
    ("url", "location", "insecure_http", "reason"),
    [
        (SECURE, "http://example.com/x", True, "from https to"),
        (SECURE, "http://127.0.0.1/x", True, "from https to"),
        (SECURE, "https://127.0.0.1/x", False, "to this machine"),
        (SECURE, "https://[::1]/x", False, "to this machine"),
        (SECURE, "https://localhost:2375/x", False, "to this machine"),
        (SECURE, "file:///etc/passwd", False, "of the kind 'file'"),
        (SECURE, "https://a:b@example.com/", False, "use ~/.netrc"),
        (PLAIN, "http://example.com/x", False, "which is not encrypted"),
        (parse_url("http://example.com/", insecure_http=True), "http://127.0.0.1/admin", True, "to this machine"),
    ],
)
def test_a_redirect_to_something_weaker_is_not_followed(
    url: Url, location: str, insecure_http: bool, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        follow(url, location, insecure_http=insecure_http)


def test_plain_http_may_lead_to_https_and_within_this_machine() -> None:
    assert follow(PLAIN, "https://example.com/x").secure
    assert follow(PLAIN, "http://localhost:9000/x").port == 9000


def test_loopback_is_this_machine_alone() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.8.9.1", "::1", "localhost"]))
    assert not any(map(is_loopback, ["10.0.0.1", "0.0.0.0", "localhost.example", "example.com", "128.0.0.1"]))


@given(st.text(max_size=60))
def test_whatever_is_typed_is_an_address_or_refused(text: str) -> None:
    try:
        url = parse_url(f"https://{text}")
    except ValueError:
        return
    assert url.secure
    assert str(url).isprintable()
    assert " " not in url.target


def test_what_is_recorded_of_an_address_holds_no_credential() -> None:
    assert shown_address("https://user:secret@example.com:8443/a?key=secret#secret") == "https://example.com:8443/a?…"
    assert shown_address("https://example.com/a") == "https://example.com/a"
    for text in ("nowhere", "https:///a", "https://example.com:port/"):
        with pytest.raises(ValueError, match="names no host, or a port that is none"):
            shown_address(text)

"""Settings of feeds: what contradicts itself is refused before anything is fetched."""

import pytest

from palladion.errors import PolicyError
from palladion.policy.intelligence import FEEDS_MAX, FeedPolicy, check_feeds, is_safe_address
from palladion.policy.reader import parse_policy


def _feed(**changes: object) -> FeedPolicy:
    return FeedPolicy(**({"name": "one", "url": "https://feeds.example/one"} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ([_feed(), _feed()], "two feeds are called one"),
        ([_feed(file="one.txt")], "both url and file"),
        ([_feed(url="", file="one.json", format="taxii")], "TAXII collection, which has a url"),
        ([_feed(credentials="login")], "which only taxii takes"),
        ([_feed(kind="queries")], "needs format stix or taxii"),
        ([_feed(url="http://feeds.example/one")], "plain http"),
        ([_feed(name=f"f{number}") for number in range(FEEDS_MAX + 1)], f"at most {FEEDS_MAX}"),
    ],
    ids=["twins", "both", "taxii-file", "login", "queries", "http", "many"],
)
def test_what_contradicts_itself_is_refused(feeds: list[FeedPolicy], words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        check_feeds(feeds)


def test_plain_http_is_for_the_loopback() -> None:
    assert is_safe_address("http://127.0.0.1:8080/list")
    assert is_safe_address("http://[::1]/list")
    assert not is_safe_address("http://127.0.0.1.feeds.example/list")
    assert not is_safe_address("http://localhost@feeds.example/list")
    assert not is_safe_address("http://[::1/list")


def test_a_policy_file_holds_feeds() -> None:
    policy = parse_policy(b'[[feed]]\nname = "tor"\nfile = "tor.txt"\nkind = "tor"\nweight = 0.25\n', "it")
    assert [(feed.name, feed.kind, feed.weight) for feed in policy.feed] == [("tor", "tor", 0.25)]
    with pytest.raises(PolicyError, match=r"feed\.weight"):
        parse_policy(b'[[feed]]\nname = "tor"\nfile = "tor.txt"\nweight = 2.5\n', "it")


def test_a_gate_asks_nobody_unless_it_is_told_to() -> None:
    assert (parse_policy(b"", "it").intel.refresh, parse_policy(b"", "it").intel.threshold_share) == (False, 0.1)
    assert parse_policy(b"[intel]\nrefresh = true\n", "it").intel.refresh
    with pytest.raises(PolicyError, match=r"intel\.threshold_share"):
        parse_policy(b"[intel]\nthreshold_share = 0.6\n", "it")

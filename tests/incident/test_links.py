"""Links: kinds and counts in words, values keyed and never in clear, and a network's name that of its answers."""

from typing import Any

import pytest

from palladion.access.pseudonyms import network_pseudonym
from palladion.incident.links import KEYED_MAX, KINDS, Link, links_details, links_of, links_said

KEY = bytes(range(32))
SHARED = {
    "address:203.0.113.7": 3,
    "address:203.0.113.9": 4,
    "address:198.51.100.1": 2,
    "address:2001:db8:1:2::/64": 2,
    "device:phone-7": 2,
    "organisation:acme": 5,
    "payment:card-1234": 3,
    "tls:t13d1516h2 203.0.113.0/24 494": 2,
    "tls:t13d1516h2 203.0.113.0/24 495": 3,
}


def test_links_are_counted_by_kind_and_keyed() -> None:
    found = {link.kind: link for link in links_of(SHARED, KEY)}
    assert list(found) == list(KINDS)
    # two addresses of one /24, another /24, and a /48
    assert (found["network"].values, found["network"].accounts) == (3, 4)
    # one program, seen in two hours
    assert (found["tls"].values, found["tls"].accounts) == (1, 3)
    assert (found["organisation"].values, found["organisation"].accounts) == (1, 5)
    text = str(found)
    assert not any(value in text for value in ("203.0", "acme", "card", "phone", "t13d", "2001"))


def test_a_network_is_called_as_in_records_of_answers() -> None:
    network = next(link for link in links_of(SHARED, KEY) if link.kind == "network")
    assert network.keyed[0] == network_pseudonym(KEY, "203.0.113.200")
    assert network_pseudonym(KEY, "2001:db8:1:ffff::1") in network.keyed


def test_another_key_gives_other_names() -> None:
    names = [{name for link in links_of(SHARED, key) for name in link.keyed} for key in (KEY, bytes(32))]
    assert not names[0] & names[1]


def test_so_many_values_are_named_and_the_rest_is_counted() -> None:
    (link,) = links_of({f"payment:{n}": n for n in range(2, 100)}, KEY)
    assert (link.values, link.accounts, len(link.keyed)) == (98, 99, KEYED_MAX)
    assert link.keyed[0] == links_of({"payment:99": 2}, KEY)[0].keyed[0]


def test_what_links_is_said_in_words() -> None:
    details = links_details([Link("payment", 1, 4, ("ab",)), Link("network", 3, 2, ("cd", "ef"))])
    assert links_said(details) == ("accounts linked: 4 share a means of payment; 3 times a network, one of them by 2")
    assert links_details([]) == {}
    assert links_said({"clients": 3}) == ""


@pytest.mark.parametrize(
    "listed", [3, [], ["x"], [{}], [{"kind": "network", "values": "1", "accounts": 2}], [{"kind": 7}]]
)
def test_records_of_other_releases_say_nothing(listed: Any) -> None:
    assert links_said({"links": listed}) == ""


def test_tokens_of_a_kind_to_come_are_left_out() -> None:
    assert links_of({"passport:7": 2, "address:not an address": 2}, KEY) == []

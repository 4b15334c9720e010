"""Bytes of feeds: what is well formed is taken whole, and one broken item refuses all."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from palladion.errors import FormatError
from palladion.intel import formats
from palladion.intel.formats import EXTENSION, NEVER, read_content
from palladion.intel.networks import parse_network
from palladion.intel.sketch import sketch_of
from palladion.policy.intelligence import FeedFormat, FeedKind

UNTIL = 1_798_761_600.0  # 2027-01-01


def indicator(pattern: str = "[ipv4-addr:value = '192.0.2.0/24']", **changes: Any) -> dict[str, Any]:
    return {
        "type": "indicator",
        "id": f"indicator--{pattern}",
        "modified": "2026-01-01T00:00:00.000Z",
        "pattern": pattern,
        "pattern_type": "stix",
        "valid_from": "2026-01-01T00:00:00Z",
    } | changes


def bundle(*objects: dict[str, Any]) -> bytes:
    return json.dumps({"type": "bundle", "id": "bundle--1", "objects": list(objects)}).encode()


def signature(**changes: Any) -> dict[str, Any]:
    made = {"algorithm": "minhash-128", "sketch": sketch_of([b"a"]).text(), "size": 1} | changes
    return indicator("x", pattern_type="palladion-minhash-128", name="harvest", extensions={EXTENSION: made})


def test_a_list_has_a_network_in_a_line() -> None:
    data = b"\xef\xbb\xbf# a comment\n192.0.2.0/24 ; SBL1\r\n\n2001:db8::/32\n203.0.113.7 # one\n"
    content = read_content(data, "list", "networks")
    assert [item[0] for item in content.networks] == [
        parse_network(text) for text in ("192.0.2.0/24", "2001:db8::/32", "203.0.113.7")
    ]
    assert {item[1:] for item in content.networks} == {(NEVER, 1.0)}


def test_numbers_of_autonomous_systems_are_a_list_too() -> None:
    content = read_content(b"AS64500\n64501\n", "list", "asn")
    assert [item[0] for item in content.systems] == [64500, 64501]
    assert content.items == 2


def test_csv_names_its_columns() -> None:
    data = b"network,valid_until,confidence,note\n192.0.2.0/24,2027-01-01T00:00:00Z,50,x\n192.0.3.0/24,,,\n"
    assert list(read_content(data, "csv", "tor").networks) == [
        (parse_network("192.0.2.0/24"), UNTIL, 0.5),
        (parse_network("192.0.3.0/24"), NEVER, 1.0),
    ]


def test_a_bundle_gives_networks_with_expiry_and_confidence() -> None:
    both = "[ipv4-addr:value = '192.0.2.0/24' OR ipv6-addr:value ISSUBSET '2001:db8::/32']"
    content = read_content(
        bundle(indicator(both, valid_until="2027-01-01T00:00:00.123456789Z", confidence=25)), "stix", "networks"
    )
    assert [(item[0], item[2]) for item in content.networks] == [
        (parse_network("192.0.2.0/24"), 0.25),
        (parse_network("2001:db8::/32"), 0.25),
    ]
    assert content.networks[0][1] == pytest.approx(UNTIL + 0.123456)


def test_what_a_feed_does_not_use_is_counted() -> None:
    content = read_content(
        bundle(
            indicator(),
            indicator("[file:hashes.MD5 = 'd41d8cd98f00b204e9800998ecf8427e']"),
            indicator("[ipv4-addr:value = '198.51.100.7'] FOLLOWEDBY [url:value = 'http://a/']"),
            indicator("[autonomous-system:number = 64500]"),
            {"type": "malware"},
        ),
        "stix",
        "networks",
    )
    assert (len(content.networks), content.skipped) == (1, 3)


def test_revoked_and_older_versions_of_an_indicator_do_not_count() -> None:
    old = indicator("[ipv4-addr:value = '192.0.2.0/24']", id="indicator--a")
    new = indicator("[ipv4-addr:value = '192.0.3.0/24']", id="indicator--a", modified="2026-02-01T00:00:00Z")
    gone = indicator("[ipv4-addr:value = '192.0.4.0/24']", id="indicator--b", revoked=True)
    content = read_content(bundle(new, old, gone), "stix", "networks")
    assert [item[0] for item in content.networks] == [parse_network("192.0.3.0/24")]


def test_systems_and_signatures_come_in_bundles() -> None:
    assert read_content(bundle(indicator("[autonomous-system:number = 64500]")), "stix", "asn").systems[0][0] == 64500
    content = read_content(bundle(signature(), indicator()), "taxii", "queries")
    assert content.queries == (("harvest", sketch_of([b"a"]), NEVER, 1.0),)
    assert content.skipped == 1


BROKEN: dict[str, tuple[bytes, FeedFormat, FeedKind]] = {
    "nothing": (b"# empty\n", "list", "networks"),
    "bits": (b"192.0.2.0/24\n192.0.2.1/24\n", "list", "networks"),
    "everybody": (b"192.0.2.0/24\n0.0.0.0/0\n", "list", "networks"),
    "page": (b"<html>Too many requests</html>\n", "list", "networks"),
    "bytes": (b"192.0.2.0/24\n\xff\n", "list", "networks"),
    "long": (b"#" + b"x" * 2000 + b"\n192.0.2.0/24\n", "list", "networks"),
    "system": (b"AS0\n", "list", "asn"),
    "column": (b"address\n192.0.2.0/24\n", "csv", "networks"),
    "twin-column": (b"network,network\n192.0.2.0/24,192.0.2.0/24\n", "csv", "networks"),
    "short-row": (b"network,note\n192.0.2.0/24\n", "csv", "networks"),
    "no-cell": (b"network,note\n,x\n", "csv", "networks"),
    "time": (b"network,valid_until\n192.0.2.0/24,tomorrow\n", "csv", "networks"),
    "day": (b"network,valid_until\n192.0.2.0/24,2027-02-30T00:00:00Z\n", "csv", "networks"),
    "confidence": (b"network,confidence\n192.0.2.0/24,101\n", "csv", "networks"),
    "json": (b"{", "stix", "networks"),
    "no-bundle": (b'{"type":"report","objects":[]}', "stix", "networks"),
    "no-type": (bundle({"id": "x"}), "stix", "networks"),
    "no-id": (bundle(indicator(id=7)), "stix", "networks"),
    "negative": (bundle(indicator(confidence=-1)), "stix", "networks"),
    "truth": (bundle(indicator(confidence=True)), "stix", "networks"),
    "host-bits": (bundle(indicator("[ipv4-addr:value = '192.0.2.1/24']")), "stix", "networks"),
    "algorithm": (bundle(signature(algorithm="simhash")), "stix", "queries"),
    "sketch": (bundle(signature(sketch="00")), "stix", "queries"),
    "size": (bundle(signature(size="1")), "stix", "queries"),
}


@pytest.mark.parametrize(("data", "form", "kind"), BROKEN.values(), ids=BROKEN.keys())
def test_one_broken_item_refuses_all(data: bytes, form: FeedFormat, kind: FeedKind) -> None:
    with pytest.raises(FormatError):
        read_content(data, form, kind)


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("ITEMS_MAX", lambda: b"network\n192.0.2.0/24\n192.0.3.0/24\n192.0.4.0/24\n", "networks"),
        ("FEED_BYTES_MAX", lambda: b"192.0.2.0/24\n", "networks"),
    ],
)
def test_sizes_are_limited(
    name: str, data: Callable[[], bytes], kind: FeedKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_content(data(), "csv" if name == "ITEMS_MAX" else "list", kind)
    monkeypatch.setattr(formats, name, 2)
    with pytest.raises(FormatError, match=r"more than 2|at most 2"):
        read_content(data(), "csv" if name == "ITEMS_MAX" else "list", kind)


def test_halves_of_characters_do_not_reach_a_record() -> None:
    name = signature() | {"name": "half \ud800"}
    assert read_content(bundle(name), "stix", "queries").queries[0][0] == "half \\ud800"
    with pytest.raises(FormatError) as caught:
        read_content(bundle(indicator(id="\ud800", confidence=-1)), "stix", "networks")
    assert caught.value.message.encode()


def test_an_error_says_where() -> None:
    with pytest.raises(FormatError, match=r"^line 2: '192\.0\.2\.1/24'"):
        read_content(BROKEN["bits"][0], "list", "networks")

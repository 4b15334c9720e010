"""A table of networks finds what a list finds that is looked through one by one."""

import random
from ipaddress import IPv4Address, IPv6Address

import pytest

from palladion.errors import FormatError
from palladion.intel import networks
from palladion.intel.networks import Network, Networks, NetworkTable, network_text, parse_network

NOW = 10.0


def _table(*texts: str, expires: float = NOW + 1) -> NetworkTable:
    return NetworkTable((parse_network(text), expires, 1.0) for text in texts)


def _found(table: NetworkTable, address: str) -> str | None:
    found = table.find(address, NOW)
    return None if found is None else network_text(found[0])


def test_the_narrowest_network_is_found() -> None:
    table = _table("192.0.2.0/24", "192.0.2.128/25", "192.0.2.129", "2001:db8::/32", "2001:db8:1::/48")
    assert _found(table, "192.0.2.1") == "192.0.2.0/24"
    assert _found(table, "192.0.2.200") == "192.0.2.128/25"
    assert _found(table, "192.0.2.129") == "192.0.2.129/32"
    assert _found(table, "192.0.2.130") == "192.0.2.128/25"
    assert _found(table, "192.0.3.0") is None
    assert _found(table, "192.0.1.255") is None
    assert _found(table, "2001:db8:1::5") == "2001:db8:1::/48"
    assert _found(table, "2001:db8:2::5%eth0") == "2001:db8::/32"
    assert len(table) == 5


def test_an_ipv4_address_in_ipv6_is_an_ipv4_address() -> None:
    table = _table("192.0.2.0/24")
    assert _found(table, "::ffff:192.0.2.9") == "192.0.2.0/24"
    assert _found(table, "::192.0.2.9") is None


def test_the_last_addresses_of_both_families_can_be_listed() -> None:
    table = _table("255.255.255.0/24", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
    assert _found(table, "255.255.255.255") == "255.255.255.0/24"
    assert _found(table, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff") is not None
    assert _found(table, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe") is None


def test_what_expired_never_hits_and_a_wider_one_takes_its_place() -> None:
    table = NetworkTable([(parse_network("192.0.2.0/24"), NOW + 1, 0.5), (parse_network("192.0.2.0/28"), NOW, 1.0)])
    assert table.find("192.0.2.1", NOW - 0.1) == (parse_network("192.0.2.0/28"), NOW, 1.0)
    assert table.find("192.0.2.1", NOW) == (parse_network("192.0.2.0/24"), NOW + 1, 0.5)
    assert table.find("192.0.2.1", NOW + 1) is None


def test_of_twins_the_last_counts() -> None:
    network = parse_network("192.0.2.0/24")
    table = NetworkTable([(network, NOW + 1, 0.5), (network, NOW + 9, 1.0)])
    assert table.find("192.0.2.1", NOW) == (network, NOW + 9, 1.0)
    assert len(table) == 1


@pytest.mark.slow
@pytest.mark.parametrize("family", [4, 6])
def test_it_agrees_with_looking_through_all_of_them(family: int) -> None:
    width, least = (32, 8) if family == 4 else (128, 16)
    for seed in range(60):
        dice = random.Random(seed)

        def address(dice: random.Random = dice) -> int:
            # close together, so that they nest and touch
            base = 0x0A00_0000 if family == 4 else 0x2001_0DB8 << 96
            return int(base | sum(1 << dice.randrange(width - least) for _ in range(dice.randrange(4))))

        entries: dict[Network, float] = {}
        for _ in range(30):
            prefix = dice.randint(least, width)
            entries[family, address() >> (width - prefix) << (width - prefix), prefix] = dice.choice([NOW - 1, NOW + 1])
        table = NetworkTable((network, expires, 1.0) for network, expires in entries.items())
        for number in [address() for _ in range(60)] + [first for _, first, _ in entries]:
            fitting = [
                network
                for network, expires in entries.items()
                if expires > NOW and number >> (width - network[2]) == network[1] >> (width - network[2])
            ]
            text = str(IPv4Address(number) if family == 4 else IPv6Address(number))
            found = table.find(text, NOW)
            expected = max(fitting, key=lambda network: network[2], default=None)
            assert (None if found is None else found[0]) == expected, (seed, text)


@pytest.mark.parametrize(
    "text",
    ["", "192.0.2", "192.0.2.1/24", "192.0.2.0/33", "192.0.2.0/", "192.0.2.0/+8", "10.0.0.0/7", "2000::/8", "host",
     "192.0.2.0/٢٤", "01.2.3.4", "1.2.3.4\0", "::1%lo"],
)  # fmt: skip
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_network(text)


def test_what_is_no_address_lies_in_no_network() -> None:
    assert _table("0.0.0.0/8").find("unix:", NOW) is None
    assert _table("0.0.0.0/8").find("\ud800", NOW) is None


def test_the_number_of_networks_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "NETWORKS_MAX", 2)
    assert len(_table("192.0.2.0/24", "192.0.3.0/24")) == 2
    with pytest.raises(FormatError, match="more than 2 networks"):
        _table("192.0.2.0/24", "192.0.3.0/24", "192.0.4.0/24")


def test_an_entry_takes_few_bytes() -> None:
    dice = random.Random(1)
    table = NetworkTable(((4, dice.getrandbits(24) << 8, 24), NOW, 1.0) for _ in range(1000))
    wide = NetworkTable(((6, dice.getrandbits(64) << 64, 64), NOW, 1.0) for _ in range(1000))
    assert table.memory_bytes < 100 * len(table)
    assert wide.memory_bytes < 100 * len(wide)


def test_what_is_read_is_kept_in_columns_as_it_was() -> None:
    entries = [(parse_network(text), NOW, 0.3) for text in ("192.0.2.0/24", "2001:db8::/32", "10.0.0.0/8", "::1")]
    kept = Networks(entries)
    assert (list(kept), len(kept), kept[-1], kept[1:3]) == (entries, 4, entries[3], entries[1:3])
    table = NetworkTable(kept)
    assert len(table) == 4
    assert [table.find(address, 0.0) is not None for address in ("10.1.1.1", "2001:db8::5", "::1", "::2")] == [
        *(True, True, True),
        False,
    ]
    with pytest.raises(IndexError):
        kept[4]


def test_of_twins_the_last_counts_also_in_columns() -> None:
    twins = [(parse_network("192.0.2.0/24"), NOW, share) for share in (0.25, 0.5)]
    found = NetworkTable(Networks(twins)).find("192.0.2.1", 0.0)
    assert found is not None
    assert found[2] == 0.5

"""Networks and users as limits know them: many spellings, one key."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.access.networks import caseless, neighbourhood_of, network_of

# of Default_Ignorable_Code_Point, those that are neither control nor format characters
UNSEEN = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\ufe00\ufe0f\uffa0\U000e0100\U000e01ef"


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("fe80::2%eth1", "fe80::/64"),
        ("a socket", "a socket"),
        ("x" * 5000, "x" * 64),
    ],
)
def test_an_address_is_known_by_its_network(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize(
    ("address", "neighbourhood"),
    [
        ("192.0.2.7", "192.0.2.0/24"),
        ("::ffff:192.0.2.7", "192.0.2.0/24"),
        ("2001:DB8:1:2::3", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("a socket", ""),
    ],
)
def test_an_address_has_the_neighbourhood_of_its_block(address: str, neighbourhood: str) -> None:
    assert neighbourhood_of(address) == neighbourhood


@given(st.integers(0, 2**64 - 1))
def test_no_host_of_a_network_is_another_network(host: int) -> None:
    groups = [f"{host >> shift & 0xFFFF:x}" for shift in (48, 32, 16, 0)]
    assert network_of(":".join(["2001", "db8", "0", "1", *groups])) == "2001:db8:0:1::/64"


@pytest.mark.parametrize(
    "spelling",
    ["alice", "ALICE", " Alice ", "ali\u200bce", "\uff21lice", "al\u00adice"],
    ids=["itself", "capitals", "blanks", "zero-width", "fullwidth", "soft hyphen"],
)
def test_a_user_is_the_same_however_it_is_written(spelling: str) -> None:
    assert caseless(spelling) == "alice"


@pytest.mark.parametrize("character", UNSEEN, ids=[f"U+{ord(character):04X}" for character in UNSEEN])
def test_what_nobody_sees_makes_no_other_user(character: str) -> None:
    for spelling in (f"alice{character}", f"{character}alice", f"ali{character * 3}ce", f"ALI{character}CE"):
        assert caseless(spelling) == "alice"
    # it must not keep a letter and its mark apart either
    assert caseless(f"e{character}\u0301") == caseless("\u00e9")


def test_other_users_stay_others() -> None:
    assert len({caseless(name) for name in ("alice", "bob", "ålice", "alice2", "")}) == 5


@given(st.text(max_size=20))
def test_case_and_normal_form_make_no_difference(name: str) -> None:
    for spelling in (unicodedata.normalize("NFD", name), unicodedata.normalize("NFKC", name), name.casefold()):
        assert caseless(spelling) == caseless(name)
    assert caseless(caseless(name)) == caseless(name)

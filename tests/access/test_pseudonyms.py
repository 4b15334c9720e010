"""Pseudonyms: the same for one client and key, telling nothing to whoever has no key."""

import pytest

from palladion.access.pseudonyms import identity_pseudonym, link_pseudonym, network_pseudonym, pseudonym

KEY = bytes(range(32))


def test_a_client_has_one_pseudonym_and_no_other_client_has_it() -> None:
    names = [pseudonym(KEY, f"client-{number}") for number in range(1000)]
    assert len(set(names)) == 1000
    assert pseudonym(KEY, "client-7") == names[7]


def test_the_pseudonym_of_a_key_and_a_client_is_fixed_for_good() -> None:
    # in every ledger from the first release on: a change would cut each client's history in two
    assert pseudonym(KEY, "0123456789abcdef") == "client:306f0787eb63cc6208d1"


def test_without_the_key_a_guessed_client_cannot_be_confirmed() -> None:
    assert pseudonym(KEY, "a") != pseudonym(bytes(32), "a")


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_key_of_another_length_is_the_callers_mistake(length: int) -> None:
    with pytest.raises(ValueError, match=f"{length} bytes, expected 32"):
        pseudonym(bytes(length), "a")


def test_an_identity_has_a_name_of_its_own() -> None:
    names = {
        identity_pseudonym(KEY, "spiffe", "a"),
        identity_pseudonym(KEY, "jwt", "a"),
        identity_pseudonym(bytes(32), "spiffe", "a"),
        pseudonym(KEY, "spiffe a").replace("client:", "identity:"),
    }
    assert len(names) == 4
    assert all(name.startswith("identity:") for name in names)


def test_addresses_of_one_network_have_one_pseudonym_and_those_of_others_another() -> None:
    assert network_pseudonym(KEY, "192.0.2.1") == network_pseudonym(KEY, "::ffff:192.0.2.254")
    assert network_pseudonym(KEY, "2001:db8:1:2::3") == network_pseudonym(KEY, "2001:db8:1:ffff::")
    names = {network_pseudonym(KEY, f"192.0.{n}.1") for n in range(200)} | {network_pseudonym(KEY, "2001:db8::")}
    assert len(names) == 201
    assert network_pseudonym(bytes(32), "192.0.2.1") != network_pseudonym(KEY, "192.0.2.1")


def test_the_pseudonym_of_a_key_and_a_network_is_fixed_for_good() -> None:
    assert network_pseudonym(KEY, "192.0.2.1") == "fb09e5a2326b1f2e"


@pytest.mark.parametrize("address", ["", "unix:", "a.example", "192.0.2.0/24"])
def test_what_is_no_address_has_no_network(address: str) -> None:
    assert network_pseudonym(KEY, address) == ""


def test_what_links_has_a_name_by_its_kind() -> None:
    names = {link_pseudonym(KEY, kind, value) for kind in ("device", "payment") for value in "ab"}
    assert len(names) == 4
    assert {len(name) for name in names} == {16}

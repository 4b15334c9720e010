"""Pseudonyms: the same for one client and key, telling nothing to whoever has no key."""

import pytest

from palladion.access.pseudonyms import identity_pseudonym, pseudonym

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

"""Who is linked with whom: by organisation and tokens; parting crowds; in any order; in bounded memory."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion.watch import links as module
from palladion.watch.links import (
    ACCOUNTS_PER_ADDRESS_MAX,
    ADDRESS,
    DEVICE,
    PAYMENT,
    TLS_SECONDS,
    TOKENS_PER_ACCOUNT_MAX,
    Links,
    Shown,
    tls_shown,
)

NETWORKS = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


class Accounts:
    """Links, and the organisation of each account: its own, if none is named."""

    def __init__(self, organisations: dict[str, str] | None = None) -> None:
        self.links = Links()
        self.organisations = organisations or {}

    def organisation(self, client: str) -> str:
        return self.organisations.get(client, f"own of {client}")

    def root(self, client: str) -> str:
        return self.links.root(self.organisation(client))

    def linked(self, first: str, second: str) -> bool:
        return self.root(first) == self.root(second)

    def address(self, client: str, address: str) -> module.Change | None:
        return self.links.show(client, self.organisation(client), Shown(ADDRESS, address))

    def payment(self, client: str, payment: str) -> module.Change | None:
        return self.links.show(client, self.organisation(client), Shown(PAYMENT, payment))

    def device(self, client: str, device: str) -> module.Change | None:
        return self.links.show(client, self.organisation(client), Shown(DEVICE, device))

    def tls(self, client: str, address: str, at: float, fingerprint: str = "t13d1516h2_8daaf6152771") -> None:
        shown = tls_shown(fingerprint, address, at)
        if shown is not None:
            self.links.show(client, self.organisation(client), shown)

    def show(self, shown: list[tuple[str, str]]) -> None:
        """Addresses are those that begin with a digit."""
        for client, token in shown:
            (self.address if token[0].isdigit() else self.payment)(client, token)


def test_accounts_of_one_organisation_are_linked() -> None:
    accounts = Accounts({"a": "acme", "b": "acme", "c": "other"})

    assert accounts.linked("a", "b")
    assert not accounts.linked("a", "c")
    assert accounts.links.root("unheard of") == "unheard of"
    assert list(accounts.links.organisations("unheard of")) == ["unheard of"]


def test_an_address_and_a_payment_of_one_name_are_two_things() -> None:
    accounts = Accounts()
    accounts.payment("a", "10.0.0.1")
    accounts.address("b", "10.0.0.1")

    assert not accounts.linked("a", "b")


def test_links_reach_over_common_acquaintances() -> None:
    accounts = Accounts({"a": "acme", "b": "acme"})
    accounts.show([("b", "10.0.0.1"), ("c", "10.0.0.1"), ("c", "card"), ("d", "card")])

    assert all(accounts.linked(*pair) for pair in combinations("abcd", 2))
    assert set(accounts.links.organisations(accounts.root("a"))) == {"acme", "own of c", "own of d"}


@settings(max_examples=50, deadline=None)
@given(
    shown=st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["card", "voucher", *NETWORKS])), max_size=25
    ),
    order=st.randoms(use_true_random=False),
)
def test_the_order_in_which_tokens_are_shown_makes_no_difference(shown: list[tuple[str, str]], order: object) -> None:
    # a crowd at one of the addresses, so that links are taken back in between
    shown = [*shown, *((f"crowd-{index}", "10.0.0.3") for index in range(ACCOUNTS_PER_ADDRESS_MAX - 2))]
    shuffled = list(shown)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    organisations = {"a": "acme", "b": "acme", "crowd-0": "acme", "crowd-1": "bank"}
    first, second = Accounts(organisations), Accounts(organisations)

    first.show(shown)
    second.show(shuffled)

    for pair in combinations(sorted({client for client, _ in shown}), 2):
        assert first.linked(*pair) == second.linked(*pair), pair


@settings(max_examples=30, deadline=None)
@given(
    shown=st.lists(
        st.tuples(st.sampled_from([f"c{n}" for n in range(30)]), st.sampled_from(["card", "10.0.0.1", "10.0.0.2"])),
        max_size=120,
    )
)
def test_linked_are_those_whom_tokens_that_few_share_connect(shown: list[tuple[str, str]]) -> None:
    accounts = Accounts({f"c{n}": f"organisation {n // 3}" for n in range(12)})
    holders: dict[str, set[str]] = {}
    for client, token in shown:
        holders.setdefault(token, set()).add(accounts.organisation(client))
    counts = {token: len({client for client, one in shown if one == token}) for token in holders}
    groups = [{accounts.organisation(client)} for client, _ in shown]
    for token, found in holders.items():
        if token == "card" or counts[token] <= ACCOUNTS_PER_ADDRESS_MAX:
            touched = [group for group in groups if group & found]
            groups = [group for group in groups if not group & found] + [set().union(*touched)]

    accounts.show(shown)

    for first, second in combinations({client for client, _ in shown}, 2):
        pair = {accounts.organisation(first), accounts.organisation(second)}
        assert accounts.linked(first, second) == any(pair <= group for group in groups)


def test_an_address_that_more_than_20_accounts_share_is_no_link() -> None:
    accounts = Accounts()
    everybody = [f"c{index}" for index in range(ACCOUNTS_PER_ADDRESS_MAX)]
    accounts.show([(client, "10.0.0.1") for client in everybody])
    assert all(accounts.linked("c0", client) for client in everybody)
    root = accounts.root("c0")

    parted = accounts.address("one too many", "10.0.0.1")

    assert parted is not None
    assert parted.gone == root
    assert set(parted.roots) == set(parted.organisations) == {f"own of {client}" for client in everybody}
    assert not any(accounts.linked(*pair) for pair in combinations([*everybody, "one too many"], 2))
    assert accounts.address("later", "10.0.0.1") is None
    assert accounts.links.tokens("c0") == []


def test_accounts_of_one_organisation_at_one_address_are_no_crowd_that_parts_it() -> None:
    everybody = [f"c{index}" for index in range(ACCOUNTS_PER_ADDRESS_MAX + 5)]
    accounts = Accounts(dict.fromkeys(everybody, "acme"))

    assert [accounts.address(client, "10.0.0.1") for client in everybody] == [None] * len(everybody)
    assert accounts.linked("c0", "c24")


def test_parting_a_crowd_leaves_what_else_links() -> None:
    accounts = Accounts({"c0": "acme", "c1": "acme"})
    accounts.show([("c2", "10.9.9.9"), ("c3", "10.9.9.9")])

    accounts.show([(f"c{index}", "10.0.0.1") for index in range(ACCOUNTS_PER_ADDRESS_MAX + 1)])

    assert accounts.linked("c0", "c1")
    assert accounts.linked("c2", "c3")
    assert not accounts.linked("c1", "c2")
    assert not accounts.linked("c3", "c4")
    assert accounts.links.tokens("c2") == ["address:10.9.9.9"]


def test_what_changed_is_told_by_the_name_of_the_group_that_is_no_more() -> None:
    accounts = Accounts()
    assert accounts.payment("a", "card") is None
    change = accounts.payment("b", "card")
    assert change is not None
    assert {change.gone, *change.roots} == {"own of a", "own of b"}
    assert list(change.organisations) == [change.gone]
    assert accounts.payment("b", "card") is None
    kept = accounts.root("a")

    smaller = accounts.payment("c", "card")

    assert smaller == module.Change("own of c", {"own of c"}, (kept,))


def test_addresses_of_one_ipv6_subscriber_are_one_address() -> None:
    accounts = Accounts()
    accounts.show([("a", "2001:db8:0:1::17"), ("b", "2001:db8:0:1:ffff::1"), ("c", "2001:db8:0:2::17")])

    assert accounts.linked("a", "b")
    assert not accounts.linked("a", "c")


def test_an_ipv4_address_is_the_same_inside_ipv6() -> None:
    accounts = Accounts()
    accounts.address("a", "203.0.113.7")
    accounts.address("b", "::ffff:203.0.113.7")
    accounts.address("c", "::ffff:203.0.113.8")

    assert accounts.linked("a", "b")
    assert not accounts.linked("a", "c")


def test_what_is_no_address_links_as_it_stands() -> None:
    accounts = Accounts()
    accounts.address("a", "unix socket")
    accounts.address("b", "unix socket")

    assert accounts.linked("a", "b")


def test_an_account_cannot_link_itself_with_ever_more_addresses() -> None:
    accounts = Accounts()
    for index in range(2 * TOKENS_PER_ACCOUNT_MAX):
        accounts.address("wanderer", f"10.0.{index}.1")

    accounts.address("early", "10.0.5.1")
    accounts.address("late", f"10.0.{TOKENS_PER_ACCOUNT_MAX + 5}.1")

    assert accounts.linked("wanderer", "early")
    assert not accounts.linked("wanderer", "late")


def test_accounts_that_share_a_payment_are_linked_however_many_and_whatever_else_they_show() -> None:
    accounts = Accounts()
    for index in range(2 * ACCOUNTS_PER_ADDRESS_MAX):
        for address in range(TOKENS_PER_ACCOUNT_MAX + 6):
            accounts.address(f"c{index}", f"10.{index}.{address}.1")
        accounts.payment(f"c{index}", "card_7f3a")
    accounts.payment("other", "card_0000")

    assert len({accounts.root(f"c{index}") for index in range(2 * ACCOUNTS_PER_ADDRESS_MAX)}) == 1
    assert not accounts.linked("c0", "other")


def test_a_device_that_few_share_links_and_one_that_many_share_is_a_kind_of_device() -> None:
    accounts = Accounts()
    everybody = [f"c{index}" for index in range(ACCOUNTS_PER_ADDRESS_MAX)]
    for client in everybody:
        accounts.device(client, "phone")
    accounts.device("other", "tablet")
    assert all(accounts.linked("c0", client) for client in everybody)
    assert not accounts.linked("c0", "other")

    accounts.device("one too many", "phone")

    assert not any(accounts.linked(*pair) for pair in combinations([*everybody, "one too many"], 2))


def test_what_has_one_name_in_two_kinds_is_two_things() -> None:
    accounts = Accounts()
    accounts.device("a", "card")
    accounts.payment("b", "card")

    assert not accounts.linked("a", "b")


def test_a_tls_fingerprint_links_only_neighbours_who_come_within_one_hour() -> None:
    accounts = Accounts()
    accounts.tls("a", "203.0.113.7", 10 * TLS_SECONDS)
    accounts.tls("b", "203.0.113.250", 11 * TLS_SECONDS - 1)
    accounts.tls("in another block", "203.0.114.7", 10 * TLS_SECONDS)
    accounts.tls("an hour later", "203.0.113.7", 11 * TLS_SECONDS)
    accounts.tls("of another program", "203.0.113.7", 10 * TLS_SECONDS, "t13d1517h2")

    assert accounts.linked("a", "b")
    for other in ("in another block", "an hour later", "of another program"):
        assert not accounts.linked("a", other)


def test_a_tls_fingerprint_without_a_neighbourhood_links_nobody() -> None:
    assert tls_shown("t13d1516h2", "unix socket", 0.0) is None


def test_a_fingerprint_that_a_whole_neighbourhood_has_within_an_hour_is_no_link() -> None:
    accounts = Accounts()
    for index in range(ACCOUNTS_PER_ADDRESS_MAX):
        accounts.tls(f"c{index}", f"203.0.113.{index}", 0.0)
    assert accounts.linked("c0", "c1")

    accounts.tls("one too many", "203.0.113.200", 0.0)

    assert not accounts.linked("c0", "c1")


def test_hours_and_addresses_do_not_keep_a_device_from_linking() -> None:
    accounts = Accounts()
    for index in range(TOKENS_PER_ACCOUNT_MAX + 1):
        accounts.address("a", f"10.0.{index}.1")
        accounts.tls("a", "203.0.113.7", index * TLS_SECONDS)
    accounts.device("a", "phone")
    accounts.device("b", "phone")
    accounts.tls("late", "203.0.113.7", TOKENS_PER_ACCOUNT_MAX * TLS_SECONDS)

    assert accounts.linked("a", "b")
    assert not accounts.linked("a", "late")


def test_an_account_cannot_link_itself_with_ever_more_payments() -> None:
    accounts = Accounts()
    for index in range(2 * TOKENS_PER_ACCOUNT_MAX):
        accounts.payment("tester", f"card_{index}")
    accounts.payment("early", "card_5")
    accounts.payment("late", f"card_{TOKENS_PER_ACCOUNT_MAX + 5}")

    assert accounts.linked("tester", "early")
    assert not accounts.linked("tester", "late")


def test_of_a_large_group_nobody_but_the_newcomer_ever_changes_its_group() -> None:
    accounts = Accounts()

    told = [accounts.payment(f"c{index}", "card") for index in range(100)]

    assert [change.gone for change in told[2:] if change] == [f"own of c{index}" for index in range(2, 100)]
    assert len({accounts.root(f"c{index}") for index in range(100)}) == 1


def test_what_was_shown_lately_is_not_looked_up_and_takes_up_bounded_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEEN_MAX", 8)
    accounts = Accounts()
    for index in range(40):
        accounts.address(f"c{index}", "10.0.0.1")
        assert len(accounts.links._seen) + len(accounts.links._seen_before) <= 8
    looked_up: list[str] = []

    def nothing(query: str, values: object = ()) -> list[object]:
        looked_up.append(query)
        return []

    monkeypatch.setattr(accounts.links._scratch, "all", nothing)

    accounts.address("c39", "10.0.0.1")

    assert looked_up == []

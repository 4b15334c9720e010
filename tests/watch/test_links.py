"""Who is linked with whom: by organisation and tokens; parting crowds; in any order; in bounded memory."""

import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion.errors import StorageError
from palladion.watch import links as module
from palladion.watch import parting
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

    def rows(self, table: str) -> int:
        ((count,),) = self.links._scratch.all(f"SELECT count(*) FROM {table}")
        return int(count)

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


@pytest.mark.slow
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
    stayed, *left = parted.roots
    assert set(left) == set(parted.organisations)
    assert {stayed, *left} == {f"own of {client}" for client in everybody}
    assert not any(accounts.linked(*pair) for pair in combinations([*everybody, "one too many"], 2))
    assert accounts.address("later", "10.0.0.1") is None
    assert accounts.links.tokens("c0") == []


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    shown=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 9)), max_size=60),
    steps=st.integers(0, 3),
    page=st.integers(1, 3),
    most=st.integers(1, 3),
)
def test_groups_that_are_parted_step_by_step_are_never_too_small_and_right_in_the_end(
    shown: list[tuple[int, int]], steps: int, page: int, most: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ACCOUNTS_PER_ADDRESS_MAX", most)
        patch.setattr(module, "PARTING_STEPS", steps)
        patch.setattr(parting, "PAGE", page)
        accounts = Accounts({"c0": "acme", "c1": "acme", "c2": "bank", "c3": "bank"})
        holders: dict[str, set[str]] = {}
        roots: dict[str, set[str]] = {}  # as changes tell them
        for client, token in [(f"c{client}", f"10.0.0.{token}") for client, token in shown]:
            follow(roots, accounts.address(client, token), accounts)
            holders.setdefault(token, set()).add(client)
            for group in groups_of(holders, accounts, most):
                assert len({accounts.links.root(organisation) for organisation in group}) == 1
        patch.setattr(module, "PARTING_STEPS", 1)
        while accounts.links.parting:
            follow(roots, accounts.address(client, token), accounts)

        truth = groups_of(holders, accounts, most)
        everybody = {accounts.organisation(client) for client, _ in ((f"c{client}", 0) for client, _ in shown)}
        for first, second in combinations(sorted(everybody), 2):
            together = any({first, second} <= group for group in truth)
            assert (accounts.links.root(first) == accounts.links.root(second)) == together, (first, second)
        for root, members in roots.items():
            assert set(accounts.links.organisations(root)) == members


def follow(roots: dict[str, set[str]], change: module.Change | None, accounts: Accounts) -> None:
    """Keep book of groups by what is told of changes alone."""
    if change is None:
        return
    whole = roots.pop(change.gone, {change.gone})
    if len(change.roots) == 1:
        (root,) = change.roots
        assert whole == set(change.organisations)
        roots[root] = roots.get(root, {root}) | whole
        return
    stayed, *left = change.roots
    roots[stayed] = whole - set(change.organisations)
    found = {root: {one for one in change.organisations if accounts.links.root(one) == root} for root in left}
    assert set().union(*found.values()) == set(change.organisations)
    roots.update(found)


def groups_of(holders: dict[str, set[str]], accounts: Accounts, most: int) -> list[set[str]]:
    """Who is linked by tokens that few share, found the slow way."""
    groups: list[set[str]] = []
    for clients in holders.values():
        if len(clients) <= most:
            found = {accounts.organisation(client) for client in clients}
            touched = [group for group in groups if group & found]
            groups = [group for group in groups if not group & found] + [found.union(*touched)]
    return groups


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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["address", "payment", "device"])
def test_an_account_that_shows_a_thousand_tokens_is_linked_by_the_newest_and_takes_up_bounded_room(kind: str) -> None:
    accounts = Accounts()
    show = getattr(accounts, kind)
    for index in range(1000):
        show("wanderer", f"10.{index // 256}.{index % 256}.1")

    show("early", "10.0.5.1")
    show("late", f"10.{999 // 256}.{999 % 256}.1")

    assert accounts.linked("wanderer", "late")
    assert not accounts.linked("wanderer", "early")
    assert accounts.rows("holder") == TOKENS_PER_ACCOUNT_MAX + 2
    assert len(accounts.links.tokens("wanderer")) == TOKENS_PER_ACCOUNT_MAX


def test_a_token_that_was_forgotten_links_again_when_it_is_shown_again() -> None:
    accounts = Accounts()
    for index in range(TOKENS_PER_ACCOUNT_MAX + 1):
        accounts.address("wanderer", f"10.0.{index}.1")

    accounts.address("wanderer", "10.0.0.1")
    accounts.address("early", "10.0.0.1")

    assert accounts.linked("wanderer", "early")


def test_who_was_linked_stays_so_when_what_linked_is_forgotten_and_when_it_is_a_crowd_later() -> None:
    accounts = Accounts()
    accounts.address("neighbour", "10.0.0.1")
    for index in range(TOKENS_PER_ACCOUNT_MAX + 1):
        accounts.address("wanderer", f"10.0.{index}.1")
    assert accounts.linked("wanderer", "neighbour")

    for index in range(ACCOUNTS_PER_ADDRESS_MAX + 1):
        accounts.address(f"c{index}", "10.0.0.1")

    assert accounts.linked("wanderer", "neighbour")
    assert not accounts.linked("c0", "neighbour")


def test_whatever_is_forgotten_leaves_fewer_ties_than_there_are_organisations() -> None:
    accounts = Accounts()
    for index in range(3 * TOKENS_PER_ACCOUNT_MAX):
        for client in "abc":
            accounts.address(client, f"10.0.{index}.1")

    assert accounts.rows("tie") == 2 * 2
    assert accounts.rows("holder") == 3 * TOKENS_PER_ACCOUNT_MAX


def test_a_crowd_that_is_forgotten_by_an_account_is_still_a_crowd() -> None:
    accounts = Accounts()
    for index in range(ACCOUNTS_PER_ADDRESS_MAX + 1):
        accounts.address(f"c{index}", "10.9.9.9")
    for index in range(TOKENS_PER_ACCOUNT_MAX + 1):
        accounts.address("c0", f"10.0.{index}.1")

    accounts.address("c0", "10.9.9.9")
    accounts.address("later", "10.9.9.9")

    assert not accounts.linked("later", "c0")
    assert not accounts.linked("later", "c1")


def test_hours_that_are_past_and_linked_nobody_are_forgotten() -> None:
    accounts = Accounts()
    for hour in range(10):
        accounts.tls("a", "203.0.113.7", hour * TLS_SECONDS)
    assert accounts.links.tokens("a") == ["tls:t13d1516h2_8daaf6152771 203.0.113.0/24 9"]

    accounts.tls("b", "203.0.113.8", 9 * TLS_SECONDS)
    accounts.tls("a", "203.0.113.7", 10 * TLS_SECONDS)

    assert len(accounts.links.tokens("a")) == 2
    assert accounts.linked("a", "b")


@pytest.mark.slow
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
    accounts.device("a", "phone")
    for index in range(TOKENS_PER_ACCOUNT_MAX + 1):
        accounts.address("a", f"10.0.{index}.1")
        accounts.tls("a", "203.0.113.7", index * TLS_SECONDS)
    accounts.device("b", "phone")
    accounts.tls("late", "203.0.113.7", TOKENS_PER_ACCOUNT_MAX * TLS_SECONDS)

    assert accounts.linked("a", "b")
    assert accounts.linked("a", "late")


def test_two_tokens_that_end_close_together_leave_nobody_joined_whom_nothing_links() -> None:
    accounts = Accounts()
    cards = {"A": 200, "B": 300, "C": 10}
    for card, count in cards.items():
        for index in range(count):
            accounts.payment(f"{card}{index}", card)
    half = range(ACCOUNTS_PER_ADDRESS_MAX // 2)
    for index in half:
        accounts.address(f"A{index}", "10.0.0.1")
        accounts.address(f"B{index}", "10.0.0.1")
        accounts.device(f"A{10 + index}", "phone")
        accounts.device(f"C{index}", "phone")
    assert accounts.linked("A0", "B0")
    assert accounts.linked("A0", "C0")

    accounts.address("one too many", "10.0.0.1")
    searching = accounts.links.parting
    assert searching, "the search is to be under way when the next token ends"
    accounts.device("another", "phone")
    while accounts.links.parting:
        accounts.payment("somebody", "voucher")

    assert len({accounts.root(f"{card}0") for card in cards}) == len(cards)
    for card, count in cards.items():
        assert {accounts.root(f"{card}{index}") for index in range(count)} == {accounts.root(f"{card}0")}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_whatever_ends_while_groups_are_parted_the_parts_are_right_in_the_end(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = random.Random(seed)
    most = 3
    monkeypatch.setattr(module, "ACCOUNTS_PER_ADDRESS_MAX", most)
    monkeypatch.setattr(module, "PARTING_STEPS", generator.choice([1, 2, 5]))
    monkeypatch.setattr(parting, "PAGE", generator.choice([1, 2, 64]))
    everybody = [f"c{index}" for index in range(generator.randrange(8, 20))]
    accounts = Accounts({client: f"o{generator.randrange(len(everybody))}" for client in everybody})
    holders: dict[str, set[str]] = {}
    roots: dict[str, set[str]] = {}
    for _ in range(generator.randrange(60, 200)):
        client, address = generator.choice(everybody), f"10.0.0.{generator.randrange(12)}"
        follow(roots, accounts.address(client, address), accounts)
        holders.setdefault(address, set()).add(client)
    while accounts.links.parting:
        follow(roots, accounts.payment("c0", "voucher"), accounts)

    truth = groups_of(holders, accounts, most)
    for pair in combinations(sorted(set(accounts.organisations.values())), 2):
        together = any(set(pair) <= group for group in truth)
        assert (accounts.links.root(pair[0]) == accounts.links.root(pair[1])) == together, (seed, pair)
    for root, members in roots.items():
        assert set(accounts.links.organisations(root)) == members


def test_tokens_that_end_one_after_another_do_not_keep_a_group_from_being_parted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PARTING_STEPS", 8)  # a search takes longer than from one end to the next
    accounts = Accounts()
    for card in "AB":
        for index in range(400):
            accounts.payment(f"{card}{index}", card)
    for index in range(ACCOUNTS_PER_ADDRESS_MAX // 2):
        accounts.address(f"A{index}", "10.0.0.1")
        accounts.address(f"B{index}", "10.0.0.1")
    accounts.address("one too many", "10.0.0.1")
    assert accounts.linked("A0", "B0")

    for device in range(20):
        for index in range(ACCOUNTS_PER_ADDRESS_MAX + 1):
            accounts.device(f"A{index}", f"phone {device}")

    assert not accounts.linked("A0", "B0")


def test_a_change_is_followed_by_all_also_where_one_fails() -> None:
    followed: list[str] = []

    def fails(change: module.Change) -> None:
        followed.append("fails")
        raise StorageError("the disk is gone")

    with pytest.raises(StorageError, match="the disk is gone"):
        module.follow(module.Change("a", {"a"}, ("b",)), [fails, lambda change: followed.append(change.gone)])

    assert followed == ["fails", "a"]


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

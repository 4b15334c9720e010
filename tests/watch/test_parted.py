"""Groups that are parted while others ask: judged whole until their parts are ready, right to the last bit then."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from palladion.errors import FormatError, StorageError
from palladion.policy import WatchPolicy
from palladion.watch import coverage, links, parting, residents
from palladion.watch.campaigns import Group
from palladion.watch.client import ClientState
from palladion.watch.features import SCORES
from palladion.watch.links import ADDRESS, Shown
from palladion.watch.parted import Member, Parted
from palladion.watch.residents import Kept, Residents
from palladion.watch.rows import Rows
from palladion.watch.watch import Asked, Asker, Watch

from . import factories
from .shelves import Shelved

SEED = 941
NOW = 1_780_000_000.0
CLIENTS = 30
ORGANISATIONS = {f"c{n}": f"organisation {n // 2 if n < 8 else n}" for n in range(CLIENTS)}
POOL = factories.honest_rows(np.random.default_rng(SEED), 60)


class House:
    """A watch in which parting takes long: of every group one member is looked at for each request, of links little."""

    def __init__(
        self, patch: pytest.MonkeyPatch, *, group_horizon: int = 1000, at_once: int = 1, accounts: int = 3
    ) -> None:
        patch.setattr(links, "ACCOUNTS_PER_ADDRESS_MAX", accounts)
        patch.setattr(links, "PARTING_STEPS", 2)
        patch.setattr(parting, "PAGE", 2)
        patch.setattr(residents, "PARTED_AT_ONCE", at_once)
        about = replace(factories.ABOUT, horizon=10_000, group_horizon=group_horizon)
        self.shelf = Shelved(ORGANISATIONS)
        self.watch = Watch(WatchPolicy(alpha_watched=0.4, alpha_suspected=0.2, alpha_campaign=0.3))
        self.watch.watch_model("fraud", replace(factories.calibration(), about=about), self.shelf)

    @property
    def known(self) -> Residents:
        return self.watch._models["fraud"]

    def ask(self, client: str, rows: Iterable[int], address: str | None = None) -> None:
        inputs = POOL[list(rows)]
        asker = Asker(client, ORGANISATIONS[client], address)
        self.watch.observe_all("fraud", [Asked(asker, inputs, factories.answers(inputs))], now=NOW)

    def keep(self, *, nothing_stays: bool) -> None:
        self.shelf.put(self.watch.changes("fraud"))
        self.shelf.written()
        for _ in range(CLIENTS if nothing_stays else 0):
            self.known.shrink(0)

    def state(self, client: str) -> ClientState:
        entry = self.known._entries.get(client)
        return entry.state if entry is not None else self.known._decoded(client, self.shelf.saved[client])

    def finish(self) -> None:
        """Ask nothing new until everything is parted."""
        for _ in range(2000):
            if not self.watch._links.parting and self.known._parted.first is None:
                return
            self.ask("c29", [0], "203.0.113.29")
        pytest.fail("parting does not end")

    def check(self) -> None:
        """Each group holds what the states of its members add up to, and only members that are linked."""
        for root, group in self.known._groups.items():
            expected = Group(self.known._test, sums=np.zeros_like(group.sums))
            for client in sorted(group.members):
                assert self.watch._links.root(ORGANISATIONS[client]) == root
                expected.join(client, self.state(client))
            for name in ("count", "squares", "suspected", "covered"):
                assert getattr(group, name) == getattr(expected, name), (root, name)
            np.testing.assert_array_equal(group.sums, expected.sums)
            np.testing.assert_array_equal(group.bitmap, expected.bitmap)
            np.testing.assert_array_equal(group._all_shares(), expected._all_shares())
        assert self.known._absent == sum(len(group.absent) for group in self.known._groups.values())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("nothing_stays", [False, True])
def test_parts_are_what_their_members_add_up_to_whatever_happened_meanwhile(
    seed: int, nothing_stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(SEED + seed)
    house = House(monkeypatch, group_horizon=4 if seed % 2 else 1000)
    partings = 0
    for _ in range(200):
        client = f"c{generator.integers(CLIENTS - 1)}"
        address = f"203.0.113.{generator.integers(12)}" if generator.random() < 0.5 else None
        house.ask(client, generator.integers(0, len(POOL), generator.integers(0, 3)).tolist(), address)
        partings += house.known._parted.first is not None
        if generator.random() < 0.2:
            house.keep(nothing_stays=nothing_stays)
        if generator.random() < 0.02:
            house.watch.forgive(f"c{generator.integers(CLIENTS)}")
    house.finish()
    house.keep(nothing_stays=False)

    assert partings > 20, "nothing was parted for long: the test looks at nothing"
    house.check()


def test_until_its_parts_are_ready_a_group_is_judged_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(monkeypatch, accounts=20)
    everybody = [f"c{n}" for n in range(8, 28)]
    for client in everybody:
        house.ask(client, [1, 2, 3], "203.0.113.1")
    assert set(house.watch.members("c8", "fraud")) == set(everybody)

    house.ask("c28", [1], "203.0.113.1")
    for number in count():
        if house.watch._links.root("organisation 8") != house.watch._links.root("organisation 9"):
            break
        assert number < 100
        house.ask("c29", [0], "203.0.113.29")

    assert set(house.watch.members("c8", "fraud")) == set(everybody), "they are parted, but their parts are not ready"
    house.finish()
    assert set(house.watch.members("c8", "fraud")) == {"c8"}
    assert house.known._entries["c8"].state.pooled_count == 3


def test_a_small_group_is_parted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(monkeypatch, at_once=residents.PARTED_AT_ONCE)
    monkeypatch.setattr(links, "PARTING_STEPS", 128)
    for client in ("c8", "c9", "c10", "c11"):
        house.ask(client, [1, 2], "203.0.113.1")

    assert house.known._parted.first is None
    assert set(house.watch.members("c8", "fraud")) == {"c8"}


def states(count: int) -> dict[str, ClientState]:
    """Clients that have asked so much as members of a group."""
    generator = np.random.default_rng(SEED)
    found = {}
    for number in range(count):
        scores = np.round(generator.standard_normal((3 + number, len(SCORES))) * 2**20) / 2**20
        state = ClientState(pooled_sums=scores.sum(axis=0), pooled_count=len(scores), pooled_suspected=number)
        coverage.mark(state.bitmap, generator.integers(0, coverage.BUCKETS, 9).tolist())
        found[f"c{number}"] = state
    return found


def nobody() -> Group:
    return Group(factories.calibration().shares)


def group_of(members: dict[str, ClientState]) -> Group:
    group = nobody()
    for client, state in members.items():
        group.join(client, state)
    return group


def same(group: Group, expected: Group) -> bool:
    figures = [
        (found.members, found.count, found.squares, found.suspected, found.covered, found._all_shares().tolist())
        for found in (group, expected)
    ]
    return figures[0] == figures[1] and np.array_equal(group.sums, expected.sums)


def taking(members: dict[str, ClientState], roots: dict[str, str]) -> Callable[[str], Member | None]:
    """Finds all members in memory, of the parts of these roots."""
    return lambda client: Member(roots[client], members[client], in_memory=True)


def test_parts_that_are_linked_again_meanwhile_are_one() -> None:
    members = states(4)
    parted = Parted(group_of(members), nobody)
    parted.part("old", ["one", "other"])
    assert parted.take_next(3, taking(members, {"c0": "one", "c1": "other", "c2": "other"}))

    parted.join("other", "one")
    assert not parted.ready
    assert parted.take_next(3, taking(members, {"c3": "one"}))

    (part,) = parted.parts().values()
    assert (parted.ready, parted.roots) == (True, {"one"})
    assert same(part, group_of(members))
    assert part.states == members


def test_two_groups_that_were_parted_and_are_linked_meanwhile_are_judged_together() -> None:
    members = states(6)
    halves = [dict(list(members.items())[:3]), dict(list(members.items())[3:])]
    kept, gone = (Parted(group_of(half), nobody) for half in halves)
    kept.part("a", ["a", "b"])
    gone.part("c", ["c", "d"])
    kept.take_next(1, taking(members, {"c0": "a"}))
    gone.take_next(1, taking(members, {"c3": "c"}))

    kept.unite(gone)
    kept.join("c", "b")
    kept.take_next(9, taking(members, {"c1": "b", "c2": "b", "c4": "b", "c5": "d"}))

    assert same(kept.whole, group_of(members))
    parts = kept.parts()
    assert {root: set(part.members) for root, part in parts.items()} == {
        "a": {"c0"},
        "b": {"c1", "c2", "c3", "c4"},
        "d": {"c5"},
    }
    assert same(parts["b"], group_of({client: members[client] for client in ("c1", "c2", "c3", "c4")}))


def test_a_group_that_is_linked_with_a_part_is_judged_with_the_whole_and_stays_with_the_part() -> None:
    members = states(5)
    parted = Parted(group_of({client: members[client] for client in ("c0", "c1")}), nobody)
    parted.part("a", ["a", "b"])
    newcomers = group_of({client: members[client] for client in ("c2", "c3", "c4")})
    newcomers.leave_memory("c3")

    parted.absorb("new", newcomers, counted=True)
    parted.join("new", "b")
    parted.take_next(9, taking(members, {"c0": "a", "c1": "b"}))

    assert same(parted.whole, group_of(members))
    parts = parted.parts()
    assert same(parts["b"], group_of({client: members[client] for client in ("c1", "c2", "c3", "c4")}))
    assert parts["b"].states.keys() == {"c1", "c2", "c4"}
    assert parted.counted == {"b"}


def test_who_is_put_back_comes_in_with_what_it_has_by_then() -> None:
    members = states(3)
    parted = Parted(group_of(members), nobody)
    parted.part("a", ["a"])
    parted.take_next(9, taking(members, dict.fromkeys(members, "a")))

    parted.put_back("c1", "a", members["c1"])
    members["c1"].pooled_count += 5
    coverage.mark(members["c1"].bitmap, [77])
    parted.take_next(9, taking(members, dict.fromkeys(members, "a")))

    assert same(parted.parts()["a"], group_of(members))


def test_members_that_are_held_twice_count_as_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(monkeypatch, accounts=20)
    for n in range(8, 29):
        house.ask(f"c{n}", [1], "203.0.113.1")
    while house.known._parted.first is None:
        house.ask("c29", [0], "203.0.113.29")
    held = house.known.size

    house.finish()

    assert house.known.size <= held - 15 * residents.ABSENT_BYTES


def test_who_cannot_be_read_now_is_read_later_and_holds_up_nobody_else() -> None:
    members = states(4)
    parted = Parted(group_of(members), nobody)
    parted.part("a", ["a"])
    failing, asked = {"c1"}, []

    def find(client: str) -> Member:
        asked.append(client)
        if client in failing:
            raise StorageError("the disk is gone")
        return Member("a", members[client], in_memory=True)

    assert not parted.take_next(9, find)
    assert parted.take_next(2, find)
    assert (asked, parted.ready) == (["c0", "c1", "c2", "c3"], False)
    failing.clear()
    assert parted.take_next(9, find)

    assert parted.ready
    assert same(parted.parts()["a"], group_of(members))


def crowd_with_a_ring(patch: pytest.MonkeyPatch, *, members: int = 10) -> House:
    """Twenty accounts at one address, so many of one organisation; all saved, and nobody in memory."""
    for n in range(members):
        patch.setitem(ORGANISATIONS, f"c{n}", "ring")
    house = House(patch, accounts=20, at_once=3)
    for n in range(20):
        house.ask(f"c{n}", [n, n + 1, n + 2], "203.0.113.1")
    house.keep(nothing_stays=True)
    return house


def test_a_disk_that_fails_while_a_group_is_parted_loses_nobody_and_fails_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = crowd_with_a_ring(monkeypatch)
    house.ask("c28", [1], "203.0.113.1")
    house.ask("c29", [0], "203.0.113.29")
    get = house.shelf.get
    failed: list[str] = []

    def failing(client: str) -> Kept | None:
        if len(failed) < 12 and client not in {"c28", "c29"}:
            failed.append(client)
            raise StorageError("the disk is gone")
        return get(client)

    monkeypatch.setattr(house.shelf, "get", failing)
    house.finish()  # asks as somebody who has nothing to do with it

    assert len(failed) == 12, "nothing failed: the test looks at nothing"
    assert set(house.watch.members("c0", "fraud")) == {f"c{n}" for n in range(10)}
    house.check()
    assert house.known.group("c0").count == 10 * 3


def test_a_state_that_is_broken_fails_nobody_but_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    house = crowd_with_a_ring(monkeypatch)
    house.shelf.saved["c12"] = house.shelf.saved["c3"] = b"broken"
    house.ask("c28", [1], "203.0.113.1")

    house.finish()

    assert house.watch.members("c13", "fraud") == {"c13"}
    assert set(house.watch.members("c0", "fraud")) == {f"c{n}" for n in range(10) if n != 3}
    with pytest.raises(FormatError):
        house.ask("c12", [1])


def test_a_group_that_cannot_be_read_as_it_joins_a_part_comes_in_with_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    house = crowd_with_a_ring(monkeypatch)
    for n in range(20, 26):
        monkeypatch.setitem(ORGANISATIONS, f"c{n}", "their own")
        house.ask(f"c{n}", [n])
    house.keep(nothing_stays=True)
    assert house.watch._scratch.take_group("fraud", "their own") is not None
    house.ask("c28", [1], "203.0.113.1")
    while house.known._parted.first is None:
        house.ask("c29", [0], "203.0.113.29")
    house.ask("c13", [], "203.0.113.77")
    of = house.shelf.of

    def failing(organisation: str) -> list[tuple[str, bytes]]:
        raise StorageError("the disk is gone")

    change = house.watch._links.show("c20", "their own", Shown(ADDRESS, "203.0.113.77"))
    assert change is not None
    assert change.gone == "organisation 13"
    monkeypatch.setattr(house.shelf, "of", failing)
    with pytest.raises(StorageError):
        house.known.regroup(change)
    monkeypatch.setattr(house.shelf, "of", of)
    house.ask("c20", [])
    assert house.watch.members("c20", "fraud") >= {"c0", "c13", "c19"}, "it is judged with the whole"
    for n in range(21, 26):
        house.ask(f"c{n}", [])
    house.finish()

    assert set(house.watch.members("c13", "fraud")) == {"c13", *(f"c{n}" for n in range(20, 26))}
    house.check()


@pytest.mark.slow
@pytest.mark.parametrize("away", [False, True])
def test_a_part_whose_epoch_is_full_is_weighed_and_that_counts_whoever_joins_until_the_next_epoch(away: bool) -> None:
    generator = np.random.default_rng(97)
    stolen = [factories.mixing(generator, 200, 0.4).inputs for _ in range(5)]
    organisations = {f"r{n}": "ring" for n in range(7)} | {f"h{n}": f"own of {n}" for n in range(16)}
    about = replace(factories.ABOUT, horizon=10_000)
    watch = Watch(WatchPolicy())
    shelf = Shelved(organisations)
    watch.watch_model("fraud", replace(factories.calibration(), about=about), shelf)

    def ask(client: str, inputs: Rows, address: str | None = None) -> float:
        asker = Asker(client, organisations[client], address)
        observed = watch.observe_all("fraud", [Asked(asker, inputs, factories.answers(inputs))], now=NOW)
        return observed[0].evidence.campaign_p_value

    def put_away() -> None:
        shelf.put(watch.changes("fraud"))
        shelf.written()
        for _ in range(60):
            watch._models["fraud"].shrink(0)
        assert not watch._models["fraud"]._groups

    for n in range(15):
        ask(f"h{n}", factories.honest_rows(generator, 2), "203.0.113.1")
    for n in range(5):
        ask(f"r{n}", stolen[n][:1], "203.0.113.1")
    asked = int(1.6 * about.group_horizon)
    for at in range(1, asked):
        for n in range(5):
            ask(f"r{n}", stolen[n][at : at + 1])
    if away:
        put_away()

    ask("h15", factories.honest_rows(generator, 1), "203.0.113.1")  # one account too many: the ring is parted

    assert set(watch.members("r0", "fraud")) == {f"r{n}" for n in range(5)}
    group, state = watch._models["fraud"].group("r0"), watch._models["fraud"].find("r1")
    assert state is not None
    assert (group.count, state.pooled_count) == (0, 0)
    carried = group.p_value
    assert carried < 0.02
    assert ask("r0", stolen[0][asked : asked + 1]) == carried
    put_away()
    assert ask("r5", factories.honest_rows(generator, 1)) == carried, "a colleague takes nothing back"
    for _ in range(3):
        for n in range(6):
            last = ask(f"r{n}", factories.honest_rows(generator, about.group_horizon))
    assert last > carried
    assert ask("r6", factories.honest_rows(generator, 1)) > carried

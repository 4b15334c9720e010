"""States in memory and on a shelf: whichever they are in, what the watch says and saves is the same to the last bit."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion.errors import FormatError
from palladion.policy import WatchPolicy
from palladion.watch.client import ClientState
from palladion.watch.links import ACCOUNTS_PER_ADDRESS_MAX
from palladion.watch.residents import ABSENT_BYTES, Kept, Residents
from palladion.watch.watch import Asked, Asker, Watch

from . import factories
from .factories import CLASSES, INPUTS
from .shelves import Shelved

SEED = 149
NOW = 1_780_000_000.0
_ABOUT = replace(factories.ABOUT, horizon=9, group_horizon=4, simulated=False)  # epochs end all the time
CALIBRATION = replace(factories.calibration(), about=_ABOUT)
OTHER = replace(factories.calibration(seed=SEED), about=replace(_ABOUT, horizon=7))
SETTINGS: dict[str, Any] = {"alpha_watched": 0.2, "alpha_suspected": 0.05, "alpha_campaign": 0.05}
CLIENTS = 24
ORGANISATIONS = {f"c{n}": f"organisation {n // 3 if n < 12 else n}" for n in range(CLIENTS)}
_GENERATOR = np.random.default_rng(SEED)
POOL = np.concatenate([factories.honest_rows(_GENERATOR, 25), factories.noise(_GENERATOR, 25).inputs])
MODELS = ("fraud", "fraud@2")


class Gate:
    """A watch of two models, and the shelves that it is saved on; with `nothing_stays`, no state stays in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, nothing_stays: bool) -> None:
        self.monkeypatch, self.nothing_stays = monkeypatch, nothing_stays
        self.shelves = {model: Shelved(ORGANISATIONS) for model in MODELS}
        self.restart()

    def restart(self) -> None:
        self.watch = Watch(WatchPolicy(**SETTINGS))
        for model, calibration in zip(MODELS, (CALIBRATION, OTHER), strict=True):
            self.watch.watch_model(model, calibration, self.shelves[model])
        self.watch.join(*MODELS)

    def do(self, action: Callable[[Watch], object]) -> object:
        found = action(self.watch)
        self.shrink()
        return found

    def shrink(self) -> None:
        if self.nothing_stays:
            for known in self.watch._models.values():
                for _ in range(CLIENTS):
                    known.shrink(0)

    def keep(self, *, written: bool = True) -> dict[str, dict[str, bytes]]:
        saved = {model: self.watch.changes(model) for model in MODELS}
        for model in MODELS:
            self.shelves[model].put(saved[model])
            if written:
                self.shelves[model].written()
        self.shrink()
        return saved

    def saved(self) -> dict[str, dict[str, bytes]]:
        return {model: {**shelf.saved, **shelf.writing} for model, shelf in self.shelves.items()}


def _asking(client: int, rows: list[int]) -> Callable[[Watch], object]:
    return lambda watch: watch.observe_all(MODELS[0], [asked(client, rows)], now=NOW)


def asked(client: int, rows: list[int], shown: str = "") -> Asked:
    inputs = POOL[rows].reshape(len(rows), INPUTS)
    address, payment = (shown, None) if shown[:1].isdigit() else (None, shown or None)
    asker = Asker(f"c{client}", ORGANISATIONS[f"c{client}"], address, payment)
    return Asked(asker, inputs, factories.answers(inputs).reshape(len(rows), CLASSES))


CLIENT = st.integers(0, CLIENTS - 1)
REQUEST = st.builds(
    asked,
    client=CLIENT,
    rows=st.lists(st.integers(0, len(POOL) - 1), max_size=5),
    shown=st.sampled_from(["", "", "", "", "card", "203.0.113.7", "203.0.113.8"]),
)
STEP: st.SearchStrategy[tuple[Any, ...]] = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from(MODELS), st.lists(REQUEST, min_size=1, max_size=6)),
    st.tuples(st.just("ask"), st.just(MODELS[0]), st.lists(REQUEST, min_size=1, max_size=6)),
    st.tuples(st.just("crowd"), st.just(MODELS[0]), st.just([])),
    st.tuples(st.sampled_from(["forgive", "explain", "members"]), CLIENT, st.just([])),
    st.tuples(st.sampled_from(["keep", "keep", "keep", "begin keeping", "restart"]), st.just(0), st.just([])),
)


def step(gate: Gate, kind: str, what: Any, requests: list[Asked], now: float) -> object:
    """What comes of one step, as far as the two watches have to agree on it."""
    if kind == "ask":
        return gate.do(lambda watch: watch.observe_all(what, requests, now=now))
    if kind == "crowd":
        crowd = [asked(client, [client], "203.0.113.7") for client in range(ACCOUNTS_PER_ADDRESS_MAX + 2)]
        return gate.do(lambda watch: watch.observe_all(what, crowd, now=now))
    if kind == "forgive":
        return gate.do(lambda watch: watch.forgive(f"c{what}"))
    if kind == "explain":
        return gate.do(lambda watch: watch.explain(f"c{what}"))
    if kind == "members":
        return gate.do(lambda watch: [set(watch.members(f"c{what}", model)) for model in MODELS])
    if kind == "restart":
        gate.keep()
        gate.restart()
        return None
    return gate.keep(written=kind == "keep")


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(steps=st.lists(STEP, min_size=1, max_size=30))
def test_it_makes_no_difference_that_states_leave_memory(steps: list[tuple[str, Any, list[Asked]]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        small, large = Gate(patch, nothing_stays=True), Gate(patch, nothing_stays=False)
        for turn, (kind, what, requests) in enumerate(steps):
            assert step(small, kind, what, requests, NOW + turn) == step(large, kind, what, requests, NOW + turn), kind

        everybody = [
            (watch.explain(f"c{n}"), set(watch.members(f"c{n}", MODELS[0])))
            for watch in (small.watch, large.watch)
            for n in range(CLIENTS)
        ]
        assert everybody[:CLIENTS] == everybody[CLIENTS:]
        small.keep(), large.keep()
        assert small.saved() == large.saved()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_long_traffic_through_a_small_memory_ends_where_it_ends_in_a_large_one(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(SEED + seed)
    small, large = Gate(monkeypatch, nothing_stays=True), Gate(monkeypatch, nothing_stays=False)
    for turn in range(300):
        kind = str(
            generator.choice(
                ["ask", "keep", "begin keeping", "restart", "forgive", "crowd"], p=[0.75, 0.15, 0.04, 0.02, 0.03, 0.01]
            )
        )
        requests = [
            asked(
                int(generator.integers(CLIENTS)),
                generator.integers(0, len(POOL), generator.integers(1, 4)).tolist(),
                str(generator.choice(["", "card", "203.0.113.7", "203.0.113.8"], p=[0.9, 0.04, 0.03, 0.03])),
            )
            for _ in range(generator.integers(1, 8))
        ]
        what: Any = MODELS[int(generator.integers(2))] if kind in {"ask", "crowd"} else int(generator.integers(CLIENTS))
        assert step(small, kind, what, requests, NOW + turn) == step(large, kind, what, requests, NOW + turn), turn
    small.keep(), large.keep()
    assert small.saved() == large.saved(), f"seed {SEED + seed}"


def test_a_state_that_is_not_durable_yet_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch, nothing_stays=True)
    gate.do(lambda watch: watch.observe_all(MODELS[0], [asked(0, [1])], now=NOW))
    assert gate.watch.in_memory("c0")

    gate.keep(written=False)
    assert gate.watch.in_memory("c0")

    gate.shelves[MODELS[0]].written()
    gate.shrink()
    assert not gate.watch.in_memory("c0")
    assert gate.watch.residents == gate.watch.resident_bytes == 0


def test_who_asked_longest_ago_leaves_first_and_no_more_than_has_to(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch, nothing_stays=False)
    for client in (12, 13, 14, 12):
        gate.watch.observe_all(MODELS[0], [asked(client, [1, 2])], now=NOW)
    gate.keep()
    (known,) = (known for model, known in gate.watch._models.items() if model == MODELS[0])

    known.shrink(known.size - 1)

    assert [f"c{client}" in known for client in (12, 13, 14)] == [True, False, True]


def test_a_client_that_never_asked_costs_a_look_and_nothing_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch, nothing_stays=False)

    assert gate.watch.explain("c3") == []
    gate.watch.forgive("c3")

    assert list(gate.watch.members("c3", MODELS[0])) == []
    assert gate.watch.residents == 0


def test_starting_reads_no_state_and_asking_reads_those_of_the_organisation_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate(monkeypatch, nothing_stays=False)
    gate.watch.observe_all(MODELS[0], [asked(client, [client]) for client in range(CLIENTS)], now=NOW)
    gate.keep()
    shelf = gate.shelves[MODELS[0]]
    shelf.reads = []

    gate.restart()
    assert shelf.reads == []
    gate.watch.observe_all(MODELS[0], [asked(0, [1])], now=NOW)

    assert set(shelf.reads) == {"c0", "c1", "c2"}
    assert gate.watch.members("c0", MODELS[0]) == {"c0", "c1", "c2"}
    assert gate.watch.residents == 1


def test_parts_that_an_epoch_ended_while_their_client_was_away_count_no_more_after_a_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate(monkeypatch, nothing_stays=True)
    for client in (0, 1, 2):
        gate.do(_asking(client, [4 * client]))
    gate.keep()
    rows = list(range(25, 37))  # the epoch of three has room for twelve queries
    gate.do(lambda watch: watch.observe_all(MODELS[0], [asked(0, rows)], now=NOW))

    saved = gate.keep()[MODELS[0]]

    assert {client: ClientState.from_bytes(data).pooled_count for client, data in saved.items()} == {
        "c0": 2,  # rows beyond the epoch
        "c1": 0,
        "c2": 0,
    } or saved.keys() == {"c0", "c1", "c2"}
    assert all(not ClientState.from_bytes(saved[client]).pooled_sums.any() for client in ("c1", "c2"))


def test_of_members_that_are_away_no_more_are_put_right_at_once_than_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate(monkeypatch, nothing_stays=True)
    gate.do(lambda watch: watch.observe_all(MODELS[0], [asked(client, [client]) for client in (0, 1, 2)], now=NOW))
    gate.keep()
    gate.watch.forgive("c0")

    told = [gate.watch.changes(MODELS[0], absent_max=1).keys() for _ in range(3)]

    assert told == [{"c0", "c1"}, {"c2"}, set()] or told == [{"c0", "c2"}, {"c1"}, set()]


def test_a_saved_state_that_cannot_be_read_is_an_error_and_changes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch, nothing_stays=True)
    gate.do(lambda watch: watch.observe_all(MODELS[0], [asked(0, [1]), asked(1, [2])], now=NOW))
    gate.keep()
    gate.shelves[MODELS[0]].saved["c1"] = b"broken"
    gate.restart()

    with pytest.raises(FormatError):
        gate.watch.observe_all(MODELS[0], [asked(14, [3]), asked(1, [3])], now=NOW)

    assert gate.watch.changes(MODELS[0]) == {}


def test_ids_of_members_that_are_away_count_as_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch, nothing_stays=False)
    gate.watch.observe_all(MODELS[0], [asked(0, [1])], now=NOW)
    alone = gate.watch.resident_bytes
    gate.watch.observe_all(MODELS[0], [asked(1, [1]), asked(2, [1])], now=NOW)
    gate.keep()
    gate.restart()

    gate.watch.explain("c0")

    assert gate.watch.resident_bytes == pytest.approx(alone + 2 * ABSENT_BYTES, abs=600)


def test_states_of_a_mapping_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch, nothing_stays=False)
    gate.watch.observe_all(MODELS[0], [asked(14, [1])], now=NOW)
    watch = Watch(WatchPolicy(**SETTINGS))
    watch.watch_model(MODELS[0], CALIBRATION, gate.watch.changes(MODELS[0]))
    (known,) = watch._models.values()
    assert isinstance(known, Residents)

    known.shrink(0)

    assert len(known) == 1


def test_a_state_on_its_way_to_the_shelf_is_in_memory_from_the_start() -> None:
    shelf = Shelved(ORGANISATIONS)
    shelf.put({"c14": CALIBRATION.new_state().to_bytes()})
    watch = Watch(WatchPolicy(**SETTINGS))

    watch.watch_model(MODELS[0], CALIBRATION, shelf)

    assert watch.in_memory("c14")
    assert shelf.get("c14") == Kept("organisation 14", CALIBRATION.new_state().to_bytes())

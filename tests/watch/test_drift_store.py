"""Drift as the watch counts it: one client a group, over restarts and new calibrations; and the files it is kept in."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from palladion.clock import timestamp
from palladion.errors import FormatError, StorageError
from palladion.policy import WatchPolicy
from palladion.watch.drift import DRIFT_QUERIES, Drift
from palladion.watch.drift_store import BYTES_MAX, FOLDER, DriftStore, load_drift
from palladion.watch.instruments import Episode
from palladion.watch.text.query import Query
from palladion.watch.text.watched import WatchedTexts
from palladion.watch.watch import AskedTexts, Asker, Watch

from . import factories, talkers
from .shelves import Shelved
from .talkers import harvest
from .text import talk

SEED = 41
NOW = 1_780_000_000.0
CALIBRATION = factories.calibration()


def make(directory: Path | None = None, store: Shelved | None = None) -> Watch:
    watch = Watch(WatchPolicy(), drifts=DriftStore(directory))
    watch.watch_model("fraud", CALIBRATION, {} if store is None else store)
    return watch


def drift_of(watch: Watch) -> Drift:
    found = watch.drifts.watched["fraud"].drift
    assert found is not None
    return found


def ask(watch: Watch, client: str, episode: Episode, organisation: str | None = None) -> None:
    watch.observe(Asker(client, organisation or client), "fraud", episode.inputs, episode.scores, now=NOW)


def honest(number: int, queries: int = DRIFT_QUERIES) -> Episode:
    return factories.honest(np.random.default_rng([SEED, number]), queries)


def drift_away(watch: Watch) -> Drift:
    """Clients of another kind, until the claim is withdrawn."""
    for number in range(40):
        ask(watch, f"strange-{number}", factories.noise(np.random.default_rng(number)))
    return drift_of(watch)


def test_a_client_counts_when_it_has_asked_enough_and_never_again() -> None:
    watch = make()
    ask(watch, "a", honest(1, DRIFT_QUERIES - 1))
    assert drift_of(watch).clients == 0
    for number in range(2, 9):
        ask(watch, "a", honest(number))
    assert drift_of(watch).clients == 1


def test_it_counts_by_what_calibration_clients_were_measured_by() -> None:
    watch, taken = make(), []
    drift = drift_of(watch)
    episode = honest(1, 36)
    drift.take = lambda *what, now: taken.append((*what, now))  # type: ignore[method-assign]
    ask(watch, "a", episode)
    scores = CALIBRATION.instruments.score([episode])[0][:DRIFT_QUERIES]
    ((statistic, means, now),) = taken
    wanted = CALIBRATION.instruments.effects.statistic(scores.sum(axis=0)[None], np.array([DRIFT_QUERIES]))
    assert (statistic, now) == (float(wanted[0]), NOW)
    assert (means == scores.sum(axis=0) / DRIFT_QUERIES).all()


@pytest.mark.slow
def test_honest_clients_with_a_thief_among_twenty_withdraw_nothing() -> None:
    watch = make()
    for number in range(120):
        thief = factories.noise(np.random.default_rng(number), DRIFT_QUERIES)
        ask(watch, f"client-{number}", honest(number) if number % 20 else thief)
    drift = drift_of(watch)
    assert (drift.clients, drift.left) == (120, False), f"seed {SEED}"
    assert drift.e_value < 10


def test_calibration_clients_give_what_the_reference_holds() -> None:
    known = CALIBRATION.drift
    assert known is not None
    assert known.statistics.shape == (299,)
    assert known.scores.shape == (len(CALIBRATION.words), 299)
    assert (np.diff(known.scores, axis=1) >= 0).all()


def test_an_organisation_counts_once_however_many_accounts_it_has() -> None:
    watch = make()
    for number in range(12):
        ask(watch, f"account-{number}", honest(number), "acme")
    assert drift_of(watch).clients == 1
    ask(watch, "somebody", honest(50), "globex")
    assert drift_of(watch).clients == 2


def test_accounts_that_a_link_joins_count_once_if_one_was_counted() -> None:
    watch = make()
    ask(watch, "a", honest(1), "acme")
    ask(watch, "b", honest(2, 10), "globex")
    watch.link(Asker("a", "acme", payment="card"), now=NOW)
    watch.link(Asker("b", "globex", payment="card"), now=NOW)
    ask(watch, "b", honest(3), "globex")
    assert drift_of(watch).clients == 1


@pytest.mark.parametrize("memory", ["restart", "eviction"])
def test_an_organisation_that_was_counted_is_known_again(memory: str) -> None:
    store = Shelved({"a": "acme", "b": "acme", "c": "acme"})
    watch = make(store=store)
    ask(watch, "a", honest(1), "acme")
    ask(watch, "c", honest(4, 3), "acme")
    store.put(watch.changes("fraud"))
    store.written()
    if memory == "restart":
        watch = make(store=store)
    else:
        watch._models["fraud"].shrink(0)
    assert not watch.in_memory("a")
    counted = drift_of(watch).clients
    ask(watch, "b", honest(2), "acme")
    assert drift_of(watch).clients == counted


def test_enforcement_goes_on_when_the_claim_is_withdrawn() -> None:
    watch = Watch(WatchPolicy(alpha_watched=0.05, alpha_suspected=0.004))
    real = replace(CALIBRATION, about=replace(CALIBRATION.about, simulated=False))
    watch.watch_model("fraud", real, {})
    assert drift_away(watch).left
    thief = factories.noise(np.random.default_rng(1000))
    found = watch.observe(Asker("thief", "thief"), "fraud", thief.inputs, thief.scores, now=NOW)
    assert found.verdict.standing == "suspended"


def test_what_is_known_goes_on_after_a_restart(tmp_path: Path) -> None:
    watch = make(tmp_path)
    before = drift_away(watch)
    before.tell()
    watch.drifts.write(watch.drifts.changes())
    assert watch.drifts.changes() == []

    after = drift_of(make(tmp_path))

    assert (after.clients, after.left_at, after.told) == (before.clients, NOW, True)
    assert (after.capital == before.capital).all()
    assert (after.recent == before.recent).all()


@pytest.mark.slow
def test_a_new_calibration_begins_anew_and_the_old_one_goes_on_when_it_comes_back() -> None:
    watch = make()
    drift_away(watch)
    watch.watch_model("fraud", factories.calibration(seed=2), {})
    assert (drift_of(watch).clients, drift_of(watch).left) == (0, False)
    watch.watch_model("fraud", CALIBRATION, {})
    assert drift_of(watch).left


def test_a_calibration_of_few_clients_has_no_test() -> None:
    watch = Watch(WatchPolicy())
    watch.watch_model("fraud", replace(CALIBRATION, drift=None), {})
    ask(watch, "a", honest(1))
    assert watch.drifts.watched["fraud"].drift is None
    assert watch.drifts.watched["fraud"].left is None
    assert watch.drifts.watched["fraud"].figures()["tested"] is False
    watch.watch_model("fraud", None, {})
    assert not watch.drifts.watched


def test_people_are_told_since_when_and_what_moved() -> None:
    watch = make()
    assert watch.drifts.watched["fraud"].figures() == {"tested": True, "left_at": None, "clients": 0, "moved": []}
    drift = drift_away(watch)
    item = watch.drifts.watched["fraud"]
    assert item.subject == "fraud@3"
    assert item.left is drift
    figures = item.figures()
    assert figures["left_at"] == timestamp(datetime.fromtimestamp(NOW, UTC))
    assert figures["moved"] == drift.moved(CALIBRATION.words) != []


def _saved(directory: Path) -> Path:
    watch = make(directory)
    ask(watch, "a", honest(1))
    watch.drifts.write(watch.drifts.changes())
    (path,) = (directory / FOLDER).iterdir()
    return path


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"clients":1', b'"clients":-1'),
        (b'"clients":1', b'"clients":"one"'),
        (b'"format":"drift-1"', b'"format":"drift-0"'),
        (b'"recent":[', b'"recent":[0.5,'),
        (b'"capital":[[', b'"capital":[[0.5,'),
        (b'"left_at":0.0', b'"left_at":-1.0'),
        (b'"told":false', b'"told":false,"more":1'),
        (b"{", b""),
    ],
)
def test_a_file_that_was_not_written_here_is_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = _saved(tmp_path)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))
    with pytest.raises(FormatError) as caught:
        make(tmp_path)
    assert "begins anew" in caught.value.hints[0]


def test_a_file_of_another_calibration_is_refused(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    other = factories.calibration(seed=2).drift
    assert other is not None
    path.rename(path.with_name(f"{other.digest[:32]}.json"))
    with pytest.raises(FormatError, match="another calibration"):
        load_drift(tmp_path, other)


def test_while_a_gate_runs_a_file_that_changed_fails_nothing(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    store = DriftStore(tmp_path)
    path.write_bytes(b"broken")
    drift = store.watch("fraud", CALIBRATION)
    assert drift is not None
    assert drift.clients == 1
    (tmp_path / FOLDER / "other.json").write_bytes(b"broken")
    assert store.watch("other", factories.calibration(seed=2)) is not None


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    assert len(path.read_bytes()) < BYTES_MAX / 2
    path.write_bytes(b" " * (BYTES_MAX + 1))
    with pytest.raises(FormatError):
        make(tmp_path)


def test_what_could_not_be_written_stays_to_be_written(tmp_path: Path) -> None:
    watch = make(tmp_path)
    ask(watch, "a", honest(1))
    (tmp_path / FOLDER).write_bytes(b"in the way")
    with pytest.raises(StorageError):
        watch.drifts.write(watch.drifts.changes())
    (tmp_path / FOLDER).unlink()
    watch.drifts.write(watch.drifts.changes())
    assert drift_of(make(tmp_path)).clients == 1


def test_without_a_directory_nothing_is_written() -> None:
    watch = make()
    ask(watch, "a", honest(1))
    assert watch.drifts.changes() == []


@pytest.mark.slow
def test_clients_of_a_language_model_withdraw_it_when_they_change_and_only_then() -> None:
    calibration = WatchedTexts(talk.long_enough())
    watch = Watch(WatchPolicy())
    watch.watch_model("llama", calibration, {})
    item = watch.drifts.watched["llama"]
    assert item.drift is not None

    def asked(client: str, queries: Sequence[Query]) -> None:
        watch.observe_all("llama", [AskedTexts(Asker(client, client), queries)], now=NOW)

    for number, like in enumerate(talk.conversations(40, DRIFT_QUERIES + 8, 77)):
        asked(f"honest-{number}", like.queries)
    assert 30 < item.drift.clients <= 40  # who repeats itself does not get to so many distinct requests
    assert not item.drift.left
    for number in range(60):
        said = harvest(DRIFT_QUERIES, start=1000 * number)
        asked(f"other-{number}", said)
    assert item.left is item.drift
    assert item.figures()["moved"]
    assert item.subject == "m@1"
    unversioned = replace(calibration, calibration=replace(calibration.calibration, about=talkers.ABOUT))
    store = DriftStore()
    store.watch("llama", unversioned)
    assert store.watched["llama"].subject == "llama"


@pytest.mark.slow
def test_a_client_of_a_language_model_counts_by_what_calibration_clients_were_measured_by() -> None:
    made = talk.long_enough()
    watch, taken = Watch(WatchPolicy()), []
    watch.watch_model("llama", WatchedTexts(made), {})
    drift = watch.drifts.watched["llama"].drift
    assert drift is not None
    drift.take = lambda *what, now: taken.append(what)  # type: ignore[method-assign]
    (like,) = talk.conversations(1, DRIFT_QUERIES + 30, 78)
    watch.observe_all("llama", [AskedTexts(Asker("a", "a"), like.queries)], now=NOW)
    sums = made.instruments.score([like])[0][:DRIFT_QUERIES].sum(axis=0)
    ((statistic, means),) = taken
    effects = made.instruments.effects
    whole = effects.statistics(sums[None], np.array([DRIFT_QUERIES]))[0, 0]
    assert statistic == float(whole)
    assert (means == sums / DRIFT_QUERIES).all()

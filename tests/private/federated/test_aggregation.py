"""A round: the sum is exact, one site alone is noise, who drops out or lies changes no sum."""

from dataclasses import replace as other_terms
from typing import Any

import msgspec
import numpy as np
import pytest

from palladion.errors import InconclusiveError, TamperError
from palladion.private.federated import Summed, aggregate
from palladion.private.federated.site import Train

from .house import SIZE, Road, fixed, name_of, road_of, signer_of, terms_of, update_of

MODEL = np.zeros(SIZE, np.float32)
# numbers beyond their 99.9 % points: chi-square of 255 degrees of freedom
CHI_SQUARE_255 = 330.5


def _round(road: Road, number: int = 1, **options: Any) -> Summed:
    return aggregate(road.terms, number, MODEL, road.nodes, road.ask, **options)


def _expected(road: Road, numbers: list[int]) -> np.ndarray:
    quantum = road.terms.quantum
    # each site's update in whole steps, added: what must come out to the last bit
    return np.asarray(np.sum([np.trunc(update_of(number) * 1 / quantum) for number in numbers], axis=0) * quantum)


def test_the_sum_of_all_is_exact() -> None:
    road = road_of(terms_of())
    summed = _round(road)
    assert summed.survivors == tuple(sorted(road.sites))
    assert summed.dropped == {}
    assert np.array_equal(summed.total, _expected(road, list(range(10))))
    assert np.abs(summed.total - sum(update_of(number) for number in range(10))).max() < 10 * road.terms.quantum


@pytest.mark.parametrize("kind", ["Advertise", "AskShares", "AskUpdate"])
def test_who_drops_out_before_its_update_came_is_not_in_the_sum(kind: str) -> None:
    road = road_of(terms_of())
    road.lost = {(kind, name_of(3)), (kind, name_of(7))}
    summed = _round(road)
    rest = [number for number in range(10) if number not in {3, 7}]
    assert summed.survivors == tuple(sorted(map(name_of, rest)))
    assert set(summed.dropped) == {name_of(3), name_of(7)}
    assert np.array_equal(summed.total, _expected(road, rest))


@pytest.mark.parametrize("kind", ["AskAgreement", "AskReveal"])
def test_who_drops_out_after_its_update_came_is_in_the_sum(kind: str) -> None:
    road = road_of(terms_of())
    road.lost = {(kind, name_of(0))}
    summed = _round(road)
    assert name_of(0) in summed.survivors
    assert name_of(0) in summed.dropped
    assert np.array_equal(summed.total, _expected(road, list(range(10))))


@pytest.mark.parametrize("kind", ["Advertise", "AskShares", "AskUpdate", "AskAgreement", "AskReveal"])
def test_fewer_results_than_agreed_are_an_error_at_every_step(kind: str) -> None:
    road = road_of(terms_of())
    road.lost = {(kind, name_of(number)) for number in range(4)}
    with pytest.raises(InconclusiveError, match="6 results, 7 were agreed"):
        _round(road)


def test_no_results_at_all_are_an_error() -> None:
    road = road_of(terms_of())
    with pytest.raises(InconclusiveError, match="0 results"):
        aggregate(road.terms, 1, MODEL, [], road.ask)


def test_who_was_away_is_back_in_the_next_round() -> None:
    road = road_of(terms_of())
    road.lost = {("AskUpdate", name_of(3))}
    assert name_of(3) not in _round(road).survivors
    road.lost = set()
    summed = _round(road, 2)
    assert len(summed.survivors) == 10
    assert np.array_equal(summed.total, _expected(road, list(range(10))))


def test_what_the_server_sees_of_one_site_is_uniform() -> None:
    terms = terms_of(4, threshold=3, size=20_000)
    update = np.zeros(20_000)  # the least random there is
    road = road_of(terms, dict.fromkeys(range(4), fixed(update)))
    aggregate(terms, 1, np.zeros(20_000, np.float32), road.nodes, road.ask)
    first = [np.frombuffer(road.seen["AskUpdate", name_of(number)].masked, np.uint8) for number in range(4)]
    aggregate(terms, 2, np.zeros(20_000, np.float32), road.nodes, road.ask)
    second = np.frombuffer(road.seen["AskUpdate", name_of(0)].masked, np.uint8)
    for seen in [*first, second, first[0] ^ second, first[0] ^ first[1]]:
        counts = np.bincount(seen, minlength=256)
        expected = len(seen) / 256
        assert ((counts - expected) ** 2 / expected).sum() < CHI_SQUARE_255 * 1.2


def test_nothing_of_a_seed_or_key_is_revealed_twice_of_one_site() -> None:
    road = road_of(terms_of())
    road.lost = {("AskUpdate", name_of(3))}
    _round(road)
    revealed = road.seen["AskReveal", name_of(0)]
    assert set(revealed.keys) == {name_of(3)}
    assert not set(revealed.keys) & set(revealed.seeds)


def _change(**fields: Any) -> Any:
    return lambda message: msgspec.structs.replace(message, **fields)


def test_a_wrong_share_ends_the_round_with_the_name_of_who_revealed_it() -> None:
    road = road_of(terms_of())

    def wrong(reply: Any) -> Any:
        share = reply.seeds[name_of(5)]
        seeds = {**reply.seeds, name_of(5): bytes([share[0]]) + bytes(byte ^ 1 for byte in share[1:])}
        return msgspec.structs.replace(reply, seeds=seeds)

    road.changed = {("AskReveal", name_of(2)): wrong}
    with pytest.raises(TamperError, match="site-2 revealed another share of site-5's"):
        _round(road)


def test_a_wrong_seed_ends_the_round_with_the_name_of_who_shared_it() -> None:
    road = road_of(terms_of())
    road.changed = {("AskUpdate", name_of(4)): _change(seed_digest=bytes(32))}
    with pytest.raises(TamperError, match="site-4 shared another seed"):
        _round(road)


def test_a_node_whose_keys_another_identity_signed_is_left_out_by_name() -> None:
    road = road_of(terms_of())
    road.changed = {("Advertise", name_of(4)): _change(mask_key=bytes(range(32)))}
    summed = _round(road)
    assert name_of(4) not in summed.survivors
    assert "keys of site-4 are not signed" in summed.dropped[f"node node of {name_of(4)}"]


def test_strangers_that_connect_end_no_round_and_fill_no_memory() -> None:
    road = road_of(terms_of())
    strangers = [f"stranger {number}" for number in range(200)]

    def ask(bodies: Any) -> Any:
        known = {node: body for node, body in bodies.items() if node in road.nodes}
        return {**road.ask(known), **{node: b"noise" for node in bodies if node not in known}}

    summed = aggregate(road.terms, 1, MODEL, [*strangers, *road.nodes], ask)
    assert len(summed.survivors) == 10
    assert len(summed.dropped) == 64


def test_a_server_that_shows_sites_other_keys_is_noticed_by_all() -> None:
    road = road_of(terms_of())

    def swapped(question: Any) -> Any:
        adverts = [
            msgspec.structs.replace(item, cipher_key=bytes(range(32))) if item.site == name_of(9) else item
            for item in question.adverts
        ]
        return msgspec.structs.replace(question, adverts=adverts)

    road.asked = {("AskShares", name_of(number)): swapped for number in range(10)}
    with pytest.raises(InconclusiveError, match=r"0 results.*keys of site-9 are not signed"):
        _round(road)


def test_two_nodes_of_one_site_end_the_round() -> None:
    road = road_of(terms_of())
    nodes = [*road.nodes]

    def twice(bodies: Any) -> Any:
        answered = road.ask(bodies)
        return {**answered, nodes[1]: answered[nodes[0]]}

    with pytest.raises(TamperError, match="two nodes say that they are site-0"):
        aggregate(road.terms, 1, MODEL, nodes, twice)


def test_an_update_of_another_length_ends_the_round_with_the_name() -> None:
    road = road_of(terms_of())
    road.changed = {("AskUpdate", name_of(6)): _change(masked=bytes(4 * SIZE - 4))}
    with pytest.raises(TamperError, match="site-6 sent a masked update of another form"):
        _round(road)


def test_a_sum_beyond_what_clipped_updates_come_to_is_refused() -> None:
    road = road_of(terms_of())

    def poison(update: Any) -> Any:
        masked = np.frombuffer(update.masked, "<u4") + np.uint32(road.terms.levels)
        return msgspec.structs.replace(update, masked=masked.astype("<u4").tobytes())

    road.changed = {("AskUpdate", name_of(6)): poison, ("AskUpdate", name_of(7)): poison}
    with pytest.raises(TamperError, match="clipped ones reach"):
        _round(road)


def test_an_update_with_nan_never_leaves_its_site() -> None:
    broken = update_of(1).copy()
    broken[7] = np.nan
    road = road_of(terms_of(), {1: fixed(broken)})
    summed = _round(road)
    assert name_of(1) not in summed.survivors
    assert "NaN" in summed.dropped[name_of(1)]
    assert np.array_equal(summed.total, _expected(road, [0, *range(2, 10)]))


def test_a_large_update_is_clipped_by_its_site() -> None:
    road = road_of(terms_of(), {1: fixed(update_of(1) * 1e6)})
    difference = _round(road).total - _expected(road, [0, *range(2, 10)])
    assert 0.999 < np.linalg.norm(difference) <= 1.0


def test_each_site_gets_its_own_copy_of_the_model() -> None:
    got: dict[int, np.ndarray] = {}

    def keep(number: int) -> Train:
        def train(model: np.ndarray, _round: int) -> np.ndarray:
            got[number] = model
            return update_of(number)

        return train

    road = road_of(terms_of(), {number: keep(number) for number in range(10)})
    _round(road, copy_for=lambda site, model: model + int(site[-1]))
    assert all(np.array_equal(got[number], MODEL + number) for number in range(10))


def test_noise_has_the_deviation_that_the_terms_say() -> None:
    terms = terms_of(size=4000, noise_multiplier=2.0)
    road = road_of(terms, seed=5)
    summed = aggregate(terms, 1, np.zeros(4000, np.float32), road.nodes, road.ask)
    noise = summed.total - sum(update_of(number, 4000) for number in range(10))
    # ten sites add what seven would have to
    assert noise.std() == pytest.approx(2.0 * (10 / 7) ** 0.5, rel=0.05)


def test_a_site_of_other_terms_is_left_out() -> None:
    road = road_of(terms_of())
    theirs = other_terms(road.terms, clip=3.0)
    from palladion.private.federated import Site

    road.sites[name_of(2)] = Site(theirs, name_of(2), signer_of(2), fixed(update_of(2)))
    summed = _round(road)
    assert name_of(2) not in summed.survivors
    assert any("other terms" in reason for reason in summed.dropped.values())


def test_bytes_are_counted_by_site() -> None:
    road = road_of(terms_of())
    received = _round(road).received
    assert set(received) == set(road.sites)
    assert min(received.values()) > 4 * SIZE

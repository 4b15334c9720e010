"""What a site does not do, whatever the server asks: another round, other terms, two sums, both halves of a secret."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from palladion.errors import InconclusiveError
from palladion.private.federated import Site, aggregate
from palladion.private.federated.messages import (
    Advert,
    Advertise,
    Agreement,
    AskAgreement,
    AskReveal,
    Message,
    Refused,
    decode_reply,
    encode,
)
from palladion.private.federated.terms import Terms

from .house import SIZE, Road, fixed, name_of, road_of, signer_of, terms_of, update_of

MODEL = np.zeros(SIZE, np.float32)


def _said(road: Road, number: int, question: Message) -> Any:
    name = name_of(number)
    data, road.states[name] = road.sites[name].answer(encode(question), road.states.get(name, b""))
    return decode_reply(data, road.terms, name)


def _head(terms: Terms, number: int = 1) -> dict[str, Any]:
    return {"terms": terms.digest, "round": number}


def _summed(road: Road, number: int = 1) -> Any:
    return aggregate(road.terms, number, MODEL, road.nodes, road.ask)


def _changed(**fields: Any) -> Any:
    return lambda question: msgspec.structs.replace(question, **fields)


def test_a_round_is_trained_once() -> None:
    road = road_of(terms_of(5))
    _summed(road)
    reply = _said(road, 0, Advertise(**_head(road.terms)))
    assert isinstance(reply, Refused)
    assert "trained already" in reply.reason


def test_a_site_that_lost_its_state_still_trains_no_round_twice(tmp_path: Path) -> None:
    terms = terms_of(5)
    road = road_of(terms)
    journal = tmp_path / "rounds"
    road.sites[name_of(0)] = Site(terms, name_of(0), signer_of(0), fixed(update_of(0)), journal=journal)
    _summed(road, 2)
    assert journal.read_bytes() == b"2\n"
    road.states.clear()
    assert isinstance(_said(road, 0, Advertise(**_head(terms, 2))), Refused)
    assert isinstance(_said(road, 0, Advertise(**_head(terms, 3))), Advert)


def test_two_trainings_at_once_get_one_update_of_a_round(tmp_path: Path) -> None:
    # a server that starts two of Flower's runs has two states of a site, and asks in both before either is trained
    terms = terms_of(5)
    one, other = road_of(terms), road_of(terms)
    for number in range(5):
        journal = tmp_path / name_of(number)
        site = Site(terms, name_of(number), signer_of(number), fixed(update_of(number)), journal=journal)
        one.sites[name_of(number)] = other.sites[name_of(number)] = site

    def first_the_other_run(question: Any) -> Any:
        if ("AskUpdate", name_of(0)) not in other.seen:
            other.seen["AskUpdate", name_of(0)] = None
            _summed(other)
        return question

    one.asked = {("AskUpdate", name_of(0)): first_the_other_run}
    with pytest.raises(InconclusiveError, match=r"0 results.*trained already"):
        _summed(one)
    assert not isinstance(other.seen["AskUpdate", name_of(0)], Refused)


def test_who_gave_keys_of_the_next_round_reveals_nothing_more_of_the_last() -> None:
    road = road_of(terms_of(5))
    summed = aggregate(road.terms, 1, MODEL, road.nodes, road.ask, go_on=True)
    assert summed.following is not None
    signatures = {name: road.seen["AskAgreement", name].signature for name in road.sites}
    said = _said(road, 0, AskReveal(**_head(road.terms), signatures=signatures))
    assert isinstance(said, Refused)
    assert "not in round 1" in said.reason


def test_keys_of_a_round_beyond_the_last_are_not_given() -> None:
    road = road_of(terms_of(5, rounds=1))
    road.asked = {("AskReveal", name_of(0)): _changed(advertise_next=True)}
    _summed(road)
    assert road.seen["AskReveal", name_of(0)].next is None


def test_a_journal_that_cannot_be_read_stops_the_site(tmp_path: Path) -> None:
    terms = terms_of(5)
    road = road_of(terms)
    (tmp_path / "rounds").write_text("none")
    site = Site(terms, name_of(0), signer_of(0), fixed(update_of(0)), journal=tmp_path / "rounds")
    road.sites[name_of(0)] = site
    reply = _said(road, 0, Advertise(**_head(terms)))
    assert isinstance(reply, Refused)
    assert "no journal" in reply.reason


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("Advertise", {"terms": bytes(32)}, "other terms"),
        ("AskShares", {"adverts": []}, "0 sites take part"),
        ("AskUpdate", {"sealed": {}, "digests": {}}, "1 sites shared keys"),
        ("AskUpdate", {"model": bytes(4)}, "the model has 1 numbers"),
        ("AskUpdate", {"round": 2}, "not in round 2"),
        ("AskAgreement", {"survivors": [name_of(n) for n in range(2)]}, "a sum of 2 updates"),
        ("AskAgreement", {"survivors": [name_of(n) for n in range(1, 5)]}, "leaves this one out"),
        ("AskAgreement", {"survivors": [*map(name_of, range(4)), "stranger"]}, "counts in sites"),
        ("AskReveal", {"signatures": {}}, "0 sites agreed"),
        ("AskReveal", {"signatures": {name_of(n): bytes(64) for n in range(5)}}, "agreement of site-0 are not"),
    ],
)
def test_a_site_refuses(kind: str, change: dict[str, Any], reason: str) -> None:
    road = road_of(terms_of(5))
    road.asked = {(kind, name_of(0)): _changed(**change)}
    try:
        _summed(road)
    except InconclusiveError:
        pytest.fail("one site alone ended the round")
    said = road.seen[kind, name_of(0)]
    assert isinstance(said, Refused)
    assert reason in said.reason


def test_a_site_signs_one_set_of_survivors_and_then_reveals_nothing() -> None:
    road = road_of(terms_of(5))
    road.lost = {("AskReveal", name_of(0))}
    _summed(road)
    fewer = AskAgreement(**_head(road.terms), survivors=[name_of(n) for n in range(4)])
    same = AskAgreement(**_head(road.terms), survivors=sorted(road.sites))
    assert isinstance(_said(road, 0, same), Agreement)
    said = _said(road, 0, fewer)
    assert isinstance(said, Refused)
    assert "two different sums" in said.reason
    signatures = {name: road.seen["AskAgreement", name].signature for name in road.sites}
    assert isinstance(_said(road, 0, AskReveal(**_head(road.terms), signatures=signatures)), Refused)


def test_shares_that_were_changed_on_the_way_are_refused_with_the_senders_name() -> None:
    road = road_of(terms_of(5))

    def broken(question: Any) -> Any:
        sealed = {**question.sealed, name_of(3): bytes(len(question.sealed[name_of(3)]))}
        return msgspec.structs.replace(question, sealed=sealed)

    road.asked = {("AskUpdate", name_of(0)): broken}
    summed = _summed(road)
    assert "site-3 sealed for site-0 do not open" in summed.dropped[name_of(0)]


def test_shares_beside_other_digests_are_refused_with_the_senders_name() -> None:
    road = road_of(terms_of(5))

    def broken(question: Any) -> Any:
        digests = {**question.digests, name_of(3): (bytes(32), bytes(32))}
        return msgspec.structs.replace(question, digests=digests)

    road.asked = {("AskUpdate", name_of(0)): broken}
    assert "site-3 sent other shares" in _summed(road).dropped[name_of(0)]


def test_no_more_rounds_than_agreed() -> None:
    road = road_of(terms_of(5, rounds=2))
    said = _said(road, 0, Advertise(**_head(road.terms, 3)))
    assert isinstance(said, Refused)
    assert "2 were agreed" in said.reason


def test_bytes_that_are_no_question_are_refused() -> None:
    road = road_of(terms_of(5))
    for data in (b"", b"\xff" * 50, bytes(100_000)):
        reply, _ = road.sites[name_of(0)].answer(data, b"")
        assert isinstance(decode_reply(reply, road.terms, "it"), Refused)


def test_a_mark_of_its_own_is_added_after_the_noise_and_no_larger_than_agreed() -> None:
    terms = terms_of(5, mark_max=0.5)
    road = road_of(terms)
    mark = np.full(SIZE, 0.4 / SIZE**0.5)
    trains = fixed(update_of(0))
    road.sites[name_of(0)] = Site(terms, name_of(0), signer_of(0), trains, mark=fixed(mark))
    road.sites[name_of(1)] = Site(terms, name_of(1), signer_of(1), fixed(update_of(1)), mark=fixed(mark * 2))
    summed = _summed(road)
    assert "a mark has the norm 0.8" in summed.dropped[name_of(1)]
    expected = sum(update_of(number) for number in (0, *range(2, 5))) + mark
    assert np.abs(summed.total - expected).max() < 20 * terms.quantum


def test_a_site_of_another_key_than_the_terms_pin_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="pin another key"):
        Site(terms_of(5), name_of(0), signer_of(1), fixed(update_of(0)))

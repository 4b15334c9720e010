"""Who is there: what a node says of itself is believed where its pinned key signed it for this round, and once."""

import msgspec
import pytest

from palladion.errors import TamperError
from palladion.private.federated.masks import Round
from palladion.private.federated.messages import Refused, decode_reply, encode
from palladion.private.federated.present import STRANGERS_MAX, Present

from .house import Road, name_of, road_of, terms_of


def _present(road: Road, number: int = 1) -> Present:
    return Present(road.terms, Round(road.terms.digest, number))


def _said(road: Road, number: int = 1) -> dict[str, bytes]:
    return road.ask(dict.fromkeys(road.nodes, _present(road, number).question()))


def test_sites_are_known_by_their_keys_and_sorted_by_name() -> None:
    road = road_of(terms_of(4, threshold=3))
    present = _present(road)
    present.heard(dict(reversed(_said(road).items())))
    assert list(present.sorted_adverts()) == sorted(road.sites)
    assert present.nodes[name_of(2)] == f"node of {name_of(2)}"


def test_keys_of_an_earlier_round_are_not_believed() -> None:
    road = road_of(terms_of(4, threshold=3))
    present = _present(road, 2)
    present.heard(_said(road, 1))
    assert present.adverts == {}
    assert "in another round than 2" in present.dropped[f"node {road.nodes[0]}"]


def test_refusals_and_noise_are_kept_as_reasons_and_not_without_end() -> None:
    road = road_of(terms_of(4, threshold=3))
    present = _present(road)
    refused = encode(Refused(terms=road.terms.digest, round=1, reason="closed"))
    present.heard({"a": refused, **{f"{number}": b"noise" for number in range(200)}})
    assert present.dropped["node a"] == "closed"
    assert len(present.dropped) == STRANGERS_MAX


def test_one_site_on_two_nodes_is_an_error_at_once_and_a_return_later() -> None:
    road = road_of(terms_of(4, threshold=3))
    said, present = _said(road), _present(road)
    with pytest.raises(TamperError, match="two nodes say that they are site-0"):
        present.heard({"one": said[road.nodes[0]], "other": said[road.nodes[0]]})
    present = _present(road)
    present.heard(said)
    present.heard({"new": said[road.nodes[0]]})
    assert present.nodes[name_of(0)] == "new"


def test_early_keys_are_checked_like_others() -> None:
    road = road_of(terms_of(4, threshold=3))
    node, present = road.nodes[0], _present(road)
    present.asked.add(node)
    advert = decode_reply(_said(road)[node], road.terms, name_of(0))
    present.heard_early(node, msgspec.structs.replace(advert, cipher_key=bytes(range(32))))  # type: ignore[arg-type]
    assert (present.adverts, present.asked) == ({}, set())
    present.heard_early(node, advert)  # type: ignore[arg-type]
    assert set(present.adverts) == {name_of(0)}

"""Terms that cannot hold are a mistake; those that can have one digest, and cost what the accountant says."""

import math
from dataclasses import fields, replace
from typing import Any

import pytest

from palladion.private.dp.accounting import epsilon_of
from palladion.private.federated import Terms
from palladion.private.federated.terms import ROUNDING
from tests.small_order import WEAK

from .house import signer_of, terms_of


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"threshold": 5}, "not above half"),
        ({"threshold": 11}, "not above half"),
        ({"threshold": 7, "colluding": 4}, "not above half"),
        ({"clip": 0.0}, "clip"),
        ({"clip": float("nan")}, "clip"),
        ({"noise_multiplier": -1.0}, "noise"),
        ({"delta": 1.0}, "δ is 1.0"),
        ({"size": 0}, "counts"),
        ({"rounds": 10**9}, "counts"),
        ({"rows_max": 5}, "a site is one unit"),
        ({"unit": "example", "rows_max": 10**6, "noise_multiplier": 0.01}, "grid would show"),
    ],
)
def test_terms_that_cannot_hold_are_a_mistake(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        terms_of(**changes)


def test_two_sites_are_too_few() -> None:
    keys = {"a": signer_of(0).public_key, "b": signer_of(1).public_key}
    with pytest.raises(ValueError, match="of two, each knows the other's"):
        Terms("s", keys, 1, 1, 2, 1.0)


def test_two_sites_of_one_key_are_a_mistake() -> None:
    keys = {name: signer_of(0).public_key for name in "abc"}
    with pytest.raises(ValueError, match="key of its own"):
        Terms("s", keys, 1, 1, 2, 1.0)


def test_the_digest_is_of_every_field() -> None:
    terms = terms_of(noise_multiplier=1.0)
    changes: dict[str, Any] = {
        "session": "other",
        "sites": {**terms.sites, "site-0": signer_of(99).public_key},
        "size": 51,
        "rounds": 6,
        "threshold": 8,
        "clip": 1.5,
        "unit": "example",
        "noise_multiplier": 2.0,
        "delta": 1e-6,
        "colluding": 1,
        "mark_max": 0.1,
    }
    assert set(changes) == {field.name for field in fields(terms)} - {"rows_max"}
    digests = {replace(terms, **{name: value}).digest for name, value in changes.items()}
    digests |= {terms.digest, replace(terms, unit="example", rows_max=2).digest}
    assert len(digests) == len(changes) + 2


def test_what_rounds_cost_is_what_the_accountant_says() -> None:
    terms = terms_of(noise_multiplier=4.0)
    spent = terms.spent(5)
    assert spent is not None
    # a hair more than for continuous noise of the whole deviation: the discrete one is a smaller one, rounded
    smaller = 4.0 * math.sqrt(1 - (ROUNDING * terms.quantum / 4.0) ** 2)
    assert epsilon_of(4.0, 1.0, 5, 1e-5).epsilon < spent.epsilon == epsilon_of(smaller, 1.0, 5, 1e-5).epsilon
    assert terms_of().spent(5) is None


@pytest.mark.parametrize("weak", WEAK, ids=["order 1", "order 8"])
def test_a_site_for_which_anybody_can_sign_is_a_mistake(weak: bytes) -> None:
    terms = terms_of()
    with pytest.raises(ValueError, match="the key of site-0 is no Ed25519 public key"):
        replace(terms, sites={**terms.sites, "site-0": weak})

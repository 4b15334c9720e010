"""Many clients together: found where none is named alone, never in a stranger, whatever the clients do."""

import math

import numpy as np
import pytest

from palladion.lifecycle.campaign import SHARES, CampaignTest, prove_campaign
from palladion.lifecycle.prove import LOG10_P_MAX
from palladion.mark.answers.noise import client_key, mark_scores
from palladion.mark.answers.students import Asked, read_replies, trace

SEED = 20261126
ROOT = bytes(range(32))
CLIENTS, QUERIES, STRENGTH = 30, 40, 0.6


def _asked(client: int) -> Asked:
    """What a client asked, where the model is unsure (40, 3)."""
    generator = np.random.default_rng([SEED, client])
    first = generator.integers(0, 3, QUERIES)
    scores = np.full((QUERIES, 3), -5.0)
    everywhere = np.arange(QUERIES)
    scores[everywhere, first] = generator.uniform(0.1, 1.5, QUERIES)
    scores[everywhere, (first + 1) % 3] = 0.0
    hashes = [bytes([client, row]) + bytes(14) for row in range(QUERIES)]
    return Asked(scores, np.zeros(QUERIES, np.bool_), hashes, np.full(QUERIES, STRENGTH))


def _traced(client: int, name: str) -> float:
    """log10 p of a client's own secret, in a suspect that learned by heart what the account `name` was told."""
    asked = _asked(client)
    marked = mark_scores(
        asked.scores,
        client_key(ROOT, name, "fraud", 1),
        asked.hashes,
        strengths=asked.strengths,
        probabilities=asked.probabilities,
    )
    return trace(asked, read_replies(marked.labels, asked), client_key(ROOT, f"client {client}", "fraud", 1)).log10_p


@pytest.mark.slow
def test_accounts_of_which_none_is_named_alone_are_found_together() -> None:
    alone = [_traced(client, f"client {client}") for client in range(CLIENTS)]
    assert min(alone) > LOG10_P_MAX
    together = prove_campaign(alone)
    assert together.found
    assert together.tests == CLIENTS
    # and among three times as many clients who have nothing to do with it
    strangers = [_traced(client, "somebody else") for client in range(3 * CLIENTS)]
    assert prove_campaign(alone + strangers).found
    assert prove_campaign(alone + strangers).share < prove_campaign(alone).share


@pytest.mark.slow
def test_a_suspect_that_learned_from_nobody_here_is_no_evidence() -> None:
    strangers = [_traced(client, "somebody else") for client in range(4 * CLIENTS)]
    assert prove_campaign(strangers).log10_p > -1


@pytest.mark.slow
def test_clients_that_stop_while_they_are_ahead_and_others_that_begin_then_do_not_lower_it() -> None:
    generator, found = np.random.default_rng(SEED), []
    for _ in range(1000):
        logs: list[float] = []
        while len(logs) < 20:
            log_e = 0.0
            # an answer doubles the evidence or takes two thirds of it, so its mean stays; a client goes on until it is
            # ahead, and one that is far behind is given up for the next
            for _ in range(30):
                log_e += math.log10(2) if generator.random() < 0.4 else math.log10(1 / 3)
                if not -1 < log_e < 0.5:
                    break
            logs.append(min(0.0, -log_e))
        found.append(prove_campaign(logs).log10_p)
    assert np.mean(np.array(found) <= -1) <= 0.1
    assert np.mean(np.array(found) <= -2) <= 0.01


def test_it_is_the_mean_over_shares_of_one_factor_for_each_client() -> None:
    values = [1 - share + share * 1e3 for share in SHARES]
    expected = np.mean([value**2 * (1 - share) for value, share in zip(values, SHARES, strict=True)])
    found = prove_campaign([-3.0, 0.0, -3.0])
    assert found.log10_p == pytest.approx(-math.log10(expected))
    assert prove_campaign([-3.0, -3.0, 0.0]) == found


def test_a_client_more_without_evidence_only_costs() -> None:
    alone = [-2.0] * 20
    assert prove_campaign(alone).log10_p < prove_campaign([*alone, 0.0]).log10_p < prove_campaign(alone[1:]).log10_p


def test_evidence_beyond_all_floats_is_added_up() -> None:
    assert prove_campaign([-4000.0, -4000.0]).log10_p == pytest.approx(-8000, abs=2)


def test_no_client_is_no_evidence() -> None:
    assert prove_campaign([]) == CampaignTest(0, 0.0, SHARES[0])
    assert not prove_campaign([0.0]).found
    assert prove_campaign([0.0]).log10_p == 0


@pytest.mark.parametrize("value", [0.1, math.nan, -math.inf])
def test_what_is_no_log10_p_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="0 or below"):
        prove_campaign([-1.0, value])

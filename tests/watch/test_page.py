"""docs/watch.md says what the code does: its features, its settings, its numbers, and what a calibration file holds."""

import re
from pathlib import Path

import pytest

from palladion.access import networks
from palladion.policy import WatchPolicy
from palladion.redteam import calibrate
from palladion.registry.rows import Standing
from palladion.watch import (
    atypical,
    calibration,
    campaign_list,
    client,
    coverage,
    features,
    links,
    manner,
    memory,
    newcomers,
    own_past,
    residents,
    scores,
    shares,
    suspicion,
)
from palladion.watch.calibration_file import encode_calibration
from palladion.watch.response import STANDINGS, Evidence, judge

from . import factories, few, test_manner

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "watch.md").read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under that first heading."""
    table = PAGE.partition(f"| {heading} |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


def test_every_score_is_listed_with_its_meaning_in_order() -> None:
    listed = [(name.strip("`"), meaning.rstrip(" |")) for name, meaning in rows("feature")]
    assert listed == list(features.SCORES.items())


def test_every_manner_is_listed_with_its_meaning_in_order() -> None:
    listed = [(name.strip("`"), meaning.rstrip(" |")) for name, meaning in rows("how it asks")]
    assert listed == list(manner.MANNERS.items())


def test_every_setting_is_listed() -> None:
    assert [name.strip("`") for name, _ in rows("setting of `[watch]`")] == list(WatchPolicy.__struct_fields__)


@pytest.mark.parametrize(
    "sentence",
    [
        f"at most {features.DIRECTIONS_MAX}, holding {features.VARIANCE_KEPT:.0%} of the variance".replace("%", " %"),
        f"client's last {memory.DIGESTS} queries is not counted",
        f"digests of the last {memory.DIGESTS} queries, coordinates of the last {memory.RING} distinct ones",
        f"cut off at ± {scores.CLIP:.0f}",
        f"W has a ridge of {suspicion.RIDGE}",
        f"further out than {1 - atypical.RATE:.0%} of them".replace("%", " %"),
        f"it scores {atypical.BEYOND:.0f}, and any other",
        f"by no more than {shares.CLIP:.0f} of them",
        f"`CORRELATION` sets ρ = {suspicion.CORRELATION}",
        f"Nobody is weighed before {client.QUERIES_MIN} queries",
        "organisations of 2, 3, 5 and 10 equal members",
        f"from {calibrate.FEW_CLIENTS_MIN} recorded clients on",
        f"at least {own_past.CLIENTS_MIN} calibration clients",
        f"of the last {client.PAST_EPOCHS} epochs at most",
        f"| device | at most {links.ACCOUNTS_PER_ADDRESS_MAX} accounts |",
        f"one /{networks.SUBSCRIBER_BITS} network",
        f"Of each kind an account's last {links.TOKENS_PER_ACCOUNT_MAX} tokens count",
        f"from the states of their members, {residents.PARTED_AT_ONCE} with each request",
        f"two or more of the first {campaign_list.LINKED_MAX} by name",
        f"{coverage.BITS} secret random hyperplanes cut the whitened space into {coverage.BUCKETS:,} buckets",
        f"a bitmap of {coverage.BITMAP_BYTES // 1024} KiB",
        f"at most {client.STATE_BYTES_MAX // 1024} KiB are kept",
        f"more than {features.INPUTS_MAX} numbers",
        f"{manner.HABITS_BYTES} bytes are kept of each client",
        f"the share of the last {manner.LAST} answers",
        f"Up to {newcomers.BLOCK_MAX} in a row",
        f"from the {newcomers.BLOCK_MIN}th on",
        f"It needs {newcomers.CLIENTS_MIN} of them",
        f"fewer than {calibration.QUERIES_OF_CLIENT_MIN} distinct queries gives none",
    ],
)
def test_numbers_are_those_of_the_code(sentence: str) -> None:
    assert sentence in TEXT


def test_numbers_that_the_page_spells_out_are_those_of_the_code() -> None:
    assert calibration.MEMBER_SIZES == (2, 3, 5, 10)
    assert scores.STEPS == 2**20
    assert calibrate.FIT_SHARE == 0.25
    assert "steps of 2⁻²⁰" in TEXT
    assert "A quarter of them is fitted to" in TEXT


def test_the_table_of_standings_is_what_evidence_asks_for() -> None:
    policy = WatchPolicy(simulated_may_enforce=True, suspend_campaigns=True)
    asked: list[Standing] = [
        judge(evidence, policy).standing
        for evidence in (
            Evidence(p_value=policy.alpha_watched),
            Evidence(campaign_p_value=policy.alpha_campaign),
            Evidence(p_value=policy.alpha_suspected, suspected=policy.degrade_after),
            Evidence(p_value=policy.alpha_suspected, suspected=policy.suspend_after),
            Evidence(budget_spent=True),
        )
    ]

    assert [row[1] for row in rows("evidence")] == asked
    assert set(asked) == set(STANDINGS) - {"trusted"}


def test_every_array_of_a_calibration_file_is_listed() -> None:
    made = (
        factories.calibration(clients=newcomers.CLIENTS_MIN, organisations=3),
        few.calibration(),
        test_manner.calibration(),
    )
    data = b"".join(map(encode_calibration, made))
    held = set(re.findall(r'"([a-z0-9_.]+)":{"dtype"', data.decode("latin-1")))

    listed = set()
    for names, *_ in rows("arrays"):
        prefix = ""
        for name in re.findall(r"`([a-z0-9_.]+)`", names):
            prefix = prefix if name.startswith(".") else name.partition(".")[0]
            listed.add(prefix + name if name.startswith(".") else name)

    assert listed == held

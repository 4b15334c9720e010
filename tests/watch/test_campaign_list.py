"""Campaigns as they are listed: who is in each, what links them, and none twice."""

from collections.abc import Collection

import numpy as np
import pytest

from palladion.policy import WatchPolicy
from palladion.watch import campaign_list
from palladion.watch.campaign_list import list_campaigns
from palladion.watch.watch import Asker, Watch

from .factories import calibration, foreign, honest


@pytest.fixture
def watch() -> Watch:
    """Two linked thieves, two linked honest clients by address and payment, and one alone."""
    made = Watch(WatchPolicy())
    made.watch_model("fraud", calibration(), {})
    askers = [
        Asker("t1", "ring"),
        Asker("t2", "ring"),
        Asker("h1", "one", "192.0.2.1", "visa-1234", "phone-1"),
        Asker("h2", "two", "192.0.2.1", "visa-1234", "phone-1"),
        Asker("alone", "three", "198.51.100.9"),
    ]
    for number, asker in enumerate(askers):
        asked = (foreign if asker.organisation == "ring" else honest)(np.random.default_rng(number), 12)
        made.observe(asker, "fraud", asked.inputs, asked.scores, now=1.0)
    return made


CLIENTS = ["alone", "h1", "h2", "t1", "t2", "never-asked"]


def test_campaigns_are_listed_once_the_most_suspicious_first(watch: Watch) -> None:
    thieves, others = list_campaigns(watch, CLIENTS)
    assert (thieves.members, thieves.size, thieves.links) == (("t1", "t2"), 2, ("organisation:ring",))
    assert others.members == ("h1", "h2")
    assert thieves.p_value < others.p_value
    assert (thieves.model, thieves.queries) == ("fraud", 24)
    assert thieves.covered > 0
    assert thieves.reasons


def test_what_links_is_said_but_no_means_of_payment_and_no_device(watch: Watch) -> None:
    links = list_campaigns(watch, CLIENTS)[1].links
    assert links == ("address:192.0.2.1", "device", "payment")


def test_of_many_members_and_links_the_first_are_shown(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign_list, "MEMBERS_SHOWN_MAX", 1)
    monkeypatch.setattr(campaign_list, "LINKS_SHOWN_MAX", 1)
    campaign = list_campaigns(watch, CLIENTS)[1]
    assert (campaign.members, campaign.size, len(campaign.links)) == (("h1",), 2, 1)


def test_of_very_many_members_the_links_of_the_first_are_looked_up(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign_list, "LINKED_MAX", 1)
    asked: list[int] = []
    between = watch.links_between

    def counted(clients: Collection[str]) -> dict[str, int]:
        asked.append(len(clients))
        return between(clients)

    monkeypatch.setattr(watch, "links_between", counted)

    campaign = list_campaigns(watch, CLIENTS)[1]

    assert asked == [1, 1]
    assert (campaign.size, campaign.links) == (2, ())

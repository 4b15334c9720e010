"""The control of differential privacy: what is stated of training, and what noise on answers assumes."""

from dataclasses import replace
from typing import Any

import pytest

from palladion.incident.posture.models import differential_privacy
from palladion.incident.posture.view import View
from tests.incident.posture.views import NOW, VERSION, policy

BARE = replace(VERSION, privacy=None)
NOISE: dict[str, Any] = {"mechanism": "noisy-max"}


def _view(version: Any, privacy: dict[str, Any] | None) -> View:
    route = {"model": "fraud"} | ({} if privacy is None else {"privacy": privacy})
    return View(policy(route=[route]), NOW, served=(version,))


@pytest.mark.parametrize(
    ("version", "privacy", "state"),
    [
        (BARE, None, "off"),
        (VERSION, None, "on"),
        (BARE, NOISE, "on"),
        (BARE, NOISE | {"sensitivity": 0.5}, "partly"),
        (VERSION, NOISE | {"sensitivity": 0.5}, "on"),
    ],
)
def test_a_served_version_is_private_by_a_statement_or_by_noise_that_assumes_nothing(
    version: Any, privacy: dict[str, Any] | None, state: str
) -> None:
    assert differential_privacy(_view(version, privacy)).state == state


def test_a_statement_is_told_as_a_claim() -> None:
    (told,) = differential_privacy(_view(VERSION, None)).evidence
    assert told == "fraud@1: trained with ε = 4 at δ = 1e-4 for each example, stated by ada (not proved)"


def test_without_a_served_version_there_is_nothing_to_say() -> None:
    assert differential_privacy(View(policy(), NOW)).state == "off"

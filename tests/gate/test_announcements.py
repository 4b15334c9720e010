"""What is said of a route: from whose traffic its calibration is, and who is served another version."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from palladion.gate.announcements import calibrated_on, nobodys_said, routes_said
from palladion.gate.served import Served
from palladion.policy import ContractPolicy, Policy, RoutePolicy, WatchPolicy
from palladion.policy.privacy import PrivacyPolicy

from .gates import House, open_gate


@dataclass
class _Item:
    subject: str = "fraud@1"
    calibration: Any = None
    on_trial: Any = field(default=None)


def _calibration(clients: int, *, simulated: bool) -> Any:
    instruments = SimpleNamespace(features=SimpleNamespace(layers=()))
    return SimpleNamespace(about=SimpleNamespace(clients=clients, simulated=simulated), instruments=instruments)


@pytest.mark.parametrize(
    ("calibration", "text"),
    [
        (None, "uncalibrated"),
        (_calibration(40, simulated=True), "calibrated on 40 simulated clients"),
        (_calibration(1200, simulated=False), "calibrated on 1200 real clients"),
    ],
)
def test_a_calibration_says_whose_it_is(calibration: Any, text: str) -> None:
    assert calibrated_on(cast(Served, _Item(calibration=calibration))) == text


def test_a_version_on_trial_is_named_with_its_share() -> None:
    other = _Item("fraud@2", _calibration(40, simulated=True))
    trial = SimpleNamespace(served=other, row=SimpleNamespace(percent=10))
    said = calibrated_on(cast(Served, _Item(on_trial=trial)))
    assert said == "uncalibrated; 10 % of the clients are served fraud@2, calibrated on 40 simulated clients"


def test_a_private_route_says_what_its_noise_is_worth() -> None:
    route = RoutePolicy(model="fraud", path="/a", privacy=PrivacyPolicy(mechanism="noisy-max", sensitivity=0.5))
    item = SimpleNamespace(route=route, subject="fraud", calibration=None, on_trial=None, noise=object(), version=None)
    stages = SimpleNamespace(policy=SimpleNamespace(watch=WatchPolicy()))
    gate: Any = SimpleNamespace(served={"/a": item}, waiting={}, stages=stages)
    models: Any = SimpleNamespace(policies=[], purposes={})
    (_, said) = routes_said(gate, models, "http://g")
    assert said.startswith("/a: private answers: noisy-max, ε 0.1 an answer, 8 a client, 64 in all")
    assert "by more than 0.5, which nobody proved; it was not trained privately, as far as is known" in said


def test_every_route_is_said_with_what_answers_there() -> None:
    item = SimpleNamespace(
        route=SimpleNamespace(mode="enforce", route="/a"),
        subject="fraud@1",
        calibration=None,
        on_trial=None,
        noise=None,
    )
    late = SimpleNamespace(route=SimpleNamespace(mode="observe", upstream="http://127.0.0.1:1"))
    chats = [
        SimpleNamespace(mode="observe", path="/x/", model=model, upstream="http://127.0.0.1:2")
        for model in ("llama", "other")
    ]
    stages = SimpleNamespace(policy=SimpleNamespace(watch=WatchPolicy()))
    gate: Any = SimpleNamespace(served={"/a": item}, waiting={"/b": late}, stages=stages)
    models: Any = SimpleNamespace(policies=chats, purposes={"llama": "one"})
    assert list(routes_said(gate, models, "http://g")) == [
        "enforce http://g/a: fraud@1, uncalibrated",
        "observe http://g/b: waits for http://127.0.0.1:1",
        "observe http://g/x/v1 (model llama): answered by http://127.0.0.1:2, calibrated",
        "observe http://g/x/v1 (model other): answered by http://127.0.0.1:2, uncalibrated",
    ]


def test_a_contract_of_nobody_is_told(house: House) -> None:
    directory = open_gate(house).gate.stages.directory
    policy = Policy(contract=(ContractPolicy(client="acme"), ContractPolicy(client="acme/wbe")))
    assert list(nobodys_said(policy, directory)) == ["warning: there is no client acme/wbe, which has a contract"]

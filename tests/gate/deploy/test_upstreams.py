"""Rules around model servers: what they let through, read by nft where it is there, and by Kubernetes' schema."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from palladion.errors import PolicyError
from palladion.gate.deploy.plan import Address
from palladion.gate.deploy.upstreams import GATE_NAME, SERVER_NAME, model_servers, network_policy, rules
from palladion.policy import Policy, RoutePolicy

from .test_kubernetes import KUBERNETES

HERE, THERE = Address("127.0.0.1", 8000), Address("10.0.0.5", 9000, secure=True)
GATE = "192.0.2.7"


def test_servers_are_those_of_routes_each_once() -> None:
    routes = tuple(
        RoutePolicy(model=f"m{number}", upstream=upstream)
        for number, upstream in enumerate(["http://127.0.0.1:8000", "http://127.0.0.1:8000", "unix:/run/m.sock", ""])
    )
    assert model_servers(Policy(route=routes)) == [HERE]
    with pytest.raises(PolicyError, match="no route asks a model server by a port"):
        model_servers(Policy(route=routes[2:]))


def test_each_machine_has_rules_of_its_own() -> None:
    both = rules([THERE, HERE, HERE], gate=GATE, user="gate")
    assert both.keys() == {GATE_NAME, SERVER_NAME}
    assert 'tcp dport { 8000 } meta skuid != "gate" reject' in both[GATE_NAME]
    assert "9000" not in both[GATE_NAME]
    assert "policy drop" not in both[GATE_NAME]
    assert f"tcp dport {{ 9000 }} ip saddr != {GATE} drop" in both[SERVER_NAME]
    assert "8000" not in both[SERVER_NAME]
    assert rules([HERE], gate=GATE, user="gate").keys() == {GATE_NAME}
    assert "ip6 saddr != 2001:db8::7 drop" in rules([THERE], gate="2001:db8::7", user="gate")[SERVER_NAME]


@pytest.mark.parametrize("address", ["gate.example", "", "192.0.2.7; drop", "192.0.2.0/24"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(PolicyError, match="is no address"):
        rules([THERE], gate=address, user="gate")


def test_a_user_writes_no_rule() -> None:
    with pytest.raises(PolicyError, match="the user cannot be written"):
        rules([HERE], gate=GATE, user='gate" accept #')


@pytest.mark.slow
@pytest.mark.parametrize("gate", [GATE, "2001:db8::7"])
def test_nft_reads_them(tmp_path: Path, gate: str) -> None:
    nft = shutil.which("nft", path=f"{os.environ['PATH']}:/usr/sbin")
    if nft is None or os.geteuid() != 0:
        pytest.skip("this needs nftables, and root, without whom nft checks nothing")
    for name, text in rules([HERE, THERE], gate=gate, user="nobody").items():
        (tmp_path / name).write_text(text)
        done = subprocess.run([nft, "-c", "-f", tmp_path / name], capture_output=True, text=True, check=False)
        if "Operation not permitted" in done.stderr:
            pytest.skip("this machine lets nobody look at its rules")
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_schema_of_kubernetes_is_met() -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="this needs kubernetes-validate")
    yaml = pytest.importorskip("yaml", reason="this needs pyyaml")
    document = yaml.safe_load(network_policy([HERE, THERE]))
    validator.validate(document, KUBERNETES, strict=True)
    assert document["spec"]["egress"] == []
    assert [port["port"] for port in document["spec"]["ingress"][0]["ports"]] == [8000, 9000]

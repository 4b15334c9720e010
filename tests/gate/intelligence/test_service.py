"""Feeds in a gate as it runs: real processes, real addresses of the loopback, the command beside them."""

import json
from pathlib import Path

import pytest

from palladion.cli.main import main
from palladion.gate.intelligence.weights import PURPOSE, read_granted
from palladion.ledger.record import Record, decode_record
from palladion.policy import RoutePolicy
from tests.gate.gates import MODEL, House
from tests.gate.service import configure, serving, wait_until

pytestmark = pytest.mark.service

_FEED = '\n[[feed]]\nname = "near"\nfile = "near.txt"\nkind = "tor"\nweight = 1.0\n'


@pytest.fixture
def mine(house: House, tmp_path: Path) -> House:
    """A house with a feed that lists one address of the loopback, refreshed by the command."""
    copied = house.copy(tmp_path)
    configure(copied, RoutePolicy(model=MODEL, mode="enforce"))
    paths = copied.installation.paths
    paths.policy.write_text(paths.policy.read_text() + _FEED)
    (paths.home / "near.txt").write_text("127.0.0.2\n")
    assert main(["--home", str(paths.home), "intel", "refresh"]) == 0
    return copied


def _records(house: House) -> list[Record]:
    return [decode_record(data, what="it") for _, data in house.installation.read_ledger().entries()]


def test_who_comes_from_a_listed_address_is_told_of_and_answered_like_others(
    mine: House, capsys: pytest.CaptureFixture[str]
) -> None:
    home = str(mine.installation.paths.home)
    with serving(mine) as service:
        wait_until(lambda: bool((mine.installation.server_status() or {}).get("feeds")))
        for address in ("127.0.0.2", "127.0.0.3", "127.0.0.2"):
            assert service.ask(address=address).status == 200
        assert service.ask(client="globex", address="127.0.0.3").status == 200
        capsys.readouterr()
        assert main(["--home", home, "watch", "explain", "acme"]) == 0
        assert "  address listed by near, version " in capsys.readouterr().out
        assert main(["--home", home, "watch", "explain", "globex", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["listed"] == []
        assert service.terminate() == 0
    (hit,) = [record for record in _records(mine) if record.kind == "intel.hit"]
    assert (hit.actor, hit.details["feed"], hit.details["log_odds"]) == ("gate", "near", "1.0000")
    assert "127.0.0.2" not in str(hit.details)
    with mine.installation.open_registry() as registry, registry.read() as records:
        granted = read_granted(records.gate_states.load(PURPOSE))
    assert list(granted) == [mine.ids["acme"]]
    assert 0 < granted[mine.ids["acme"]] <= 0.2  # what two clients gave up


def test_a_broken_store_does_not_keep_a_gate_from_serving(mine: House) -> None:
    (data,) = (mine.installation.paths.directory / "intel" / "near").glob("*.data")
    data.write_bytes(b"127.0.0.0/8\n")
    with serving(mine) as service:
        wait_until(lambda: "near" in (mine.installation.server_status() or {}).get("feed_faults", {}))
        assert service.ask(address="127.0.0.2").status == 200
        assert service.terminate() == 0
    assert "feed near" in service.complaints
    assert [record.subject for record in _records(mine) if record.kind == "intel.refreshed"][-1] == "feed:near"
    assert "intel.hit" not in [record.kind for record in _records(mine)]

"""Finding an installation and opening its rooms."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from palladion import canonical
from palladion.clock import ManualClock
from palladion.errors import BusyError, FormatError, InstallationError, KeysError, PolicyError, TamperError
from palladion.keys import Ed25519Signer
from palladion.ledger.audit import verify_ledger
from palladion.ledger.checkpoint import VerifierKey, parse_verifier_key
from palladion.ledger.record import Record
from palladion.ledger.remote import RemoteLedger
from palladion.ledger.writer import Ledger
from palladion.lifecycle.installation import Installation, owner_identity, paths_of
from palladion.policy import POLICY_FILE, parse_policy

from .installations import ACTOR, NOW, OWNER, Made, kinds, make, served

CLOCK = ManualClock(NOW)


def test_the_nearest_installation_above_is_found(tmp_path: Path) -> None:
    made = make(tmp_path)
    (made.home / "a" / "b").mkdir(parents=True)
    assert Installation.find(made.home / "a" / "b", CLOCK).paths == made.installation.paths


def test_where_there_is_none_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InstallationError, match=r"no palladion\.toml in") as caught:
        Installation.find(tmp_path, CLOCK)
    assert caught.value.hints[0] == "run palladion init"


def test_a_policy_without_its_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / POLICY_FILE).write_text("")
    with pytest.raises(InstallationError, match="which does not exist"):
        Installation.find(tmp_path, CLOCK)


def test_paths_follow_the_policy() -> None:
    policy = parse_policy(b"[installation]\ndirectory = 'state'\n[keys]\nowner = '/mnt/owner.json'\n", "it")
    paths = paths_of(Path("/srv"), policy)
    assert paths.directory == Path("/srv/state")
    assert paths.owner == Path("/mnt/owner.json")
    assert paths.served("fraud", 3) == Path("/srv/state/sealed/fraud/3.sealed")
    assert paths.host_identity == Path("~/.config/palladion/host.identity").expanduser()


def test_an_owner_root_that_was_taken_away_is_told(tmp_path: Path) -> None:
    made = make(tmp_path)
    made.installation.paths.owner.unlink()
    with pytest.raises(KeysError, match="no keyring file at") as caught:
        made.installation.open_owner_root([OWNER])
    assert "attach the disk" in caught.value.hints[0]


def test_an_owner_root_of_somebody_else_is_refused(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one"), make(tmp_path / "two")
    one.installation.paths.owner.write_bytes(two.installation.paths.owner.read_bytes())
    with pytest.raises(TamperError, match="signs as a publisher that the policy does not trust"):
        one.installation.open_owner_root([OWNER])


def test_a_lost_registry_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    made = make(tmp_path)
    made.installation.paths.registry.unlink()
    with pytest.raises(InstallationError, match="no registry"):
        made.installation.open_registry()


def test_one_process_writes_the_ledger(tmp_path: Path) -> None:
    made = make(tmp_path)
    gate = made.installation.open_gate_root()
    with made.installation.open_ledger(gate), pytest.raises(BusyError):
        made.installation.open_ledger(gate)


def test_a_command_writes_through_the_process_that_serves_while_there_is_one(tmp_path: Path) -> None:
    installation = make(tmp_path).installation
    gate = installation.open_gate_root()
    with served(installation), installation.open_ledger(gate) as ledger:
        assert isinstance(ledger, RemoteLedger)
        ledger.append([Record("model.opened", NOW, ACTOR, "fraud@1")])
    with installation.open_ledger(gate) as ledger:
        assert isinstance(ledger, Ledger)
        ledger.append([Record("model.opened", NOW, ACTOR, "fraud@2")])
    assert kinds(installation)[3:] == ["model.opened", "model.opened"]


def test_a_server_that_was_killed_does_not_stand_in_the_way(tmp_path: Path) -> None:
    installation = make(tmp_path).installation
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(installation.paths.admin))
    with installation.open_ledger(installation.open_gate_root()) as ledger:
        assert isinstance(ledger, Ledger)
    assert installation.server_status() is None


def test_the_process_that_serves_says_how_it_is(tmp_path: Path) -> None:
    installation = make(tmp_path).installation
    assert installation.server_status() is None
    with served(installation) as running:
        running.status = {"routes": {"fraud": "enforce"}}
        assert installation.server_status() == {"routes": {"fraud": "enforce"}}
    assert installation.server_status() is None


def test_a_named_folder_does_not_lead_to_the_installation_above_it(tmp_path: Path) -> None:
    made = make(tmp_path)
    (made.home / "a").mkdir()
    with pytest.raises(InstallationError, match=r"no palladion\.toml in \S+/home/a$"):
        Installation.find(made.home / "a", CLOCK, exact=True)
    assert Installation.find(made.home, CLOCK, exact=True).paths == made.installation.paths


def test_a_keyring_of_the_other_root_is_refused(tmp_path: Path) -> None:
    made = make(tmp_path)
    paths = made.installation.paths
    paths.gate.write_bytes(paths.owner.read_bytes())
    with pytest.raises(TamperError, match="holds the owner root, expected the gate root"):
        made.installation.open_gate_root([OWNER])
    with pytest.raises(TamperError, match="holds the owner root, expected the gate root"):
        made.installation.public_keys("gate")


def test_a_stated_key_that_is_none_is_told(tmp_path: Path) -> None:
    made = make(tmp_path)
    document = canonical.decode(made.installation.paths.owner.read_bytes(), size_max=10**6, what="it")
    document["public"]["owner"] = "00" * 32  # of low order
    made.installation.paths.owner.write_bytes(canonical.encode(document))
    with pytest.raises(FormatError, match="states a recipient's key that is none"):
        made.installation.stated_recipient("owner")


def _with_ledger_key(made: Made, text: str) -> Installation:
    policy = made.installation.paths.policy
    lines = [f'key = "{text}"' if line.startswith("key = ") else line for line in policy.read_text().splitlines()]
    policy.write_text("\n".join(lines))
    return Installation.find(made.home, CLOCK)


def test_a_gate_root_that_signs_another_ledger_than_the_policy_pins_is_refused(tmp_path: Path) -> None:
    made = make(tmp_path)
    own = made.installation.ledger_key()
    other = VerifierKey(own.name, make(tmp_path / "other").installation.ledger_key().public_key)
    installation = _with_ledger_key(made, str(other))
    for identities in (None, [owner_identity(made.owner)]):
        with pytest.raises(TamperError, match=r"signs another ledger than ledger\.key"):
            installation.open_gate_root(identities)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: "garbage", "ledger.key: expected the key that palladion init wrote"),
        (lambda key: key.replace("palladion.local", "elsewhere"), "not a verifier key"),
        (lambda key: str(VerifierKey("elsewhere", parse_verifier_key(key).public_key)), "is of the log elsewhere"),
    ],
)
def test_a_pin_that_is_none_or_of_another_log_is_told(
    tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    made = make(tmp_path)
    with pytest.raises(PolicyError, match=message):
        _with_ledger_key(made, change(str(made.installation.ledger_key()))).open_gate_root()


def test_a_policy_without_a_pin_believes_the_gate_root(tmp_path: Path) -> None:
    made = make(tmp_path)
    installation = _with_ledger_key(made, "")
    assert installation.pinned_ledger_key() is None
    assert installation.ledger_key() == made.installation.ledger_key()
    installation.open_gate_root()


def test_a_ledger_rewritten_under_a_key_that_gate_json_is_made_to_state_is_refused(tmp_path: Path) -> None:
    made = make(tmp_path)
    paths = made.installation.paths
    forger = Ed25519Signer(b"\x42" * 32)
    shutil.rmtree(paths.ledger)
    Ledger.create(paths.ledger, made.installation.policy.ledger.origin, forger, b"\x42" * 32).close()
    document = canonical.decode(paths.gate.read_bytes(), size_max=10**6, what="it")
    document["public"]["checkpoint"] = forger.public_key.hex()
    paths.gate.write_bytes(canonical.encode(document))
    with pytest.raises(TamperError, match="carries no signature by the key of"):
        verify_ledger(paths.ledger, made.installation.ledger_key())

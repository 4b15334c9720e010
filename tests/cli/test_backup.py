"""What `palladion backup` and `palladion restore` say, where a session would not show it all."""

import json
from pathlib import Path

import pytest

from palladion.cli.main import main
from palladion.seal.recipients import FileIdentity, write_identity
from palladion.seal.sign import publisher_text
from tests.cli.session import chdir
from tests.lifecycle.installations import NOW

PASSPHRASE = ["--passphrase-file", "pass"]


def _run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert main(list(arguments)) == code
    said = capsys.readouterr()
    return said.out, said.err


@pytest.mark.slow
def test_the_publisher_to_note_is_the_owners_and_not_the_first_that_is_trusted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with chdir(folder):
        owners = json.loads(_run(capsys, "init", *PASSPHRASE, "--json")[0])["publisher"]
        other = publisher_text(b"\x07" * 32)
        policy = Path("palladion.toml")
        policy.write_text(policy.read_text().replace('publishers = ["', f'publishers = ["{other}", "'))
        assert json.loads(_run(capsys, "backup", "safe", *PASSPHRASE, "--json")[0])["publisher"] == owners


@pytest.mark.slow
def test_settings_that_lead_elsewhere_are_told_one_by_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with chdir(folder):
        _run(capsys, "init", *PASSPHRASE)
        Path("usb").mkdir()
        Path(".palladion/keys/owner.json").rename("usb/owner.json")
        policy = Path("palladion.toml")
        policy.write_text(policy.read_text().replace('# owner = ""', f'owner = "{folder}/usb/owner.json"'))
        _run(capsys, "backup", "safe", *PASSPHRASE)
        out, err = _run(capsys, "--home", "drill", "restore", "safe", *PASSPHRASE, "--json")
    place = f"{folder}/drill/.palladion/keys/owner.json"
    assert json.loads(out)["moved"] == {"keys.owner": place}
    assert f"keys.owner of the backup leads elsewhere and is set back in the new palladion.toml: {place}\n" in err


@pytest.mark.slow
def test_an_escrow_identity_restores_with_the_publishers_key_and_a_forged_folder_does_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with chdir(folder):
        escrow = FileIdentity.generate()
        write_identity(Path("escrow.identity"), escrow, created=NOW)
        made = ["init", *PASSPHRASE, "--escrow", str(escrow.recipient), "--host-identity", "id", "--json"]
        publisher = json.loads(_run(capsys, *made)[0])["publisher"]
        _run(capsys, "backup", "safe", *PASSPHRASE)
        # somebody else's installation, sealed to the same public key
        _run(capsys, "--home", "evil", *made)
        _run(capsys, "--home", "evil", "backup", "forged", *PASSPHRASE)
        identity = ["--identity", "escrow.identity", "--publisher", publisher]
        said = _run(capsys, "--home", "new", "restore", "forged", *identity, code=2)[1]
        assert "no backup in forged, and 1 that are damaged or signed by another publisher" in said
        assert not Path("new").exists()
        _run(capsys, "--home", "new", "restore", "safe", *identity)


def test_a_damaged_backup_that_is_passed_over_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with chdir(folder):
        _run(capsys, "init", *PASSPHRASE)
        _run(capsys, "backup", "safe", *PASSPHRASE)
        Path("safe/state-z.sealed").write_bytes(b"half")
        said = _run(capsys, "--home", "new", "restore", "safe", *PASSPHRASE)[1]
    assert "state-z.sealed is damaged or not signed by this publisher: passed over" in said

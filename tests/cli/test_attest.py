"""`palladion attest`: from the guest's file to the verdict, and what is asked of whoever types it."""

import json
from pathlib import Path
from typing import Any

import pytest

from palladion.attest import tsm
from palladion.attest.binding import report_data
from palladion.attest.bundle import encode_bundle
from palladion.cli.main import main
from palladion.policy import POLICY_FILE
from tests.attest.synthetic import MEASUREMENT, NOW, SnpReport, TdReport, snp_lab, tdx_lab, to_pem
from tests.attest.test_guest import snp_guest

NONCE, KEY = bytes(range(32)), b"\x07" * 32
WHEN = f"{NOW:%Y-%m-%dT%H:%MZ}"
BOUND = ("--nonce", NONCE.hex(), "--public-key", KEY.hex())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with roots, a policy, and evidence of either lab for one request."""
    monkeypatch.chdir(tmp_path)
    data = report_data(NONCE, KEY)
    evidence = {
        "snp.json": snp_lab().evidence(SnpReport(report_data=data)),
        "debug.json": snp_lab().evidence(SnpReport(report_data=data, policy=0xB0000)),
        "tdx.json": tdx_lab().evidence(TdReport(report_data=data)),
    }
    for name, one in evidence.items():
        (tmp_path / name).write_bytes(encode_bundle([one]))
    (tmp_path / "amd.pem").write_text(to_pem(snp_lab().ark))
    (tmp_path / "intel.pem").write_text(to_pem(tdx_lab().root))
    (tmp_path / POLICY_FILE).write_text(
        f"""
        [[attestation]]
        name = "cvm"
        tee = "sev-snp"
        measurements = ["measurement={MEASUREMENT.hex()}"]
        minimum_tcb = ["snp=23"]
        roots = ["amd.pem"]
        [[attestation]]
        name = "cvm"
        tee = "tdx"
        measurements = ["mrtd={MEASUREMENT.hex()}"]
        roots = ["intel.pem"]
        """
    )
    return tmp_path


def verify(file: str, *options: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = main(["attest", "verify", file, "--at", WHEN, "--json", *options])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("file", ["snp.json", "tdx.json"])
def test_evidence_is_verified_without_an_installation(
    file: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / POLICY_FILE).unlink()
    root = "amd.pem" if file == "snp.json" else "intel.pem"

    code, document = verify(file, "--root", root, *BOUND, capsys=capsys)

    assert code == 0
    assert (document["ok"], document["bound"], document["required"]) == (True, True, [])
    claims = document["claims"][0]
    assert claims["debug"] is False
    assert MEASUREMENT.hex() in claims["measurements"].values()
    assert claims["bound"] == report_data(NONCE, KEY).hex()


@pytest.mark.parametrize(
    ("file", "options", "reason"),
    [
        ("snp.json", ("--root", "intel.pem"), "root"),
        ("snp.json", (), "root"),
        ("snp.json", ("--root", "amd.pem", *BOUND, "--file-id", "ab" * 16), "binding"),
        ("snp.json", ("--root", "amd.pem", "--nonce", "00" * 32, "--public-key", KEY.hex()), "binding"),
    ],
)
def test_what_does_not_hold_is_named(
    file: str, options: tuple[str, ...], reason: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = verify(file, *options, capsys=capsys)

    assert (code, document["ok"], document["reason"]) == (1, False, reason)


def _with_installation(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy is what counts here, and not the keys that an installation has beside it."""
    from palladion.lifecycle.installation import Installation, paths_of
    from palladion.policy import load_policy

    class Found:
        policy = load_policy(place / POLICY_FILE)
        paths = paths_of(place, policy)

    monkeypatch.setattr(Installation, "find", lambda *_, **__: Found())


def test_a_policy_is_required_by_name(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _with_installation(place, monkeypatch)

    for file in ("snp.json", "tdx.json"):
        code, document = verify(file, "--policy", "cvm", *BOUND, capsys=capsys)
        assert (code, document["required"]) == (0, ["cvm"])
    code, document = verify("debug.json", "--policy", "cvm", capsys=capsys)
    assert (code, document["reason"]) == (1, "debug")
    assert main(["attest", "verify", "snp.json", "--policy", "other"]) == 2
    assert "no [[attestation]] of name other" in capsys.readouterr().err


def test_a_refusal_is_a_sentence_with_its_name(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attest", "verify", "snp.json", "--at", WHEN]) == 1

    assert capsys.readouterr().err.startswith("palladion: error: root: nothing that is trusted here vouches for")


@pytest.mark.parametrize(
    "options",
    [
        ("--nonce", "00" * 32),
        ("--public-key", "00"),
        ("--file-id", "ab" * 16),
        ("--nonce", "0", "--public-key", "00"),
        ("--certificate", "amd.pem"),
        ("--root", "amd.pem", "--policy", "cvm"),
        ("--nonce", "00" * 31, "--public-key", "00"),
    ],
)
def test_what_does_not_go_together_is_a_mistake_of_whoever_types(options: tuple[str, ...], place: Path) -> None:
    arguments = ["attest", "verify", "snp.json", "--at", WHEN, *options]
    roots = () if "--root" in options or "--policy" in options else ("--root", "amd.pem")

    assert main([*arguments, *roots]) == 2


def test_a_guest_writes_what_verifies(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = snp_guest()
    monkeypatch.setattr(tsm, "Configfs", lambda: kernel)

    assert main(["attest", "quote", "mine.json", *BOUND, "--file-id", "ab" * 16, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": "mine.json", "kinds": ["sev-snp"], "nonce": NONCE.hex()}
    code, document = verify("mine.json", "--root", "amd.pem", *BOUND, "--file-id", "ab" * 16, capsys=capsys)
    assert (code, document["bound"]) == (0, True)
    assert (place / "mine.json").stat().st_mode & 0o777 == 0o600


def test_evidence_for_looking_is_bound_to_nobody(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = snp_guest()
    monkeypatch.setattr(tsm, "Configfs", lambda: kernel)

    assert main(["attest", "quote", "mine.json"]) == 0
    assert main(["attest", "verify", "mine.json", "--root", "amd.pem", "--at", WHEN]) == 0
    printed = capsys.readouterr()
    assert f"measurement  {MEASUREMENT.hex()}" in printed.out
    assert "who it was made for was not checked" in printed.err
    assert "nothing was required of it" in printed.err


@pytest.mark.parametrize(
    "options", [("--pcr", "4"), ("--no-machine",), ("--no-machine", "--tpm", "--gpu", "0"), ("--nonce", "00" * 32),
                ("--gpu-collateral", "amd.pem"), ("--nonce", "00", "--public-key", "00")]
)  # fmt: skip
def test_what_a_guest_cannot_be_asked_is_a_mistake(options: tuple[str, ...], place: Path) -> None:
    assert main(["attest", "quote", "mine.json", *options]) == 2
    assert not (place / "mine.json").exists()

"""A TPM's word for a machine, all the way: enrolled, quoted by swtpm, shown over TLS, and judged by the broker."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from palladion.attest.tpm import device
from palladion.attest.tpm.credential import accept, challenge
from palladion.host.broker import BrokerClient
from palladion.host.broker_attest import MachineAttester
from palladion.host.broker_messages import BrokerRefusedError
from tests.attest.synthetic import NOW
from tests.attest.tpm.test_device import ROOTS, endorsed, endorsement_of
from tests.seal.recipients.tpms import Tpm, needs_swtpm, running

from .parts import Setting, prepare
from .serving import Parties, Served, serving

pytestmark = pytest.mark.slow

TABLE = """
[[attestation]]
name = "started"
tee = "tpm"
measurements = ["pcr7={value}"]
roots = ["tpm.pem"]
"""


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Tpm]:
    with running(tmp_path / "chip") as made:
        made.extend(7)  # something was started
        yield made


def _enrolled(tpm: Tpm) -> bytes:
    """The TPM's attestation key in PEM, once it has shown that it lies there."""
    maker = (endorsed(endorsement_of(tpm)),)
    asked = challenge(maker, device.signing_key(tcti=tpm.tcti), at=NOW, roots=ROOTS)
    trusted = accept(asked, device.activate(asked.credential, asked.encrypted_seed, tcti=tpm.tcti))
    return load_der_public_key(trusted).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _built(folder: Path, tpm: Tpm) -> tuple[Setting, Parties]:
    parties, setting = Parties(folder), prepare(folder)
    (setting.installation.paths.home / "tpm.pem").write_bytes(_enrolled(tpm))
    rule = 'attestation = ["started"]\n' + TABLE.format(value=tpm.pcr(7).hex())
    return parties.settings(setting, rule), parties


def _client(served: Served, tpm: Tpm) -> BrokerClient:
    return served.client(attest=MachineAttester(["tpm"], tcti=tpm.tcti))


def _refused(served: Served, tpm: Tpm, reason: str) -> None:
    with pytest.raises(BrokerRefusedError) as caught:
        _client(served, tpm).release(served.setting.structure(), purpose="exec")
    assert caught.value.reason == reason
    assert served.setting.reasons()[-1] == reason


@needs_swtpm
def test_a_machine_that_started_as_it_should_gets_the_key_and_loses_it_when_it_does_not(
    tpm: Tpm, tmp_path: Path
) -> None:
    setting, parties = _built(tmp_path, tpm)
    with serving(setting, parties) as served:
        client = _client(served, tpm)
        key, lease = client.release(setting.structure(), purpose="exec")
        assert len(key) == 32
        assert client.renew(lease).id == lease.id
        (record,) = setting.records("broker.released")
        assert record.details["attestation"] == ["started"]
        tpm.extend(7)  # and something else
        with pytest.raises(BrokerRefusedError, match=r"refuses \(measurement\)"):
            client.renew(lease)
        _refused(served, tpm, "measurement")


@needs_swtpm
def test_another_tpm_s_word_counts_for_nothing(tpm: Tpm, tmp_path: Path) -> None:
    setting, parties = _built(tmp_path, tpm)
    with serving(setting, parties) as served, running(tmp_path / "other") as other:
        _refused(served, other, "root")


@needs_swtpm
def test_a_quote_of_another_moment_is_of_no_use(tpm: Tpm, tmp_path: Path) -> None:
    """Whoever has the certificate, and once saw a quote, still has no machine."""
    setting, parties = _built(tmp_path, tpm)
    seen = MachineAttester(["tpm"], tcti=tpm.tcti)(nonce=bytes(32), public_key=bytes(32), file_ids=("ab" * 16,))
    with serving(setting, parties) as served, pytest.raises(BrokerRefusedError, match=r"refuses \(binding\)"):
        served.client(attest=lambda **_: seen).release(setting.structure(), purpose="exec")

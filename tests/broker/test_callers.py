"""Who asks: certificates that were taken back, names that two have, and a rate that is the client's."""

from pathlib import Path

import pytest

from palladion.access.certificates import Certificate
from palladion.broker.callers import Callers
from palladion.errors import BusyError
from palladion.host.broker_messages import BrokerRefusedError

from .parts import CERTIFICATE, OTHER, Asking, Setting, prepare

pytestmark = pytest.mark.slow  # an installation for each test

SPIFFE = "spiffe://example.org/web"


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return prepare(tmp_path)


def _callers(setting: Setting, per_minute: int = 6000) -> Callers:
    installation = setting.installation
    gate = installation.open_gate_root()
    return Callers(installation, gate, per_minute=per_minute, monotonic=setting.seconds)


def _add(setting: Setting, *identities: tuple[str, str]) -> None:
    with setting.installation.open_registry() as registry, registry.write() as records:
        for kind, value in identities:
            records.identities.add(setting.client.id, kind, value)  # type: ignore[arg-type]  # as it is read


def _revoke(setting: Setting, value: str) -> None:
    with setting.installation.open_registry() as registry, registry.write() as records:
        records.identities.revoke("certificate", value)


def test_a_certificate_that_was_taken_back_is_not_let_in_by_the_name_in_it(setting: Setting) -> None:
    """A stolen one: its client goes on under its SPIFFE id, with the next certificate."""
    stolen, following = Certificate(CERTIFICATE.fingerprint, SPIFFE), Certificate("12" * 32, SPIFFE)
    _add(setting, ("spiffe", SPIFFE))
    callers = _callers(setting)
    assert callers.identify(stolen).name == "acme/web"
    _revoke(setting, stolen.fingerprint)

    with pytest.raises(BrokerRefusedError) as caught:
        callers.identify(stolen)
    assert caught.value.reason == "client"
    assert callers.identify(following).name == "acme/web"
    _add(setting, ("certificate", stolen.fingerprint))
    assert callers.identify(stolen).name == "acme/web"


def test_a_certificate_that_two_clients_are_known_by_is_nobodys(setting: Setting) -> None:
    _add(setting, ("spiffe", SPIFFE))

    with pytest.raises(BrokerRefusedError):
        _callers(setting).identify(Certificate(OTHER.fingerprint, SPIFFE))


def test_many_certificates_of_one_client_share_its_rate(setting: Setting) -> None:
    more = [Certificate(f"{number:064x}") for number in range(8)]
    _add(setting, *[("certificate", one.fingerprint) for one in more])
    callers = _callers(setting, per_minute=8)
    for one in more[:4]:
        callers.identify(one)

    with pytest.raises(BusyError, match="too many requests"):
        callers.identify(more[4])
    assert callers.identify(OTHER).name == "acme/other"
    setting.seconds.now += 60
    assert callers.identify(more[4])


def test_strangers_learn_no_names_of_keys(setting: Setting) -> None:
    """Ids of keys in a cloud name its account."""
    asking = Asking(setting, setting.broker())
    assert asking.broker.keys(CERTIFICATE).keys == asking.challenge().keys
    with pytest.raises(BrokerRefusedError):
        asking.broker.keys(Certificate("ef" * 32))
    assert setting.reasons() == ["client"]

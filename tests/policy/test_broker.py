"""What a policy of the key broker may say, and what it must not."""

import pytest

from palladion.errors import PolicyError
from palladion.policy import Policy, parse_policy

RELEASE = '[[broker.release]]\nmodel = "fraud"\n'
CVM = '[[attestation]]\nname = "cvm"\ntee = "sev-snp"\nmeasurements = ["measurement=ab"]\nminimum_tcb = ["snp=1"]\n'


def _read(text: str) -> Policy:
    return parse_policy(text.encode(), "palladion.toml")


def test_releases_are_tables_of_their_own() -> None:
    policy = _read(f'[broker]\nlease_minutes = 5\n{RELEASE}attestation = ["cvm"]\napprovals = 2\n{CVM}')

    (rule,) = policy.broker.release
    assert (rule.model, rule.attestation, rule.approvals, policy.broker.lease_minutes) == ("fraud", ("cvm",), 2, 5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'{RELEASE}attestation = ["cvm"]', "needs attestation cvm"),
        (RELEASE + RELEASE, "fraud stands there twice"),
        ('[broker]\nlisten = "8714"', "expected an address and a port"),
        ("[broker]\nlease_minutes = 0", "lease_minutes"),
        ("[broker]\nlease_minutes = 1441", "lease_minutes"),
        ("[broker]\nnonce_seconds = 601", "nonce_seconds"),
        ('[[broker.release]]\nmodel = "Fraud"', "the name of a model"),
        ('[[broker.release]]\nmodel = "fraud"\nattested = true', "unknown setting"),
    ],
)
def test_what_could_not_hold_is_refused(text: str, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        _read(text)

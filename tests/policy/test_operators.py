"""The settings of operators: what contradicts itself is refused, and what they mean for tokens."""

import pytest

from palladion.errors import PolicyError
from palladion.policy import parse_policy
from palladion.policy.operators import OperatorsPolicy

ISSUER = 'issuer = "https://login.example.com"\nclient_id = "palladion"\n'
LISTEN = '[operations]\nlisten = "127.0.0.1:8711"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'{LISTEN}[operators]\nissuer = "https://login.example.com"\n', "go together"),
        (f'{LISTEN}[operators]\n{ISSUER}role_claim = "groups"\n', "role_claim needs"),
        (f'{LISTEN}[operators]\n{ISSUER}admins = ["a"]\n', "role_claim needs"),
        ('[operators]\nsocket = "o.sock"\nrole_claim = "groups"\nadmins = ["a"]\n', "role_claim needs"),
        (
            f'{LISTEN}[operators]\n{ISSUER}role_claim = "groups"\nadmins = ["a"]\napprovers = ["b", "a"]\n',
            "'a' gives two roles",
        ),
        (f'{LISTEN}[operators]\n{ISSUER}audience = "palladion"\n', "could not be told apart"),
        (f"[operators]\n{ISSUER}", "nothing listens for operators"),
        (
            f'{LISTEN}[operators]\n{ISSUER}[[issuer]]\nurl = "https://login.example.com"\naudience = "palladion"\n',
            "share issuer and audience",
        ),
        (f'{LISTEN}[operators]\n{ISSUER}scope = "groups"\n', "expected scopes, the first of which is openid"),
        ('[operators]\nissuer = "https://a#b"\n', "expected an address without #"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        parse_policy(text.encode(), "palladion.toml")


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{LISTEN}[operators]\n{ISSUER}",
        f'[operators]\n{ISSUER}socket = "run/operators.sock"\n',
        f'{LISTEN}[operators]\n{ISSUER}[[issuer]]\nurl = "https://login.example.com"\naudience = "gate"\n',
    ],
)
def test_one_that_does_not_is_taken(text: str) -> None:
    parse_policy(text.encode(), "palladion.toml")


def test_nobody_is_wanted_unless_there_is_a_way_in() -> None:
    assert not OperatorsPolicy().wanted
    assert OperatorsPolicy(socket="operators.sock").wanted
    assert OperatorsPolicy(issuer="https://login.example.com", client_id="palladion").wanted


def test_id_tokens_name_the_client_and_access_tokens_the_audience() -> None:
    policy = OperatorsPolicy(issuer="https://login.example.com", client_id="palladion")
    assert policy.as_issuer.audience == "palladion"
    policy = OperatorsPolicy(issuer="https://login.example.com", client_id="palladion", audience="https://gate")
    assert policy.as_issuer.audience == "https://gate"


def test_each_value_gives_its_role() -> None:
    policy = OperatorsPolicy(viewers=("v",), analysts=("n",), approvers=("p",), admins=("a", "b"), auditors=("u",))
    assert policy.groups == {
        "v": "viewer", "n": "analyst", "p": "approver", "a": "admin", "b": "admin", "u": "auditor"
    }  # fmt: skip

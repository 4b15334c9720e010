"""Limits and contracts in the policy: what is refused, and whose a contract is."""

import pytest

from palladion.errors import PolicyError
from palladion.policy import ContractPolicy, Policy, parse_policy


def _parse(text: str) -> Policy:
    return parse_policy(text.encode(), "palladion.toml")


@pytest.mark.parametrize(
    ("client", "organisation", "name"),
    [("acme/web", "acme", "web"), ("acme", "acme", "acme"), ("a.b-c/0", "a.b-c", "0")],
)
def test_a_contract_names_organisation_and_client(client: str, organisation: str, name: str) -> None:
    (contract,) = _parse(f'[[contract]]\nclient = "{client}"').contract
    assert contract.organisation_and_name == (organisation, name)


def test_a_contract_that_says_nothing_leaves_everything_as_it_is() -> None:
    contract = ContractPolicy(client="acme")
    assert (contract.queries_per_second, contract.burst, contract.answer) == (0, 0, "")
    assert {contract.queries_per_day, contract.tokens_per_day, contract.information_per_day} == {-1}
    assert {contract.decimals, contract.top_k} == {-1}


@pytest.mark.parametrize("whose", ["user", "organisation", "network", "model", "total"])
def test_a_burst_of_what_has_no_rate_is_a_mistake(whose: str) -> None:
    with pytest.raises(PolicyError, match=rf"limits\.{whose}_burst is 5 and .* is 0: that limits nothing") as caught:
        _parse(f"[limits]\n{whose}_burst = 5")
    assert caught.value.hints == (f"set limits.{whose}_queries_per_second as well",)
    assert _parse(f"[limits]\n{whose}_burst = 5\n{whose}_queries_per_second = 0.5")


def test_two_contracts_of_one_client_are_refused_however_it_is_written() -> None:
    with pytest.raises(PolicyError, match="client acme/acme has two contracts"):
        _parse('[[contract]]\nclient = "acme"\n[[contract]]\nclient = "web"\n[[contract]]\nclient = "acme/acme"')


@pytest.mark.parametrize(
    "line",
    [
        "limits.queries_per_second = 0",
        "limits.burst = 0",
        "limits.user_queries_per_second = -1",
        "limits.network_queries_per_second = nan",
        "limits.total_queries_per_second = inf",
        "limits.model_burst = 1000001",
        "limits.queries_per_day = -1",
        "limits.information_per_day = 0.5",
        "limits.requests_max = 65537",
        "contract = [{client = 'Acme'}]",
        "contract = [{client = 'acme/'}]",
        "contract = [{client = 'acme/web/x'}]",
        "contract = [{client = 'acme', queries_per_day = -2}]",
        "contract = [{client = 'acme', decimals = 18}]",
        "contract = [{queries_per_day = 5}]",
    ],
)
def test_what_is_no_limit_is_refused(line: str) -> None:
    with pytest.raises(PolicyError, match=r"palladion\.toml:1: (limits|contract)[.:]"):
        _parse(line)

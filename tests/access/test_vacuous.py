"""What can never hold in a policy is found, wherever it stands, and what can is left alone."""

import json
import string

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.access.vacuous import read_mentioned, slips


def _slips(policy: str) -> list[str]:
    (written,) = json.loads(cedarpy.policies_to_json_str(policy))["staticPolicies"].values()
    return list(slips(written))


@pytest.mark.parametrize(
    "scope",
    [
        'principal == Organisation::"acme", action, resource',
        'principal == Route::"/x", action, resource',
        'principal in Model::"fraud", action, resource',
        "principal is Organisation, action, resource",
        'principal is Client in Model::"fraud", action, resource',
        'principal == Client::"web", action, resource',
        'principal in Client::"acme/", action, resource',
        'principal == Client::"/web", action, resource',
        'principal, action, resource == Model::"fraud"',
        'principal, action, resource in Organisation::"acme"',
        "principal, action, resource is Model",
        'principal, action, resource is Route in Client::"acme/web"',
    ],
)
def test_a_scope_that_holds_for_nobody_is_found(scope: str) -> None:
    assert len(_slips(f"forbid({scope});")) == 1


CONDITIONS = [
    'principal == Organisation::"acme"',
    'principal != Organisation::"acme"',
    'Organisation::"acme" == principal',
    'principal in Model::"fraud"',
    'principal in [Organisation::"acme", Route::"/x"]',
    'Organisation::"acme" in principal',
    'principal is Organisation in Organisation::"acme"',
    "principal is Route",
    'principal == Client::"web"',
    'resource == Model::"fraud"',
    'resource in Organisation::"acme"',
    "resource is Model",
    'resource is Route in Client::"acme/web"',
    "principal == resource",
    "principal in resource",
    '[Organisation::"acme", Client::"acme/web"].contains(principal)',
    '[Model::"fraud"].contains(resource)',
    'action == Client::"acme/web"',
]


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("kind", ["when", "unless"])
def test_a_condition_that_is_never_met_is_found(condition: str, kind: str) -> None:
    assert len(_slips(f"forbid(principal, action, resource) {kind} {{ {condition} }};")) == 1


@pytest.mark.parametrize(
    "around",
    [
        "true && {}",
        '{} || principal.name == "x"',
        "!({})",
        "if {} then true else false",
        "if principal has name then {} else false",
        "[true, {}].contains(true)",
        '{{"a": {}}}.a',
    ],
)
def test_it_is_found_in_whatever_it_stands(around: str) -> None:
    inside = around.format('(resource == Model::"fraud")')
    assert _slips(f"permit(principal, action, resource) when {{ {inside} }};") == [
        "a Route is compared with a Model, which it never is: `in Model::…` was expected"
    ]


@pytest.mark.parametrize(
    "policy",
    [
        "permit(principal, action, resource);",
        'permit(principal == Client::"acme/web", action == Action::"ask", resource == Route::"/x");',
        'permit(principal in Organisation::"acme", action in [Action::"ask"], resource in Model::"fraud");',
        'permit(principal is Client in Organisation::"acme", action, resource is Route in Model::"fraud");',
        'forbid(principal in Client::"acme/web", action, resource in Route::"/x");',
        'forbid(principal, action, resource) when { principal in [Organisation::"acme", Client::"acme/web"] };',
        'forbid(principal, action, resource) when { [Client::"acme/web"].contains(principal) };',
        'forbid(principal, action, resource) when { resource != Route::"/x" && resource in [Model::"fraud"] };',
        'forbid(principal, action, resource) when { action == Action::"ask" && action in Action::"ask" };',
        'forbid(principal, action, resource) unless { ["a", "b"].contains(principal.name) || [1, 2] == [2, 1] };',
        'forbid(principal, action, resource) when { {"type": "Client", "id": "web"}.id == principal.name };',
        '@type("Client") @id("web") permit(principal, action, resource);',
    ],
)
def test_what_can_hold_is_left_alone(policy: str) -> None:
    assert _slips(policy) == []


def test_everything_that_is_named_is_known_by_its_type() -> None:
    mentioned = read_mentioned(
        json.loads(
            cedarpy.policies_to_json_str(
                'permit(principal in Organisation::"acme", action == Action::"ask", resource in Model::"fraud")'
                'unless { [Client::"acme/web", Client::"acme/b"].contains(principal) || resource == Route::"/x" };'
                '@type("Client") @id("no") forbid(principal, action, resource) when { principal.name == "Client::a" };'
            )
        )
    )
    assert {kind: list(ids) for kind, ids in mentioned.ids.items()} == {
        "Organisation": ["acme"],
        "Action": ["ask"],
        "Model": ["fraud"],
        "Client": ["acme/web", "acme/b"],
        "Route": ["/x"],
    }
    assert not mentioned.of("User")


@given(st.text(string.ascii_letters + "/", max_size=8))
def test_a_client_has_an_organisation_and_a_name(name: str) -> None:
    organisation, _, own = name.partition("/")
    assert bool(_slips(f'permit(principal == Client::"{name}", action, resource);')) == (not organisation or not own)

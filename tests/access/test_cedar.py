"""Access policies: nothing is permitted that no policy permits, forbid wins, and mistakes are told with their line."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from palladion.access.cedar import (
    ACTIONS,
    POLICIES_BYTES_MAX,
    SCHEMA,
    Cedar,
    Question,
    load_policies,
    read_policies,
)
from palladion.errors import PolicyError
from palladion.policy import RoutePolicy

ASK = Question("acme", "web", "trusted", "api-key", "ask", "fraud", "/v1/models/fraud/predict")
EVERYTHING = "permit(principal, action, resource);"
ROUTES = (RoutePolicy(model="fraud"), RoutePolicy(model="spam"))


def _policies(text: str) -> Cedar:
    return read_policies(text.encode(), "access.cedar")


def test_without_a_policy_nothing_is_permitted() -> None:
    for text in ("", "// nothing yet\n"):
        assert not _policies(text).permits(ASK)


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_can_be_permitted(action: str) -> None:
    policies = _policies(f'permit(principal, action == Action::"{action}", resource);')
    permitted = {other for other in ACTIONS if policies.permits(ASK._replace(action=other))}
    assert permitted == {action}


@pytest.mark.parametrize(
    ("policy", "other"),
    [
        ('permit(principal == Client::"acme/web", action, resource);', ASK._replace(name="batch")),
        ('permit(principal in Organisation::"acme", action, resource);', ASK._replace(organisation="globex")),
        ('permit(principal, action, resource in Model::"fraud");', ASK._replace(model="spam")),
        ('permit(principal, action, resource == Route::"/v1/models/fraud/predict");', ASK._replace(route="/other")),
        (
            'permit(principal, action, resource) when { principal.standing == "trusted" };',
            ASK._replace(standing="watched"),
        ),
        (
            'permit(principal, action, resource) when { context.credential == "api-key" };',
            ASK._replace(credential="jwt"),
        ),
        ('permit(principal, action, resource) when { resource.path like "/v1/models/*" };', ASK._replace(route="/x")),
        ('permit(principal, action, resource) when { principal.name == "web" };', ASK._replace(name="batch")),
    ],
)
def test_a_policy_speaks_of_whom_and_what_it_names(policy: str, other: Question) -> None:
    policies = _policies(policy)
    assert policies.permits(ASK)
    assert not policies.permits(other)


def test_forbid_wins_over_every_permit() -> None:
    forbidding = 'forbid(principal in Organisation::"acme", action, resource in Model::"fraud");'
    for text in (f"{EVERYTHING}\n{forbidding}", f"{forbidding}\n{EVERYTHING}"):
        assert not _policies(text).permits(ASK)
        assert _policies(text).permits(ASK._replace(model="spam"))


def test_a_forbid_that_fails_lets_nobody_in() -> None:
    # an overflow is only found while it is evaluated, and Cedar skips a policy that fails
    overflow = "forbid(principal, action, resource) when { 9223372036854775807 + 1 == 0 };"
    assert not _policies(f"{EVERYTHING}\n{overflow}").permits(ASK)


def test_a_name_with_quotes_in_it_is_a_name() -> None:
    policies = _policies('permit(principal == Client::"acme/web", action, resource);')
    assert not policies.permits(ASK._replace(name='web" || "'))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'{EVERYTHING}\n\npermit(principal, action == Action::"asks", resource);', "3: unrecognized action"),
        (
            f'// permit(\n{EVERYTHING}\nforbid(principal, action, resource)\nwhen {{ principal.standin == "x" }};',
            "3: att",
        ),
        (
            f"{EVERYTHING}\n{EVERYTHING}\npermit(principal, action,\n resorce);",
            "3: not Cedar: found an invalid variable",
        ),
        (
            f'@id("permit(")\n{EVERYTHING}\n\n@id("b")\npermit(principal, action, resource',
            "5: not Cedar: unexpected end",
        ),
        ("hello", "1: not Cedar"),
        ('permit(principal == User::"ada", action, resource);', "1: unrecognized entity type"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        _policies(text)
    assert caught.value.message.startswith(f"access.cedar:{message}")


def test_a_template_decides_nothing_and_is_refused() -> None:
    with pytest.raises(PolicyError, match="template"):
        _policies("permit(principal == ?principal, action, resource);")


def test_a_file_that_is_no_text_or_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "access.cedar"
    for data in (b"\xff", b" " * (POLICIES_BYTES_MAX + 1)):
        path.write_bytes(data)
        with pytest.raises(Exception, match=r"access\.cedar|access policies"):
            load_policies(path, ROUTES)
    path.write_text(EVERYTHING)
    assert load_policies(path, ROUTES).permits(ASK)


@pytest.mark.parametrize(
    "named",
    ['resource in Model::"frod"', 'resource == Route::"/v1/models/fraud"', 'resource is Route in Model::"frod"'],
)
def test_what_no_route_has_is_told_with_its_line(named: str, tmp_path: Path) -> None:
    path = tmp_path / "access.cedar"
    path.write_text("\n".join([EVERYTHING] * 11 + [f"forbid(principal, action, {named});"]))
    with pytest.raises(PolicyError, match=rf"^{path}:12: there is no \[\[route\]\] for (Model|Route)::"):
        load_policies(path, ROUTES)


def test_what_a_route_has_can_be_named() -> None:
    text = (
        'permit(principal, action, resource in Model::"spam") when { resource != Route::"/v1/models/fraud/predict" };'
    )
    read_policies(text.encode(), "access.cedar", routes=ROUTES)


def test_a_name_in_a_condition_has_to_be_that_of_a_route_too() -> None:
    text = f'{EVERYTHING}\nforbid(principal, action, resource) when {{ resource in [Model::"fraud", Model::"x"] }};'
    with pytest.raises(PolicyError, match=r'access\.cedar:2: .*Model::"x"'):
        read_policies(text.encode(), "access.cedar", routes=ROUTES)


def test_a_slip_is_told_with_its_line() -> None:
    with pytest.raises(PolicyError, match=r"^access\.cedar:3: a Route is compared with a Model"):
        _policies(f'{EVERYTHING}\n// but\nforbid(principal, action, resource) when {{ resource == Model::"fraud" }};')


def test_of_several_slips_the_first_is_told() -> None:
    slip = 'forbid(principal == Client::"web", action, resource);'
    with pytest.raises(PolicyError, match=r"^access\.cedar:3: "):
        _policies("\n".join([EVERYTHING] * 2 + [slip] * 10))


@pytest.mark.slow
def test_a_condition_of_very_many_terms_is_refused() -> None:
    terms = " || ".join(['principal.name == "web"'] * 5000)
    with pytest.raises(PolicyError, match="hundreds of terms"):
        _policies(f"permit(principal, action, resource) when {{ {terms} }};")


def test_whom_policies_name_and_nobody_is_can_be_announced() -> None:
    text = 'permit(principal in Organisation::"acme", action, resource) unless { principal == Client::"acme/wbe" };'
    policies = _policies(f'{text}\nforbid(principal in Organisation::"akme", action, resource);')
    assert policies.strangers([("acme", "web")]) == ["client acme/wbe", "organisation akme"]
    assert policies.strangers([("acme", "wbe"), ("akme", "x")]) == []


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Cedar], list[Question]]:
    def watch(policies: Cedar) -> list[Question]:
        asked: list[Question] = []
        decide = policies._decide

        def noted(question: Question) -> bool:
            asked.append(question)
            return decide(question)

        monkeypatch.setattr(policies, "_decide", noted)
        return asked

    return watch


def test_each_combination_is_decided_once(counted: Callable[[Cedar], list[Question]]) -> None:
    policies = _policies(EVERYTHING)
    asked = counted(policies)
    for question in (ASK, ASK, ASK._replace(standing="watched"), ASK, ASK._replace(credential="jwt")):
        assert policies.permits(question)
    assert len(asked) == 3


def test_decisions_take_no_more_room_than_said(counted: Callable[[Cedar], list[Question]]) -> None:
    made = _policies(EVERYTHING)
    policies = Cedar(made._policies, made._schema, decisions_max=2)
    asked = counted(policies)
    for name in "abcabc":
        assert policies.permits(ASK._replace(name=name))
    assert len(policies._decided) == 2
    assert len(asked) == 6


PAGE = (Path(__file__).resolve().parents[2] / "docs" / "access.md").read_text()
EXAMPLES = re.findall(r"```cedar\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_shows_the_schema_that_is_checked() -> None:
    shown = re.sub(r"//[^\n]*", "", EXAMPLES[-1])
    assert shown.split() == SCHEMA.split()


def test_the_examples_of_the_page_decide_as_it_says() -> None:
    one_model, one_route, no_embeddings = (_policies(text) for text in EXAMPLES[:-1])
    assert one_model.permits(ASK)
    assert not one_model.permits(ASK._replace(action="embed"))
    assert not one_model.permits(ASK._replace(organisation="globex"))
    certified = ASK._replace(credential="spiffe")
    assert one_route.permits(certified)
    assert not one_route.permits(certified._replace(standing="watched"))
    assert not one_route.permits(ASK)
    pilot = ASK._replace(organisation="pilot")
    assert no_embeddings.permits(pilot)
    assert not no_embeddings.permits(pilot._replace(action="embed"))
    assert no_embeddings.permits(ASK._replace(action="embed"))
